"""A process that imports an app and becomes one worker of it: for an app that cannot be forked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from ..descriptors import close_all
from ..policy.refusals import broken
from ..wire.process_messages import FROM_TEMPLATE, Fork, Load, Loaded, LoadFailed
from ..wire.shapes import Message
from .child import Channel, Child, Exit


class LoneTemplate:
    """Until the worker is born: then its process is another's to watch."""

    def __init__(
        self,
        child: Child,
        channel: socket.socket,
        loop: asyncio.AbstractEventLoop,
        load: Load,
        board: int,
        fork: Fork,
        ends: tuple[int, ...],
        *,
        under: Callable[[str], str],
        loaded: Callable[[str], None],
        failed: Callable[[dict[str, Any]], None],
    ) -> None:
        """`board`: the descriptor. `ends` go with `fork` when the app is loaded, and are closed in any case. `under`
        adds to an exit status under which interpreter it was; `loaded` is told the version that was imported, or "" if
        none could be, and then `failed` why there will be no worker.
        """
        self._app = load.app
        self._fork = fork
        self._ends = ends
        self._under = under
        self._loaded = loaded
        self._failed = failed
        self._child = child
        self._channel = Channel(channel, loop, FROM_TEMPLATE, self._heed, lambda: None)
        self._channel.send(load, (board,))
        child.on_exit = self._exited

    def _heed(self, message: Message) -> None:
        match message:
            case Loaded():
                self._loaded(message.version)
                self._channel.send(self._fork, self._ends)
                self._close_ends()
            case LoadFailed():
                self._child.kill()  # a thread that the import has started would hold it
                self._fail(message.error)

    def _exited(self, end: Exit) -> None:
        self._channel.close()
        what = f"its own process {self._under(end.status)} while it imported or preloaded the app"
        self._fail(broken(self._app, what))

    def _fail(self, error: dict[str, Any]) -> None:
        self._close_ends()
        self._loaded("")  # of another edition, perhaps, whose fault it is then
        self._failed(error)

    def _close_ends(self) -> None:
        close_all(self._ends)
        self._ends = ()
