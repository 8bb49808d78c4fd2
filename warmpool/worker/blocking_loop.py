"""The serve loop of a plain app: no event loop, the main thread blocks in the kernel until there is work.

A worker waits for two kinds of things: bytes from clients, and messages from the daemon. Waiting for both takes a
poll and then a read for each call, and the poll is a quarter of a call. So, while there is one connection:

- The loop blocks in `recv` on that alone: a call is one recv and one send.
- A message from the daemon raises SIGURG (`cancelling` tells how). Its handler makes the socket non-blocking for the
  moment, so the `recv` that is retried after the signal comes back. It must not raise here: an exception could fall
  between the end of `recv` and the store of its result, and the bytes would be lost.
- A signal that falls just before `recv` enters the kernel does not wake it. So the daemon looks, a little later,
  whether its message was read, and if not raises the signal again (`daemon/workers.py`). (Refused: a receive
  time-out. It costs a call a kernel timer.)

Whenever there is not exactly one, or it has not taken its answer, the loop polls everything at once.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from ..constants import HOOK_TIMEOUT
from ..packets import send
from ..wire.large import Frame
from ..wire.messages import Call, Stream, call_from_wire
from ..wire.process_messages import WakeMe
from .connection import ENDS, Connection
from .failures import OUTSIDE, print_failure
from .hooks import run_hook
from .loop import Loop
from .streams import Outlet, answer_plain, wait_until_taken

if TYPE_CHECKING:
    from .runner import AppProcess

CALLS_ALONE: Final = 256
"""Calls of one client after which the loop looks at everybody."""

_EVENTS: Final = 16
"""Taken from one poll. Each has its place in memory, whether it comes or not."""
_NOBODY: Final = -1
"""In place of the descriptor that is waited on."""


class BlockingLoop(Loop):
    def __init__(self, process: AppProcess) -> None:
        super().__init__(process)
        self._channel = process.channel
        self._behind: dict[int, Connection] = {}  # with more calls in their buffers
        self._poll = select.epoll()
        self._poll.register(self._channel.fileno(), select.EPOLLIN)
        self._waiting_on = _NOBODY

    def run_hook(self, hook: Callable[..., Any], *arguments: Any, timeout: float | None) -> Any:
        if timeout is None:
            return run_hook(hook, *arguments)
        handler = signal.signal(signal.SIGALRM, _raise_timeout)
        timer = signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            return run_hook(hook, *arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *timer)  # the app's own goes on

    def serve(self) -> None:
        self._inbox.watch(self._on_called)
        while self._process.exit_reason is None:
            if self._inbox.has_mail:
                self._process.heed_daemon()
                continue
            if self._process.drain_reason is not None:
                self._send_the_rest()
                continue
            if len(self._connections) == 1:
                (connection,) = self._connections.values()
                if not connection.outbox.waiting:
                    self._serve_alone(connection)
                    if self._inbox.has_mail:
                        continue
            self._serve_ready(self._wait())
        for connection in self._connections.values():
            connection.close()

    def _wait(self) -> list[tuple[int, int]]:
        """Until something is ready, if nothing is to be done."""
        try:
            return self._poll.poll(0 if self._behind or self._inbox.has_mail else None, _EVENTS)
        except BaseException as error:
            print_failure(OUTSIDE, error)
            return []

    def add(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        self._connections[fd] = connection
        self._poll.register(fd, select.EPOLLIN)

    def disown(self) -> None:
        """There is no loop around its functions."""

    def wake(self) -> None:
        """By way of the daemon: who says so may be a thread, or a handler that runs just before the loop blocks."""
        self._inbox.has_mail = True
        with suppress(OSError):
            send(self._channel, WakeMe())

    def close(self) -> None:
        self._poll.close()

    # --- one connection ---------------------------------------------------------------------------------------

    def _serve_alone(self, connection: Connection) -> None:
        """Waits for its client, and answers its calls, until it leaves or the daemon wants something. Looks up after a
        number of calls all the same: the app may have taken the signal away.
        """
        fd = connection.socket.fileno()
        self._poll.unregister(fd)  # being polled costs each message a little, also while nobody polls
        receive_into, reader, outbox = connection.socket.recv_into, connection.reader, connection.outbox
        inbox, caller = self._inbox, self._process.caller
        end: BaseException | None = None
        paused = False
        for _ in range(CALLS_ALONE):
            self._waiting_on = fd
            try:
                frame = reader.read(receive_into)
            except BlockingIOError:
                paused = True
                break
            except BaseException as error:  # a handler's, too: nobody knows how much was read
                frame, end = None, error
            finally:
                self._waiting_on = _NOBODY
                if inbox.has_mail:
                    os.set_blocking(fd, True)
            if frame is not None:
                if inbox.has_mail:
                    self._process.see_labels()
                end = self._answer(connection, frame)
            if not reader.pending:
                caller.wait_awake()
            if end is not None or inbox.has_mail or outbox.waiting:
                break
        self._poll.register(fd, select.EPOLLOUT if outbox.waiting else select.EPOLLIN)
        if end is not None:
            self._give_up(connection, end)
        elif reader.pending and not paused:
            self._behind[fd] = connection

    def _on_called(self, number: int, frame: FrameType | None) -> None:
        if self._waiting_on >= 0:
            os.set_blocking(self._waiting_on, False)
        self._inbox.on_signal()

    # --- everybody --------------------------------------------------------------------------------------------

    def _serve_ready(self, events: list[tuple[int, int]]) -> None:
        """One call for each that is ready, in the order in which they became so; then one for each that has sent
        more than one.
        """
        behind, self._behind = self._behind, {}
        for fd, _ in events:
            if fd == self._channel.fileno():
                self._process.heed_daemon()
            elif (connection := self._connections.get(fd)) is not None and fd not in behind:
                self._on_bytes(connection)
        for fd, connection in behind.items():
            if self._connections.get(fd) is connection:
                self._on_bytes(connection)

    def _send_the_rest(self) -> None:
        """It is about to leave, and a client has not taken its answer: waits for that and the daemon alone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        for connection in self._connections.values():
            if connection.outbox.waiting:
                poll.register(connection.socket, select.POLLOUT)
        for fd, _ in poll.poll():
            if fd != self._channel.fileno():
                try:
                    self._send_more(self._connections[fd])
                except OSError as error:
                    self._give_up(self._connections[fd], error)
        self._process.heed_daemon()

    def _on_bytes(self, connection: Connection) -> None:
        if self._process.drain_reason is not None:
            return
        reader = connection.reader
        try:
            if connection.outbox.waiting:
                self._send_more(connection)
            end = None
            if not connection.outbox.waiting:
                frame = reader.read(lambda space: connection.socket.recv_into(space, 0, socket.MSG_DONTWAIT))
                end = None if frame is None else self._answer(connection, frame)
        except BlockingIOError:
            return
        except ENDS as error:
            end = error
        if end is not None:
            self._give_up(connection, end)
            return
        fd = connection.socket.fileno()
        if connection.outbox.waiting:
            self._poll.modify(fd, select.EPOLLOUT)
        elif reader.pending:
            self._behind[fd] = connection

    def _answer(self, connection: Connection, frame: memoryview) -> Exception | None:
        """Answers a call, or takes the first word on a connection. Gives what ends that, if anything does."""
        try:
            try:
                if not connection.attached:
                    self._process.attach(connection, frame)
                    return None
                call = call_from_wire(frame)
            finally:
                frame.release()  # it may lie in memory that is passed, as large again as the call
            if self._inbox.must_check and self._inbox.forgoes(call.id):
                reply = self._process.caller.forgo(call, connection.writer)
            elif type(call) is Call:
                reply = self._process.caller.answer(call, connection.writer)
                if self._inbox.was_cancelled:
                    self._after_cancel()
            else:
                reply = self._follow(connection, call)
            connection.outbox.post(reply)
        except ENDS as error:
            return error
        return None

    def _follow(self, connection: Connection, stream: Call | Stream) -> Frame:
        """The whole of a call that is followed; gives what is still to be sent of it."""
        process, writer = self._process, connection.writer
        caller = process.caller
        outlet = process.follow(connection, stream.id)
        try:
            caller.begin(stream.id)
            function, arguments = caller.run(stream.id, caller.decode, stream)
        except BaseException as error:
            reply = caller.refuse(stream.id, caller.undecoded(stream, error), writer)
        else:
            wait = partial(wait_until_taken, outlet, self._inbox, self._channel)
            reply = answer_plain(caller, outlet, writer, function, arguments, wait)
        if self._inbox.was_cancelled:
            self._after_cancel()
        else:
            caller.end()
        process.unfollow()
        return reply

    def unstick(self, outlet: Outlet) -> None:
        """The next event takes it along, or the answer does."""

    def _after_cancel(self) -> None:
        self._inbox.was_cancelled = False
        self._process.run_hook("on_cancel", timeout=HOOK_TIMEOUT)
        self._process.caller.end()

    def _send_more(self, connection: Connection) -> None:
        """A client that reads slowly: nothing more is read from it until it has taken its answer."""
        if connection.outbox.push():
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._behind.pop(fd, None)
        self._poll.unregister(fd)
        connection.close()


def _raise_timeout(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("it took too long")
