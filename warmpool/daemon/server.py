"""The daemon: carries events to the broker and performs its effects. One loop, one timer for the broker, no decision.

Whatever happens becomes an event; the broker's effects are done in their order; what comes of them is the next
event. An event that arises while effects are performed waits until they are done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import traceback
from collections import deque
from collections.abc import Iterable
from typing import Any, assert_never

from ..board import Board
from ..errors import InternalError, PoolExhaustedError, ProtocolError, WarmpoolError
from ..paths import Places
from ..policy import effects as fx
from ..policy import events as ev
from ..policy.broker import Broker
from ..policy.split_timers import SplitTimers
from ..settings import Settings
from ..wire.messages import Abandon, Failure, Open, Reply, Request
from ..wire.shapes import Message
from .catalog import AppEntry, Catalog
from .clients import Client, Clients
from .free_memory import FreeMemory
from .log import Log, tail_to
from .movable_board import MovableBoard
from .processes import Processes
from .requests import Requests
from .session_logs import Logs, Tail
from .testing import TestControls
from .zygote_process import ZygoteProcess


class Server:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        places: Places,
        settings: Settings,
        board: Board,
        catalog: Catalog,
        listener: socket.socket,
        zygote: ZygoteProcess | None,
        open_files: int,
        log: Log,
        tail: Tail | None,
    ) -> None:
        """`tail`: told each line that workers print, with the session it is of, or else the worker."""
        self._loop, self._log, self._catalog, self._board = loop, log, catalog, board
        self._places, self._settings = places, settings
        timers = SplitTimers(board.now(), board.lead, lambda: board.stands) if isinstance(board, MovableBoard) else None
        self._broker = Broker(
            settings, now=board.now(), activity_of=board.read, free_memory=FreeMemory(), timers=timers
        )
        self._logs = self._logs_with(tail)
        self._processes = Processes(
            loop,
            board,
            self._logs,
            catalog,
            zygote,
            frame_limit=settings.call_frame_limit,
            open_files=open_files,
            report=self.report,
            described=self._described,
            printed=tail_to(log),
            hangs_next=lambda worker: self._controls.hangs_next(worker) if self._controls else None,
        )
        self._clients = self._clients_at(listener)
        self._events: deque[ev.Event] = deque()
        self._performing = False
        self._timer: asyncio.Handle | None = None
        self._timer_at: float | None = None
        self._controls = controls = self._controls_of(board, timers)
        self._requests = Requests(
            self._broker, board, catalog, self._logs, places, settings,
            report=self.report, reply=self._reply, imports=self._processes.templates.imports,
            more=controls.methods if controls else {}, wall_time=controls.wall_time if controls else None,
        )  # fmt: skip
        signal.signal(signal.SIGCHLD, self._child_died)  # uvloop keeps this one to itself, and makes no use of it
        self._set_timer()

    def _logs_with(self, tail: Tail | None) -> Logs:
        return Logs(
            self._loop,
            self._places.logs,
            self._settings.log_cap,
            calls_of=lambda row: self._board.read(row).started,
            reply=self._reply,
            tail=None if tail is None else lambda worker, line: tail(self._holder_of(worker), line),
        )

    def _clients_at(self, listener: socket.socket) -> Clients:
        return Clients(
            self._loop,
            listener,
            received=self._received,
            refused=lambda client, error: self._refuse((client.number, 0), error),
            closed=self._client_left,
        )

    def _controls_of(self, board: Board, timers: SplitTimers | None) -> TestControls | None:
        """For a test, if it is one's daemon."""
        if not isinstance(board, MovableBoard):
            return None
        assert timers is not None
        return TestControls(
            self._loop, self._broker, self._processes, self._catalog, board, timers,
            report=self.report, reply=self._reply, refuse=self._refuse, time_moved=self._set_timer, meet=self._meet,
        )  # fmt: skip

    # --- events and effects -----------------------------------------------------------------------------------

    def report(self, event: ev.Event) -> None:
        """Something has happened."""
        self._events.append(event)
        if not self._performing:
            self._perform_and_go_on([])

    def _perform_and_go_on(self, effects: list[fx.Effect]) -> None:
        """Performs these, handles what comes of them in its order, and settles, until nothing more comes of it."""
        events, broker, now = self._events, self._broker, self._board.now
        self._performing = True
        try:
            self._perform(effects)
            while True:
                while events:
                    self._perform(broker.handle(events.popleft(), now()))
                self._perform(broker.settle(now()))
                if not events:
                    break
        finally:
            self._performing = False
            self._set_timer()

    def _perform(self, effects: list[fx.Effect]) -> None:
        """All of them: what one raises is a bug of ours, and no reason to leave out the next."""
        for effect in effects:
            try:
                self._do(effect)
            except Exception as error:
                refusal = self._bug(error)
                if (ticket := getattr(effect, "ticket", None)) is not None:
                    self._refuse(ticket, refusal)

    def _do(self, effect: fx.Effect) -> None:
        match effect:
            case fx.HandOver():
                self._hand_over(effect)
            case fx.Fork():
                self._processes.fork(effect)
            case fx.Tell():
                self._processes.tell(effect.worker, effect.message)
            case fx.Answer():
                self._reply(effect.ticket, self._requests.shown(effect.view))
            case fx.Reply():
                self._reply(effect.ticket, effect.value)
            case fx.Refuse():
                self._refuse(effect.ticket, effect.error)
            case fx.Log():
                self._log(effect.text)
            case fx.Cancel():
                self._processes.cancel(effect.worker, effect.row, effect.call_id)
            case fx.DumpStack():
                self._processes.signal(effect.worker, signal.SIGUSR1)
            case fx.Terminate():
                self._processes.signal(effect.worker, signal.SIGTERM)
            case fx.Kill():
                self._processes.kill(effect.worker, effect.why)
            case fx.ForgetLog():
                self._logs.forget(effect.worker)
            case fx.StartTemplate():
                self._processes.templates.start(effect.pool, effect.app_key)
            case fx.StopTemplate():
                self._processes.templates.stop(effect.pool)
            case fx.Describe():
                self._processes.templates.describe(effect.pool, effect.ticket)
            case fx.Exit():
                self._loop.stop()
            case _:
                assert_never(effect)

    def _set_timer(self) -> None:
        if self._controls is not None:
            self._controls.has_changed()
        deadline = self._broker.next_deadline()
        if deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at, self._timer = deadline, None
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - self._board.now()), self._on_time)

    def _on_time(self) -> None:
        """Once more round the loop first, which reads its sockets between the two: what has waited in one since before
        the deadline comes before it.
        """
        self._timer = self._loop.call_soon(lambda: self._loop.call_soon(self._advance))

    def _advance(self) -> None:
        if self._timer is not None:
            self._timer.cancel()  # set anew by what the sockets had for us
        self._timer = self._timer_at = None
        self._meet(self._board.now())

    def _meet(self, now: float) -> None:
        """Does what is due."""
        self._perform_and_go_on(self._broker.advance(now))

    # --- connections ------------------------------------------------------------------------------------------

    def _received(self, client: Client, message: Message) -> None:
        ticket = (client.number, message[0])  # each has its id first
        try:
            match message:
                case Open():
                    self._requests.open(ticket, client, message)
                case Request():
                    self._requests.handle(ticket, message)
                case Abandon():
                    self.report(ev.OpenAbandoned(ticket))
        except ProtocolError:
            raise
        except Exception as error:
            if not isinstance(error, WarmpoolError):
                error = self._bug(error)
            self._refuse(ticket, error)

    def _bug(self, error: Exception) -> InternalError:
        """One of ours, that was just caught."""
        self._log(traceback.format_exc())
        return InternalError(f"a bug in warmpool: {error!r:.200}; please report it with {self._places.log_in_words()}")

    def _hand_over(self, effect: fx.HandOver) -> None:
        client = self._clients.by_number.get(effect.ticket[0])
        if client is None:
            self._take_back(effect)
            return
        try:
            connection = self._processes.hand_over(effect.worker, effect.attach)
        except ConnectionError:
            self.report(ev.HandOverFailed(effect.worker, effect.request))
        except OSError as error:
            why = f"no connection to the worker can be made for now ({error.strerror}); try again"
            self._refuse(effect.ticket, PoolExhaustedError(why))
            self._take_back(effect)
        else:
            board = self._board_for(client) if client.wants_board else ()
            self._clients.send(client, effect.opened, connection, *board)
            os.sched_yield()  # client and worker before our log and the settling, where they are put on our core

    def _board_for(self, client: Client) -> tuple[int, ...]:
        """The board's descriptor, if there is room for one."""
        assert self._board.fd is not None
        try:
            board = os.dup(self._board.fd)
        except OSError:
            return ()
        client.wants_board = False
        return (board,)

    def _take_back(self, effect: fx.HandOver) -> None:
        """The worker serves nobody for it: it is free again, or goes with the session that it was given to."""
        self.report(ev.OpenAbandoned(effect.ticket))
        if effect.attach.session_id is None:
            self.report(ev.WorkerReleased(effect.worker))

    def _holder_of(self, worker: str) -> str:
        known = self._broker.fleet.workers.get(worker)
        return worker if known is None or known.session is None else known.session.id

    def _client_left(self, number: int, unopened: list[int]) -> None:
        for request_id in unopened:
            self.report(ev.OpenAbandoned((number, request_id)))
        self._logs.drop_followers(number)
        self.report(ev.ConnectionClosed(number))

    def _reply(self, ticket: ev.Ticket, value: object) -> None:
        client = self._clients.by_number.get(ticket[0])
        if client is not None:
            self._clients.send(client, Reply(ticket[1], value))

    def _refuse(self, ticket: ev.Ticket, error: WarmpoolError) -> None:
        """With the id 0 it is the last word on the connection."""
        client = self._clients.by_number.get(ticket[0])
        if client is None:
            return
        self._clients.send(client, Failure(ticket[1], error.to_wire()))
        if ticket[1] == 0:
            self._clients.lose(client)

    # --- what others need to know -----------------------------------------------------------------------------

    def _described(self, ticket: ev.Ticket, functions: list[Any] | None) -> None:
        if functions is None:
            self._refuse(ticket, PoolExhaustedError("the app's template died before it could answer; ask again"))
        else:
            self._reply(ticket, functions)

    def _child_died(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._processes.children.look_for_orphans)

    def warm_up(self, entries: Iterable[AppEntry]) -> None:
        """Each has workers before anybody asks for one."""
        for entry in entries:
            self.report(ev.WarmUpRequested(entry.edition()))

    def stop(self) -> None:
        """As if a client had asked for it."""
        self.report(ev.StopRequested())

    def owner_has_gone(self) -> None:
        """Whom this daemon was for is dead or done: stops at once."""
        self._processes.children.kill_all()
        self.stop()

    def close(self) -> None:
        self._processes.close()
        self._clients.close()
        self._logs.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
