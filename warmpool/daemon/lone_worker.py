"""A process that imports an app and becomes one worker of it: for an app that cannot be forked."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from ..descriptors import close_all
from ..policy.refusals import broken
from ..wire.process_messages import FROM_TEMPLATE, Fork, Forked, Loaded, LoadFailed, NotForked
from ..wire.shapes import Message
from .child import Channel, Child, Exit
from .room import why_no_room
from .starter import Plan
from .zygote import NO_FORK


class LoneTemplate:
    """Until the worker is born: then its process is another's to watch."""

    def __init__(
        self,
        channel: socket.socket,
        loop: asyncio.AbstractEventLoop,
        plan: Plan,
        board: int,
        fork: Fork,
        ends: tuple[int, ...],
        *,
        watch: Callable[[int], Child],
        begun: Callable[[Child], None],
        no_room: Callable[[str], None],
        loaded: Callable[[str], None],
        failed: Callable[[dict[str, Any]], None],
    ) -> None:
        """`board`: the descriptor. `ends` go with `fork` when the app is loaded, and are closed in any case. `watch`
        gives the process with a pid, or raises OSError; `begun` is told that it exists, or `no_room` why it does not;
        `loaded` the version that was imported, or "" if none could be, and then `failed` why there will be no worker.
        """
        self._plan = plan
        self._board = board
        self._fork = fork
        self._ends = ends
        self._watch = watch
        self._begun = begun
        self._no_room = no_room
        self._loaded = loaded
        self._failed = failed
        self._child: Child | None = None
        self.channel = Channel(channel, loop, FROM_TEMPLATE, self._heed, self._hung_up)

    def begin(self, child: Child) -> None:
        """It exists."""
        self._child = child
        child.on_exit = self._exited
        self._begun(child)
        self.channel.send(self._plan.load, (self._board,))

    def _heed(self, message: Message) -> None:
        match message:
            case Forked() if self._child is None:  # it says so twice, lest once is lost
                try:
                    self.begin(self._watch(message.pid))
                except OSError as error:
                    self._never_born(why_no_room(error))
            case NotForked():
                self._never_born(why_no_room(OSError(message.errno, os.strerror(message.errno))))
            case Loaded():
                self._loaded(message.version)
                self.channel.send(self._fork, self._ends)
                self._close_ends()
            case LoadFailed():
                assert self._child is not None
                self._child.kill()  # a thread that the import has started would hold it
                self._fail(message.error)

    def _hung_up(self) -> None:
        """If it was ever forked, its exit is about to be seen."""
        if self._child is None:
            self._never_born(NO_FORK)

    def _never_born(self, why: str) -> None:
        self.channel.close()
        self._close_ends()
        self._no_room(why)

    def _exited(self, end: Exit) -> None:
        self.channel.close()
        what = f"its own process {self._plan.status(end.status)} while it imported or preloaded the app"
        self._fail(broken(self._plan.load.app, what))

    def _fail(self, error: dict[str, Any]) -> None:
        self._close_ends()
        self._loaded("")  # of another edition, perhaps, whose fault it is then
        self._failed(error)

    def _close_ends(self) -> None:
        close_all(self._ends)
        self._ends = ()
