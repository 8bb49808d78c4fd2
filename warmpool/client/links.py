"""A blocking client's two kinds of connections: to the daemon, for control, and to a worker, for calls.

Each belongs to one thread at a time, by its lock. A connection that has broken, was closed, or was made before a fork
of this process is never used again: `broken` says why.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, Protocol

from ..errors import DaemonUnavailableError, InvalidRequestError, ProtocolError, WarmpoolError
from ..errors import from_wire as error_from_wire
from ..packets import Ancillary, carrying
from ..paths import Places, address_of, peer_of
from ..settings import CONTROL_FRAME_LIMIT
from ..wire.calls import OpenCalls
from ..wire.frames import FrameReader, FrameWriter
from ..wire.messages import (
    CALL_ANSWERS,
    CONTROL_ANSWERS,
    PROTOCOL_VERSION,
    Control,
    Failure,
    Message,
    Open,
    Opened,
    Reply,
    Request,
    from_wire,
    to_wire,
)

FORKED = "it was made before this process was forked: make a new Client in the child"
_REPLY_LIMIT = 2**31
"""The daemon's answers: it is trusted, and a list of sessions may be long."""


class Owned(Protocol):
    """What belongs to the process that made it."""

    _lock: Lock
    broken: str | None


_owned: weakref.WeakSet[Owned] = weakref.WeakSet()


def belongs_here(thing: Owned) -> None:
    """After a fork it is the parent's, and in the child broken."""
    _owned.add(thing)


def _disown() -> None:
    for thing in _owned:
        thing.broken = FORKED
        thing._lock = Lock()  # a thread that is not here may have held the old one


os.register_at_fork(after_in_child=_disown)


class HangupError(Exception):
    """The other end is gone. `sent`: a call may have reached it."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the connection broke")
        self.sent = sent


def connect(places: Places) -> socket.socket:
    """A connection to the daemon. Raises DAEMON_UNAVAILABLE."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with address_of(places.socket) as address:
            connection.connect(address)
        _, uid = peer_of(connection)
    except OSError as error:
        connection.close()
        raise DaemonUnavailableError(
            f"no daemon listens at {places.socket} ({error.strerror or error}); start one with `warmpool serve`, or "
            f"let Client(autostart=True) do it; its log is {places.log}"
        ) from error
    if uid not in (0, os.getuid()):
        connection.close()
        raise DaemonUnavailableError(f"the daemon at {places.socket} belongs to user {uid}, not to you")
    return connection


class Link:
    """Frames out and in, one thread at a time."""

    _decode: Callable[[memoryview], Message]

    def __init__(self, connection: socket.socket, write_limit: int, read_limit: int) -> None:
        self._socket = connection
        self._writer = FrameWriter(write_limit)
        self._reader = FrameReader(read_limit)
        self._lock = Lock()
        self.broken: str | None = None
        belongs_here(self)
        # A handle that is dropped leaks nothing: its session lives on, and expires by its own window.
        weakref.finalize(self, connection.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self._socket.fileno()} {self.broken or 'open'}>"

    def close(self) -> None:
        self.broken = self.broken or "it is closed"
        self._socket.close()

    def _send(self, frame: bytes, *beside: Ancillary) -> None:
        try:
            sent = self._socket.sendmsg([frame], beside)
            if sent < len(frame):
                self._socket.sendall(frame[sent:])
        except OSError:
            self.close()
            raise HangupError(sent=False) from None
        except BaseException:
            self.close()  # interrupted: part of the frame may be on its way
            raise

    def _receive(self) -> Message:
        reader = self._reader
        frame = reader.next_frame() if reader.pending else None
        try:
            while frame is None:
                frame = reader.read(self._socket.recv_into)
            return self._decode(frame)
        except (OSError, EOFError):
            self.close()
            raise HangupError(sent=True) from None
        except BaseException:
            self.close()  # nonsense, or an interruption, after which nobody knows how much was read
            raise


class ControlLink(Link):
    _decode = staticmethod(partial(from_wire, conversation=CONTROL_ANSWERS))

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, CONTROL_FRAME_LIMIT, _REPLY_LIMIT)
        self._last_id = 0
        self._sending = Lock()
        """Held for one frame: who opens does not wait for the answers that others wait for."""
        self._send(self._writer.frame(to_wire(Control(PROTOCOL_VERSION))))

    def request(self, method: str, params: dict[str, Any]) -> Any:
        """The daemon's answer. Raises its error, or HangupError."""
        with self._lock:
            if self.broken is not None:
                raise cannot_use(self.broken)
            self._last_id += 1
            with self._sending:
                self._send(self._writer.frame(to_wire(Request(self._last_id, method, params))))
            while True:
                match self._receive():
                    case Reply(id=self._last_id, value=value):
                        return value
                    case Failure(id=id, error=error) if id in (0, self._last_id):
                        raise error_from_wire(error)
                    case _:
                        pass  # the answer to a request whose caller was interrupted

    def pass_connection(self, hello: Open) -> socket.socket:
        """Our end of a new connection, of which the daemon has the other and this hello. Raises HangupError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._sending:
                if self.broken is not None:
                    raise cannot_use(self.broken)
                self._send(self._writer.frame(to_wire(hello)), carrying(theirs.fileno()))
        except BaseException:
            ours.close()
            raise
        return ours


class CallLink(Link):
    """A connection that the daemon has handed to a worker."""

    _decode = staticmethod(partial(from_wire, conversation=CALL_ANSWERS))

    def __init__(self, connection: socket.socket, hello: Open | None = None) -> None:
        """Opens; without a `hello` if it has been said. Raises the daemon's refusal, or HangupError if there was no
        answer.
        """
        super().__init__(connection, CONTROL_FRAME_LIMIT, CONTROL_FRAME_LIMIT)
        self._calls = OpenCalls()
        try:
            if hello is not None:
                self._send(self._writer.frame(to_wire(hello)))
            answer = self._receive()
            if isinstance(answer, Failure):
                raise error_from_wire(answer.error)
            if not isinstance(answer, Opened):
                raise ProtocolError(f"the answer to a hello is Opened or Failure, not {type(answer).__name__}")
        except BaseException:
            self.close()
            raise
        self.opened = answer
        self._writer.limit = self._reader.limit = answer.frame_limit

    def call(self, function: str | None, input: object) -> Any:
        """The function's output. Raises its error, or HangupError. One call at a time; others wait."""
        with self._lock:
            if self.broken is not None:
                raise cannot_use(self.broken)
            calls, reader, receive_into = self._calls, self._reader, self._socket.recv_into
            call_id = calls.start()
            answer: list[Any] | None = None
            sent = False
            try:
                self._socket.sendall(self._writer.frame(("Call", call_id, function, input)))
                sent = True
                while answer is None:  # nothing yet, or the late answer to a call that was abandoned
                    frame = reader.next_frame() if reader.pending else None
                    if frame is None:
                        frame = reader.read(receive_into)
                    if frame is not None:
                        answer = calls.answer(frame)
            except BaseException as error:
                raise self._failure(call_id, error, sent=sent) from None
        kind, _, payload = answer
        if kind == "Result":
            return payload
        raise error_from_wire(payload)

    def _failure(self, call_id: int, error: BaseException, *, sent: bool) -> BaseException:
        """What to raise for a call that was not answered."""
        if isinstance(error, OSError | EOFError):
            self.close()
            return HangupError(sent=sent)
        if not sent and isinstance(error, WarmpoolError | TypeError | ValueError | OverflowError):
            self._calls.forget(call_id)  # it did not leave
            return error if isinstance(error, WarmpoolError) else cannot_send(error)
        # The peer talks nonsense; or an interruption, after which nobody knows how much was sent or read.
        self.close()
        return error


def cannot_send(error: Exception) -> InvalidRequestError:
    return InvalidRequestError(f"the input cannot be sent: {error}; give plain data, a pydantic model or a dataclass")


def cannot_use(broken: str) -> Exception:
    if broken is FORKED:
        return InvalidRequestError(f"this client cannot be used: {broken}")
    return HangupError(sent=False)
