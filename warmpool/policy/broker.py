"""The broker: takes one event and the time, decides, and returns the effects.

It owns every decision of the daemon and performs none. It is told the time with each event and answers
`next_deadline()`; it is given two things to look at, the board and the machine's free memory. Which templates and
workers there should be is the fleet's part (`fleet.py`), who holds which worker and for how long the leases'
(`leases.py`); here are the line of those who wait, the deadlines, and the daemon's own end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..board import Activity
from ..errors import ProtocolError, WarmpoolError
from ..settings import HELLO_TIMEOUT, STOP_GRACE, Settings
from ..wire.messages import Attach, Opened
from . import effects as fx
from . import events as ev
from . import refusals
from .fleet import Fleet
from .leases import Leases
from .pool import TemplateState, Waiter, Worker
from .sessions import Session, SessionView
from .states import WorkerEvent, WorkerState
from .timers import Timer, Timers


class Broker:
    def __init__(
        self,
        settings: Settings,
        *,
        now: float,
        activity_of: Callable[[int], Activity],
        free_memory: Callable[[], int],
    ) -> None:
        """`activity_of` reads a row of the board; `free_memory` gives the machine's available bytes."""
        self._settings = settings
        self._effects: list[fx.Effect] = []
        self._timers = Timers(now)
        self._waiting: dict[ev.Ticket, Waiter] = {}
        self._arrivals = 0
        self._used_at = now
        self.fleet = Fleet(
            settings, self._timers, self._effects,
            free_memory=free_memory, grant=self._grant, refuse=self._refuse_waiter,
        )  # fmt: skip
        self.leases = Leases(self._timers, self._effects, self.fleet, activity_of)
        if settings.idle_exit:
            self._timers.set(Timer("idle exit"), now + settings.idle_exit)

    def __repr__(self) -> str:
        return f"<Broker {len(self.leases)} sessions, {len(self._waiting)} waiting, {self.fleet}>"

    # --- the interface ----------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: float) -> list[fx.Effect]:
        """What to do about `event`. The caller performs the effects in order and reports back what comes of them."""
        self._timers.keep_up(now)
        self._dispatch(event, now)
        self.fleet.settle(now)
        return self._take_effects()

    def advance(self, now: float) -> list[fx.Effect]:
        """What to do about the deadlines that are over."""
        for timer in self._timers.due(now):
            self._deadline(timer, now)
        self.fleet.settle(now)
        return self._take_effects()

    def next_deadline(self) -> float | None:
        """When `advance` should be called next, in lease time; None: not before another event."""
        return self._timers.next_deadline()

    def sessions(self, now: float, *, over: bool = False) -> Iterator[SessionView]:
        """The open sessions, newest first; with `over` also those that are remembered."""
        return self.leases.views(now, over=over)

    def find(self, session_id: str, now: float) -> Session | None:
        """The session, open or over."""
        return self.leases.find(session_id, now)

    def touch(self, now: float) -> None:
        """Somebody has asked for something: the daemon is of use."""
        self._used_at = now

    def check(self) -> None:
        """The laws, as assertions, for tests."""
        self.leases.check()
        for pool in self.fleet.editions.pools.values():
            for waiter in pool.waiters:
                assert self._waiting[waiter.ticket] is waiter
            assert pool.template is not TemplateState.RETIRED or not pool.waiters, "a waiter is served or told why"
        assert len(self.fleet.workers) <= self._settings.max_workers
        assert len(self._waiting) == sum(len(pool.waiters) for pool in self.fleet.editions.pools.values())

    # --- events -----------------------------------------------------------------------------------------------

    def _dispatch(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.Connected():
                self._timers.set(Timer("hello", event.ticket), now + HELLO_TIMEOUT)
            case ev.TicketClosed():
                self._forget_connection(event.connection)
            case ev.OpenerLeft():
                if (session := self.leases.live.get(event.session_id)) is not None:
                    self.leases.close(session, "ended", "client", now)
            case ev.StopRequested():
                self._stop(now)
            case ev.TemplateLoaded() | ev.TemplateFailed() | ev.TemplateExited():
                self._template_event(event, now)
            case (
                ev.WorkerForked() | ev.WorkerReady() | ev.WorkerFailed() | ev.WorkerReleased()
                | ev.WorkerBusy() | ev.WorkerLeaving() | ev.WorkerExited()
            ):  # fmt: skip
                self._worker_event(event, now)
            case _:
                self._used_at = now
                self._request(event, now)

    def _request(
        self,
        event: ev.Greeted | ev.OpenRequested | ev.AttachRequested | ev.WarmUpRequested | ev.DescribeRequested
        | ev.SessionAsked | ev.KeepaliveRequested | ev.EndRequested,
        now: float,
    ) -> None:  # fmt: skip
        match event:
            case ev.Greeted():
                self._timers.cancel(Timer("hello", event.ticket))
            case ev.OpenRequested():
                self._open(event, now)
            case ev.AttachRequested():
                self._timers.cancel(Timer("hello", event.ticket))
                self._attach(event, now)
            case ev.WarmUpRequested():
                if not self.fleet.stopping:
                    self.fleet.editions.keep(event.edition, now)
            case ev.DescribeRequested():
                self._describe(event, now)
            case ev.SessionAsked():
                self.leases.ask(event, now)
            case ev.KeepaliveRequested():
                self.leases.keepalive(event, now)
            case ev.EndRequested():
                self.leases.end(event, now)

    def _template_event(self, event: ev.TemplateLoaded | ev.TemplateFailed | ev.TemplateExited, now: float) -> None:
        pool = self.fleet.editions.pools.get(event.pool)
        if pool is None or pool.template is TemplateState.RETIRED:
            return
        match event:
            case ev.TemplateLoaded():
                self.fleet.editions.template_loaded(pool, event.version, event.warm, event.max_workers, now)
            case ev.TemplateFailed():
                self.fleet.editions.template_failed(pool, event.error, now)
            case ev.TemplateExited():
                self.fleet.editions.template_exited(pool, event.status, now)

    def _worker_event(
        self,
        event: ev.WorkerForked | ev.WorkerReady | ev.WorkerFailed | ev.WorkerBusy | ev.WorkerLeaving
        | ev.WorkerReleased | ev.WorkerExited,
        now: float,
    ) -> None:  # fmt: skip
        worker = self.fleet.workers.get(event.worker)
        if worker is None:
            return
        match event:
            case ev.WorkerForked():
                worker.pid = event.pid
            case ev.WorkerReady():
                self.fleet.worker_ready(worker, now)
            case ev.WorkerFailed():
                self.fleet.worker_failed(worker, event.error, now)
            case ev.WorkerReleased():
                self.fleet.worker_released(worker, now)
            case ev.WorkerBusy():
                for held in self.leases.busy(worker, now):
                    self._attach(held, now)
            case ev.WorkerLeaving():
                self.leases.leaving(worker, now)
            case ev.WorkerExited():
                self._used_at = now
                self.fleet.worker_exited(worker, event.status, now)
                if worker.session is not None:
                    self.leases.worker_gone(worker.session, event.status, now)

    # --- opens ------------------------------------------------------------------------------------------------

    def _open(self, event: ev.OpenRequested, now: float) -> None:
        self._timers.cancel(Timer("hello", event.ticket))
        if self.fleet.stopping:
            self._refuse(event.ticket, refusals.stopping())
            return
        try:
            pool, notice = self.fleet.editions.pool_for(event.edition, now)
            if event.version is not None and pool.version and event.version != pool.version:
                raise refusals.version_mismatch(pool.app, pool.version, event.version)
        except WarmpoolError as error:
            self._refuse(event.ticket, error)
            return
        self._arrivals += 1
        waiter = Waiter(
            event.ticket, event.session_id, event.session_timeout, event.open_timeout, event.version,
            event.cwd, event.labels, self._arrivals, notice,
        )  # fmt: skip
        pool.waiters.append(waiter)
        self._waiting[event.ticket] = waiter
        self._timers.set(Timer("open", event.ticket), now + event.open_timeout)

    def _describe(self, event: ev.DescribeRequested, now: float) -> None:
        if self.fleet.stopping:
            self._refuse(event.ticket, refusals.stopping())
            return
        try:
            self.fleet.editions.describe(event.edition, event.ticket, now)
        except WarmpoolError as error:
            self._refuse(event.ticket, error)

    def _grant(self, waiter: Waiter, worker: Worker, now: float) -> None:
        self._leave_line(waiter)
        if waiter.session_id is None:
            self._timers.cancel(Timer("spare", worker.id))
            worker.pool.step(worker, WorkerEvent.SERVE)
            attach = Attach(None, waiter.cwd, waiter.labels)
            self._hand_over(waiter.ticket, worker, attach, waiter.notice)
            return
        attach = self.leases.open(waiter, worker, now)
        self._hand_over(waiter.ticket, worker, attach, waiter.notice, is_new=True)
        pool = worker.pool
        self._log(f"{waiter.session_id} opened: {pool.app}@{pool.version} on {worker.id}, pid {worker.pid}")

    def _attach(self, event: ev.AttachRequested, now: float) -> None:
        session = self.leases.attach(event, now)
        if session is not None:
            attach = Attach(session.id, session.cwd, session.labels)
            self._hand_over(event.ticket, self.fleet.workers[session.worker_id], attach)

    def _hand_over(
        self, ticket: ev.Ticket, worker: Worker, attach: Attach, notice: str | None = None, *, is_new: bool = False
    ) -> None:
        pool = worker.pool
        limit = self._settings.call_frame_limit
        opened = Opened(attach.session_id, pool.app, pool.version, worker.id, limit, notice)
        self._effects.append(fx.HandOver(ticket, worker.id, attach, opened, is_new))

    def _refuse_waiter(self, waiter: Waiter, error: WarmpoolError) -> None:
        self._leave_line(waiter)
        self._refuse(waiter.ticket, error)

    def _leave_line(self, waiter: Waiter) -> None:
        """The waiter is in no pool's line any more."""
        del self._waiting[waiter.ticket]
        self._timers.cancel(Timer("open", waiter.ticket))

    def _open_overdue(self, ticket: ev.Ticket) -> None:
        waiter = self._waiting.get(ticket)
        if waiter is not None:
            pool = self.fleet.editions.drop_waiter(waiter)
            self._refuse_waiter(waiter, refusals.exhausted(pool, waiter, self.fleet.why_waiting(pool)))

    def _forget_connection(self, connection: int) -> None:
        self._timers.cancel(Timer("hello", (connection, 0)))
        for waiter in [w for t, w in self._waiting.items() if t[0] == connection]:
            self.fleet.editions.drop_waiter(waiter)
            self._leave_line(waiter)
        self.fleet.editions.forget_describers(connection)
        self.leases.forget_connection(connection)

    # --- deadlines --------------------------------------------------------------------------------------------

    def _deadline(self, timer: Timer, now: float) -> None:
        match timer.kind, timer.about:
            case "lease", str() as session_id:
                self.leases.window_over(session_id, now)
            case "answer", str() as session_id:
                for held in self.leases.answer_overdue(session_id, now):
                    self._attach(held, now)
            case "open", tuple() as ticket:
                self._open_overdue(ticket)
            case "hello", tuple() as ticket:
                self._refuse(ticket, ProtocolError(f"no hello came within {HELLO_TIMEOUT:g} s of connecting"))
            case "explain", (str() as session_id, tuple() as ticket):
                self.leases.explain_overdue(session_id, ticket, now)
            case "idle exit", None:
                self._idle_exit(now)
            case "stopped", None:
                self._effects.append(fx.Exit())
            case kind, about:
                self.fleet.deadline(kind, about, now)

    def _idle_exit(self, now: float) -> None:
        served = any(worker.state is WorkerState.SERVING for worker in self.fleet.workers.values())
        if self.leases or self._waiting or served:
            self._used_at = now
        due = self._used_at + self._settings.idle_exit
        if due > now:
            self._timers.set(Timer("idle exit"), due)
        else:
            self._log(f"idle for {self._settings.idle_exit:g} s: leaving")
            self._stop(now)

    def _stop(self, now: float) -> None:
        if self.fleet.stopping:
            return
        for waiter in list(self._waiting.values()):
            self.fleet.editions.drop_waiter(waiter)
            self._refuse_waiter(waiter, refusals.stopping())
        self.leases.close_all(now)
        self.fleet.stop_all(now)
        self._timers.set(Timer("stopped"), now + STOP_GRACE + 1)

    # --- effects ----------------------------------------------------------------------------------------------

    def _refuse(self, ticket: ev.Ticket, error: WarmpoolError) -> None:
        self._effects.append(fx.Refuse(ticket, error))

    def _log(self, text: str) -> None:
        self._effects.append(fx.Log(text))

    def _take_effects(self) -> list[fx.Effect]:
        if self.fleet.stopping and not self.fleet.workers and not self.fleet.editions.pools:
            self._timers.cancel(Timer("stopped"))
            self._effects.append(fx.Exit())
        taken = self._effects[:]
        self._effects.clear()
        return taken
