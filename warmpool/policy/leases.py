"""Leases: who holds which worker, for how long, and what is said of it afterwards.

A session's window is never counted here: it is read off the board, when somebody asks and at the earliest moment at
which it could be over. Then the worker is asked, and has the last word if it answers; opens, attaches and keepalives
that come in between are held back until it has spoken.
"""

from __future__ import annotations

from collections.abc import Callable

from ..activity import Activity
from ..constants import EXPIRE_ANSWER_TIMEOUT, EXPLAIN_TIMEOUT, LIFETIME_RECHECK, MIB
from ..wire.process_messages import Expire, Relabel
from ..wire.references import PRIMED
from . import effects as fx
from . import events as ev
from . import listing, refusals
from .fleet import Fleet
from .pool import Waiter, Worker
from .sessions import Records, Session, SessionView
from .states import WORKER_OF_LEASE, LeaseEvent, LeaseState, WorkerEvent
from .timers import Timer, Timers, is_over


class Leases:
    def __init__(
        self,
        timers: Timers,
        effects: list[fx.Effect],
        fleet: Fleet,
        activity_of: Callable[[int], Activity],
        serve: Callable[[ev.Deferrable, float], None],
    ) -> None:
        """`serve` is given requests that were held back, and can be answered now."""
        self._timers = timers
        self._effects = effects
        self._fleet = fleet
        self._serve = serve
        self.activity_of = activity_of
        self._records = Records(lambda session: effects.append(fx.ForgetLog(session.worker_id)))
        self._serial = 0
        self._names: dict[str, Session] = {}
        self.live: dict[str, Session] = {}
        """Sessions that are not CLOSED."""

    def __repr__(self) -> str:
        return f"<Leases {len(self.live)} live, {len(self._records)} remembered>"

    # --- looking ----------------------------------------------------------------------------------------------

    def named(self, name: str) -> Session | None:
        """The open session that has the name."""
        return self._names.get(name)

    def known(self, session_id: str, now: float) -> Session:
        """The session, live or over. Raises SESSION_NOT_FOUND."""
        if (session := self.live.get(session_id) or self._records.get(session_id, now)) is None:
            raise refusals.not_found(session_id, self.named(session_id))
        return session

    def usable(self, session_id: str, now: float) -> Session:
        """The session, which is open. Raises what has become of it if it is not."""
        session = self.known(session_id, now)
        if not session.is_open:
            raise refusals.over(session)
        return session

    def opened_with(self, ticket: ev.Ticket) -> Session | None:
        """The live session that was made for this open."""
        return next((session for session in self.live.values() if session.opener == ticket), None)

    def page(self, query: listing.Query, now: float) -> listing.Page:
        return listing.page(query, [*self.live.values(), *self._records.all(now)])

    def view(self, session: Session, now: float) -> SessionView:
        activity = self.activity_of(session.row) if session.id in self.live else session.final
        return session.view(activity, now)

    def check(self) -> None:
        """The laws, as assertions."""
        holders = [w.session for w in self._fleet.workers.values() if w.session is not None]
        assert len({id(session) for session in holders}) == len(holders), "a worker serves at most one lease"
        for session in self.live.values():
            worker = self._fleet.workers[session.worker_id]
            assert worker.session is session
            assert worker.state is WORKER_OF_LEASE[session.state], (session, worker)
        named = [session for session in self.live.values() if session.is_open and session.name is not None]
        assert {session.name: session for session in named} == self._names, "an open session has its name alone"

    # --- requests ---------------------------------------------------------------------------------------------

    def open(self, waiter: Waiter, worker: Worker, now: float) -> Session:
        """Gives the worker to a new session, for ever."""
        request, pool = waiter.request, worker.pool
        assert request.session_id is not None
        worker.step(WorkerEvent.LEASE)
        self._serial += 1
        worker.session = session = Session(
            request.session_id, pool.app.key.removesuffix(PRIMED),
            pool.app.name, pool.version, worker.id, worker.row, worker.pid,
            request.session_timeout, now, request.cwd, request.labels, slid_at=now, serial=self._serial,
            opener=request.ticket, name=request.name, description=request.description, tags=request.tags,
        )  # fmt: skip
        self.live[session.id] = session
        if session.name is not None:
            self._names[session.name] = session
        self._timers.set(Timer("lease", session.id), now + session.timeout)
        if pool.max_lifetime is not None:
            self._timers.set(Timer("lifetime", session.id), now + pool.max_lifetime)
        for at, why in waiter.waits:
            session.history.add(at, f"waited: {why}")
        waited = f" after {now - waiter.since:.3f} s in line" if waiter.waits else ""
        session.history.add(now, f"opened by pid {request.opened_by} in {request.cwd}{waited}; {worker.id} serves it")
        return session

    def undo(self, session: Session) -> None:
        """The worker that the session was given had died before: nobody has been told of it."""
        self._forget_timers(session)
        self._free_name(session)
        del self.live[session.id]
        self._fleet.workers[session.worker_id].session = None

    def attach(self, event: ev.AttachRequested, now: float) -> Session | None:
        """The session whose worker is to get this connection; None if it is held back. Raises the refusal."""
        session = self.usable(event.session_id, now)
        refusals.check_match(session, event.app_key, event.app, event.version)
        if session.state is LeaseState.EXPIRING:
            session.held.append(event)
            return None
        return session

    def keepalive(self, event: ev.KeepaliveRequested, now: float) -> None:
        session = self.usable(event.session_id, now)
        if session.state is LeaseState.EXPIRING:
            session.held.append(event)
            return
        session.slid_at = now
        session.history.add(now, "slid by a keepalive")
        self._effects.append(fx.Answer(event.ticket, self.view(session, now)))

    def set_labels(self, event: ev.LabelsRequested, now: float) -> None:
        session = self.usable(event.session_id, now)
        session.labels = event.labels
        session.history.add(now, "labels set")
        self._effects.append(fx.Tell(session.worker_id, Relabel(event.labels)))
        self._effects.append(fx.Answer(event.ticket, self.view(session, now)))

    def await_end(self, event: ev.EndAwaited, now: float) -> None:
        """Raises SESSION_NOT_FOUND."""
        session = self.known(event.session_id, now)
        if session.id in self.live:
            session.watchers.append(event.ticket)
            self._timers.set(Timer("explain", (session.id, event.ticket)), now + EXPLAIN_TIMEOUT)
        else:
            self._effects.append(fx.Answer(event.ticket, self.view(session, now)))

    def watch_end(self, event: ev.EndRequested, now: float) -> Session | None:
        """The session that is to end, whose end will be the answer; None if it is over: that is no error, and answered.
        Raises SESSION_NOT_FOUND.
        """
        session = self.known(event.session_id, now)
        if session.id not in self.live:
            self._effects.append(fx.Answer(event.ticket, self.view(session, now)))
            return None
        session.watchers.append(event.ticket)
        return session

    def close(self, session: Session, reason: str, now: float) -> None:
        """Decides the end of an open session; it is over when its worker is gone."""
        if not session.is_open:
            return
        session.decide_end(reason, None, now)
        session.step(LeaseEvent.CLOSE)
        session.history.add(now, f"{session.status}: {reason}")
        self._forget_timers(session)
        self._free_name(session)
        self._fleet.stop_worker(self._fleet.workers[session.worker_id], reason, now)
        self._serve_held(session, now)

    def abandon(self, ticket: ev.Ticket) -> None:
        """Nobody waits any more for what was asked to be opened with this ticket, and is held back."""
        self._drop_held(lambda event: event.ticket == ticket)

    def forget_connection(self, connection: int) -> None:
        """Nobody waits behind these tickets any more."""
        self._drop_held(lambda event: event.ticket[0] == connection)
        for session in self.live.values():
            session.watchers = [ticket for ticket in session.watchers if ticket[0] != connection]

    def _drop_held(self, is_unwanted: Callable[[ev.Deferrable], bool]) -> None:
        for session in self.live.values():
            if session.held:
                session.held = [event for event in session.held if not is_unwanted(event)]

    # --- expiry -----------------------------------------------------------------------------------------------

    def window_over(self, session_id: str, now: float) -> None:
        """The earliest moment at which the lease can expire: look at the board, then ask the worker."""
        session = self.live.get(session_id)
        if session is None or session.state is not LeaseState.ACTIVE:
            return
        activity = self.activity_of(session.row)
        end = session.window_end(activity, now)
        if not is_over(end, now):
            if activity.busy or activity.used > session.slid_at:
                session.history.add(now, "slid by calls")
            self._timers.set(Timer("lease", session.id), end)
        else:
            self._ask_to_go(session, activity, now)

    def lifetime_over(self, session_id: str, now: float) -> None:
        """It ends when it is idle. After a call its worker sees to that."""
        session = self.live.get(session_id)
        if session is None or not session.is_open:
            return
        session.outlived = True
        activity = self.activity_of(session.row)
        if session.state is LeaseState.ACTIVE and not activity.busy:
            self._ask_to_go(session, activity, now)

    def _ask_to_go(self, session: Session, activity: Activity, now: float) -> None:
        session.step(LeaseEvent.WINDOW_OVER)
        session.asked_at_call = activity.started
        self._timers.cancel(Timer("lease", session.id))
        self._effects.append(fx.Tell(session.worker_id, Expire(activity.started, session.reason_to_go)))
        self._timers.set(Timer("answer", session.id), now + EXPIRE_ANSWER_TIMEOUT)

    def answer_overdue(self, session_id: str, now: float) -> None:
        """The worker has not answered. If a call came first, that is why; else it is stuck, and its window is over."""
        session = self.live.get(session_id)
        if session is None or session.state is not LeaseState.EXPIRING:
            return
        if self.activity_of(session.row).started != session.asked_at_call:
            self._go_on(session, now)
        else:
            session.history.add(now, f"the worker did not say within {EXPIRE_ANSWER_TIMEOUT:g} s whether a call waits")
            self.close(session, session.reason_to_go, now)

    def busy(self, worker: Worker, now: float) -> None:
        """The worker's answer is no."""
        session = worker.session
        if session is not None and session.state is LeaseState.EXPIRING:
            session.slid_at = now
            self._go_on(session, now)

    def leaving(self, worker: Worker, reason: str, now: float) -> None:
        """Its goodbye: to Expire, to Stop, which we have booked already, or of its own accord."""
        session = worker.session
        if session is None:
            self._fleet.worker_leaving(worker, reason, now)
        elif session.is_open:
            self.close(session, reason, now)
        elif reason != session.end_reason:  # it had made up its mind before it read our Stop
            session.history.add(now, f"on_end was told another reason: {reason}")

    def _go_on(self, session: Session, now: float) -> None:
        """There is a call, or a part of one, so the window has been slid. What was held back is served."""
        session.step(LeaseEvent.BUSY)
        if session.outlived:  # after a call its worker looks; but perhaps none comes of that part
            self._timers.set(Timer("lifetime", session.id), now + LIFETIME_RECHECK)
        session.history.add(now, "not expired: a call came first")
        self._timers.cancel(Timer("answer", session.id))
        self._timers.set(Timer("lease", session.id), session.window_end(self.activity_of(session.row), now))
        self._serve_held(session, now)

    # --- the end ----------------------------------------------------------------------------------------------

    def worker_gone(self, session: Session, event: ev.WorkerExited, now: float) -> None:
        """The lease is over, and remembered. If no end was decided, the worker was lost."""
        session.decide_end("worker_lost", event.status, now)
        session.final = self.activity_of(session.row)
        session.step(LeaseEvent.WORKER_GONE)
        peak = f"; at most {event.peak_bytes / MIB:.1f} MiB of memory" if event.peak_bytes else ""
        session.history.add(now, f"{session.worker_id} {event.status}{peak}; {session.final.started} calls")
        self._forget_timers(session)
        self._free_name(session)
        del self.live[session.id]
        self._records.add(session)
        self._serve_held(session, now)
        for ticket in session.watchers:
            self._effects.append(fx.Answer(ticket, self.view(session, now)))
        session.watchers = []
        why = session.end_reason if session.end_detail is None else f"{session.end_reason}: it {session.end_detail}"
        self._effects.append(fx.Log(f"{session.id} {session.status} ({why}) after {session.final.started} calls"))

    def explain_overdue(self, session_id: str, ticket: ev.Ticket, now: float) -> None:
        session = self.live.get(session_id)
        if session is not None and ticket in session.watchers:
            session.watchers.remove(ticket)
            self._effects.append(fx.Answer(ticket, self.view(session, now)))

    # --- helpers ----------------------------------------------------------------------------------------------

    def _serve_held(self, session: Session, now: float) -> None:
        """It has been decided what the session is: each request meets it as it is now."""
        held, session.held = session.held, []
        for event in held:
            self._serve(event, now)

    def _free_name(self, session: Session) -> None:
        if session.name is not None and self._names.get(session.name) is session:
            del self._names[session.name]

    def _forget_timers(self, session: Session) -> None:
        for kind in ("lease", "answer", "lifetime"):
            self._timers.cancel(Timer(kind, session.id))
