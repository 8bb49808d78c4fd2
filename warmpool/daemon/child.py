"""One process of the daemon's: known by its pidfd, talked to over its channel, reaped when it dies.

A process is held by its pidfd from the moment it is known at all, so that no signal can reach a stranger, and its death
is seen there.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from .. import packets
from ..constants import KIB
from ..descriptors import close_all
from ..errors import ProtocolError
from ..launch import has_exited
from ..policy.effects import OVERDUE
from ..wire.shapes import Conversation, Message


class Exit(NamedTuple):
    """How a process ended. `status` in words, to follow its name; `peak_bytes`: the most that it had resident."""

    status: str
    peak_bytes: int


class Child:
    """One process, from when its pid is known until it is reaped."""

    def __init__(self, pid: int, loop: asyncio.AbstractEventLoop, on_reaped: Callable[[Child, Exit], None]) -> None:
        """`pid` must be a child of ours that is not reaped yet, so that it cannot be another's."""
        self.pid = pid
        self.on_exit: Callable[[Exit], None] = lambda _: None
        self._loop = loop
        self._pidfd: int | None = os.pidfd_open(pid)
        """None once it is reaped: its number may be another's by then."""
        self._sent: dict[int, str] = {}
        self._on_reaped = on_reaped
        loop.add_reader(self._pidfd, self._reap)

    def __repr__(self) -> str:
        return f"<Child {self.pid}>"

    def kill(self, why: str = OVERDUE) -> None:
        self.signal(signal.SIGKILL, why)

    def signal(self, number: int, why: str = OVERDUE) -> None:
        """`why`: to follow what is said of its death, if it dies of this."""
        self._sent.setdefault(number, why)
        self._signal(number)

    def wait(self, patience: float) -> None:
        """Blocks until it is reaped, or so many seconds have passed."""
        if self._pidfd is not None and has_exited(self._pidfd, max(0.0, patience)):
            self._reap()

    def lose(self) -> None:
        """As a stranger would kill it: we know nothing of it."""
        self._signal(signal.SIGKILL)

    def nudge(self) -> None:
        """It has messages to read (`worker/cancelling.py` says of this signal)."""
        self._signal(signal.SIGURG)

    def _signal(self, number: int) -> None:
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        assert self._pidfd is not None
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)  # nobody else's pid until then
        except ChildProcessError:
            return  # it died before we became its parent, which is about to happen
        if pid == 0:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = None
        self._on_reaped(self, Exit(_in_words(os.waitstatus_to_exitcode(status), self._sent), usage.ru_maxrss * KIB))


def _in_words(code: int, sent: dict[int, str]) -> str:
    """What became of a process; `sent`: the signals that were ours, and why."""
    if code >= 0:
        return f"exited with status {code}"
    number = -code
    name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
    if number in sent:
        return f"was killed by {name} {sent[number]}"
    if number == signal.SIGKILL:
        return "was killed by SIGKILL that we did not send, perhaps out of memory"
    return f"was killed by {name}"


class Channel:
    """Our end of the conversation with one process."""

    def __init__(
        self,
        ours: socket.socket,
        loop: asyncio.AbstractEventLoop,
        conversation: Conversation,
        on_message: Callable[[Message], None],
        on_end: Callable[[], None],
    ) -> None:
        self._socket = ours
        self._loop = loop
        self._conversation = conversation
        self._on_message = on_message
        self._on_end = on_end
        self._open = True
        loop.add_reader(ours.fileno(), self.drain)

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        """False: the process is gone, or has too much unread."""
        try:
            self.send_now(message, fds)
        except OSError:
            return False
        return True

    def send_now(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Raises a ConnectionError if the process is gone, and another OSError if it has too much unread."""
        if not self._open:
            raise BrokenPipeError
        packets.send(self._socket, message, fds)

    def has_unread(self) -> bool:
        """Whether the process has not taken all that it was sent."""
        return self._open and struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"    "))[0] > 0

    def drain(self) -> None:
        """Handles every message that is there."""
        while self._open:
            try:
                received = packets.receive(self._socket, self._conversation)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # told once: it has left something unread. What it said before is still here
            except (OSError, ProtocolError):
                received = None
            if received is None:
                self.close()
                self._on_end()
                return
            message, fds = received
            close_all(fds)
            self._on_message(message)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
