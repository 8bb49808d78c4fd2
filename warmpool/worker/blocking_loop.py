"""The serve loop of a plain app: no event loop, the main thread blocks in the kernel until there is work.

A worker waits for two kinds of things: bytes from clients, and messages from the daemon. Waiting for both takes a
poll and then a read for each call, and the poll is a quarter of a call. So, while one client is talking:

- The loop blocks in `recv` on that client's socket alone: a call is one recv and one send.
- A message from the daemon raises SIGURG (the kernel does: O_ASYNC on the channel). Its handler makes the socket
  non-blocking for the moment, so the `recv` that is retried after the signal comes back. It must not raise: an
  exception could fall between the end of `recv` and the store of its result, and the bytes would be lost.
- A signal that falls just before `recv` enters the kernel does not wake it. So the socket has a receive time-out, and
  this wait lasts no longer than HOT_WAIT. After it, and whenever there is not exactly one client, the loop polls
  everything at once, for as long as nothing happens: an idle worker does not wake up.
"""

from __future__ import annotations

import fcntl
import inspect
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ..errors import ProtocolError
from ..wire.messages import call_from_wire
from .runner import SEND_TIMEOUT, Connection

if TYPE_CHECKING:
    from .runner import AppProcess

HOT_WAIT: Final = 0.02
"""Seconds that the loop waits for one client alone. Bounds how late a message of the daemon can be read."""

_NOBODY: Final = -1
_ENDS: Final = (OSError, EOFError, ProtocolError)
"""What ends a connection."""


class BlockingLoop:
    def __init__(self, process: AppProcess) -> None:
        self._process = process
        self._channel = process.channel
        self._connections: dict[int, Connection] = {}
        self._poll = select.epoll()
        self._poll.register(self._channel.fileno(), select.EPOLLIN)
        self._waiting_on = _NOBODY
        self._called = False  # the daemon has sent something

    def run_hook(self, hook: Callable[..., Any], *arguments: Any, timeout: float | None) -> None:
        if timeout is not None:
            signal.signal(signal.SIGALRM, _raise_timeout)
            signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            result = hook(*arguments)
            if inspect.iscoroutine(result):
                import asyncio

                asyncio.run(result)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def serve(self) -> None:
        self._watch_channel()
        while self._process.reason is None:
            if len(self._connections) == 1 and not self._called:
                (connection,) = self._connections.values()
                self._serve_alone(connection)
            self._serve_ready(self._poll.poll())
        for connection in self._connections.values():
            connection.socket.close()

    def attach(self, connection: Connection) -> None:
        connection.socket.setblocking(True)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(HOT_WAIT))
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT))
        fd = connection.socket.fileno()
        self._connections[fd] = connection
        self._poll.register(fd, select.EPOLLIN)

    def is_busy(self) -> bool:
        return any(connection.has_bytes() for connection in self._connections.values())

    def close(self) -> None:
        self._poll.close()

    # --- one client -------------------------------------------------------------------------------------------

    def _serve_alone(self, connection: Connection) -> None:
        """Answers this client's calls until it pauses, leaves, or the daemon wants something."""
        fd = connection.socket.fileno()
        self._poll.unregister(fd)  # being polled costs each message a little, also while nobody polls
        receive_into, read = connection.socket.recv_into, connection.reader.read
        end: Exception | None = None
        while end is None and not self._called:
            self._waiting_on = fd
            try:
                frame = read(receive_into)
            except BlockingIOError:
                break
            except _ENDS as error:
                frame, end = None, error
            finally:
                self._waiting_on = _NOBODY
                if self._called:
                    os.set_blocking(fd, True)
            if frame is not None:
                end = self._answer(connection, frame)
        self._poll.register(fd, select.EPOLLIN)
        if end is not None:
            self._give_up(connection, end)

    def _watch_channel(self) -> None:
        fd = self._channel.fileno()
        signal.signal(signal.SIGURG, self._on_called)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)

    def _on_called(self, number: int, frame: FrameType | None) -> None:
        self._called = True
        if self._waiting_on != _NOBODY:
            os.set_blocking(self._waiting_on, False)

    # --- everybody --------------------------------------------------------------------------------------------

    def _serve_ready(self, events: list[tuple[int, int]]) -> None:
        """One read for each that is ready, in the order in which they became so."""
        for fd, _ in events:
            if fd == self._channel.fileno():
                self._called = False
                self._process.heed_daemon()
            elif (connection := self._connections.get(fd)) is not None and self._process.reason is None:
                self._serve_once(connection)

    def _serve_once(self, connection: Connection) -> None:
        try:
            frame = connection.reader.read(lambda space: connection.socket.recv_into(space, 0, socket.MSG_DONTWAIT))
            end = None if frame is None else self._answer(connection, frame)
        except BlockingIOError:
            return
        except _ENDS as error:
            end = error
        if end is not None:
            self._give_up(connection, end)

    def _answer(self, connection: Connection, frame: memoryview | None) -> Exception | None:
        """Answers a call, and those that have come with it. Gives what ends the connection, if anything does."""
        caller, reader, writer = self._process.caller, connection.reader, connection.writer
        try:
            while frame is not None:
                connection.socket.sendall(caller.answer(call_from_wire(frame), writer))
                frame = reader.next_frame() if reader.pending else None
        except _ENDS as error:
            return error
        return None

    def _give_up(self, connection: Connection, end: Exception) -> None:
        """The client has left, reads nothing, or talks nonsense; the last is told so."""
        if isinstance(end, ProtocolError):
            with suppress(OSError):
                connection.socket.sendall(self._process.caller.refuse(0, end, connection.writer))
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        if self._connections.pop(fd, None) is None:
            return
        self._poll.unregister(fd)
        connection.socket.close()
        if not self._connections:
            self._process.release_if_stateless()


def _raise_timeout(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("it took too long")


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
