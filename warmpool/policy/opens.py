"""Opens: the line of those who want a worker, and the hand-over when one is theirs.

An open stands in line at a pool until the fleet gives it a worker. A name is looked for twice, when the open comes and
when its turn has come: whoever asked for the same name before may have it by then.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ProtocolError, WarmpoolError
from ..settings import Settings
from ..wire.messages import Opened
from ..wire.process_messages import Attach
from ..wire.references import PRIMED
from . import effects as fx
from . import events as ev
from . import refusals
from .fleet import Fleet
from .leases import Leases
from .pool import Pool, Waiter, Worker
from .sessions import Session
from .states import LeaseState, WorkerEvent, WorkerState
from .timers import Timer, Timers


class Opens:
    _fleet: Fleet
    _leases: Leases

    def __init__(
        self,
        settings: Settings,
        timers: Timers,
        effects: list[fx.Effect],
        serve: Callable[[ev.Deferrable, float], None],
    ) -> None:
        """`serve` is given requests that have come to nothing, to begin anew."""
        self._settings = settings
        self._timers = timers
        self._effects = effects
        self._serve = serve
        self._arrivals = 0
        self.waiting: dict[ev.Ticket, Waiter] = {}

    def join(self, fleet: Fleet, leases: Leases) -> None:
        """Each of the three calls the others; these two are made with what this one has to offer."""
        self._fleet = fleet
        self._leases = leases

    def __repr__(self) -> str:
        return f"<Opens {len(self.waiting)} waiting>"

    # --- requests ---------------------------------------------------------------------------------------------

    def open(self, event: ev.OpenRequested, now: float) -> None:
        """Raises the refusal."""
        if event.ticket in self.waiting:
            raise ProtocolError(f"an Open with the id {event.ticket[1]} is not answered yet")
        if self._fleet.stopping:
            raise refusals.stopping()
        if event.name is not None and (holder := self._leases.named(event.name)) is not None:
            self._attach_by_name(holder, event, now)
            return
        pool, notice = self._fleet.editions.pool_for(event.edition, now, event.session_id)
        if event.version is not None and pool.version and event.version != pool.version:
            raise refusals.version_mismatch(pool.app.name, pool.version, event.version)
        worker = None if event.worker is None else self._wanted(event.worker, event, pool)
        self._arrivals += 1
        waiter = Waiter(event, self._arrivals, now, notice)
        self.waiting[event.ticket] = waiter
        if worker is not None:
            self.grant(waiter, worker, now)
            return
        pool.waiters.append(waiter)
        self._fleet.serve(pool, now)
        if event.ticket in self.waiting:
            self._timers.set(Timer("open", event.ticket), now + event.open_timeout)

    def _wanted(self, worker_id: str, event: ev.OpenRequested, pool: Pool) -> Worker:
        """The worker that is asked for by its id. Raises the refusal if it is not free."""
        worker = self._fleet.workers.get(worker_id)
        if worker is None or worker.pool.app is not pool.app:
            raise refusals.no_worker(worker_id, pool.app.name)
        spare = worker.state is WorkerState.SPARE and event.session_id is None
        if worker.state is not WorkerState.WARM and not spare:
            raise refusals.not_free(worker)
        if worker.pool is not pool:
            raise refusals.outdated(worker)
        return worker

    def _attach_by_name(self, holder: Session, event: ev.OpenRequested, now: float) -> None:
        """`holder`, which is open, has the name that the new session was to have. Raises the refusal."""
        if event.if_exists != "attach":
            raise refusals.name_taken(holder)
        refusals.check_match(holder, event.edition.key.removesuffix(PRIMED), event.edition.name, event.version)
        if event.worker not in (None, holder.worker_id):
            raise refusals.elsewhere(holder, event.worker)
        if holder.state is LeaseState.EXPIRING:
            holder.held.append(event)
        else:
            holder.history.add(now, f"attached to by its name, by pid {event.opened_by}")
            self._hand_over_to(holder, event)

    def attach(self, event: ev.AttachRequested, now: float) -> None:
        """Raises the refusal."""
        session = self._leases.attach(event, now)
        if session is not None:
            session.history.add(now, "attached to by its id")
            self._hand_over_to(session, event)

    def forget_connection(self, connection: int) -> None:
        """Whoever waited behind it has left."""
        for ticket in [ticket for ticket in self.waiting if ticket[0] == connection]:
            self.abandon(ticket)

    def abandon(self, ticket: ev.Ticket) -> None:
        """Whoever waited with this ticket has left, if it was still in line."""
        waiter = self.waiting.get(ticket)
        if waiter is not None:
            self._fleet.editions.drop_waiter(waiter)
            self._leave_line(waiter)

    def refuse_all(self, error: WarmpoolError) -> None:
        for waiter in list(self.waiting.values()):
            self._fleet.editions.drop_waiter(waiter)
            self.refuse(waiter, error)

    def overdue(self, ticket: ev.Ticket) -> None:
        waiter = self.waiting.get(ticket)
        if waiter is not None:
            pool = self._fleet.editions.drop_waiter(waiter)
            self.refuse(waiter, refusals.exhausted(pool, waiter, self._fleet.why_waiting(pool)))

    # --- hand-over --------------------------------------------------------------------------------------------

    def grant(self, waiter: Waiter, worker: Worker, now: float) -> None:
        self._leave_line(waiter)
        request = waiter.request
        if request.name is not None and self._leases.named(request.name) is not None:
            self._serve(request, now)  # somebody who asked before has it by now
            return
        worker.pool.taken(now)
        if request.session_id is None:
            self._timers.cancel(Timer("spare", worker.id))
            worker.step(WorkerEvent.SERVE)
            attach = Attach(None, request.cwd, {}, request.memory_limit, now)
            self._hand_over(request, worker, attach, waiter.notice)
            return
        self._hand_over_to(self._leases.open(waiter, worker, now), request, waiter.notice)
        pool = worker.pool
        self._effects.append(
            fx.Log(f"{request.session_id} opened: {pool.app.name}@{pool.version} on {worker.id}, pid {worker.pid}")
        )

    def _hand_over_to(
        self, session: Session, request: ev.OpenRequested | ev.AttachRequested, notice: str | None = None
    ) -> None:
        attach = Attach(session.id, session.cwd, session.labels, request.memory_limit, session.created_at)
        self._hand_over(request, self._fleet.workers[session.worker_id], attach, notice)

    def _hand_over(
        self, request: ev.OpenRequested | ev.AttachRequested, worker: Worker, attach: Attach, notice: str | None
    ) -> None:
        pool = worker.pool
        opened = Opened(
            request.ticket[1], attach.session_id, pool.app.name, pool.version, worker.id, worker.row,
            self._settings.call_frame_limit, attach.memory_limit, notice,
        )  # fmt: skip
        self._effects.append(fx.HandOver(request, attach, opened))

    def hand_over_failed(self, event: ev.HandOverFailed, now: float) -> None:
        """The worker is dead. A new session gets another one; who attaches waits to be told how it died."""
        worker, request = self._fleet.workers.get(event.worker), event.request
        session = None if worker is None else worker.session
        if isinstance(request, ev.OpenRequested) and (session is None or session.id == request.session_id):
            if session is not None:
                self._leases.undo(session)
            if worker is not None:
                self._fleet.stop_worker(worker, "lost", now)
        elif session is not None:
            session.held.append(request)
            return
        self._serve(request, now)

    def refuse(self, waiter: Waiter, error: WarmpoolError) -> None:
        self._leave_line(waiter)
        self._effects.append(fx.Refuse(waiter.request.ticket, error))

    def _leave_line(self, waiter: Waiter) -> None:
        """The waiter is in no pool's line any more."""
        del self.waiting[waiter.request.ticket]
        self._timers.cancel(Timer("open", waiter.request.ticket))
