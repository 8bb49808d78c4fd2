"""The serve loop of an app with async functions: one uvloop loop that never stops, so that what the app started in
the background lives on between calls.

Sockets are raw and non-blocking. Calls run one at a time, in the order in which they came over all connections,
each async one as a task of its own; a plain function of such an app runs on the loop and blocks it, as it would
anywhere in asyncio.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import uvloop

from ..errors import ProtocolError, WarmpoolError
from ..signatures import DEFAULT_FUNCTION
from ..wire.messages import Call, call_from_wire
from .failures import app_error
from .runner import SEND_TIMEOUT, Connection

if TYPE_CHECKING:
    from .runner import AppProcess

QUEUE_LIMIT: Final = 64
"""Calls that wait, of all connections. Beyond that nothing is read: the clients' sends block."""


class EventLoop:
    def __init__(self, process: AppProcess) -> None:
        self._process = process
        self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._connections: dict[int, Connection] = {}
        self._unsent: dict[Connection, bytearray] = {}
        self._stalls: dict[Connection, asyncio.TimerHandle] = {}
        self._queue: deque[tuple[Connection, Call]] = deque()
        self._running: asyncio.Task[Any] | None = None
        self._reading = True

    def run_hook(self, hook: Callable[..., Any], *arguments: Any, timeout: float | None) -> None:
        async def run() -> None:
            async with asyncio.timeout(timeout):
                result = hook(*arguments)
                if inspect.isawaitable(result):
                    await result

        self._loop.run_until_complete(run())

    def serve(self) -> None:
        channel = self._process.channel.fileno()
        self._loop.add_reader(channel, self._heed_daemon)
        self._loop.run_forever()
        self._loop.remove_reader(channel)
        for connection in list(self._connections.values()):
            self._close(connection)

    def _heed_daemon(self) -> None:
        self._process.heed_daemon()
        if self._process.reason is not None:
            self._loop.stop()

    def attach(self, connection: Connection) -> None:
        connection.socket.setblocking(False)
        fd = connection.socket.fileno()
        self._connections[fd] = connection
        if self._reading:
            self._loop.add_reader(fd, self._on_bytes, connection)

    def is_busy(self) -> bool:
        waiting = self._running is not None or bool(self._queue)
        return waiting or any(connection.has_bytes() for connection in self._connections.values())

    def close(self) -> None:
        self._loop.close()

    # --- calls ------------------------------------------------------------------------------------------------

    def _on_bytes(self, connection: Connection) -> None:
        try:
            frame = connection.reader.read(connection.socket.recv_into)
            while frame is not None:
                self._queue.append((connection, call_from_wire(frame)))
                frame = connection.reader.next_frame()
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._send(connection, self._process.caller.refuse(0, error, connection.writer))
            self._drop(connection)
        except (OSError, EOFError):
            self._drop(connection)
        self._next_calls()

    def _next_calls(self) -> None:
        """Runs what waits, one after another, until a call has to be awaited."""
        caller = self._process.caller
        while self._queue and self._running is None and self._process.reason is None:
            connection, call = self._queue.popleft()
            function = caller.functions.get(call.function or DEFAULT_FUNCTION)
            if function is not None and not function.is_async:
                self._send(connection, caller.answer(call, connection.writer))
            else:
                self._running = self._loop.create_task(self._run(connection, call))
        self._read_or_not()

    async def _run(self, connection: Connection, call: Call) -> None:
        caller, writer = self._process.caller, connection.writer
        caller.begin()
        try:
            function, arguments = caller.decode(call)
        except WarmpoolError as error:
            reply = caller.refuse(call.id, error, writer)
        else:
            try:
                value = function.method(caller.app, *arguments)
                if function.is_async:
                    value = await value
            except BaseException as error:
                reply = caller.refuse(call.id, app_error(function.name, error), writer)
            else:
                reply = caller.reply(call.id, function, value, writer)
        caller.end()
        self._send(connection, reply)
        self._running = None
        self._next_calls()
        if not self._connections and self._running is None:
            self._process.release_if_stateless()

    def _read_or_not(self) -> None:
        """Stops reading from all clients while too many calls wait."""
        wanted = len(self._queue) < QUEUE_LIMIT
        if wanted == self._reading:
            return
        self._reading = wanted
        for fd, connection in self._connections.items():
            if wanted:
                self._loop.add_reader(fd, self._on_bytes, connection)
            else:
                self._loop.remove_reader(fd)

    # --- sending ----------------------------------------------------------------------------------------------

    def _send(self, connection: Connection, data: bytes) -> None:
        """Sends now what the socket takes, and the rest when it takes more."""
        if connection.socket.fileno() not in self._connections:
            return
        if (unsent := self._unsent.get(connection)) is not None:
            unsent += data
            return
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent < len(data):
            self._unsent[connection] = bytearray(memoryview(data)[sent:])
            self._loop.add_writer(connection.socket.fileno(), self._send_more, connection)
            self._stalls[connection] = self._loop.call_later(SEND_TIMEOUT, self._drop, connection)

    def _send_more(self, connection: Connection) -> None:
        unsent = self._unsent[connection]
        try:
            del unsent[: connection.socket.send(unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        self._stalls.pop(connection).cancel()
        if unsent:
            self._stalls[connection] = self._loop.call_later(SEND_TIMEOUT, self._drop, connection)
        else:
            del self._unsent[connection]
            self._loop.remove_writer(connection.socket.fileno())

    def _drop(self, connection: Connection) -> None:
        if connection.socket.fileno() not in self._connections:
            return
        self._close(connection)
        if not self._connections and self._running is None and not self._queue:
            self._process.release_if_stateless()

    def _close(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._loop.remove_reader(fd)
        if self._unsent.pop(connection, None) is not None:
            self._loop.remove_writer(fd)
            self._stalls.pop(connection).cancel()
        connection.socket.close()
