"""Leases: who holds which worker, for how long, and what is said of it afterwards.

A session's window is never counted here: it is read off the board, when somebody asks and at the earliest moment at
which it could be over. Then the worker is asked, and has the last word; whatever comes for the session in between is
held back until it has spoken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..board import Activity
from ..errors import WarmpoolError
from ..settings import EXPIRE_ANSWER_TIMEOUT, EXPLAIN_TIMEOUT
from ..wire.messages import Attach, Expire
from . import effects as fx
from . import events as ev
from . import refusals
from .fleet import Fleet
from .pool import Waiter, Worker
from .sessions import Records, Session, SessionView
from .states import WORKER_OF_LEASE, LeaseEvent, LeaseState, WorkerEvent
from .timers import Timer, Timers


class Leases:
    def __init__(
        self, timers: Timers, effects: list[fx.Effect], fleet: Fleet, activity_of: Callable[[int], Activity]
    ) -> None:
        self._timers = timers
        self._effects = effects
        self._fleet = fleet
        self.activity_of = activity_of
        self._records = Records()
        self.live: dict[str, Session] = {}
        """Sessions that are not CLOSED."""

    def __repr__(self) -> str:
        return f"<Leases {len(self.live)} live, {len(self._records)} remembered>"

    def __len__(self) -> int:
        return len(self.live)

    # --- looking ----------------------------------------------------------------------------------------------

    def find(self, session_id: str, now: float) -> Session | None:
        """The session, live or over."""
        return self.live.get(session_id) or self._records.get(session_id, now)

    def views(self, now: float, *, over: bool) -> Iterator[SessionView]:
        """The open sessions, newest first; with `over` also those that are remembered."""
        shown = [s for s in self.live.values() if over or s.is_open] + (self._records.all(now) if over else [])
        for session in sorted(shown, key=lambda s: s.created_at, reverse=True):
            yield self._view(session, now)

    def check(self) -> None:
        """The laws, as assertions."""
        holders = [w.session for w in self._fleet.workers.values() if w.session is not None]
        assert len({id(session) for session in holders}) == len(holders), "a worker serves at most one lease"
        for session in self.live.values():
            worker = self._fleet.workers[session.worker_id]
            assert worker.session is session
            assert worker.state is WORKER_OF_LEASE[session.state], (session, worker)

    def _view(self, session: Session, now: float) -> SessionView:
        live = session.id in self.live
        return session.view(self.activity_of(session.row) if live else session.final, now)

    # --- requests ---------------------------------------------------------------------------------------------

    def open(self, waiter: Waiter, worker: Worker, now: float) -> Attach:
        """Gives the worker to a new session, for ever."""
        assert waiter.session_id is not None
        worker.pool.step(worker, WorkerEvent.LEASE)
        pool = worker.pool
        worker.session = session = Session(
            waiter.session_id, pool.app_key, pool.app, pool.version, worker.id, worker.row, worker.pid,
            waiter.session_timeout, now, waiter.cwd, waiter.labels, slid_at=now,
        )  # fmt: skip
        self.live[session.id] = session
        self._timers.set(Timer("lease", session.id), now + session.timeout)
        return Attach(session.id, session.cwd, session.labels)

    def attach(self, event: ev.AttachRequested, now: float) -> Session | None:
        """The session whose worker is to get this connection; None if it was refused, or is held back."""
        session = self._usable(event, now)
        if session is None:
            return None
        if event.app_key not in (None, session.app_key):
            self._refuse(event.ticket, refusals.app_mismatch(session, event.app))
        elif event.version not in (None, session.version):
            error = refusals.version_mismatch(session.app, session.version, event.version, session.id)
            self._refuse(event.ticket, error)
        elif session.state is LeaseState.EXPIRING:
            session.held.append(event)
        else:
            return session
        return None

    def keepalive(self, event: ev.KeepaliveRequested, now: float) -> None:
        session = self._usable(event, now)
        if session is None:
            return
        if session.state is LeaseState.EXPIRING:
            session.held.append(event)
            return
        session.slid_at = now
        self._effects.append(fx.Answer(event.ticket, self._view(session, now)))

    def ask(self, event: ev.SessionAsked, now: float) -> None:
        session = self.find(event.session_id, now)
        if session is None:
            self._refuse(event.ticket, refusals.not_found(event.session_id))
        elif event.settle and session.id in self.live:
            session.watchers.append(event.ticket)
            self._timers.set(Timer("explain", (session.id, event.ticket)), now + EXPLAIN_TIMEOUT)
        else:
            self._effects.append(fx.Answer(event.ticket, self._view(session, now)))

    def end(self, event: ev.EndRequested, now: float) -> None:
        """Answered when the worker is gone. To end what is over is no error."""
        session = self.find(event.session_id, now)
        if session is None:
            self._refuse(event.ticket, refusals.not_found(event.session_id))
        elif session.id not in self.live:
            self._effects.append(fx.Answer(event.ticket, self._view(session, now)))
        else:
            session.watchers.append(event.ticket)
            self.close(session, "ended", event.reason, now)

    def close(self, session: Session, status: str, reason: str, now: float) -> None:
        """Decides the end of an open session; it is over when its worker is gone."""
        if not session.is_open:
            return
        session.decide_end(status, reason, None, now)
        session.step(LeaseEvent.CLOSE)
        self._forget_timers(session)
        self._fleet.stop_worker(self._fleet.workers[session.worker_id], reason, now)
        self._refuse_held(session)

    def close_all(self, now: float) -> None:
        for session in list(self.live.values()):
            self.close(session, "ended", "daemon_stopped", now)

    def forget_connection(self, connection: int) -> None:
        """Nobody waits behind these tickets any more."""
        for session in self.live.values():
            if session.held:
                session.held = [event for event in session.held if event.ticket[0] != connection]
            for ticket in [t for t in session.watchers if t[0] == connection]:
                session.watchers.remove(ticket)
                self._timers.cancel(Timer("explain", (session.id, ticket)))

    # --- expiry -----------------------------------------------------------------------------------------------

    def window_over(self, session_id: str, now: float) -> None:
        """The earliest moment at which the lease can expire: look at the board, then ask the worker."""
        session = self.live.get(session_id)
        if session is None or session.state is not LeaseState.ACTIVE:
            return
        activity = self.activity_of(session.row)
        end = session.window_end(activity, now)
        if end > now:
            self._timers.set(Timer("lease", session.id), end)
            return
        session.step(LeaseEvent.WINDOW_OVER)
        session.asked_at_call = activity.started
        self._effects.append(fx.Tell(session.worker_id, Expire(activity.started)))
        self._timers.set(Timer("answer", session.id), now + EXPIRE_ANSWER_TIMEOUT)

    def answer_overdue(self, session_id: str, now: float) -> list[ev.AttachRequested]:
        """The worker has not answered. If a call came first, that is why; else it is stuck, and its window is over.
        Gives the connections that were held back and can be handed over.
        """
        session = self.live.get(session_id)
        if session is None or session.state is not LeaseState.EXPIRING:
            return []
        if self.activity_of(session.row).started != session.asked_at_call:
            return self._go_on(session, now)
        self.close(session, "expired", "idle", now)
        return []

    def busy(self, worker: Worker, now: float) -> list[ev.AttachRequested]:
        """The worker's answer is no. Gives the connections that were held back."""
        session = worker.session
        if session is None or session.state is not LeaseState.EXPIRING:
            return []
        session.slid_at = now
        return self._go_on(session, now)

    def leaving(self, worker: Worker, now: float) -> None:
        """It answers Expire with its goodbye, or Stop, which we have booked already."""
        if worker.session is not None:
            self.close(worker.session, "expired", "idle", now)

    def worker_gone(self, session: Session, status: str, now: float) -> None:
        """The lease is over, and remembered. If no end was decided, the worker was lost."""
        session.decide_end("ended", "worker_lost", status, now)
        session.final = self.activity_of(session.row)
        session.step(LeaseEvent.WORKER_GONE)
        self._forget_timers(session)
        del self.live[session.id]
        self._records.add(session)
        self._refuse_held(session)
        for ticket in session.watchers:
            self._timers.cancel(Timer("explain", (session.id, ticket)))
            self._effects.append(fx.Answer(ticket, self._view(session, now)))
        session.watchers = []
        why = session.end_reason if session.end_detail is None else f"{session.end_reason}: it {session.end_detail}"
        self._effects.append(fx.Log(f"{session.id} {session.status} ({why}) after {session.final.started} calls"))

    def explain_overdue(self, session_id: str, ticket: ev.Ticket, now: float) -> None:
        session = self.live.get(session_id)
        if session is not None and ticket in session.watchers:
            session.watchers.remove(ticket)
            self._effects.append(fx.Answer(ticket, self._view(session, now)))

    def _go_on(self, session: Session, now: float) -> list[ev.AttachRequested]:
        """There is a call, so the window has been slid."""
        session.step(LeaseEvent.BUSY)
        self._timers.cancel(Timer("answer", session.id))
        self._timers.set(Timer("lease", session.id), session.window_end(self.activity_of(session.row), now))
        held, session.held = session.held, []
        for event in held:
            if isinstance(event, ev.KeepaliveRequested):
                self.keepalive(event, now)
        return [event for event in held if isinstance(event, ev.AttachRequested)]

    # --- helpers ----------------------------------------------------------------------------------------------

    def _usable(self, event: ev.AttachRequested | ev.KeepaliveRequested, now: float) -> Session | None:
        """The session if it is open; else the event is refused."""
        session = self.find(event.session_id, now)
        if session is None:
            self._refuse(event.ticket, refusals.not_found(event.session_id))
            return None
        if not session.is_open:
            self._refuse(event.ticket, refusals.over(session))
            return None
        return session

    def _refuse_held(self, session: Session) -> None:
        for event in session.held:
            self._refuse(event.ticket, refusals.over(session))
        session.held = []

    def _forget_timers(self, session: Session) -> None:
        for kind in ("lease", "answer"):
            self._timers.cancel(Timer(kind, session.id))

    def _refuse(self, ticket: ev.Ticket, error: WarmpoolError) -> None:
        self._effects.append(fx.Refuse(ticket, error))
