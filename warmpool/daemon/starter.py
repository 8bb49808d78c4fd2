"""How a process that imports an app is started: forked from the zygote, or afresh where that is of no use, or under an
interpreter of the app's.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from ..launch import foreign_command, python_command
from ..policy.refusals import broken
from ..version import __version__
from ..wire.messages import PROTOCOL_VERSION
from ..wire.process_messages import Load
from .catalog import Catalog
from .child import Child
from .children import Children
from .interpreters import Interpreter, requirement
from .zygote import Zygote
from .zygote_process import ZygoteProcess

_ZYGOTE: Final = "templates"
"""In whose name the log tells what it prints."""


class Plan(NamedTuple):
    """How an app is to be loaded, and under which interpreter."""

    load: Load
    interpreter: Interpreter

    def status(self, status: str) -> str:
        """An exit status, in words, and under which interpreter it was."""
        return status if self.interpreter.is_ours else f"under {self.interpreter.python} {status}"

    def no_process(self, error: OSError) -> dict[str, Any]:
        return broken(self.load.app, f"no process could be started for it: {error}")


class Starter:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        children: Children,
        catalog: Catalog,
        zygote: ZygoteProcess | None,
        printed: Callable[[str, str], None],
        *,
        frame_limit: int,
        open_files: int,
    ) -> None:
        """`printed` is told an app and a line that it prints as it is loaded."""
        self._children = children
        self._catalog = catalog
        self._printed = printed
        self._frame_limit, self._open_files = frame_limit, open_files
        self._zygote = Zygote(loop, children, zygote, partial(printed, _ZYGOTE))

    def plan_for(self, app_key: str) -> Plan:
        entry = self._catalog.by_key(app_key)
        load = Load(
            entry.name, entry.root, entry.module, entry.file, entry.class_name,
            self._frame_limit, os.getpid(), self._open_files, entry.primed,
        )  # fmt: skip
        return Plan(load, entry.interpreter)

    def start(self, plan: Plan) -> tuple[socket.socket, Child | None]:
        """Our end of a channel to a new template, and that. None: it says there that it is `Forked`, or the channel
        ends without a word. Raises OSError if there can be none.
        """
        load, interpreter = plan
        if interpreter.problem is not None:
            raise OSError(interpreter.problem)
        printed = partial(self._printed, load.app)
        if not interpreter.is_ours:
            told = (load.app, str(PROTOCOL_VERSION), __version__, requirement())
            return self._children.spawn(foreign_command(interpreter.python, *told), printed)
        if (ours := self._zygote.fork(printed)) is not None:
            return ours, None
        return self._children.spawn(python_command("warmpool.worker.start"), printed)

    def close(self) -> None:
        self._zygote.stop()
