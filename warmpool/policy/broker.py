"""The broker: sessions and leases. Takes one event and the time, decides, and returns the effects.

It owns every decision of the daemon and performs none. It is told the time with each event and answers
`next_deadline()`; it is given two things to look at, the board and the machine's free memory. Which templates and
workers there should be is the fleet's part (`fleet.py`); who holds which worker, for how long, and what is said of
it afterwards is decided here.

After each event the laws hold that `check` asserts: a worker serves at most one lease, an open lease has a live
worker, and one that is closed has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import assert_never

from ..board import IDLE, Activity
from ..errors import (
    AppMismatchError,
    DaemonUnavailableError,
    PoolExhaustedError,
    ProtocolError,
    WarmpoolError,
)
from ..settings import EXPIRE_ANSWER_TIMEOUT, EXPLAIN_TIMEOUT, HELLO_TIMEOUT, STOP_GRACE, Settings
from ..wire.messages import Attach, Expire, Opened
from . import effects as fx
from . import events as ev
from .fleet import Fleet, version_mismatch
from .pool import TemplateState, Waiter, Worker
from .sessions import Records, Session, SessionView, not_found
from .states import WORKER_OF_LEASE, LeaseEvent, LeaseState, WorkerEvent
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
        self._activity_of = activity_of
        self._effects: list[fx.Effect] = []
        self._timers = Timers(now)
        self._records = Records()
        self._sessions: dict[str, Session] = {}
        self._waiting: dict[ev.Ticket, Waiter] = {}
        self._arrivals = 0
        self._used_at = now
        self.fleet = Fleet(
            settings, self._timers, self._effects,
            free_memory=free_memory, grant=self._grant, refuse=self._refuse_waiter,
        )  # fmt: skip
        if settings.idle_exit:
            self._timers.set(Timer("idle exit"), now + settings.idle_exit)

    def __repr__(self) -> str:
        return f"<Broker {len(self._sessions)} sessions, {len(self._waiting)} waiting, {self.fleet}>"

    # --- the interface ----------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: float) -> list[fx.Effect]:
        """What to do about `event`. The caller performs the effects in order and reports back what comes of them."""
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
        open_ones = [s for s in self._sessions.values() if s.is_open]
        closing = [s for s in self._sessions.values() if not s.is_open]
        shown = [*self._records.all(now), *closing, *open_ones] if over else open_ones
        for session in sorted(shown, key=lambda s: s.created_at, reverse=True):
            yield self._view(session, now)

    def find(self, session_id: str, now: float) -> Session | None:
        """The session, open or over."""
        return self._sessions.get(session_id) or self._records.get(session_id, now)

    @property
    def open_sessions(self) -> int:
        return sum(session.is_open for session in self._sessions.values())

    def check(self) -> None:
        """The laws, as assertions, for tests."""
        holders = [w.session for w in self.fleet.workers.values() if w.session is not None]
        assert len({id(session) for session in holders}) == len(holders), "a worker serves at most one lease"
        for session in self._sessions.values():
            worker = self.fleet.workers[session.worker_id]
            assert worker.session is session
            assert worker.state is WORKER_OF_LEASE[session.state], (session, worker)
        for pool in self.fleet.pools.values():
            for waiter in pool.waiters:
                assert self._waiting[waiter.ticket] is waiter
            assert pool.template is not TemplateState.RETIRED or not pool.waiters, "a waiter is served or told why"
        assert len(self.fleet.workers) <= self._settings.max_workers
        assert self.fleet.stopping or len(self._waiting) == sum(len(p.waiters) for p in self.fleet.pools.values())

    # --- events -----------------------------------------------------------------------------------------------

    def _dispatch(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.Connected():
                self._timers.set(Timer("hello", event.ticket), now + HELLO_TIMEOUT)
            case ev.Greeted():
                self._timers.cancel(Timer("hello", event.ticket))
            case ev.OpenRequested():
                self._open(event, now)
            case ev.AttachRequested():
                self._attach(event, now)
            case ev.TicketClosed():
                self._forget_connection(event.connection)
            case ev.WarmUpRequested():
                self.fleet.keep(event.edition, now)
            case ev.DescribeRequested():
                self._describe(event, now)
            case ev.SessionAsked():
                self._ask(event, now)
            case ev.KeepaliveRequested():
                self._keepalive(event, now)
            case ev.EndRequested():
                self._end(event, now)
            case ev.StopRequested():
                self._stop(now)
            case ev.TemplateLoaded() | ev.TemplateFailed() | ev.TemplateExited():
                self._template_event(event, now)
            case _:
                self._worker_event(event, now)

    def _template_event(self, event: ev.TemplateLoaded | ev.TemplateFailed | ev.TemplateExited, now: float) -> None:
        pool = self.fleet.pools.get(event.pool)
        if pool is None or pool.template is TemplateState.RETIRED:
            return
        match event:
            case ev.TemplateLoaded():
                self.fleet.template_loaded(pool, event.version, event.warm, event.max_workers, now)
            case ev.TemplateFailed():
                self.fleet.template_failed(pool, event.error, now)
            case ev.TemplateExited():
                self.fleet.template_exited(pool, event.status, now)

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
                self._busy(worker, now)
            case ev.WorkerLeaving():
                self._leaving(worker, now)
            case ev.WorkerExited():
                self._worker_exited(worker, event.status, now)
            case _:
                assert_never(event)

    # --- opens ------------------------------------------------------------------------------------------------

    def _open(self, event: ev.OpenRequested, now: float) -> None:
        self._timers.cancel(Timer("hello", event.ticket))
        self._used_at = now
        if self.fleet.stopping:
            self._refuse(event.ticket, _stopping())
            return
        try:
            pool, notice = self.fleet.pool_for(event.edition, now)
            if event.version is not None and pool.version and event.version != pool.version:
                raise version_mismatch(pool.app, pool.version, event.version)
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
        self._used_at = now
        try:
            self.fleet.describe(event.edition, event.ticket, now)
        except WarmpoolError as error:
            self._refuse(event.ticket, error)

    def _grant(self, waiter: Waiter, worker: Worker, now: float) -> None:
        del self._waiting[waiter.ticket]
        self._timers.cancel(Timer("open", waiter.ticket))
        if waiter.session_id is None:
            self._timers.cancel(Timer("spare", worker.id))
            worker.pool.step(worker, WorkerEvent.SERVE)
        else:
            worker.pool.step(worker, WorkerEvent.LEASE)
            worker.session = session = Session(
                waiter.session_id, worker.pool.app_key, worker.pool.app, worker.pool.version, worker.id, worker.row,
                worker.pid, waiter.session_timeout, now, waiter.cwd, waiter.labels, slid_at=now,
            )  # fmt: skip
            self._sessions[session.id] = session
            self._timers.set(Timer("lease", session.id), now + session.timeout)
        attach = Attach(waiter.session_id, waiter.cwd, waiter.labels)
        self._hand_over(waiter.ticket, worker, attach, waiter.notice)
        if worker.session is not None:
            self._log(f"{worker.session.id} opened: {worker.pool.app}@{worker.pool.version} on {worker.id}, "
                      f"pid {worker.pid}")  # fmt: skip

    def _hand_over(self, ticket: ev.Ticket, worker: Worker, attach: Attach, notice: str | None = None) -> None:
        pool = worker.pool
        limit = self._settings.call_frame_limit
        opened = Opened(attach.session_id, pool.app, pool.version, worker.id, limit, notice)
        self._effects.append(fx.HandOver(ticket, worker.id, attach, opened))

    def _refuse_waiter(self, waiter: Waiter, error: WarmpoolError) -> None:
        del self._waiting[waiter.ticket]
        self._timers.cancel(Timer("open", waiter.ticket))
        self._refuse(waiter.ticket, error)

    def _open_overdue(self, ticket: ev.Ticket, now: float) -> None:
        waiter = self._waiting[ticket]
        pool = next(p for p in self.fleet.pools.values() if waiter in p.waiters)
        pool.waiters.remove(waiter)
        loading = pool.template is not TemplateState.READY
        why = f"app {pool.app} is still being imported" if loading else (
            f"{len(self.fleet.workers)} of {self._settings.max_workers} workers are in use"
        )  # fmt: skip
        self._refuse_waiter(
            waiter,
            PoolExhaustedError(
                f"no worker of app {pool.app} was free within {waiter.open_timeout:g} s: {why}; end sessions that "
                "are not needed, wait longer (open_timeout), or raise the limits (--max-workers, --min-free-mb)",
            ),
        )

    def _attach(self, event: ev.AttachRequested, now: float) -> None:
        self._timers.cancel(Timer("hello", event.ticket))
        self._used_at = now
        session = self.find(event.session_id, now)
        if session is None:
            self._refuse(event.ticket, not_found(event.session_id))
        elif not session.is_open:
            self._refuse(event.ticket, session.over_error())
        elif event.app_key not in (None, session.app_key):
            self._refuse(event.ticket, _app_mismatch(session, event.app))
        elif event.version not in (None, session.version):
            error = version_mismatch(session.app, session.version, event.version)
            error.session_id = session.id
            self._refuse(event.ticket, error)
        elif session.state is LeaseState.EXPIRING:
            session.held.append(event)
        else:
            attach = Attach(session.id, session.cwd, session.labels)
            self._hand_over(event.ticket, self.fleet.workers[session.worker_id], attach)

    # --- sessions ---------------------------------------------------------------------------------------------

    def _ask(self, event: ev.SessionAsked, now: float) -> None:
        self._used_at = now
        session = self.find(event.session_id, now)
        if session is None:
            self._refuse(event.ticket, not_found(event.session_id))
        elif event.settle and session.id in self._sessions:
            session.watchers.append(event.ticket)
            self._timers.set(Timer("explain", (session.id, event.ticket)), now + EXPLAIN_TIMEOUT)
        else:
            self._effects.append(fx.Answer(event.ticket, self._view(session, now)))

    def _keepalive(self, event: ev.KeepaliveRequested, now: float) -> None:
        self._used_at = now
        session = self.find(event.session_id, now)
        if session is None:
            self._refuse(event.ticket, not_found(event.session_id))
        elif not session.is_open:
            self._refuse(event.ticket, session.over_error())
        else:
            session.slid_at = now
            self._effects.append(fx.Answer(event.ticket, self._view(session, now)))

    def _end(self, event: ev.EndRequested, now: float) -> None:
        """Answered when the worker is gone. To end what is over is no error."""
        self._used_at = now
        session = self.find(event.session_id, now)
        if session is None:
            self._refuse(event.ticket, not_found(event.session_id))
        elif session.id not in self._sessions:
            self._effects.append(fx.Answer(event.ticket, self._view(session, now)))
        else:
            session.watchers.append(event.ticket)
            if session.is_open:
                self._close(session, "ended", event.reason, now)

    def _close(self, session: Session, status: str, reason: str, now: float) -> None:
        session.decide_end(status, reason, None, now)
        session.step(LeaseEvent.CLOSE)
        self._timers.cancel(Timer("lease", session.id))
        self._timers.cancel(Timer("answer", session.id))
        self.fleet.stop_worker(self.fleet.workers[session.worker_id], reason, now)
        for held in session.held:
            self._refuse(held.ticket, session.over_error())
        session.held.clear()

    def _window_over(self, session: Session, now: float) -> None:
        """The earliest moment at which the lease can expire: look at the board, then ask the worker."""
        activity = self._activity_of(session.row)
        end = session.window_end(activity, now)
        if end > now:
            self._timers.set(Timer("lease", session.id), end)
            return
        session.step(LeaseEvent.WINDOW_OVER)
        self._effects.append(fx.Tell(session.worker_id, Expire(activity.started)))
        self._timers.set(Timer("answer", session.id), now + EXPIRE_ANSWER_TIMEOUT)

    def _busy(self, worker: Worker, now: float) -> None:
        session = worker.session
        if session is None or session.state is not LeaseState.EXPIRING:
            return
        session.step(LeaseEvent.BUSY)
        self._timers.cancel(Timer("answer", session.id))
        self._timers.set(Timer("lease", session.id), now + session.timeout)
        held, session.held = session.held, []
        for event in held:
            self._attach(event, now)

    def _leaving(self, worker: Worker, now: float) -> None:
        """It answers Expire with its goodbye, or Stop, which we have booked already."""
        session = worker.session
        if session is not None and session.is_open:
            self._close(session, "expired", "idle", now)

    def _worker_exited(self, worker: Worker, status: str, now: float) -> None:
        session = worker.session
        self.fleet.worker_exited(worker, status, now)
        if session is None:
            return
        session.decide_end("ended", "worker_lost", status, now)
        session.final = self._activity_of(session.row)
        session.step(LeaseEvent.WORKER_GONE)
        self._timers.cancel(Timer("lease", session.id))
        self._timers.cancel(Timer("answer", session.id))
        why = session.end_reason if session.end_detail is None else f"{session.end_reason}: it {session.end_detail}"
        self._log(f"{session.id} {session.status} ({why}) after {session.final.started} calls")
        del self._sessions[session.id]
        self._records.add(session)
        self._used_at = now
        for held in session.held:
            self._refuse(held.ticket, session.over_error())
        for ticket in session.watchers:
            self._timers.cancel(Timer("explain", (session.id, ticket)))
            self._effects.append(fx.Answer(ticket, self._view(session, now)))
        session.held, session.watchers = [], []

    def _view(self, session: Session, now: float) -> SessionView:
        live = session.id in self._sessions
        return session.view(self._activity_of(session.row) if live else session.final, now)

    # --- deadlines --------------------------------------------------------------------------------------------

    def _deadline(self, timer: Timer, now: float) -> None:
        kind, about = timer
        match kind, about:
            case "lease", str():
                self._window_over(self._sessions[about], now)
            case "answer", str():
                self._close(self._sessions[about], "expired", "idle", now)
            case "open", tuple():
                self._open_overdue(about, now)
            case "hello", tuple():
                error = ProtocolError(f"no hello came within {HELLO_TIMEOUT:g} s of connecting")
                self._refuse(about, error)
            case "explain", (str() as session_id, tuple() as ticket):
                session = self._sessions[session_id]
                session.watchers.remove(ticket)
                self._effects.append(fx.Answer(ticket, self._view(session, now)))
            case "idle exit", None:
                self._idle_exit(now)
            case "stopped", None:
                self._effects.append(fx.Exit())
            case ("memory", None) | ("refill", _):
                pass  # `settle` looks again
            case _:
                self._fleet_deadline(kind, str(about), now)

    def _fleet_deadline(self, kind: str, about: str, now: float) -> None:
        match kind:
            case "kill":
                self._effects.append(fx.Kill(about))
            case "start":
                self.fleet.start_overdue(self.fleet.workers[about], now)
            case "spare":
                self.fleet.stop_worker(self.fleet.workers[about], "surplus", now)
            case "load":
                self.fleet.load_overdue(self.fleet.pools[about], now)
            case "idle app":
                self.fleet.app_idle(about, now)
            case _:
                raise AssertionError(f"nobody knows the deadline {kind}")

    def _idle_exit(self, now: float) -> None:
        if self._sessions or self._waiting:
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
            self._refuse_waiter(waiter, _stopping())
        for pool in self.fleet.pools.values():
            pool.waiters.clear()
        for session in list(self._sessions.values()):
            if session.is_open:
                self._close(session, "ended", "daemon_stopped", now)
        self.fleet.stop_all(now)
        self._timers.set(Timer("stopped"), now + STOP_GRACE + 1)

    def _forget_connection(self, connection: int) -> None:
        self._timers.cancel(Timer("hello", (connection, 0)))
        for ticket in [t for t in self._waiting if t[0] == connection]:
            waiter = self._waiting.pop(ticket)
            self._timers.cancel(Timer("open", ticket))
            for pool in self.fleet.pools.values():
                if waiter in pool.waiters:
                    pool.waiters.remove(waiter)

    # --- effects ----------------------------------------------------------------------------------------------

    def _refuse(self, ticket: ev.Ticket, error: WarmpoolError) -> None:
        self._effects.append(fx.Refuse(ticket, error))

    def _log(self, text: str) -> None:
        self._effects.append(fx.Log(text))

    def _take_effects(self) -> list[fx.Effect]:
        if self.fleet.stopping and not self.fleet.workers and not self.fleet.pools:
            self._timers.cancel(Timer("stopped"))
            self._effects.append(fx.Exit())
        taken = self._effects[:]
        self._effects.clear()
        return taken


def _stopping() -> DaemonUnavailableError:
    return DaemonUnavailableError("the daemon is stopping; try again, and a new one will be started")


def _app_mismatch(session: Session, wanted: str | None) -> AppMismatchError:
    return AppMismatchError(
        f"session {session.id} belongs to app {session.app}, not to {wanted}; "
        "leave the app out, or open a session on the other one",
        session_id=session.id,
        details={"app": session.app, "wanted": wanted},
    )


__all__ = ["IDLE", "Broker"]
