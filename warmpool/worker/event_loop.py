"""The serve loop of an app with async functions: one uvloop loop that never stops, so that what the app started in
the background lives on between calls.

Sockets are raw and non-blocking. Calls run one at a time, in the order in which they came over all connections, and
of each connection one at most is taken ahead: who sends much takes turns with who sends little, and nothing is read
from a client that has not taken its last answer. Each async call is a task of its own; a plain function of such an
app runs on the loop and blocks it, as it would anywhere in asyncio.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import uvloop

from ..app import CallCancelled
from ..errors import ProtocolError
from ..settings import HOOK_TIMEOUT
from ..signatures import DEFAULT_FUNCTION, Kind
from ..wire.messages import Call, call_from_wire
from .cancelling import NOTHING
from .failures import print_failure
from .runner import Connection

if TYPE_CHECKING:
    from .runner import AppProcess

_AT_ONCE: Final = (Kind.PLAIN, Kind.GENERATOR)
"""What runs on the loop and blocks it."""
_ENDS: Final = (OSError, EOFError, ProtocolError)
"""What ends a connection."""


class EventLoop:
    def __init__(self, process: AppProcess) -> None:
        self._process = process
        self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._connections: dict[int, Connection] = {}
        self._queue: deque[tuple[Connection, Call]] = deque()
        self._occupied: set[Connection] = set()  # its call waits or runs, or its answer is not taken
        self._paused: set[Connection] = set()  # of these, the ones that have sent more, and are not read
        self._running: asyncio.Task[None] | None = None
        self._awaited = NOTHING  # id of the call whose code, the app's, the task that runs is in
        self._inbox = process.inbox
        self._on_cancel: asyncio.Task[None] | None = None

    def run_hook(self, hook: Callable[..., Any], *arguments: Any, timeout: float | None) -> Any:
        return self._loop.run_until_complete(self._run_hook(timeout, hook, *arguments))

    async def _run_hook(self, patience: float | None, hook: Callable[..., Any], *arguments: Any) -> Any:
        async with asyncio.timeout(patience):
            result = hook(*arguments)
            return await result if inspect.isawaitable(result) else result

    def serve(self) -> None:
        self._inbox.watch(lambda *_: self._inbox.heard())
        channel = self._process.channel.fileno()
        self._loop.add_reader(channel, self._heed_daemon)
        self._loop.run_forever()
        self._loop.remove_reader(channel)
        for connection in list(self._connections.values()):
            self._close(connection)

    def attach(self, connection: Connection) -> None:
        connection.socket.setblocking(False)
        fd = connection.socket.fileno()
        self._connections[fd] = connection
        self._loop.add_reader(fd, self._on_bytes, connection)

    def is_busy(self) -> bool:
        waiting = self._running is not None or bool(self._queue)
        return waiting or any(connection.has_bytes() for connection in self._connections.values())

    def close(self) -> None:
        self._loop.close()

    def _heed_daemon(self) -> None:
        self._process.heed_daemon()
        if self._process.reason is not None:
            self._loop.stop()
        elif self._awaited and self._inbox.cancelled(self._awaited):
            assert self._running is not None
            self._running.cancel()
            self._on_cancel = self._loop.create_task(self._run_on_cancel())

    # --- calls ------------------------------------------------------------------------------------------------

    def _on_bytes(self, connection: Connection) -> None:
        if connection in self._occupied:
            self._paused.add(connection)
            self._loop.remove_reader(connection.socket.fileno())
            return
        try:
            frame = connection.reader.read(connection.socket.recv_into)
        except BlockingIOError:
            return
        except _ENDS as error:
            self._give_up(connection, error)
            return
        if frame is not None:
            self._take(connection, frame)
            self._next_calls()

    def _take(self, connection: Connection, frame: memoryview) -> None:
        """A call joins the line."""
        try:
            call = call_from_wire(frame)
        except ProtocolError as error:
            self._give_up(connection, error)
            return
        self._occupied.add(connection)
        self._queue.append((connection, call))

    def _next_calls(self) -> None:
        """Runs what waits, one after another, until a call has to be awaited."""
        caller, inbox = self._process.caller, self._inbox
        while self._queue and self._running is None and self._process.reason is None:
            connection, call = self._queue.popleft()
            function = caller.functions.get(call.function or DEFAULT_FUNCTION)
            if function is not None and function.kind in _AT_ONCE:
                reply = caller.answer(call, connection.writer)
                if inbox.delivered:
                    self._running = self._loop.create_task(self._finish(connection, reply))
                else:
                    self._reply(connection, reply)
                if inbox.messages:  # taken by the signal's handler: the channel does not tell of them any more
                    self._heed_daemon()
            else:
                self._running = self._loop.create_task(self._run(connection, call))

    async def _run(self, connection: Connection, call: Call) -> None:
        caller, writer = self._process.caller, connection.writer
        try:
            caller.begin(call.id)
            function, arguments = caller.decode(call)
        except BaseException as error:
            reply = caller.refuse(call.id, caller.undecoded(call, error), writer)
        else:
            try:
                value = caller.run(call.id, function.method, caller.app, *arguments)
                if function.is_async:
                    value = await self._await(call.id, value)
            except BaseException as error:
                reply = caller.refuse(call.id, caller.raised(function.name, error), writer)
            else:
                reply = caller.reply(call.id, function, value, writer)
        await self._finish(connection, reply)

    async def _await(self, call_id: int, awaitable: Awaitable[Any]) -> Any:
        """Waits for code of the app's that a cancel of this call may interrupt. What swallows the cancel goes on."""
        inbox = self._inbox
        try:
            self._awaited = call_id
            return await awaitable
        except asyncio.CancelledError:
            if inbox.delivered:
                raise CallCancelled from None
            raise
        finally:
            self._awaited = NOTHING
            if inbox.delivered and self._running is not None:
                self._running.uncancel()

    async def _finish(self, connection: Connection, reply: bytes) -> None:
        """The app's code has ended: its hook may be to run; then the reply is sent, and the next call begins."""
        if self._inbox.delivered:
            self._inbox.delivered = False
            await (self._on_cancel or self._run_on_cancel())
            self._on_cancel = None
        self._process.caller.end()
        self._running = None
        self._reply(connection, reply)
        self._next_calls()

    async def _run_on_cancel(self) -> None:
        if (hook := getattr(self._process.caller.app, "on_cancel", None)) is not None:
            try:
                await self._run_hook(HOOK_TIMEOUT, hook)
            except BaseException as error:
                print_failure("on_cancel", error)

    # --- answers ----------------------------------------------------------------------------------------------

    def _reply(self, connection: Connection, reply: bytes) -> None:
        """Sends what the socket takes, and the rest when it takes more; then it is the client's turn again."""
        if self._connections.get(connection.socket.fileno()) is not connection:
            return  # closed while its call ran
        try:
            sent = connection.socket.send(reply)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._give_up(connection, error)
            return
        if sent < len(reply):
            connection.unsent = memoryview(reply)[sent:]
            self._loop.add_writer(connection.socket.fileno(), self._send_more, connection)
        else:
            self._free(connection)

    def _send_more(self, connection: Connection) -> None:
        assert connection.unsent is not None
        try:
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :] or None
        except BlockingIOError:
            return
        except OSError as error:
            self._give_up(connection, error)
            return
        if connection.unsent is None:
            self._loop.remove_writer(connection.socket.fileno())
            self._free(connection)
            self._next_calls()

    def _free(self, connection: Connection) -> None:
        """Its answer is on its way: takes its next call, if that is here, or reads it again."""
        try:
            frame = connection.reader.next_frame() if connection.reader.pending else None
        except ProtocolError as error:
            self._give_up(connection, error)
            return
        if frame is not None:
            self._take(connection, frame)
            return
        self._occupied.discard(connection)
        if connection in self._paused:
            self._paused.discard(connection)
            self._loop.add_reader(connection.socket.fileno(), self._on_bytes, connection)

    def _give_up(self, connection: Connection, end: Exception) -> None:
        """The client has left, or talks nonsense and is told so."""
        if isinstance(end, ProtocolError):
            with suppress(OSError):
                connection.socket.send(self._process.caller.refuse(0, end, connection.writer), socket.MSG_DONTWAIT)
        self._close(connection)
        if not self._connections:
            self._process.release_if_stateless()

    def _close(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._occupied.discard(connection)
        self._paused.discard(connection)
        self._loop.remove_reader(fd)
        if connection.unsent is not None:
            self._loop.remove_writer(fd)
        connection.close()
