"""What links of both kinds have in common: how a connection to the daemon is made, and how it can break.

A connection that has broken, was closed, or was made before a fork of this process is never used again: `broken` of
its owner says why.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import call
from typing import Any, Final

from ..checks import shorten
from ..descriptors import FD_SIZE, Ancillary, close_all, fds_in
from ..errors import CallTimeoutError, DaemonUnavailableError, InvalidRequestError, ProtocolError, WarmpoolError
from ..errors import from_wire as error_from_wire
from ..memfd import enclose, receive_memory
from ..paths import Places, address_of, peer_of
from ..wire.frames import FrameReader, FrameWriter
from ..wire.large import InputWriter, MessageWriter
from ..wire.messages import PROTOCOL_VERSION, Control, Opened
from ..wire.shapes import Message, to_wire
from ..wire.values import advice
from .bells import Bells

FORKED: Final = "it was made before this process was forked: make a new Client in the child"
SPIN_BACKOFF: Final = 64
"""Calls for which a client sleeps at once after it has spun in vain: they are long, or there is no core for the worker.
"""

GREETING: Final = Control(PROTOCOL_VERSION, takes_memory=True, wants_board=True)
UNSENDABLE: Final = (WarmpoolError, TypeError, ValueError, OverflowError, BufferError)
"""What packing raises for what cannot be sent."""

_call: Final[Callable[[Callable[[], Any]], Any]] = call
_TWO_FDS: Final = socket.CMSG_SPACE(2 * FD_SIZE)
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_CUT: Final = int(socket.MSG_CTRUNC)


class HangupError(Exception):
    """The other end is gone. `sent`: a call may have reached it. `found`: it was gone before anything was tried, as
    when another thread has closed it.
    """

    def __init__(self, *, sent: bool, found: bool = False) -> None:
        super().__init__("the connection broke")
        self.sent = sent
        self.found = found


class OverdueError(Exception):
    """No answer has come in time. Call `call_id` is abandoned and still open; None: it was never sent."""

    def __init__(self, call_id: int | None) -> None:
        super().__init__("no answer in time")
        self.call_id = call_id


def connect(places: Places, patience: float | None = None) -> socket.socket:
    """A connection to the daemon, with `patience` as its time-out. Raises DAEMON_UNAVAILABLE if none listens, and
    INVALID_REQUEST if none could be reached there.

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
        if not isinstance(error, OSError) or isinstance(error, BlockingIOError | TimeoutError):
            raise
        raise _no_connection(places, error) from error
    if uid not in (0, os.getuid()):
        connection.close()
        raise DaemonUnavailableError(f"the daemon at {places.socket} belongs to user {uid}, not to you")
    return connection


def _no_connection(places: Places, error: OSError) -> WarmpoolError:
    """Where none listens one can be started. Whatever else is the matter lies with the path, and would stay."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        from ..lock import holder

        if (pid := holder(places.lock)) is not None:
            return DaemonUnavailableError(
                f"a daemon, pid {pid}, runs, but does not listen at {places.socket}: it is about to, or is leaving, or "
                f"somebody has removed that; if it stays so, end it with `kill {pid}`"
            )
        before = f"; the log of the last one is {places.log}" if os.path.exists(places.log) else ""
        return DaemonUnavailableError(
            f"no daemon listens at {places.socket} ({error.strerror}), so there are no sessions; start one with "
            f"`warmpool serve`, or let Client(autostart=True) do it{before}"
        )
    return InvalidRequestError(
        f"no daemon can be reached at {places.socket}: {error.strerror or error}; name another --socket"
    )


def first_call_id() -> int:
    """Where a link's call ids begin, so that they are unique over all links of all clients."""
    return (int.from_bytes(os.urandom(6)) >> 2) << 16


class Passed:
    """What comes over a connection beside its bytes: other connections, as descriptors."""

    def __init__(self, connection: socket.socket, bells: Bells) -> None:
        """`bells`: of the board, once that has come with one of them."""
        self._receive = connection.recvmsg_into
        self.bells = bells
        self._waiting: deque[tuple[int, list[Ancillary], int, Any]] = deque()
        """As received, in the order of the messages that they belong to."""

    def receive_into(self, space: memoryview) -> int:
        """`recv_into` that keeps what comes beside."""
        # In one step: the handler of a signal may raise between two, and the descriptor would be nobody's.
        self._waiting.extend(map(self._receive, ([space],), (_TWO_FDS,), (_CLOEXEC,)))
        count, ancillary, flags, _ = self._waiting[-1]
        if not ancillary and not flags & _CUT:
            self._waiting.pop()
        return count

    def take(self) -> socket.socket:
        """The connection that has come with this message. Raises OSError if there was no descriptor left for it."""
        if not self._waiting:
            raise ProtocolError("Opened came without a connection")
        fds = fds_in(self._waiting[0][1])
        if not fds:
            self._waiting.popleft()
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: there is none for the connection to the worker")
        for fd in fds[1:]:
            self.bells.hang(fd)
        forget: list[Callable[[], Any]] = [*(partial(os.close, fd) for fd in fds[1:]), self._waiting.popleft]
        connection = socket.socket.__new__(socket.socket)
        try:
            socket.socket.__init__(connection, socket.AF_UNIX, socket.SOCK_STREAM, 0, fds[0])
        finally:
            if connection.fileno() == fds[0]:  # or else it was interrupted, and the descriptor is still ours
                list(map(_call, forget))  # in one step, as above
        connection.setblocking(True)
        return connection

    def close(self) -> None:
        for _, ancillary, _, _ in self._waiting:
            close_all(fds_in(ancillary))
        self._waiting.clear()


def for_calls(connection: socket.socket, opened: Opened) -> tuple[FrameReader, MessageWriter]:
    """The two directions of a connection to a worker."""
    reader, writer = FrameReader(opened.frame_limit), InputWriter(opened.frame_limit)
    reader.memory_limit = opened.memory_limit
    reader.take_memory = partial(receive_memory, connection, 0)
    writer.share(opened.memory_limit, enclose)
    return reader, writer


def payload_of(answer: list[Any]) -> Any:
    """A call's output, of the parts of its answer. Raises the error in them."""
    if answer[0] == "Result":
        return answer[2]
    raise error_from_wire(answer[2])


def cannot_send(error: BaseException, session_id: str | None) -> WarmpoolError:
    """What to raise for a call of this session whose input could not be packed."""
    if not isinstance(error, WarmpoolError):
        error = InvalidRequestError(f"the input cannot be sent: {error}; {advice(error, 'give')}")
    error.session_id = session_id
    return error


def request_frame(writer: FrameWriter, request: Message) -> bytes:
    """What is asked of the daemon. Raises INVALID_REQUEST if it cannot be sent, with the text that is none: one of the
    user's, as a path may hold bytes that are no UTF-8.
    """
    try:
        return writer.frame(to_wire(request))
    except WarmpoolError:
        raise
    except UNSENDABLE as error:
        what = shorten(error.object) if isinstance(error, UnicodeEncodeError) else "the request"
        raise InvalidRequestError(f"{what} cannot be sent: {error}") from None


def no_answer(timeout: float | None, session_id: str | None, end: WarmpoolError | None = None) -> CallTimeoutError:
    """`end`: what has become of the session, or of the worker, as when the call did not stop by itself."""
    text = f"no answer within {timeout:g} s; the call was cancelled"
    if end is None:
        return CallTimeoutError(text, session_id=session_id)
    return CallTimeoutError(f"{text}; {end}", session_id=session_id, details=end.details)


def cannot_use(broken: str) -> Exception:
    if broken is FORKED:
        return InvalidRequestError(f"this client cannot be used: {broken}")
    return HangupError(sent=False, found=True)
