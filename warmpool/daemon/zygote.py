"""The daemon's end of the zygote, from which templates are forked. Another one takes its place when it has died or
something has been installed: what it imported may lie there in another version by now.

One says when it can fork, and is asked for one template at a time. What waits when it dies ends without a word, and who
waits for that tries again. What waits when another takes its place it still forks, or nothing would be forked for as
long as something is being installed. One that ends before it has said once that it can fork is of no use, be it that it
cannot import what it must or that the environment gives it threads. Templates are fresh processes then, until something
is installed.
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
from .child import Channel, Exit
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


class _ZygoteEnd:
    """One, as the daemon has it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        children: Children,
        process: ZygoteProcess,
        printed: Callable[[str], None],
        exited: Callable[[_ZygoteEnd, Exit], None],
    ) -> None:
        """Raises OSError if it cannot be watched; then it finds itself hung up on."""
        self._loop = loop
        self._exited = exited
        self._child = children.adopt(process.spawned, printed)
        self._child.on_exit = self._on_exit
        self._channel = Channel(process.spawned.channel, loop, FROM_ZYGOTE, self._heed, lambda: None)
        self._can_fork = False
        """Now: it does nothing else."""
        self.has_been = False
        """Whether it has said that it can fork."""
        self._is_retired = False
        self._waiting: deque[_Order] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self._watch(IMPORT_TIMEOUT)

    def ask_for(self, order: _Order) -> None:
        self._waiting.append(order)
        self._go_on()

    def _heed(self, message: Message) -> None:
        """It can fork."""
        self._watch(None)
        self._can_fork = self.has_been = True
        self._go_on()

    def _go_on(self) -> None:
        if not self._can_fork:
            return
        if self._waiting:
            order = self._waiting.popleft()
            self._can_fork = False
            self._watch(FORK_TIMEOUT)
            self._channel.send(ForkTemplate(), (order.end.fileno(), order.printed))
            order.close()
        elif self._is_retired:
            self.kill()

    def _watch(self, patience: float | None) -> None:
        """It has so many seconds for what it does. None: it does nothing."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = None
        if patience is not None:
            why = f"since it was not done after {patience:.0f} s"
            self._watchdog = self._loop.call_later(patience, self._child.kill, why)

    def retire(self) -> None:
        """It forks what it was asked for, and goes."""
        self._is_retired = True
        self._go_on()

    def kill(self) -> None:
        """The templates that it has forked do not notice."""
        self._child.kill()

    def _on_exit(self, end: Exit) -> None:
        self._watch(None)
        self._channel.close()
        self._exited(self, end)
        while self._waiting:
            self._waiting.popleft().close()


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
        self._current: _ZygoteEnd | None = None
        self._alive: set[_ZygoteEnd] = set()
        """With those that have been replaced."""
        self._is_of_use = True
        self._installed: list[int] = []
        """When something was installed last before it was started."""
        if process is not None:
            with suppress(OSError):  # there is another when one is wanted
                self._current = self._adopt(process)

    def fork(self, printed: Callable[[str], None]) -> socket.socket | None:
        """Our end of a channel to a new template; None if it is to be a fresh process. It says there first that it is
        `Forked`, or there is none, and the channel ends without a word. `printed` is told each line that it prints.
        Raises OSError if there can be none.
        """
        installed = last_installed()
        if installed != self._installed:
            if self._current is not None:
                self._current.retire()
            self._current, self._installed, self._is_of_use = None, installed, True
        if not self._is_of_use:
            return None
        check_room()
        with ExitStack() as undo:
            ours, theirs = map(undo.enter_context, packets.pair())
            order = _Order(theirs, self._children.pipe(printed))
            undo.callback(order.close)
            if self._current is None:
                self._current = self._adopt(start_zygote())
            undo.pop_all()
        self._current.ask_for(order)
        return ours

    def _adopt(self, process: ZygoteProcess) -> _ZygoteEnd:
        one = _ZygoteEnd(self._loop, self._children, process, self._printed, self._exited)
        self._alive.add(one)
        self._installed = process.installed
        return one

    def _exited(self, one: _ZygoteEnd, end: Exit) -> None:
        self._alive.discard(one)
        if one is not self._current:
            return
        self._current = None
        self._printed(f"the process that forks templates {end.status}")
        if not one.has_been:
            self._printed("each template is started by itself, until something is installed")
            self._is_of_use = False

    def stop(self) -> None:
        """The templates that they have forked do not notice."""
        self._current = None
        for one in self._alive:
            one.kill()
