"""The daemon's end of the zygote, from which templates are forked. Another one is started when it has died or something
has been installed: what it imported may lie there in another version by now.

It says when it can fork, and is asked for one template at a time. What waits when it dies ends without a word, and who
waits for that tries again. One that ends before it has said so once is of no use, be it that it cannot import what it
must or that the environment gives it threads. Templates are fresh processes then, until something is installed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, NamedTuple

from .. import packets
from ..wire.process_messages import FROM_ZYGOTE, ForkTemplate
from ..wire.shapes import Message
from .child import Channel, Child, Exit
from .children import Children
from .room import check_room
from .zygote_process import ZygoteProcess, last_installed, start_zygote

NO_FORK: Final = "the process that forks templates has failed"
"""Why a channel has ended without a word."""
IMPORT_TIMEOUT: Final = 60.0
FORK_TIMEOUT: Final = 10.0
"""Seconds until one that does not say that it can fork (again) is killed."""


class _Order(NamedTuple):
    """A template that is wanted: its ends of what it is told and what it prints to."""

    end: socket.socket
    printed: int

    def close(self) -> None:
        self.end.close()
        os.close(self.printed)


class Zygote:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        children: Children,
        process: ZygoteProcess | None,
        printed: Callable[[str], None],
    ) -> None:
        """`process`: the first, if there is one. `printed` is told each line that one prints, which is why it cannot do
        its work.
        """
        self._loop = loop
        self._children = children
        self._printed = printed
        self._child: Child | None = None
        self._channel: Channel | None = None
        """None: there is none, or it is dead."""
        self._can_fork = False
        """Now: it does nothing else."""
        self._is_of_use = True
        self._has_been = False
        """Whether this one has said that it can fork."""
        self._waiting: deque[_Order] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self._installed: list[int] = []
        """When something was installed last before it was started."""
        if process is not None:
            with suppress(OSError):  # it finds itself hung up on, and there is another when one is wanted
                self._adopt(process)

    def fork(self, printed: Callable[[str], None]) -> socket.socket | None:
        """Our end of a channel to a new template; None if it is to be a fresh process. It says there first that it is
        `Forked`, or there is none, and the channel ends without a word. `printed` is told each line that it prints.
        Raises OSError if there can be none.
        """
        installed = last_installed()
        if installed != self._installed:
            self._retire()
            self._installed, self._is_of_use = installed, True
        if not self._is_of_use:
            return None
        check_room()
        with ExitStack() as undo:
            ours, theirs = map(undo.enter_context, packets.pair())
            order = _Order(theirs, self._children.pipe(printed))
            undo.callback(order.close)
            if self._channel is None:
                self._adopt(start_zygote())
            undo.pop_all()
        self._waiting.append(order)
        self._go_on()
        return ours

    def _adopt(self, process: ZygoteProcess) -> None:
        child = self._children.adopt(process.spawned, self._printed)
        channel = Channel(process.spawned.channel, self._loop, FROM_ZYGOTE, self._heed, lambda: None)
        child.on_exit = self._exited
        self._child, self._channel, self._installed = child, channel, process.installed
        self._can_fork = self._has_been = False
        self._watch(IMPORT_TIMEOUT)

    def _heed(self, message: Message) -> None:
        """It can fork."""
        self._watch(None)
        self._can_fork = self._has_been = True
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting and self._can_fork and self._channel is not None:
            order = self._waiting.popleft()
            self._can_fork = False
            self._watch(FORK_TIMEOUT)
            self._channel.send(ForkTemplate(), (order.end.fileno(), order.printed))
            order.close()

    def _watch(self, patience: float | None) -> None:
        """It has so many seconds for what it does. None: it does nothing."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = None
        if patience is not None and self._child is not None:
            why = f"since it was not done after {patience:.0f} s"
            self._watchdog = self._loop.call_later(patience, self._child.kill, why)

    def _exited(self, end: Exit) -> None:
        self._printed(f"the process that forks templates {end.status}")
        if not self._has_been:
            self._printed("each template is started by itself, until something is installed")
            self._is_of_use = False
        self._close()
        self._drop_all()

    def _drop_all(self) -> None:
        while self._waiting:
            self._waiting.popleft().close()

    def _close(self) -> None:
        self._watch(None)
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
        self._drop_all()
        if self._child is not None:
            self._child.kill()
