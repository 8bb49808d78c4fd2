"""What links of both kinds have in common: how a connection to the daemon is made, and how it can break.

A connection that has broken, was closed, or was made before a fork of this process is never used again: `broken` of
its owner says why.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..errors import DaemonUnavailableError, InvalidRequestError, ProtocolError
from ..errors import from_wire as error_from_wire
from ..memory import enclose
from ..paths import Places, address_of, peer_of
from ..wire.frames import FrameReader
from ..wire.large import MessageWriter
from ..wire.messages import Failure, Opened
from ..wire.shapes import Message

FORKED: Final = "it was made before this process was forked: make a new Client in the child"
REPLY_LIMIT: Final = 2**31 - 1
"""The daemon's answers: it is trusted, and a list of sessions may be long."""
CALM: Final = 256
"""Calls for which a client sleeps at once after it has looked for an answer in vain: they are long, or there is no core
for the worker.
"""


class HangupError(Exception):
    """The other end is gone. `sent`: a call may have reached it."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the connection broke")
        self.sent = sent


class OverdueError(Exception):
    """No answer has come in time. Call `call_id` is abandoned and still open; None: it was never sent."""

    def __init__(self, call_id: int | None) -> None:
        super().__init__("no answer in time")
        self.call_id = call_id


class Owned(Protocol):
    """What belongs to the process that made it."""

    def disown(self) -> None:
        """In a child, after a fork: it is the parent's, and broken here."""


_owned: weakref.WeakSet[Owned] = weakref.WeakSet()


def belongs_here(thing: Owned) -> None:
    _owned.add(thing)


def _disown() -> None:
    for thing in _owned:
        thing.disown()


os.register_at_fork(after_in_child=_disown)


def connect(places: Places, patience: float | None = None) -> socket.socket:
    """A connection to the daemon, with `patience` as its time-out. Raises DAEMON_UNAVAILABLE.

    With a patience of 0 it raises BlockingIOError while the daemon's backlog is full. That must not be taken for a
    connection in the making, as asyncio does (`sock_connect` too): it never comes to be.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(patience)
    try:
        with address_of(places.address) as address:
            connection.connect(address)
        _, uid = peer_of(connection)
    except BaseException as error:
        connection.close()
        if not isinstance(error, OSError) or isinstance(error, BlockingIOError):
            raise
        raise DaemonUnavailableError(
            f"no daemon listens at {places.socket} ({error.strerror or error}); start one with `warmpool serve`, or "
            f"let Client(autostart=True) do it; its log is {places.log}"
        ) from error
    if uid not in (0, os.getuid()):
        connection.close()
        raise DaemonUnavailableError(f"the daemon at {places.socket} belongs to user {uid}, not to you")
    return connection


def first_call_id() -> int:
    """Where a link's call ids begin, so that they are unique over all links of all clients."""
    return (int.from_bytes(os.urandom(6)) >> 2) << 16


def opened(answer: Message) -> Opened:
    """The daemon's answer to an Open. Raises its refusal."""
    if isinstance(answer, Failure):
        raise error_from_wire(answer.error)
    if not isinstance(answer, Opened):
        raise ProtocolError(f"the answer to a hello is Opened or Failure, not {type(answer).__name__}")
    return answer


def message_writer(opened: Opened) -> MessageWriter:
    """For the calls of a connection."""
    writer = MessageWriter(opened.frame_limit)
    writer.share(opened.memory_limit, enclose)
    return writer


def allow(reader: FrameReader, opened: Opened, take_memory: Callable[[int], memoryview]) -> None:
    """From now on it reads what comes for the calls of a connection."""
    reader.limit, reader.memory_limit, reader.take_memory = opened.frame_limit, opened.memory_limit, take_memory


def payload_of(answer: list[Any]) -> Any:
    """A call's output, of the parts of its answer. Raises the error in them."""
    if answer[0] == "Result":
        return answer[2]
    raise error_from_wire(answer[2])


def cannot_send(error: Exception) -> InvalidRequestError:
    return InvalidRequestError(f"the input cannot be sent: {error}; give plain data, a pydantic model or a dataclass")


def cannot_use(broken: str) -> Exception:
    if broken is FORKED:
        return InvalidRequestError(f"this client cannot be used: {broken}")
    return HangupError(sent=False)
