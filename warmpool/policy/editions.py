"""The editions of each app: which one serves, which may take over, and what happens when one does not work.

An app's newest edition starts as its candidate and takes over when its first worker is ready, or as soon as it has
loaded where none serves and none is wanted. If it cannot be imported or set up, the edition before it goes on serving,
and is not tried again until its pause is over or its files change. Those who wait stand in line at an edition, and move
with it: to the next when that takes over, back to the one before when the edit is broken.

Only the edition whose files are the app's present ones can be imported. A template of another that has died cannot be
made again; who waits for it moves on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..constants import BACKOFF_FIRST, BACKOFF_LIMIT, MEMORY_RECHECK
from ..errors import AppBrokenError, WarmpoolError, from_wire
from ..settings import Settings
from . import effects as fx
from . import refusals
from .events import AppEdition, DescribeRequested, TemplateLoaded
from .pool import App, Failure, Pool, Waiter, Worker
from .states import TemplateEvent, TemplateState
from .timers import Timer, Timers, is_over


class Editions:
    def __init__(
        self,
        settings: Settings,
        timers: Timers,
        effects: list[fx.Effect],
        *,
        refuse: Callable[[Waiter, WarmpoolError], None],
        stop_worker: Callable[[Worker, str, float], None],
    ) -> None:
        """`refuse` sends a waiter away; `stop_worker` asks an idle worker of a retired edition to go."""
        self._settings = settings
        self._timers = timers
        self._effects = effects
        self._refuse = refuse
        self._stop_worker = stop_worker
        self._serial = 0
        self.apps: dict[str, App] = {}
        self.pools: dict[str, Pool] = {}

    def __repr__(self) -> str:
        return f"<Editions {list(self.apps.values())}>"

    # --- who asks ---------------------------------------------------------------------------------------------

    def pool_for(self, edition: AppEdition, now: float, session_id: str | None = None) -> tuple[Pool, str | None]:
        """The pool that serves this edition, started if there is none; or the one before it, with a notice why. For a
        session, or for whoever has none (None).

        Raises APP_BROKEN while the edition has failed and must not be tried again.
        """
        app = self._app(edition)
        app.revision = revision = max(app.revision, edition.revision)  # an open may have been held back for a while
        app.used_at = now
        current, failure = app.current, app.failing(revision, now)
        newest = current if current is not None and current.revision == revision else None
        if failure is None:
            pool = newest or self._candidate(app, now)
            self._revive(pool, now)
            if current is not None and self._must_wait_for_room(pool, current):
                return current, refusals.no_room_for_edit(current, pool.no_room)
            return pool, None
        if newest is not None:
            if newest.ready_for(session_id):
                return newest, None
        elif current is not None and self._can_serve(current, session_id, now):
            return current, refusals.notice(current, failure.error)
        raise from_wire(failure.error)

    def keep(self, edition: AppEdition, now: float) -> None:
        """Loads the app now, and never lets it go for being idle."""
        self._app(edition).keep = True
        with suppress(AppBrokenError):  # the log has it
            self.pool_for(edition, now)

    def describe(self, request: DescribeRequested, now: float) -> None:
        """Raises APP_BROKEN as `pool_for` does, and POOL_EXHAUSTED while the machine has no room for a template."""
        pool, _ = self.pool_for(request.edition, now)
        if pool.template is TemplateState.LOST and pool.no_room is not None and self.has_no_room(pool):
            raise refusals.no_room(pool.app.name, pool.no_room)
        if pool.template is TemplateState.LOST:
            failure = self._app(request.edition).failure
            gone = refusals.broken(pool.app.name, "its template is gone and cannot be made again")
            raise from_wire(gone if failure is None else failure.error)
        pool.describers.append(request)
        if pool.template is TemplateState.READY:
            self._answer_describers(pool)

    def drop_waiter(self, waiter: Waiter) -> Pool:
        """Takes a waiter out of its line; gives the pool that it stood at."""
        pool = next(pool for pool in self.pools.values() if waiter in pool.waiters)
        pool.waiters.remove(waiter)
        return pool

    def forget_describers(self, connection: int) -> None:
        for pool in self.pools.values():
            if pool.describers:
                pool.describers = [one for one in pool.describers if one.ticket[0] != connection]

    def refuse_describers(self, pool: Pool, error: WarmpoolError) -> None:
        self._effects.extend(fx.Refuse(request.ticket, error) for request in pool.describers)
        pool.describers.clear()

    # --- taking over, and failing -----------------------------------------------------------------------------

    def _candidate(self, app: App, now: float) -> Pool:
        """The pool of the app's files as they are, which is to take over; started if there is none."""
        superseded = app.candidate
        if superseded is not None and superseded.revision == app.revision:
            return superseded
        serving = app.revision if app.current is None else app.current.revision
        app.failures = {tried: failure for tried, failure in app.failures.items() if tried in (app.revision, serving)}
        app.candidate = pool = Pool(
            id=self.new_id("p"),
            app=app,
            revision=app.revision,
            warm_target=self._settings.warm,
            max_workers=self._settings.max_workers,
        )
        self.pools[pool.id] = pool
        if not app.keep:
            self._timers.set(Timer("idle app", app.key), now + self._settings.app_idle_timeout)
        self._start_template(pool, now)
        if superseded is not None:
            self._move_line(superseded, pool)
            self.retire(superseded, now)
        return pool

    def is_loading(self) -> bool:
        """Whether some app is being imported, for whoever that is."""
        return any(pool.template is TemplateState.LOADING for pool in self.pools.values())

    def promote(self, pool: Pool, now: float) -> None:
        """The candidate is sound: it takes over."""
        app = pool.app
        app.failures.pop(pool.revision, None)
        if app.candidate is not pool:
            return
        app.candidate, before, app.current = None, app.current, pool
        if before is not None:
            self._effects.append(fx.Log(f"app {app.name}: version {pool.version} serves now, {before.version} before"))
            self._move_line(before, pool)
            self.retire(before, now)

    def _move_line(self, before: Pool, after: Pool) -> None:
        """Those who wait for one edition wait for the next."""
        for waiter in before.waiters:
            waiter.notice = None
        after.waiters = deque(sorted([*before.waiters, *after.waiters], key=lambda w: w.arrived))
        before.waiters.clear()
        after.describers, before.describers = [*before.describers, *after.describers], []
        if after.template is TemplateState.READY:
            self._check_versions(after)
            self._answer_describers(after)

    def _check_versions(self, pool: Pool) -> None:
        """Sends those away who wait for another version than this turned out to be."""
        for waiter in [w for w in pool.waiters if w.request.version not in (None, pool.version)]:
            pool.waiters.remove(waiter)
            self._refuse(waiter, refusals.version_mismatch(pool.app.name, pool.version, waiter.request.version))

    def retire(self, pool: Pool, now: float) -> None:
        """No more workers of this edition; its sessions live on."""
        pool.step_template(TemplateEvent.RETIRE)
        pool.warm_target = 0
        for kind in ("load", "refill", "no room"):
            self._timers.cancel(Timer(kind, pool.id))
        self._effects.append(fx.StopTemplate(pool.id))
        for worker in [*pool.warm.values(), *pool.spare.values()]:
            self._stop_worker(worker, "retired", now)
        self.forget_if_empty(pool)

    def forget_if_empty(self, pool: Pool) -> None:
        if pool.template is TemplateState.RETIRED and not pool.workers:
            self.pools.pop(pool.id, None)

    def fail(self, pool: Pool, error: dict[str, Any], now: float) -> None:
        """The edition does not work. Those who wait get the one before it, or the error."""
        app = pool.app
        if pool not in (app.current, app.candidate):
            return
        if app.failing(pool.revision, now) is None:  # else it is the same try: another worker of it
            earlier = app.failures.get(pool.revision)
            delay = BACKOFF_FIRST if earlier is None else min(BACKOFF_LIMIT, earlier.delay * 2)
            app.failures[pool.revision] = failure = Failure(error, delay, now + delay)
            self._log_failure(failure, app)
        self.refuse_describers(pool, from_wire(error))
        waiters, pool.waiters = pool.waiters, deque()
        if app.candidate is pool:
            app.candidate = None
            self.retire(pool, now)
        before = None if app.current is pool else app.current
        for waiter in waiters:
            wanted = before is not None and waiter.request.version in (None, before.version)
            if before is not None and wanted and self._can_serve(before, waiter.request.session_id, now):
                waiter.notice = refusals.notice(before, error)
                before.waiters.append(waiter)
            else:
                self._refuse(waiter, from_wire(error))

    def _can_serve(self, pool: Pool, session_id: str | None, now: float) -> bool:
        """Whether the edition before a broken edit can still make workers, or has one. Its template cannot be made
        again: it would import the edit.
        """
        return len(pool.ready_for(session_id)) > len(pool.waiters) or (
            pool.template is TemplateState.READY and pool.failing(now) is None
        )

    def _log_failure(self, failure: Failure, app: App) -> None:
        message, trace = failure.error["message"], failure.error["details"].get("traceback", "")
        when = f"next try in {failure.delay:g} s at the earliest"
        self._effects.append(fx.Log(f"app {app.name} is broken, {when}: {message}\n{trace}".rstrip()))

    # --- templates --------------------------------------------------------------------------------------------

    def _start_template(self, pool: Pool, now: float) -> None:
        pool.step_template(TemplateEvent.START)
        self._effects.append(fx.StartTemplate(pool.id, pool.app.key))
        self._timers.set(Timer("load", pool.id), now + self._settings.start_timeout)

    def _revive(self, pool: Pool, now: float) -> None:
        if pool.template is TemplateState.LOST and not self.has_no_room(pool):
            self._start_template(pool, now)

    def has_no_room(self, pool: Pool) -> bool:
        """Whether a process has just been refused: there will be another try."""
        return Timer("no room", pool.id) in self._timers

    def _must_wait_for_room(self, pool: Pool, before: Pool) -> bool:
        """Whether there is no room for its template, and the edition before it has a worker that is ready."""
        return before is not pool and self.has_no_room(pool) and len(before.warm) > len(before.waiters)

    def put_off(self, pool: Pool, what: str, why: str, now: float) -> None:
        """The machine has no room for a process of it. Nobody is to blame: it is tried again after a while."""
        if pool.no_room is None:
            self._effects.append(fx.Log(f"app {pool.app.name}: {what}"))
        pool.no_room = why
        self._timers.set(Timer("no room", pool.id), now + MEMORY_RECHECK)

    def no_room_for_template(self, pool: Pool, why: str, now: float) -> None:
        """Those who wait for a worker stay in line, but for those for whom the edition before has one."""
        self._timers.cancel(Timer("load", pool.id))
        pool.step_template(TemplateEvent.LOSE)
        self.put_off(pool, f"it cannot be started: {why}", why, now)
        self.refuse_describers(pool, refusals.no_room(pool.app.name, why))
        before = pool.app.current
        for waiter in list(pool.waiters):
            if before is None or not self._must_wait_for_room(pool, before):
                return
            if waiter.request.version in (None, before.version):
                waiter.notice = refusals.no_room_for_edit(before, why)
                pool.waiters.remove(waiter)
                before.waiters.append(waiter)

    def template_loaded(self, pool: Pool, event: TemplateLoaded, now: float) -> None:
        self._timers.cancel(Timer("load", pool.id))
        pool.step_template(TemplateEvent.LOADED)
        pool.no_room = None
        pool.version = event.version
        pool.warm_target = self._settings.warm if event.warm is None else event.warm
        pool.max_workers = self._settings.max_workers if event.max_workers is None else event.max_workers
        pool.cancel_grace = event.cancel_grace
        pool.max_lifetime = event.max_lifetime
        self._check_versions(pool)
        self._answer_describers(pool)
        app = pool.app
        pool.forks = not event.threads
        if event.threads:
            why = f"its import has left threads running ({', '.join(event.threads)})"
            self._effects.append(fx.Log(f"app {app.name} cannot be forked, {why}: each session imports it anew"))
        if app.current is None and not pool.lacking and app.failing(pool.revision, now) is None:
            self.promote(pool, now)  # else its first worker does, once it is set up: until then another one serves

    def template_failed(self, pool: Pool, error: dict[str, Any], now: float) -> None:
        if pool.template is TemplateState.LOADING:
            self._timers.cancel(Timer("load", pool.id))
            pool.step_template(TemplateEvent.LOSE)
            self._effects.append(fx.StopTemplate(pool.id))
            self.fail(pool, error, now)

    def template_exited(self, pool: Pool, status: str, now: float) -> None:
        """A template that had loaded is made again by the next open; sessions do not notice."""
        if pool.template is TemplateState.LOADING:
            what = f"its template {status} while it imported or preloaded the app"
            self.template_failed(pool, refusals.broken(pool.app.name, what), now)
        elif pool.template is TemplateState.READY:
            self._effects.append(fx.Log(f"app {pool.app.name}: its template {status}"))
            pool.step_template(TemplateEvent.LOSE)

    def replace_template(self, pool: Pool) -> None:
        """It has loaded, and does not do what it is asked for: the next try is another one's."""
        if pool.template is TemplateState.READY:
            self._effects.append(fx.StopTemplate(pool.id))
            pool.step_template(TemplateEvent.LOSE)

    def edited(self, pool: Pool, edition: AppEdition, now: float) -> None:
        """No worker can be made of an edition any more: each reads the files for itself, and they are of this one."""
        if pool.template is not TemplateState.READY:
            return
        self.replace_template(pool)
        try:
            self.pool_for(edition, now)[0].takes_any_version = True
        except AppBrokenError as error:
            self.fail(pool, error.to_wire(), now)

    def load_overdue(self, pool: Pool, now: float) -> None:
        what = f"its import and `preload` took longer than {self._settings.start_timeout:g} s"
        self.template_failed(pool, refusals.broken(pool.app.name, what), now)

    def remake_lost(self, now: float) -> None:
        """Makes the templates again that have died and are wanted, when it is known whether they died of being asked
        for workers. Oldest first: who waits for an edition that cannot be made again moves on to the newer one, whose
        turn comes after.
        """
        for pool in list(self.pools.values()):
            app = pool.app
            is_wanted = pool.waiters or pool.describers or (app.keep and pool is app.candidate)
            if pool.template is TemplateState.LOST and is_wanted and not self.has_no_room(pool) and not pool.has_unborn:
                self._remake(pool, now)

    def _remake(self, pool: Pool, now: float) -> None:
        app = pool.app
        if (failure := app.failing(pool.revision, now)) is not None:
            self.fail(pool, failure.error, now)
        elif pool.revision == app.revision:
            self._start_template(pool, now)
        elif app.candidate is not None and app.candidate is not pool:
            self._move_line(pool, app.candidate)
        else:
            self.fail(pool, refusals.broken(pool.app.name, "its template died, and its files have changed"), now)

    # --- helpers ----------------------------------------------------------------------------------------------

    def app_idle(self, app_key: str, now: float) -> None:
        """Gives back an app that nobody has used for a while; looks again later if it is in use."""
        app = self.apps[app_key]
        if app.keep:
            return
        pools = [pool for pool in (app.current, app.candidate) if pool is not None]
        if any(pool.waiters or pool.describers or pool.is_serving for pool in pools):
            app.used_at = now
        due = app.used_at + self._settings.app_idle_timeout
        if not is_over(due, now):
            self._timers.set(Timer("idle app", app.key), due)
            return
        app.current = app.candidate = None
        for pool in pools:
            self.retire(pool, now)

    def _app(self, edition: AppEdition) -> App:
        app = self.apps.get(edition.key)
        if app is None:
            app = self.apps[edition.key] = App(edition.key, edition.name)
        return app

    def _answer_describers(self, pool: Pool) -> None:
        for request in pool.describers:
            if request.version in (None, pool.version):
                self._effects.append(fx.Describe(pool.id, request.ticket))
            else:
                refusal = refusals.version_mismatch(pool.app.name, pool.version, request.version)
                self._effects.append(fx.Refuse(request.ticket, refusal))
        pool.describers.clear()

    def new_id(self, prefix: str) -> str:
        """Of a pool or a worker."""
        self._serial += 1
        return f"{prefix}_{self._serial}"
