"""A call that is followed: what happens on the way is sent as it happens, and no faster than it is taken.

`Outlet` is the way of one stream's events to its client. An item of a generator, and what plain code says of its
progress, waits until the client has taken what came before, so a client that does not read stops the function, and
memory stays flat. Who cannot wait (another thread, async code, code that has been told to stop) leaves what it says in
a short queue; what does not fit there is lost, and the numbers of the events show the gap. Only the holder of the lock
touches the socket; who cannot wait does not wait for the lock either.

`Items` steps through a plain generator. A cancel is raised inside of it, also while it stands at a `yield`.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any, Final

from ..app import CallCancelled
from ..inputs import Arguments
from ..methods import Kind
from ..outbox import Outbox
from ..signatures import Function
from ..wire.large import Frame, MessageWriter
from .cancelling import NOTHING, Inbox
from .failures import print_failure
from .forks import mute

if TYPE_CHECKING:
    from .caller import Caller
    from .connection import Connection

LINE_LENGTH: Final = 1000
"""Events that may wait in the line."""

speaker: Final[ContextVar[int]] = ContextVar("speaker")
"""Id of the call that async code belongs to, and what that leaves running. Threads and plain code have none."""


class Outlet:
    def __init__(self, connection: Connection, call_id: int) -> None:
        self.call_id = call_id
        self.gone = False
        """The client has left: what is said is said to nobody."""
        self._socket = connection.socket
        self._outbox = Outbox(connection.socket)
        self._rest = connection.outbox
        self._writer = connection.writer.another()  # the connection's is not made for threads
        self._lock = Lock()
        self._line: deque[tuple[float, str, object]] = deque()
        self._number = 0
        self._lost = 0

    def __repr__(self) -> str:
        state = "gone" if self.gone else f"unsent={self._outbox.size} line={len(self._line)}"
        return f"<Outlet {self.call_id} number={self._number} {state}>"

    @property
    def unsent(self) -> bool:
        """Whether there is something that the client is still to take."""
        return bool(self._outbox.waiting) and not self.gone

    def fileno(self) -> int:
        return self._socket.fileno()

    def item(self, data: object) -> None:
        """Sends an item. Who makes the next waits until nothing is unsent. Raises what packing raises."""
        with self._lock:
            if self._line:
                self._send_line()
            number = self._number + 1
            frame = self._writer.message(("Event", self.call_id, number, time(), "output", data))
            self._number = number
            self._guarded(self._outbox.post, frame)
        if self._line:
            self.push()

    def tell(self, kind: str, data: object) -> None:
        """Sends an event now, or puts it in the line. Never waits; for any thread."""
        if self.gone:
            return
        if len(self._line) >= LINE_LENGTH:
            with suppress(IndexError):
                self._line.popleft()
                self._lost += 1
        self._line.append((time(), kind, data))
        self.push()

    def push(self) -> None:
        """Sends what the socket takes. Whoever holds the lock does it for all, and looks again when it has let go."""
        while self._lock.acquire(blocking=False):
            try:
                self._guarded(self._outbox.push)
                self._send_line()
            finally:
                self._lock.release()
            if not self._line or self.unsent:
                return

    def close(self) -> None:
        """No more events. What has not been taken goes before the answer, and is the connection's to send; what another
        thread says from now on is said to nobody.
        """
        with self._lock:
            if not self.gone:
                while self._line:
                    self._put_first_in_line()
                self._outbox.move_to(self._rest)
            self.gone = True

    def _send_line(self) -> None:
        while self._line and not self.unsent:
            self._put_first_in_line()
            self._guarded(self._outbox.push)

    def _put_first_in_line(self) -> None:
        self._number += self._lost
        self._lost = 0
        try:
            self._number += 1
            self._outbox.put(self._writer.message(("Event", self.call_id, self._number, *self._line.popleft())))
        except Exception:  # a number or a text that cannot be sent
            return

    def _guarded(self, step: Callable[..., bool], *arguments: Frame) -> None:
        """A step of the outbox's, if there is still somebody to send to."""
        if self.gone:
            return
        try:
            step(*arguments)
        except BaseException as error:
            # The client has left; or a signal handler of the app's has raised, and nobody knows how much was sent.
            self.leave()
            if not isinstance(error, OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
                raise

    def mute(self) -> None:
        """In a process that was forked in the middle of the call, which is not to be followed."""
        mute([self._writer])
        self.gone = True

    def leave(self) -> None:
        """The client has left. (Another thread may be pushing: what waits is dropped with this.)"""
        self.gone = True
        self._line.clear()


def wait_until_taken(outlet: Outlet, inbox: Inbox, channel: socket.socket) -> None:
    """Blocks until the client has taken all, or has left, or the call is to stop; heeds the daemon meanwhile."""
    poll = select.poll()
    poll.register(outlet.fileno(), select.POLLOUT)
    poll.register(channel, select.POLLIN)
    while outlet.unsent and not (inbox.was_cancelled or inbox.has_cancel_for(outlet.call_id)):
        for fd, _ in poll.poll():
            if fd == channel.fileno():
                inbox.collect()
                inbox.has_mail = True  # the loop's to heed
            else:
                outlet.push()


class Items:
    end: Final = StopIteration
    """What `next` raises at the end."""

    def __init__(self, caller: Caller, call_id: int, iterable: Any) -> None:
        self._call_id = call_id
        self._inbox = caller.inbox
        self._run = caller.run
        self._iterator: Iterator[Any] = iter(iterable)
        self._advance = self._iterator.__next__

    def next(self) -> Any:
        """The next item. Raises StopIteration with what the generator returned, and what its code raises."""
        inbox = self._inbox
        try:
            inbox.exposed = self._call_id
            if inbox.must_check:
                return self._next_if_not_cancelled()
            return self._advance()
        finally:
            inbox.exposed = NOTHING

    def _next_if_not_cancelled(self) -> Any:
        try:
            self._inbox.look()
        except CallCancelled as cancel:
            return self.throw(cancel)
        return self._advance()

    def throw(self, error: BaseException) -> Any:
        """Raises this where the generator stands; as `next`."""
        throw: Callable[[BaseException], Any] | None = getattr(self._iterator, "throw", None)
        if throw is None:
            raise error
        return self._run(self._call_id, throw, error)

    def close(self) -> None:
        """Its `finally` runs, if it has not come to its end."""
        try:
            if (close := getattr(self._iterator, "close", None)) is not None:
                self._run(self._call_id, close)
        except BaseException as error:
            print_failure("closing a generator", error)


class AsyncItems:
    """The same of an async generator. Its steps are the running task's, which a cancel interrupts."""

    end: Final = StopAsyncIteration

    def __init__(self, iterable: Any) -> None:
        self._iterator: AsyncIterator[Any] = aiter(iterable)

    def next(self) -> Awaitable[Any]:
        return self._iterator.__anext__()

    def throw(self, error: BaseException) -> Awaitable[Any]:
        throw: Callable[[BaseException], Awaitable[Any]] | None = getattr(self._iterator, "athrow", None)
        if throw is None:
            raise error
        return throw(error)

    async def close(self) -> None:
        try:
            if (close := getattr(self._iterator, "aclose", None)) is not None:
                await close()
        except BaseException as error:
            print_failure("closing a generator", error)


def answer_plain(
    caller: Caller,
    outlet: Outlet,
    writer: MessageWriter,
    function: Function,
    arguments: Arguments,
    wait: Callable[[], None],
) -> Frame:
    """The whole of a stream of a plain function or a plain generator: gives the frame with its answer.

    `wait`: until the client has taken all, or there is a reason not to wait.
    """
    call_id = outlet.call_id
    try:
        if function.kind is Kind.PLAIN:
            value = caller.run(call_id, function.method, caller.app, *arguments)
            return caller.reply(call_id, function, value, writer)
        items = Items(caller, call_id, caller.run(call_id, function.iterate, caller.app, *arguments))
        try:
            while not outlet.gone:
                try:
                    item = items.next()
                except StopIteration as end:
                    return caller.reply_with(function.encode_return, call_id, function, end.value, writer)
                try:
                    outlet.item(function.encode(item))
                except Exception as error:
                    return caller.refuse_output(call_id, function, item, error, writer)
                if outlet.unsent:
                    wait()
        finally:
            items.close()
    except BaseException as error:
        return caller.refuse(call_id, caller.raised(function.name, error), writer)
    return b""  # nobody is there to read it
