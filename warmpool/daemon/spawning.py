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
        descriptors = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, writable, 1),
            (os.POSIX_SPAWN_DUP2, writable, 2),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
        ]
        pid = spawn_afresh(command, descriptors, setsid=True)
        undo.pop_all()
    return Spawned(pid, ours, printed)
