"""What tests may ask of a daemon that was started for them: to move time, and faults on demand.

Each is answered when its consequences are settled: what was told to go is gone, and what is asked next sees it so.
`advance` goes from deadline to deadline. After each it waits until no worker is leaving, none writes its stack, and no
session is asked whether it may expire; their exits and answers bring it on, nothing polls. Meanwhile lease time stands
still.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ..checks import check_number
from ..errors import InvalidRequestError, WarmpoolError
from ..policy import events as ev
from ..policy import refusals
from ..policy.broker import Broker
from ..policy.pool import Pool
from ..policy.sessions import Session
from ..policy.split_timers import SplitTimers
from ..policy.states import TemplateState
from ..wire.process_messages import HangNext
from ..wire.references import PRIMED, parse
from .catalog import Catalog
from .movable_board import MovableBoard
from .parameters import TESTING, Handler, check_directory
from .processes import Processes

ADVANCE_MAX: Final = 10 * 365 * 86_400.0
_TICK: Final = 0.001


class TestControls:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        broker: Broker,
        processes: Processes,
        catalog: Catalog,
        board: MovableBoard,
        timers: SplitTimers,
        *,
        report: Callable[[ev.Event], None],
        reply: Callable[[ev.Ticket, object], None],
        refuse: Callable[[ev.Ticket, WarmpoolError], None],
        time_moved: Callable[[], None],
        meet: Callable[[float], None],
    ) -> None:
        """`time_moved`: lease time has stopped, goes on, or is another; `meet` does what is due at a moment."""
        self._loop = loop
        self._broker = broker
        self._processes = processes
        self._catalog = catalog
        self._board = board
        self._timers = timers
        self._report = report
        self._reply = reply
        self._refuse = refuse
        self._time_moved = time_moved
        self._meet = meet
        self._wall_offset = time.time() - board.now()
        self._target: float | None = None
        self._step_due = False
        self._then: Callable[[], None] = lambda: None
        self._next: deque[Callable[[], None]] = deque()
        self._awaited: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self._arming: dict[str, list[tuple[ev.Ticket, Session]]] = {}
        """By worker: who waits for it to hear that it is to hang."""
        self.methods: dict[str, Handler] = {
            f"{TESTING}now": self._now,
            f"{TESTING}advance": self._advance,
            f"{TESTING}freeze": self._freeze,
            f"{TESTING}thaw": self._thaw,
            f"{TESTING}kill_worker": self._kill_worker,
            f"{TESTING}expire_now": self._expire_now,
            f"{TESTING}hang_next_call": self._hang_next_call,
            f"{TESTING}lose_template": self._lose_template,
            f"{TESTING}fill_pool": self._fill_pool,
            f"{TESTING}free_pool": self._free_pool,
        }

    def wall_time(self, moment: float) -> float:
        """Unix time as it would be, had it been moved along: what is shown of a moment never changes."""
        return moment + self._wall_offset

    def has_changed(self) -> None:
        """Something has happened and was handled."""
        while ready := [then for reached, then in self._awaited if reached()]:
            self._awaited = [(reached, then) for reached, then in self._awaited if then not in ready]
            for then in ready:
                then()
        for worker in self._arming.keys() - self._broker.fleet.workers.keys():
            for ticket, session in self._arming.pop(worker):
                self._refuse(ticket, refusals.over(session))
        if self._target is not None and not self._step_due:
            self._step_due = True
            self._loop.call_soon(self._step)

    # --- time -------------------------------------------------------------------------------------------------

    def _now(self, ticket: ev.Ticket) -> None:
        self._in_turn(lambda: self._tell_time(ticket, stood=self._board.stands))

    def _freeze(self, ticket: ev.Ticket) -> None:
        def freeze() -> None:
            stood = self._board.stands
            self._board.stop()
            self._tell_time(ticket, stood=stood)

        self._in_turn(freeze)

    def _thaw(self, ticket: ev.Ticket) -> None:
        def thaw() -> None:
            self._tell_time(ticket)
            self._board.go_on()

        self._in_turn(thaw)

    def _advance(self, ticket: ev.Ticket, seconds: float) -> None:
        check_number(f"seconds of {TESTING}advance", seconds, 0, ADVANCE_MAX)

        def advance() -> None:
            stood = self._board.stands
            self._board.stop()
            self._target = self._board.now() + seconds
            self._then = lambda: self._arrived(ticket, stood=stood)
            self._step_due = True
            # Twice round the loop first, which reads its sockets between the two: what was sent earlier comes first.
            self._loop.call_soon(lambda: self._loop.call_soon(self._step))

        self._in_turn(advance)

    def _in_turn(self, work: Callable[[], None]) -> None:
        """What concerns time is done one after another."""
        self._next.append(work)
        self._take_turns()

    def _take_turns(self) -> None:
        while self._next and self._target is None:
            self._next.popleft()()
        self._time_moved()

    def _step(self) -> None:
        """To the next deadline, once the consequences of the last are settled."""
        self._step_due = False
        if self._target is None or not self._broker.is_at_rest():
            return
        deadline = self._timers.next_lease_deadline()
        if deadline is not None and deadline <= self._target + _TICK:
            self._board.move_to(max(self._board.now(), min(deadline, self._target)))
            self._meet(self._board.now())
            return
        self._board.move_to(self._target)
        self._target = None
        self._then()
        self._take_turns()

    def _arrived(self, ticket: ev.Ticket, *, stood: bool) -> None:
        if not stood:
            self._board.go_on()
        self._tell_time(ticket)

    def _tell_time(self, ticket: ev.Ticket, **more: bool) -> None:
        self._reply(ticket, {"now": self.wall_time(self._board.now()), **more})

    # --- faults -----------------------------------------------------------------------------------------------

    def _kill_worker(self, ticket: ev.Ticket, session_id: str) -> None:
        session = self._live_session(session_id)
        self._processes.lose(session.worker_id)
        self._report(ev.EndAwaited(ticket, session.id))

    def _expire_now(self, ticket: ev.Ticket, session_id: str) -> None:
        session = self._live_session(session_id)
        if self._board.read(session.row).busy:
            raise InvalidRequestError(f"session {session.id} cannot expire now: a call of it runs")
        self._report(ev.EndRequested(ticket, session.id, "idle"))

    def _hang_next_call(self, ticket: ev.Ticket, session_id: str) -> None:
        session = self._live_session(session_id)
        self._arming.setdefault(session.worker_id, []).append((ticket, session))
        self._processes.tell(session.worker_id, HangNext())

    def hangs_next(self, worker: str) -> None:
        """The worker has heard it."""
        for ticket, _ in self._arming.pop(worker, []):
            self._reply(ticket, None)

    def _lose_template(self, ticket: ev.Ticket, app: str, cwd: str) -> None:
        """Of one that is being loaded, once it is there; of one that is lost there is nothing to lose."""
        key = self._catalog.resolve(parse(app), check_directory(cwd)).key
        pools = [pool for pool in self._broker.fleet.editions.pools.values() if pool.app.key in (key, key + PRIMED)]
        if not pools:
            raise InvalidRequestError(f"app {app} has no template that could be lost: nobody has used it yet")

        def lose() -> None:
            for pool in pools:
                if pool.template is TemplateState.READY:
                    pool.stillborn = 0  # it is nothing that the app has done
                    self._processes.templates.lose(pool.id)
            self._awaited.append((lambda: self._is_none(pools, TemplateState.READY), lambda: self._reply(ticket, None)))

        self._awaited.append((lambda: self._is_none(pools, TemplateState.LOADING), lose))
        self.has_changed()

    def _is_none(self, pools: list[Pool], state: TemplateState) -> bool:
        """Whether no template of these is in this state."""
        return not any(pool.template is state for pool in pools)

    def _fill_pool(self, ticket: ev.Ticket) -> None:
        was_full, self._broker.fleet.full = self._broker.fleet.full, True
        self._reply(ticket, {"was_full": was_full})

    def _free_pool(self, ticket: ev.Ticket) -> None:
        self._broker.fleet.full = False
        self._meet(self._board.now())
        self._reply(ticket, None)

    def _live_session(self, session_id: str) -> Session:
        """Raises what has become of it if it is not open."""
        return self._broker.leases.usable(session_id, self._board.now())
