"""The fleet: which templates and workers there should be, over all apps.

One step, `settle`, is called after every change and brings the fleet in line with what is wanted:

1. Who waits gets a worker that is ready, first come first served.
2. For each who still waits a worker is forked, in the order of their arrival over all apps, while the app's limit,
   the daemon's limit and the machine's memory allow it. At the daemon's limit idle workers of others make room.
3. When nobody waits for room in the daemon, each pool is filled up to its warm target, in a quiet moment.
4. Warm workers above the target go.

An app's newest edition starts as its candidate and takes over when its first worker is ready. If it cannot be
imported or set up, the edition before it goes on serving, and is not tried again until its pause is over or its
files change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import AppBrokenError, WarmpoolError, from_wire
from ..settings import BACKOFF_FIRST, BACKOFF_LIMIT, MEMORY_RECHECK, SPARE_IDLE, STOP_GRACE, Settings
from ..wire.messages import Stop
from . import effects as fx
from . import refusals
from .events import AppEdition, Ticket
from .pool import App, Failure, Pool, TemplateState, Waiter, Worker
from .states import WorkerEvent, WorkerState
from .timers import Timer, Timers

STILLBORN_LIMIT = 3
"""A template may be killed while it forks; one that dies at every fork makes no workers."""


class Fleet:
    def __init__(
        self,
        settings: Settings,
        timers: Timers,
        effects: list[fx.Effect],
        *,
        free_memory: Callable[[], int],
        grant: Callable[[Waiter, Worker, float], None],
        refuse: Callable[[Waiter, WarmpoolError], None],
    ) -> None:
        """`grant` gives a ready worker to a waiter and moves the worker on; `refuse` sends a waiter away."""
        self._settings = settings
        self._timers = timers
        self._effects = effects
        self._free_memory = free_memory
        self._grant = grant
        self._refuse = refuse
        self._rows = list(range(settings.max_workers - 1, -1, -1))
        self._serial = 0
        self.stopping = False
        self.apps: dict[str, App] = {}
        self.pools: dict[str, Pool] = {}
        self.workers: dict[str, Worker] = {}

    def __repr__(self) -> str:
        return f"<Fleet {len(self.workers)}/{self._settings.max_workers} workers: {list(self.pools.values())}>"

    # --- editions ---------------------------------------------------------------------------------------------

    def pool_for(self, edition: AppEdition, now: float) -> tuple[Pool, str | None]:
        """The pool that serves this edition, started if there is none; or the one before it, with a notice why.

        Raises APP_BROKEN while the edition has failed and must not be tried again.
        """
        app = self._app(edition)
        app.revision = edition.revision
        if not app.keep and Timer("idle app", app.key) not in self._timers:
            self._timers.set(Timer("idle app", app.key), now + self._settings.app_idle_timeout)
        app.used_at = now
        failure = app.failing(edition.revision, now)
        current = app.current
        if current is not None and current.revision == edition.revision:
            if failure is None:
                self._revive(current)
            elif not current.warm:
                raise from_wire(failure.error)
            return current, None
        if failure is not None:
            if current is None or not self._can_serve(current, now):
                raise from_wire(failure.error)
            return current, refusals.notice(current, failure.error)
        if app.candidate is None or app.candidate.revision != edition.revision:
            self._start_candidate(app, edition.revision, now)
        assert app.candidate is not None
        self._revive(app.candidate)
        return app.candidate, None

    def _can_serve(self, pool: Pool, now: float) -> bool:
        """Whether the edition before a broken edit can still make workers, or has one. Its template cannot be made
        again: it would import the edit.
        """
        failing = self.apps[pool.app_key].failing(pool.revision, now) is not None
        return len(pool.warm) > len(pool.waiters) or (pool.template is TemplateState.READY and not failing)

    def keep(self, edition: AppEdition, now: float) -> None:
        """Loads the app now, and never lets it go for being idle."""
        self._app(edition).keep = True
        with suppress(AppBrokenError):  # the log has it
            self.pool_for(edition, now)

    def describe(self, edition: AppEdition, ticket: Ticket, now: float) -> None:
        """Raises APP_BROKEN as `pool_for` does."""
        pool, _ = self.pool_for(edition, now)
        if pool.template is TemplateState.LOST:
            failure = self._app(edition).failure
            gone = refusals.broken(pool.app, "its template is gone and cannot be made again")
            raise from_wire(gone if failure is None else failure.error)
        pool.describers.append(ticket)
        if pool.template is TemplateState.READY:
            self._answer_describers(pool)

    def _answer_describers(self, pool: Pool) -> None:
        self._effects.extend(fx.Describe(pool.id, ticket) for ticket in pool.describers)
        pool.describers.clear()

    def _app(self, edition: AppEdition) -> App:
        app = self.apps.get(edition.key)
        if app is None:
            app = self.apps[edition.key] = App(edition.key, edition.name)
        return app

    def _start_candidate(self, app: App, revision: int, now: float) -> None:
        superseded = app.candidate
        serving = app.current.revision if app.current is not None else revision
        app.failures = {tried: failure for tried, failure in app.failures.items() if tried in (revision, serving)}
        app.candidate = pool = Pool(
            id=self._name("p"),
            app_key=app.key,
            app=app.name,
            revision=revision,
            warm_target=self._settings.warm,
            max_workers=self._settings.max_workers,
        )
        self.pools[pool.id] = pool
        self._start_template(pool, now)
        if superseded is not None:
            self._move_line(superseded, pool)
            self._retire(superseded, now)

    def _start_template(self, pool: Pool, now: float) -> None:
        pool.template = TemplateState.LOADING
        self._effects.append(fx.StartTemplate(pool.id, pool.app_key))
        self._timers.set(Timer("load", pool.id), now + self._settings.start_timeout)

    def _revive(self, pool: Pool) -> None:
        if pool.template is TemplateState.LOST:
            self._start_template(pool, self.apps[pool.app_key].used_at)

    def _promote(self, pool: Pool, now: float) -> None:
        """The candidate is sound: it takes over."""
        app = self.apps[pool.app_key]
        app.failures.pop(pool.revision, None)
        if app.candidate is not pool:
            return
        app.candidate, before, app.current = None, app.current, pool
        if before is not None:
            self._effects.append(fx.Log(f"app {app.name}: version {pool.version} serves now, {before.version} before"))
            self._move_line(before, pool)
            self._retire(before, now)

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
        for waiter in [w for w in pool.waiters if w.version not in (None, pool.version)]:
            pool.waiters.remove(waiter)
            self._refuse(waiter, refusals.version_mismatch(pool.app, pool.version, waiter.version))

    def _retire(self, pool: Pool, now: float) -> None:
        """No more workers of this edition; its sessions live on."""
        pool.template = TemplateState.RETIRED
        pool.warm_target = 0
        for kind in ("load", "refill"):
            self._timers.cancel(Timer(kind, pool.id))
        self._effects.append(fx.StopTemplate(pool.id))
        for worker in [*pool.warm.values(), *pool.spare.values()]:
            self.stop_worker(worker, "retired", now)
        self._forget_if_empty(pool)

    def _forget_if_empty(self, pool: Pool) -> None:
        if pool.template is TemplateState.RETIRED and not pool.workers:
            self.pools.pop(pool.id, None)

    def _fail(self, pool: Pool, error: dict[str, Any], now: float) -> None:
        """The edition does not work. Those who wait get the one before it, or the error."""
        app = self.apps[pool.app_key]
        if pool not in (app.current, app.candidate):
            return
        if app.failing(pool.revision, now) is None:  # else it is the same try: another worker of it
            before = app.failures.get(pool.revision)
            delay = BACKOFF_FIRST if before is None else min(BACKOFF_LIMIT, before.delay * 2)
            app.failures[pool.revision] = failure = Failure(error, delay, now + delay)
            self._log_failure(failure, app)
        self._effects.extend(fx.Refuse(ticket, from_wire(error)) for ticket in pool.describers)
        pool.describers.clear()
        waiters, pool.waiters = pool.waiters, deque()
        if app.candidate is pool:
            app.candidate = None
            self._retire(pool, now)
        current = app.current
        for waiter in waiters:
            wanted = current is None or waiter.version in (None, current.version)
            if current is None or current is pool or not wanted or not self._can_serve(current, now):
                self._refuse(waiter, from_wire(error))
            else:
                waiter.notice = refusals.notice(current, error)
                current.waiters.append(waiter)

    def _log_failure(self, failure: Failure, app: App) -> None:
        message, trace = failure.error["message"], failure.error["details"].get("traceback", "")
        when = f"next try in {failure.delay:g} s at the earliest"
        self._effects.append(fx.Log(f"app {app.name} is broken, {when}: {message}\n{trace}".rstrip()))

    # --- what templates and workers report --------------------------------------------------------------------

    def template_loaded(self, pool: Pool, version: str, warm: int | None, limit: int | None, now: float) -> None:
        self._timers.cancel(Timer("load", pool.id))
        pool.template = TemplateState.READY
        pool.version = version
        pool.warm_target = self._settings.warm if warm is None else warm
        pool.max_workers = self._settings.max_workers if limit is None else limit
        self._check_versions(pool)
        self._answer_describers(pool)
        if not pool.lacking and self.apps[pool.app_key].failing(pool.revision, now) is None:
            self._promote(pool, now)

    def template_failed(self, pool: Pool, error: dict[str, Any], now: float) -> None:
        if pool.template is TemplateState.LOADING:
            self._timers.cancel(Timer("load", pool.id))
            pool.template = TemplateState.LOST
            self._effects.append(fx.StopTemplate(pool.id))
            self._fail(pool, error, now)

    def template_exited(self, pool: Pool, status: str, now: float) -> None:
        """A template that had loaded is made again by the next open; sessions do not notice."""
        if pool.template is TemplateState.LOADING:
            self.template_failed(
                pool, refusals.broken(pool.app, f"its template {status} while it imported the app"), now
            )
        elif pool.template is TemplateState.READY:
            self._effects.append(fx.Log(f"app {pool.app}: its template {status}"))
            pool.template = TemplateState.LOST
            if not (pool.waiters or pool.describers):
                return
            app = self.apps[pool.app_key]
            if pool.revision == app.revision:
                self._start_template(pool, now)
            elif app.candidate is not None and app.candidate is not pool:
                self._move_line(pool, app.candidate)
            else:
                self._fail(pool, refusals.broken(pool.app, f"its template {status}, and its files have changed"), now)

    def worker_ready(self, worker: Worker, now: float) -> None:
        self._timers.cancel(Timer("start", worker.id))
        if worker.state is not WorkerState.STARTING:
            return
        worker.pool.step(worker, WorkerEvent.READY)
        worker.pool.stillborn = 0
        if worker.pool.template is TemplateState.RETIRED or self.stopping:
            self.stop_worker(worker, "retired", now)
        else:
            self._promote(worker.pool, now)

    def worker_failed(self, worker: Worker, error: dict[str, Any], now: float) -> None:
        if worker.state is WorkerState.STARTING:
            self.stop_worker(worker, "failed", now)
            self._fail(worker.pool, error, now)

    def worker_exited(self, worker: Worker, status: str, now: float) -> None:
        died_in_setup = worker.state is WorkerState.STARTING and worker.pid is not None
        worker.pool.stillborn += worker.state is WorkerState.STARTING and worker.pid is None
        app = self.apps[worker.pool.app_key]
        app.live -= 1
        app.going -= worker.state is WorkerState.STOPPING
        worker.pool.step(worker, WorkerEvent.EXIT)
        del self.workers[worker.id]
        self._rows.append(worker.row)
        for kind in ("start", "kill", "spare"):
            self._timers.cancel(Timer(kind, worker.id))
        if died_in_setup:
            self._fail(worker.pool, refusals.broken(worker.pool.app, f"its worker {status} while it was set up"), now)
        elif worker.pool.stillborn >= STILLBORN_LIMIT:
            worker.pool.stillborn = 0
            self._fail(worker.pool, refusals.broken(worker.pool.app, f"no worker can be made of it: it {status}"), now)
        self._forget_if_empty(worker.pool)

    def worker_released(self, worker: Worker, now: float) -> None:
        if worker.state is WorkerState.SERVING:
            worker.pool.step(worker, WorkerEvent.RELEASE)
            self._timers.set(Timer("spare", worker.id), now + SPARE_IDLE)
            if worker.pool.template is TemplateState.RETIRED:
                self.stop_worker(worker, "retired", now)

    # --- deadlines --------------------------------------------------------------------------------------------

    def deadline(self, kind: str, about: object, now: float) -> None:
        """What is due may be gone by now, by what was due before it."""
        worker = self.workers.get(str(about))
        pool = self.pools.get(str(about))
        match kind:
            case "kill" if worker is not None:
                self._effects.append(fx.Kill(worker.id))
            case "start" if worker is not None and worker.state is WorkerState.STARTING:
                self._start_overdue(worker, now)
            case "spare" if worker is not None and worker.state is WorkerState.SPARE:
                self.stop_worker(worker, "surplus", now)
            case "load" if pool is not None:
                what = f"its import and `preload` took longer than {self._settings.start_timeout:g} s"
                self.template_failed(pool, refusals.broken(pool.app, what), now)
            case "idle app":
                self._app_idle(self.apps[str(about)], now)
            case _:
                pass  # "memory" and "refill": `settle` looks again

    def _start_overdue(self, worker: Worker, now: float) -> None:
        what = f"its `setup` took longer than {self._settings.start_timeout:g} s"
        self._effects.append(fx.Kill(worker.id))
        self.worker_failed(worker, refusals.broken(worker.pool.app, what), now)

    def _app_idle(self, app: App, now: float) -> None:
        """Gives back an app that nobody has used for a while; looks again later if it is in use."""
        if app.keep:
            return
        pools = [pool for pool in (app.current, app.candidate) if pool is not None]
        if any(pool.waiters or pool.describers or pool.is_serving for pool in pools):
            app.used_at = now
        due = app.used_at + self._settings.app_idle_timeout
        if due > now:
            self._timers.set(Timer("idle app", app.key), due)
            return
        app.current = app.candidate = None
        for pool in pools:
            self._retire(pool, now)

    # --- the reconciling step ---------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """See the head of this file. Calling it once more changes nothing."""
        if self.stopping:
            return
        for pool in self._in_line():
            for waiter, worker in pool.matches():
                self._grant(waiter, worker, now)
                pool.taken(now)
        blocked = self._fork_for_waiters(now)
        self._make_room(blocked, now)
        if all(map(self._is_full, blocked)):
            for pool in self.pools.values():
                self._refill(pool, now)
        for pool in list(self.pools.values()):
            for worker in list(pool.warm.values())[: pool.surplus]:
                self.stop_worker(worker, "surplus", now)

    def _refill(self, pool: Pool, now: float) -> None:
        if not pool.lacking:
            pool.drained_since = None
            return
        if now < pool.refill_at:
            self._timers.set(Timer("refill", pool.id), pool.refill_at)
            return
        pool.drained_since = None
        for _ in range(pool.lacking):
            if not self._may_fork(pool, now):
                return
            self._fork(pool, now)

    def _in_line(self) -> list[Pool]:
        return sorted((p for p in self.pools.values() if p.waiters), key=lambda p: p.waiters[0].arrived)

    def _fork_for_waiters(self, now: float) -> list[Pool]:
        """Forks in the order of arrival; gives the pools that have waiters for whom there is no room."""
        blocked: list[Pool] = []
        hungry = [pool for pool in self._in_line() if pool.unserved and pool.template is TemplateState.READY]
        while hungry:
            pool = min(hungry, key=lambda p: p.waiters[p.starting].arrived)
            if self._may_fork(pool, now):
                self._fork(pool, now)
            else:
                hungry.remove(pool)
                blocked.append(pool)
            hungry = [p for p in hungry if p.unserved]
        return blocked

    def _may_fork(self, pool: Pool, now: float) -> bool:
        if pool.template is not TemplateState.READY or self.apps[pool.app_key].failing(pool.revision, now):
            return False
        if not self._rows or self._is_full(pool):
            return False
        if self._free_memory() < self._settings.min_free_bytes:
            self._timers.set(Timer("memory"), now + MEMORY_RECHECK)
            return False
        return True

    def _is_full(self, pool: Pool) -> bool:
        """The app has as many workers as it may have, over all its editions."""
        return self.apps[pool.app_key].live >= pool.max_workers

    def _fork(self, pool: Pool, now: float) -> None:
        worker = Worker(self._name("w"), pool, self._rows.pop())
        pool.add(worker)
        self.apps[pool.app_key].live += 1
        self.workers[worker.id] = worker
        self._effects.append(fx.Fork(pool.id, worker.id, worker.row))
        self._timers.set(Timer("start", worker.id), now + self._settings.start_timeout)

    def _make_room(self, blocked: list[Pool], now: float) -> None:
        """Lets idle workers go for those who wait: as many as are needed beyond those that go already."""
        going = sum(app.going for app in self.apps.values())
        for pool in blocked:
            coming = self.apps[pool.app_key].going if self._is_full(pool) else going
            for _ in range(pool.unserved - coming):
                idle = self._idle_worker(pool)
                if idle is None:
                    break
                self.stop_worker(idle, "making room", now)
            going = max(0, going - pool.unserved)

    def _idle_worker(self, needy: Pool) -> Worker | None:
        """A worker that nobody would miss: of the same app if that is what is full, else of any."""
        same_app = self._is_full(needy)
        for pool in self.pools.values():
            if same_app and pool.app_key != needy.app_key:
                continue
            idle = pool.spare or ({} if pool.waiters else pool.warm)
            if idle:
                return next(iter(idle.values()))
        return None

    def stop_worker(self, worker: Worker, reason: str, now: float) -> None:
        """Asks it to run its hooks and go, and kills it if it does not."""
        if worker.state is WorkerState.STOPPING:
            return
        worker.pool.step(worker, WorkerEvent.STOP)
        self.apps[worker.pool.app_key].going += 1
        self._effects.append(fx.Tell(worker.id, Stop(reason)))
        self._timers.set(Timer("kill", worker.id), now + STOP_GRACE)

    def why_waiting(self, pool: Pool) -> str:
        """What an open on this pool waits for, in words."""
        if pool.template is not TemplateState.READY:
            return "the app is still being imported"
        if pool.starting:
            return "the worker is still being set up"
        if self._rows and self._is_full(pool):
            return f"the app has its {pool.max_workers} workers (its `max_workers`), all in use"
        if self._free_memory() < self._settings.min_free_bytes:
            return "the machine is short of memory (--min-free-mb)"
        return f"{len(self.workers)} of {self._settings.max_workers} workers are in use (--max-workers)"

    def drop_waiter(self, waiter: Waiter) -> Pool:
        """Takes a waiter out of its line; gives the pool that it stood at."""
        pool = next(pool for pool in self.pools.values() if waiter in pool.waiters)
        pool.waiters.remove(waiter)
        return pool

    def forget_describers(self, connection: int) -> None:
        for pool in self.pools.values():
            if pool.describers:
                pool.describers = [ticket for ticket in pool.describers if ticket[0] != connection]

    def stop_all(self, now: float) -> None:
        self.stopping = True
        for pool in list(self.pools.values()):
            self._effects.extend(fx.Refuse(ticket, refusals.stopping()) for ticket in pool.describers)
            pool.describers.clear()
            self._retire(pool, now)
        for worker in list(self.workers.values()):
            self.stop_worker(worker, "daemon_stopped", now)

    def _name(self, prefix: str) -> str:
        self._serial += 1
        return f"{prefix}_{self._serial}"
