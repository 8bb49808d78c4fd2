"""The daemon's end of the zygote, from which templates are forked: started when the first of them is wanted, and anew
when it has died or something has been installed: what it imported may lie there in another version by now.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from .. import packets
from ..launch import python_command
from ..wire.process_messages import ForkTemplate
from .child import Child, Exit
from .children import Children
from .room import check_room

NO_FORK: Final = "the process that forks templates has failed"
"""Why a channel has ended without a word."""


class Zygote:
    def __init__(self, children: Children, printed: Callable[[str], None]) -> None:
        """`printed` is told each line that it prints, which is why it cannot do its work."""
        self._children = children
        self._printed = printed
        self._child: Child | None = None
        self._channel: socket.socket | None = None
        """None: there is none, or it is dead."""
        self._installed: list[int] = []
        """When something was installed last before it was started."""

    def fork(self, printed: Callable[[str], None]) -> socket.socket:
        """Our end of a channel to a new template, which says first that it is `Forked`; or there is none, and the
        channel ends without a word. `printed` is told each line that it prints. Raises OSError if there can be none.
        """
        check_room()
        with ExitStack() as undo, ExitStack() as passed:
            ours, theirs = packets.pair()
            undo.callback(ours.close)
            passed.callback(theirs.close)
            writable = self._children.pipe(printed)
            passed.callback(os.close, writable)
            self._send((theirs.fileno(), writable))
            undo.pop_all()
        return ours

    def _send(self, ends: tuple[int, ...]) -> None:
        installed = last_installed()
        if installed != self._installed:
            self._retire()
        if self._channel is not None:
            try:
                packets.send(self._channel, ForkTemplate(), ends)
            except ConnectionError:
                self._close()
            else:
                return
        command = python_command("warmpool.worker.start", str(os.getpid()), function="zygote")
        self._child, channel = self._children.spawn(command, self._printed)
        self._child.on_exit = lambda end: self._exited(channel, end)
        self._channel, self._installed = channel, installed
        packets.send(channel, ForkTemplate(), ends)

    def _exited(self, channel: socket.socket, end: Exit) -> None:
        self._printed(f"the process that forks templates {end.status}")
        if self._channel is channel:
            self._close()

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _retire(self) -> None:
        """It forks what it was asked for, and goes."""
        self._close()
        if self._child is not None:
            self._child.on_exit = lambda _: None

    def stop(self) -> None:
        """The templates that it has forked do not notice."""
        self._retire()
        if self._child is not None:
            self._child.kill()


def last_installed() -> list[int]:
    """When the directories of this Python's packages were changed: installers add or rename something there."""
    times = []
    for directory in sys.path:
        if directory.endswith("-packages"):  # Debian calls its own `dist-packages`
            with suppress(OSError):
                times.append(os.stat(directory).st_mtime_ns)
    return times
