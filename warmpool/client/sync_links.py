"""A blocking client's connections, each one thread's at a time; and the kind that is for control.

A signal that falls just before a wait enters the kernel does not end it, and what its handler would raise (Ctrl-C)
would come with the answer. That is next to impossible while there is one thread, but not where another one raises the
signal as soon as it is given the interpreter's lock, which is just then. So in a process with threads no wait is longer
than SIGNAL_CHECK; then Python looks for signals, and the wait begins anew. (Not in others: it costs a call a timer in
the kernel.)
"""

from __future__ import annotations

import socket
import struct
import weakref
from _thread import _count as threads  # besides the main one
from _thread import allocate_lock
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ..constants import CONTROL_FRAME_LIMIT, REPLY_FRAME_LIMIT
from ..errors import from_wire as error_from_wire
from ..wire.frames import FrameReader, FrameWriter
from ..wire.messages import (
    CONTROL_ANSWERS,
    Abandon,
    Failure,
    Opened,
    Reply,
    Request,
)
from ..wire.shapes import Message, from_wire, to_wire
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

SIGNAL_CHECK: Final = 1.0
"""Seconds after which whoever waits looks whether a signal has come."""


class Link:
    """Frames out and in, one thread at a time."""

    def __init__(self, connection: socket.socket, reader: FrameReader) -> None:
        self._socket = connection
        self._receive_into: Callable[[memoryview], int] = connection.recv_into
        self._reader = reader
        self._lock = allocate_lock()
        self.broken: str | None = None
        self._is_bounded = False
        # A handle that is dropped leaks nothing: its session lives on, and expires by its own window. (In `__del__` it
        # would be too late: of a cycle the socket may be finalized first, and warns.)
        weakref.finalize(self, connection.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self._socket.fileno()} {self.broken or 'open'}>"

    def disown(self) -> None:
        self.broken = FORKED
        self._lock = allocate_lock()  # a thread that is not here may have held the old one
        self._socket.close()  # our copy: the other end is to know when the parent has gone

    def close(self) -> None:
        """From any thread: whoever waits for an answer is told that it is closed."""
        if self.broken is None:
            self.broken = "it is closed"
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _bound_reads(self) -> None:
        """From now on no read takes longer than SIGNAL_CHECK."""
        if not self._is_bounded:
            self._is_bounded = True
            timeval = struct.pack("@ll", *divmod(int(SIGNAL_CHECK * 1e6), 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

    def _read(self) -> memoryview | None:
        """The next frame, if all of it is here after one read: of SIGNAL_CHECK seconds at most if there are threads."""
        if threads():
            self._bound_reads()
        try:
            return self._reader.read(self._receive_into)
        except BlockingIOError:
            return None


class ControlLink(Link):
    """A connection to the daemon."""

    def __init__(self, connection: socket.socket, bells: Bells) -> None:
        super().__init__(connection, FrameReader(REPLY_FRAME_LIMIT))
        self._writer = FrameWriter(CONTROL_FRAME_LIMIT)
        self._passed = Passed(connection, bells)
        self._receive_into = self._passed.receive_into
        self._last_id = 0
        self._send(self._writer.frame(to_wire(GREETING)))

    def request(self, method: str, params: dict[str, Any]) -> Any:
        """The daemon's answer. Raises its error, or HangupError."""
        self._last_id += 1
        answer = self._ask(Request(self._last_id, method, params))
        assert isinstance(answer, Reply)
        return answer.value

    def open(self, request: RunRequest) -> tuple[socket.socket, Opened, Bell]:
        """A connection to a worker. Raises the daemon's refusal, or HangupError."""
        self._last_id += 1
        answer = self._ask(request.open(self._last_id))
        assert isinstance(answer, Opened)
        try:
            return self._passed.take(), answer, self._passed.bells.of(answer.row)
        except OSError:
            self._send(self._writer.frame(to_wire(Abandon(self._last_id))))
            raise

    def close(self) -> None:
        super().close()
        self._passed.close()

    def _ask(self, question: Message) -> Message:
        if self.broken is not None:
            raise cannot_use(self.broken)
        self._send(request_frame(self._writer, question))
        answer = self._receive()
        if isinstance(answer, Failure):
            raise error_from_wire(answer.error)
        return answer

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.sendall(frame, socket.MSG_NOSIGNAL)
        except BaseException as error:
            self.close()  # also when interrupted: part of the frame may be on its way
            if is_of_the_kernel(error):
                raise HangupError(sent=False) from None
            raise

    def _receive(self) -> Message:
        try:
            while (frame := self._read()) is None:
                pass
            return from_wire(frame, CONTROL_ANSWERS)
        except BaseException as error:
            self.close()  # also for nonsense, or when interrupted: nobody knows how much was read
            if isinstance(error, EOFError) or is_of_the_kernel(error):
                raise HangupError(sent=True) from None
            raise


def is_of_the_kernel(error: BaseException) -> bool:
    """Whether the kernel has raised it, and no handler of a signal, as TimeoutError often is."""
    return isinstance(error, OSError) and error.errno is not None
