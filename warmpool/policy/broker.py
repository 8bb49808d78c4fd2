"""The broker: takes one event and the time, decides, and returns the effects.

It owns every decision of the daemon and performs none. It is told the time with each event and answers
`next_deadline()`; it is given two things to look at, the board and the machine's free memory. Which templates and
workers there should be is the fleet's part (`fleet.py`), who holds which worker and for how long the leases'
(`leases.py`), the line of those who wait is `opens.py`, and how a call is stopped `cancels.py`; here each event and
each deadline is given to whose it is, and the daemon's own end is decided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..activity import Activity
from ..constants import QUICK_CANCEL, STOP_GRACE
from ..errors import WarmpoolError
from ..settings import Settings
from . import effects as fx
from . import events as ev
from . import refusals
from .cancels import Cancels
from .fleet import Fleet
from .leases import Leases
from .opens import Opens
from .states import LeaseState, TemplateState, WorkerState
from .timers import Timer, Timers, is_over


class Broker:
    def __init__(
        self,
        settings: Settings,
        *,
        now: float,
        activity_of: Callable[[int], Activity],
        free_memory: Callable[[], int],
        timers: Timers | None = None,
    ) -> None:
        """`activity_of` reads a row of the board; `free_memory` gives the machine's available bytes."""
        self._settings = settings
        self._effects: list[fx.Effect] = []
        self._timers = Timers(now) if timers is None else timers
        self._used_at = now
        self.opens = opens = Opens(settings, self._timers, self._effects, self._serve)
        self.fleet = Fleet(
            settings, self._timers, self._effects,
            free_memory=free_memory, grant=opens.grant, refuse=opens.refuse,
        )  # fmt: skip
        self.leases = Leases(self._timers, self._effects, self.fleet, activity_of, self._serve)
        opens.join(self.fleet, self.leases)
        self._cancels = Cancels(self._timers, self._effects, self.fleet, self.leases)
        if settings.idle_exit:
            self._timers.set(Timer("idle exit"), now + settings.idle_exit)

    def __repr__(self) -> str:
        return f"<Broker {len(self.leases.live)} sessions, {len(self.opens.waiting)} waiting, {self.fleet}>"

    # --- the interface ----------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: float) -> list[fx.Effect]:
        """What to do about `event`. The caller performs the effects in order and reports back what comes of them."""
        self._timers.keep_up(now)
        self._dispatch(event, now)
        return self._take_effects()

    def advance(self, now: float) -> list[fx.Effect]:
        """What to do about the deadlines that are over."""
        for timer in self._timers.due(now):
            self._deadline(timer, now)
        return self._take_effects()

    def settle(self, now: float) -> list[fx.Effect]:
        """What to do so that each pool has the workers that it should have; once a daemon that stops has none, to
        leave. Comes when all that has happened is handled, and performed: nobody waits for it.
        """
        self.fleet.settle(now)
        if self.fleet.stopping and not self.fleet.workers and not self.fleet.editions.pools:
            self._timers.cancel(Timer("stopped"))
            self._effects.append(fx.Exit())
        return self._take_effects()

    def next_deadline(self) -> float | None:
        """When `advance` should be called next, in lease time; None: not before another event."""
        return self._timers.next_deadline()

    def is_at_rest(self) -> bool:
        """Whether no worker is leaving, and none was asked or signalled and has yet to answer."""
        return not (
            any(worker.state is WorkerState.STOPPING for worker in self.fleet.workers.values())
            or any(session.state is LeaseState.EXPIRING for session in self.leases.live.values())
            or self._cancels.is_dumping()
        )

    def touch(self, now: float) -> None:
        """Somebody has asked for something: the daemon is of use."""
        self._used_at = now

    def check(self) -> None:
        """The laws, as assertions, for tests."""
        self.leases.check()
        for pool in self.fleet.editions.pools.values():
            for waiter in pool.waiters:
                assert self.opens.waiting[waiter.request.ticket] is waiter
            assert pool.template is not TemplateState.RETIRED or not pool.waiters, "a waiter is served or told why"
        assert len(self.fleet.workers) <= self._settings.max_workers
        for app in self.fleet.editions.apps.values():
            workers = [worker for worker in self.fleet.workers.values() if worker.pool.app is app]
            assert app.live == len(workers), app
            assert app.going == sum(worker.state is WorkerState.STOPPING for worker in workers), app
        assert len(self.opens.waiting) == sum(len(pool.waiters) for pool in self.fleet.editions.pools.values())

    # --- events -----------------------------------------------------------------------------------------------

    def _dispatch(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.OpenRequested():  # first, since it is asked for each
                self._serve(event, now)
            case ev.ConnectionClosed():
                self._forget_connection(event.connection)
            case ev.OpenAbandoned():
                self.opens.abandon(event.ticket)
                self.leases.abandon(event.ticket)
                if (session := self.leases.opened_with(event.ticket)) is not None:
                    self._cancels.end_session(session, "client", now, grace=QUICK_CANCEL)
            case ev.HandOverFailed():
                self.opens.hand_over_failed(event, now)
            case ev.WarmUpRequested():
                if not self.fleet.stopping:
                    self.fleet.editions.keep(event.edition, now)
            case ev.StopRequested():
                self._stop(now)
            case _ if isinstance(event, ev.TemplateReport):
                self._on_template(event, now)
            case _ if isinstance(event, ev.WorkerReport):
                self._on_worker(event, now)
            case _:
                self._serve(event, now)

    def _serve(self, request: ev.Request, now: float) -> None:
        """Answers a request, now or when that can be; also one that was held back."""
        self._used_at = now
        try:
            self._request(request, now)
        except WarmpoolError as error:
            self._effects.append(fx.Refuse(request.ticket, error))

    def _request(self, event: ev.Request, now: float) -> None:
        """Raises the refusal."""
        match event:
            case ev.OpenRequested():
                self.opens.open(event, now)
            case ev.AttachRequested():
                self.opens.attach(event, now)
            case ev.DescribeRequested():
                self._describe(event, now)
            case ev.EndAwaited():
                self.leases.await_end(event, now)
            case ev.KeepaliveRequested():
                self.leases.keepalive(event, now)
            case ev.LabelsRequested():
                self.leases.set_labels(event, now)
            case ev.CancelRequested():
                self._cancels.ask(event, now)
            case ev.StatelessCancelRequested():
                self._cancels.ask_stateless(event, now)
            case ev.EndRequested():
                self._end(event, now)
            case _:
                assert_never(event)

    def _on_template(self, event: ev.TemplateReport, now: float) -> None:
        pool = self.fleet.editions.pools.get(event.pool)
        if pool is None or pool.template is TemplateState.RETIRED:
            return
        match event:
            case ev.TemplateLoaded():
                self.fleet.editions.template_loaded(pool, event, now)
            case ev.NoRoomForTemplate():
                self.fleet.editions.no_room_for_template(pool, event.why, now)
            case ev.TemplateFailed():
                self.fleet.editions.template_failed(pool, event.error, now)
            case ev.TemplateExited():
                self.fleet.editions.template_exited(pool, event.status, now)
            case _:
                assert_never(event)

    def _on_worker(self, event: ev.WorkerReport, now: float) -> None:
        worker = self.fleet.workers.get(event.worker)
        if worker is None:
            return
        match event:
            case ev.NoRoomForWorker():
                self.fleet.no_room_for_worker(worker, event.why, now)
            case ev.WorkerLoaded():
                self.fleet.worker_loaded(worker, event, now)
            case ev.WorkerForked():
                worker.pid = event.pid
            case ev.WorkerReady():
                self.fleet.worker_ready(worker, now)
            case ev.WorkerFailed():
                self.fleet.worker_failed(worker, event.error, now)
            case ev.WorkerReleased():
                self.fleet.worker_released(worker, now)
            case ev.WorkerBusy():
                self.leases.busy(worker, now)
            case ev.WorkerLeaving():
                self.leases.leaving(worker, event.reason, now)
            case ev.WorkerEnded():
                if worker.session is not None:
                    worker.session.end_value = event.packed
            case ev.WorkerExited():
                self._used_at = now
                self._cancels.forget(worker)
                self.fleet.worker_exited(worker, event, now)
                if worker.session is not None:
                    self.leases.worker_gone(worker.session, event, now)
                else:
                    self._effects.append(fx.ForgetLog(worker.id))
            case _:
                assert_never(event)

    # --- requests of several parts ----------------------------------------------------------------------------

    def _describe(self, event: ev.DescribeRequested, now: float) -> None:
        if self.fleet.stopping:
            raise refusals.stopping()
        self.fleet.editions.describe(event, now)

    def _forget_connection(self, connection: int) -> None:
        self.opens.forget_connection(connection)
        self.fleet.editions.forget_describers(connection)
        self.leases.forget_connection(connection)

    def _end(self, event: ev.EndRequested, now: float) -> None:
        session = self.leases.watch_end(event, now)
        if session is None:
            return
        if event.force:
            self.leases.close(session, event.reason, now)
            self._effects.append(fx.Kill(session.worker_id, "at once, as was asked for"))
        else:
            grace = self.fleet.workers[session.worker_id].pool.cancel_grace
            self._cancels.end_session(session, event.reason, now, grace=grace)

    # --- deadlines --------------------------------------------------------------------------------------------

    def _deadline(self, timer: Timer, now: float) -> None:
        match timer.kind, timer.about:
            case "lease", str() as session_id:
                self.leases.window_over(session_id, now)
            case "answer", str() as session_id:
                self.leases.answer_overdue(session_id, now)
            case "lifetime", str() as session_id:
                self.leases.lifetime_over(session_id, now)
            case "cancel", str() as worker_id:
                self._cancels.overdue(worker_id, now)
            case "open", tuple() as ticket:
                self.opens.overdue(ticket)
            case "explain", (str() as session_id, tuple() as ticket):
                self.leases.explain_overdue(session_id, ticket, now)
            case "idle exit", None:
                self._idle_exit(now)
            case "stopped", None:
                self._effects.append(fx.Exit())
            case "start" | "kill" | "spare" as kind, str() as worker_id:
                if (worker := self.fleet.workers.get(worker_id)) is not None:
                    self.fleet.worker_overdue(kind, worker, now)
            case "load", str() as pool_id:
                if (pool := self.fleet.editions.pools.get(pool_id)) is not None:
                    self.fleet.editions.load_overdue(pool, now)
            case "idle app", str() as app_key:
                self.fleet.editions.app_idle(app_key, now)
            case "refill", str() as pool_id:
                if (pool := self.fleet.editions.pools.get(pool_id)) is not None:
                    self.fleet.refill_due(pool)
            case "memory" | "no room", _:
                pass  # `settle` looks again
            case _:
                raise AssertionError(f"{timer} is the deadline of nobody")

    def _idle_exit(self, now: float) -> None:
        served = any(worker.state is WorkerState.SERVING for worker in self.fleet.workers.values())
        if self.leases.live or self.opens.waiting or served or self.fleet.editions.is_loading():
            self._used_at = now
        due = self._used_at + self._settings.idle_exit
        if not is_over(due, now):
            self._timers.set(Timer("idle exit"), due)
        else:
            self._effects.append(fx.Log(f"idle for {self._settings.idle_exit:g} s: leaving"))
            self._stop(now)

    def _stop(self, now: float) -> None:
        if self.fleet.stopping:
            return
        self.fleet.stopping = True  # first: an open that is held at one of these sessions gets no place in the line
        self.opens.refuse_all(refusals.stopping())
        for session in list(self.leases.live.values()):
            self._cancels.end_session(session, "daemon_stopped", now, grace=QUICK_CANCEL)
        for worker in self.fleet.workers.values():
            activity = self.leases.activity_of(worker.row)
            if worker.state is WorkerState.SERVING and activity.busy:
                self._cancels.begin(worker, activity, now, grace=QUICK_CANCEL)
        self.fleet.stop_all(now)
        self._timers.set(Timer("stopped"), now + STOP_GRACE + 1)

    def _take_effects(self) -> list[fx.Effect]:
        taken = self._effects[:]
        self._effects.clear()
        return taken
