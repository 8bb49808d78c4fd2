"""How the daemon starts a process of warmpool's: what that has of the daemon, and the daemon of it."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import NamedTuple

from .. import packets
from ..launch import spawn_afresh


class Spawned(NamedTuple):
    """A child of ours. `channel`: our end of its descriptor 3; `printed`: what it prints is read there."""

    pid: int
    channel: socket.socket
    printed: int

    def close(self) -> None:
        self.channel.close()
        os.close(self.printed)


def spawn(command: list[str]) -> Spawned:
    """Raises OSError if there can be none."""
    with ExitStack() as undo, ExitStack() as passed:
        printed, writable = os.pipe2(os.O_CLOEXEC)
        undo.callback(os.close, printed)
        passed.callback(os.close, writable)
        ours, theirs = packets.pair()
        undo.callback(ours.close)
        passed.callback(theirs.close)
        pid = spawn_on(command, theirs.fileno(), writable)
        undo.pop_all()
    return Spawned(pid, ours, printed)


def spawn_on(command: list[str], end: int, writable: int) -> int:
    """The pid of a new process that has these: its end of a channel, and what it prints to. Raises OSError."""
    descriptors = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writable, 1),
        (os.POSIX_SPAWN_DUP2, writable, 2),
        (os.POSIX_SPAWN_DUP2, end, 3),
    ]
    return spawn_afresh(command, descriptors, setsid=True)
