"""The fleet: which workers there should be, over all apps.

One step, `settle`, is called after every change and brings the fleet in line with what is wanted:

1. Who waits gets a worker that is ready, first come first served.
2. A template that has died is made again if somebody still waits for its workers, or for what it can tell.
3. For each who still waits a worker is forked, in the order of their arrival over all apps, while the app's limit,
   the daemon's limit and the machine's memory allow it. At the daemon's limit idle workers of others make room.
4. When nobody waits for room in the daemon, each pool is filled up to its warm target, in a quiet moment.
5. Warm workers above the target go.

Which edition of an app a pool is made of, and what happens when it does not work, is `editions.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ..constants import MEMORY_RECHECK, SPARE_IDLE, STOP_GRACE
from ..errors import WarmpoolError
from ..settings import Settings
from ..wire.process_messages import Stop
from . import effects as fx
from . import events as ev
from . import refusals
from .editions import Editions
from .pool import Pool, Waiter, Worker
from .states import TemplateState, WorkerEvent, WorkerState
from .timers import Timer, Timers

WAITS_KEPT = 8
STILLBORN_LIMIT = 3
"""Attempts. A template may be killed while it forks; one that dies at every fork makes no workers."""


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
        self._rows = list(range(settings.max_workers - 1, -1, -1))
        self.stopping = False
        self.full = False
        """A test has it that nothing is free."""
        self.editions = Editions(settings, timers, effects, refuse=refuse, stop_worker=self.stop_worker)
        self.workers: dict[str, Worker] = {}

    def __repr__(self) -> str:
        return f"<Fleet {len(self.workers)}/{self._settings.max_workers} workers: {list(self._pools.values())}>"

    @property
    def _pools(self) -> dict[str, Pool]:
        return self.editions.pools

    # --- what workers report ----------------------------------------------------------------------------------

    def worker_loaded(self, worker: Worker, event: ev.WorkerLoaded, now: float) -> None:
        """One that imports the app for itself may have read files that were edited since its template did, and is of
        another edition than its pool. (Another version alone says nothing: what an import reads may be up to chance.)
        """
        pool = worker.pool
        is_other = event.version != pool.version and event.edition.revision != pool.revision
        if is_other and worker.state is WorkerState.STARTING and not pool.takes_any_version:
            self.stop_worker(worker, "outdated", now)
            self._effects.append(fx.Kill(worker.id))
            self.editions.edited(pool, event.edition, now)

    def worker_ready(self, worker: Worker, now: float) -> None:
        self._timers.cancel(Timer("start", worker.id))
        if worker.state is not WorkerState.STARTING:
            return
        worker.step(WorkerEvent.READY)
        worker.pool.stillborn = 0
        if not self.editions.has_no_room(worker.pool):
            worker.pool.no_room = None
        if worker.pool.template is TemplateState.RETIRED or self.stopping:
            self.stop_worker(worker, "retired", now)
        else:
            self.editions.promote(worker.pool, now)

    def no_room_for_worker(self, worker: Worker, why: str, now: float) -> None:
        pool = worker.pool
        self.editions.put_off(pool, f"no worker could be made: {why}", why, now)
        self._forget(worker)
        self.editions.forget_if_empty(pool)

    def worker_failed(self, worker: Worker, error: dict[str, Any], now: float) -> None:
        if worker.state is WorkerState.STARTING:
            self.stop_worker(worker, "failed", now)
            self.editions.fail(worker.pool, error, now)

    def worker_exited(self, worker: Worker, event: ev.WorkerExited, now: float) -> None:
        status = event.status
        died_in_setup = worker.state is WorkerState.STARTING and worker.pid is not None
        pool = worker.pool
        if worker.state is WorkerState.STARTING and worker.pid is None and worker.attempt == pool.stillborn:
            pool.stillborn += 1
        if worker.state is WorkerState.WARM:
            self._wasted(worker, status, now)
        elif worker.is_lost or worker.state is WorkerState.SERVING:
            what = f"app {pool.app.name}: {worker.id}, in a call without a session, {status}"
            self._effects.append(fx.Log(refusals.with_last_lines(what, event.last_lines)))
        self._forget(worker)
        if died_in_setup:
            what = refusals.with_last_lines(f"its worker {status} while it was set up", event.last_lines)
            self.editions.fail(pool, refusals.broken(pool.app.name, what), now)
        elif pool.stillborn >= STILLBORN_LIMIT:
            pool.stillborn = 0
            self.editions.fail(pool, refusals.broken(pool.app.name, f"no worker can be made of it: it {status}"), now)
        self.editions.forget_if_empty(pool)

    def worker_leaving(self, worker: Worker, reason: str, now: float) -> None:
        """One without a session, of its own accord."""
        if worker.state is WorkerState.WARM:
            self._wasted(worker, f"leaves ({reason})", now)
        if worker.state is not WorkerState.STARTING:
            self.stop_worker(worker, reason, now)

    def _wasted(self, worker: Worker, how: str, now: float) -> None:
        """It has gone before anybody had it."""
        pool = worker.pool
        pool.wasted(now)
        again = f"the next is made in {pool.idle_delay:g} s, or when it is needed"
        self._effects.append(fx.Log(f"app {pool.app.name}: idle worker {worker.id} {how}; {again}"))

    def _forget(self, worker: Worker) -> None:
        worker.step(WorkerEvent.EXIT)
        del self.workers[worker.id]
        self._rows.append(worker.row)
        for kind in ("start", "kill", "spare"):
            self._timers.cancel(Timer(kind, worker.id))

    def worker_released(self, worker: Worker, now: float) -> None:
        if worker.state is WorkerState.SERVING:
            worker.step(WorkerEvent.RELEASE)
            self._timers.set(Timer("spare", worker.id), now + SPARE_IDLE)
            if worker.pool.template is TemplateState.RETIRED:
                self.stop_worker(worker, "retired", now)

    # --- deadlines --------------------------------------------------------------------------------------------

    def worker_overdue(self, kind: Literal["start", "kill", "spare"], worker: Worker, now: float) -> None:
        """What is due may not matter any more, by what was due before it."""
        if kind == "kill":
            self._effects.append(fx.Kill(worker.id))
        elif kind == "start" and worker.state is WorkerState.STARTING:
            self._start_overdue(worker, now)
        elif kind == "spare" and worker.state is WorkerState.SPARE:
            self.stop_worker(worker, "surplus", now)

    def _start_overdue(self, worker: Worker, now: float) -> None:
        if worker.pid is None:
            what = f"no worker was made of it within {self._settings.start_timeout:g} s"
            self.editions.replace_template(worker.pool)
        else:
            what = f"its `setup` took longer than {self._settings.start_timeout:g} s"
        self._effects.append(fx.Kill(worker.id))
        self.worker_failed(worker, refusals.broken(worker.pool.app.name, what), now)

    # --- the reconciling step ---------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """See the head of this file. Calling it once more changes nothing."""
        if self.stopping or self.full:
            return
        wanted = any(pool.waiters or pool.describers or pool.no_room for pool in self._pools.values())
        blocked = self._provide(now) if wanted else []
        may_refill = all(map(self._is_full, blocked))
        for pool in list(self._pools.values()):
            if may_refill:
                self._refill(pool, now)
            if surplus := pool.surplus:
                for worker in list(pool.warm.values())[:surplus]:
                    self.stop_worker(worker, "surplus", now)

    def _provide(self, now: float) -> list[Pool]:
        """Steps 1 to 3. Gives the pools that have waiters for whom there is no room."""
        for pool in self._in_line():
            self.serve(pool, now)
        self.editions.remake_lost(now)
        blocked = self._fork_for_waiters(now)
        self._note_waits(now)
        self._make_room(blocked, now)
        return blocked

    def serve(self, pool: Pool, now: float) -> None:
        """Gives those who wait in this pool's line the workers that are ready."""
        if self.stopping or self.full:
            return
        while pool.waiters and (worker := pool.free_for(pool.waiters[0])) is not None:
            self._grant(pool.waiters.popleft(), worker, now)

    def _note_waits(self, now: float) -> None:
        """For whoever asks later why an open took its time."""
        for pool in self._in_line():
            why = self.why_waiting(pool)
            for waiter in reversed(pool.waiters):
                if waiter.waits and waiter.waits[-1][1] == why:
                    break  # so it is with all before it
                if len(waiter.waits) < WAITS_KEPT:
                    waiter.waits.append((now, why))

    def _refill(self, pool: Pool, now: float) -> None:
        if not pool.lacking:
            pool.drained_since = None
            return
        if now < pool.refill_at:
            if (refill := Timer("refill", pool.id)) not in self._timers:
                self._timers.set(refill, pool.refill_at)
                pool.refill_set = pool.refill_at
            return
        pool.drained_since = None
        for _ in range(pool.lacking):
            if not self._may_fork(pool, now):
                return
            self._fork(pool, now)

    def refill_due(self, pool: Pool) -> None:
        """Unless that has moved it is over: `now` may not say so, where a test has stopped the time of leases."""
        if pool.refill_at == pool.refill_set:
            pool.refill_at = 0.0

    def _in_line(self) -> list[Pool]:
        return sorted((p for p in self._pools.values() if p.waiters), key=lambda p: p.waiters[0].arrived)

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
        if pool.template is not TemplateState.READY or pool.failing(now):
            return False
        if not self._rows or self._is_full(pool) or self.editions.has_no_room(pool):
            return False
        if self._free_memory() < self._settings.min_free_bytes:
            self._timers.set(Timer("memory"), now + MEMORY_RECHECK)
            return False
        return True

    def _is_full(self, pool: Pool) -> bool:
        """The app has as many workers as it may have, over all its editions."""
        return pool.app.live >= pool.max_workers

    def _fork(self, pool: Pool, now: float) -> None:
        worker = Worker(self.editions.new_id("w"), pool, self._rows.pop(), pool.stillborn)
        pool.add(worker)
        self.workers[worker.id] = worker
        self._effects.append(fx.Fork(pool.id, pool.app.key, worker.id, worker.row, not pool.forks))
        self._timers.set(Timer("start", worker.id), now + self._settings.start_timeout)

    def _make_room(self, blocked: list[Pool], now: float) -> None:
        """Lets idle workers go for those who wait: as many as are needed beyond those that go already."""
        going = sum(app.going for app in self.editions.apps.values())
        for pool in blocked:
            coming = pool.app.going if self._is_full(pool) else going
            for _ in range(pool.unserved - coming):
                idle = self._idle_worker(pool)
                if idle is None:
                    break
                self.stop_worker(idle, "making room", now)
            going = max(0, going - pool.unserved)

    def _idle_worker(self, needy: Pool) -> Worker | None:
        """A worker that nobody would miss: of the same app if that is what is full, else of any."""
        same_app = self._is_full(needy)
        for pool in self._pools.values():
            if same_app and pool.app is not needy.app:
                continue
            idle = pool.spare or ({} if pool.waiters else pool.warm)
            if idle:
                return next(iter(idle.values()))
        return None

    def stop_worker(self, worker: Worker, reason: str, now: float) -> None:
        """Asks it to run its hooks and go, and kills it if it does not."""
        if worker.state is WorkerState.STOPPING:
            return
        worker.step(WorkerEvent.STOP)
        self._effects.append(fx.Tell(worker.id, Stop(reason)))
        self._timers.set(Timer("kill", worker.id), now + STOP_GRACE)

    def kill_at(self, worker_id: str, moment: float) -> None:
        """Gives a worker that goes another time for it."""
        self._timers.set(Timer("kill", worker_id), moment)

    def why_waiting(self, pool: Pool) -> str:
        """What an open on this pool waits for, in words."""
        if self.full:
            return f"{self._settings.max_workers} of {self._settings.max_workers} workers are in use (--max-workers)"
        if pool.template is not TemplateState.READY and pool.no_room is not None:
            return pool.no_room
        if pool.template is not TemplateState.READY:
            return "the app is still being imported"
        if pool.starting:
            return "the worker is still being set up"
        if self._is_full(pool) and pool.max_workers < self._settings.max_workers:
            return f"the app has its {pool.max_workers} workers (its `max_workers`), all in use"
        if self._free_memory() < self._settings.min_free_bytes:
            return "the machine is short of memory (--min-free-mb)"
        if pool.no_room is not None and self._rows:
            return pool.no_room
        return f"{len(self.workers)} of {self._settings.max_workers} workers are in use (--max-workers)"

    def stop_all(self, now: float) -> None:
        for pool in list(self._pools.values()):
            self.editions.refuse_describers(pool, refusals.stopping())
            self.editions.retire(pool, now)
        for worker in list(self.workers.values()):
            self.stop_worker(worker, "daemon_stopped", now)
