"""An async client's connections, driven by the loop on which they were made; and the kind that is for control.

Raw non-blocking sockets on the loop's readers, registered once a connection, never asyncio's streams: those take a
refused `connect` for a connection in the making, and cost more than a call does.

The loop knows a link by a weak reference only, so that a link which is dropped closes itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ..constants import CONTROL_FRAME_LIMIT, REPLY_FRAME_LIMIT
from ..errors import InvalidRequestError, WarmpoolError
from ..errors import from_wire as error_from_wire
from ..outbox import Outbox
from ..wire.frames import FrameReader, FrameWriter
from ..wire.large import Frame
from ..wire.messages import (
    CONTROL_ANSWERS,
    Abandon,
    Failure,
    Open,
    Opened,
    Request,
)
from ..wire.shapes import from_wire, to_wire
from .bells import Bell, Bells
from .connections import (
    FORKED,
    GREETING,
    HangupError,
    Passed,
    cannot_use,
    request_frame,
)
from .requests import RunRequest

READS_AT_ONCE: Final = 8
"""Of one connection, before others have their turn."""


def wrong_loop() -> InvalidRequestError:
    return InvalidRequestError(
        "this belongs to another event loop: make a new AsyncClient in each loop (in each asyncio.run)"
    )


class AsyncLink:
    """Frames out and in. Belongs to the loop on which it was made."""

    def __init__(self, connection: socket.socket, reader: FrameReader) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._receive_into: Callable[[memoryview], int] = connection.recv_into
        self.loop = asyncio.get_running_loop()
        self._reader = reader
        self._outbox = Outbox(connection)
        self._is_paused = True
        self.broken: str | None = None
        self._waiting: dict[int, Any] = {}
        """Who waits for what comes, by the id of what was asked."""
        weakref.finalize(self, _let_go, self.loop, connection, os.getpid())
        self._resume()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self._socket.fileno()} {self.broken or 'open'}>"

    def disown(self) -> None:
        self.broken = FORKED
        self._socket.close()  # our copy: the other end is to know when the parent has gone

    def close(self) -> None:
        """At once, or, in another thread than the loop's (which may be collecting garbage), as soon as may be."""
        if asyncio._get_running_loop() is self.loop or not self.loop.is_running() or self.broken is FORKED:
            self._break("it is closed", HangupError(sent=True))
        else:
            self.broken = self.broken or "it is closed"
            self.loop.call_soon_threadsafe(self._break, self.broken, HangupError(sent=True))

    def _break(self, why: str, error: Exception) -> None:
        if self.broken is FORKED:  # the loop's watch is the parent's, and shared with it
            self._socket.close()
        elif self._socket.fileno() != -1:
            self.broken = self.broken or why
            _stop_watching(self.loop, self._socket)
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # a process that was forked may hold a copy
            self._socket.close()
            self._outbox.clear()
            if not self.loop.is_closed():  # or else nobody can wait
                self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        """Everybody who waits on this link is told."""
        raise NotImplementedError

    def _handle(self, frame: memoryview) -> None:
        raise NotImplementedError

    # --- the loop calls ---------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """Reads what is there; to its end, if anybody waits. Of an error on a socket uvloop tells once, together with
        what has come before it.
        """
        reader = self._reader
        try:
            for _ in range(READS_AT_ONCE):
                if self._is_paused:
                    return
                frame = reader.read(self._receive_into)
                while frame is not None:
                    self._handle(frame)
                    frame = reader.next_frame() if reader.pending and not self._is_paused else None
                if not self._waiting:
                    return
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, EOFError):
            self._break("the other end is gone", HangupError(sent=True))
        except WarmpoolError as error:  # the peer's last word, or its nonsense
            self._break(str(error), error)
        else:
            self.loop.call_soon(_read_weakly, weakref.ref(self))

    def _writable(self) -> None:
        try:
            if self._outbox.push():
                self.loop.remove_writer(self._socket.fileno())
        except OSError:
            self._read_out()

    def _read_out(self) -> None:
        """The other end is gone, as sending has told. What it has said before still reaches whoever waits for it."""
        self._outbox.clear()
        try:
            while True:
                if (frame := self._reader.read(self._receive_into)) is not None:
                    self._handle(frame)
        except (OSError, EOFError):
            self._break("the other end is gone", HangupError(sent=True))
        except WarmpoolError as error:
            self._break(str(error), error)

    # --- for the kinds ----------------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        """Sends what goes now, and the rest when it goes. Raises HangupError."""
        try:
            all_taken = self._outbox.post(frame)
        except OSError:
            self._read_out()
            raise HangupError(sent=False) from None
        if not all_taken:
            self.loop.add_writer(self._socket.fileno(), _write_weakly, weakref.ref(self))

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.loop.remove_reader(self._socket.fileno())

    def _resume(self) -> None:
        if self._is_paused and self.broken is None:
            self._is_paused = False
            self.loop.add_reader(self._socket.fileno(), _read_weakly, weakref.ref(self))

    def check(self) -> None:
        if self.broken is not None:
            raise cannot_use(self.broken)
        if self.loop is not asyncio.get_running_loop():
            raise wrong_loop()


def _read_weakly(reference: weakref.ref[AsyncLink]) -> None:
    if (link := reference()) is not None:
        link._readable()


def _write_weakly(reference: weakref.ref[AsyncLink]) -> None:
    if (link := reference()) is not None:
        link._writable()


def _stop_watching(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    if not loop.is_closed() and connection.fileno() != -1:
        loop.remove_reader(connection.fileno())
        loop.remove_writer(connection.fileno())


def _let_go(loop: asyncio.AbstractEventLoop, connection: socket.socket, pid: int) -> None:
    """Closes the connection of a link that was dropped: in the collector, on whatever thread that runs."""
    if connection.fileno() == -1:
        return
    if os.getpid() == pid and not loop.is_closed():  # a child must not touch the epoll that it shares

        def close() -> None:
            _stop_watching(loop, connection)
            connection.close()

        if asyncio._get_running_loop() is loop or not loop.is_running():
            close()
        else:
            loop.call_soon_threadsafe(close)
    else:
        connection.close()


class AsyncControlLink(AsyncLink):
    """Any number of requests at once."""

    def __init__(self, connection: socket.socket, bells: Bells) -> None:
        self._last_id = 0
        self._writer = FrameWriter(CONTROL_FRAME_LIMIT)
        self._passed = Passed(connection, bells)
        super().__init__(connection, FrameReader(REPLY_FRAME_LIMIT))
        self._receive_into = self._passed.receive_into
        self._send(self._writer.frame(to_wire(GREETING)))

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """The daemon's answer. Raises its error, or HangupError."""
        self._last_id = number = self._last_id + 1
        future = self._ask(Request(number, method, params))
        try:
            return await future
        finally:
            self._waiting.pop(number, None)
            del future  # as in `open`

    async def open(self, request: RunRequest) -> tuple[socket.socket, Opened, Bell]:
        """A connection to a worker. Raises the daemon's refusal, or HangupError."""
        self._last_id = number = self._last_id + 1
        future = self._ask(request.open(number))
        try:
            given: tuple[socket.socket, Opened, Bell] = await future
            return given
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:  # it came at the same time
                future.result()[0].close()
            self._abandon(number)
            raise
        finally:
            self._waiting.pop(number, None)
            del future  # its error knows this frame

    def _ask(self, question: Request | Open) -> asyncio.Future[Any]:
        self.check()
        self._send(request_frame(self._writer, question))
        future = self._waiting[question.id] = self.loop.create_future()
        return future

    def _handle(self, frame: memoryview) -> None:
        message = from_wire(frame, CONTROL_ANSWERS)
        if isinstance(message, Failure) and message.id == 0:
            raise error_from_wire(message.error)
        future = self._waiting.get(message[0])
        if future is not None and future.done():
            future = None
        if isinstance(message, Opened):
            self._give(message, future)
        elif future is None:
            pass  # nobody waits for it any more
        elif isinstance(message, Failure):
            future.set_exception(error_from_wire(message.error))
        else:
            future.set_result(message[1])

    def _give(self, opened: Opened, future: asyncio.Future[Any] | None) -> None:
        """A connection has come, for whoever still waits for it."""
        try:
            connection = self._passed.take()
        except OSError as error:
            self._abandon(opened.id)
            if future is not None:
                future.set_exception(error)
            return
        if future is not None:
            future.set_result((connection, opened, self._passed.bells.of(opened.row)))
        else:
            connection.close()

    def _abandon(self, number: int) -> None:
        """What this open has asked for is wanted no more."""
        if self.broken is None:
            with suppress(HangupError):
                self._send(self._writer.frame(to_wire(Abandon(number))))

    def _break(self, why: str, error: Exception) -> None:
        super()._break(why, error)
        self._passed.close()

    def _fail_all(self, error: Exception) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
