"""How long a session may last, as its app says: looked at by its worker after each call, and, for how long it lives,
by the daemon while it is idle. A call is never cut short by these, and its reply is sent first.

Memory is looked at in two steps: a cheap one that counts too much, since pages that are still shared with the template
are in it, and where that is over the limit, the kernel's own account, which takes it milliseconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Final

from ..app import BaseApp
from ..board import Board
from ..footprint import footprint_of
from ..wire.large import Frame, MessageWriter
from ..wire.messages import Call
from .caller import Caller

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = "/proc/self/statm"
_ROUNDING: Final = 0.001
"""Seconds: sums of binary fractions are not exact, and the daemon, which counts from the same moment, looks no more."""


class Limits:
    def __init__(self, app: type[BaseApp], board: Board) -> None:
        self._max_calls = app.max_calls or math.inf
        self._max_lifetime = app.max_lifetime or math.inf
        self._max_bytes = app.max_private_bytes
        self._suspicious = app.max_private_bytes
        """Bytes of the cheap look from which on it is worth to look closer."""
        self._now = board.now
        self._began = math.inf

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._max_bytes is not None or min(self._max_calls, self._max_lifetime) < math.inf

    def begin(self, since: float) -> None:
        """The session has begun, or the first call without one, if none had before; in lease time."""
        self._began = min(self._began, since)

    def reached(self, calls: int) -> str | None:
        """The limit that is reached after so many calls, as the reason to leave."""
        if calls >= self._max_calls:
            return "max_calls"
        if self._now() - self._began >= self._max_lifetime - _ROUNDING:
            return "max_lifetime"
        return "max_private_bytes" if self._max_bytes is not None and self._is_too_large(self._max_bytes) else None

    def _is_too_large(self, limit: int) -> bool:
        assert self._suspicious is not None
        try:
            if (seen := _unshared_bytes()) <= self._suspicious:
                return False
            self._suspicious = seen + limit // 16
            return footprint_of(os.getpid()).private > limit
        except OSError:  # the app has left no descriptor to look with
            return False


def _unshared_bytes() -> int:
    """Not shared with a file; but perhaps with the template."""
    with open(_STATM, "rb") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * _PAGE


class LimitedCaller(Caller):
    """For apps that have limits: others do not pay for the look."""

    def __init__(self, *ours: Any, limits: Limits, on_limit: Callable[[str], None]) -> None:
        super().__init__(*ours)
        self._limits = limits
        self._on_limit = on_limit

    def answer(self, call: Call, writer: MessageWriter) -> Frame:
        reply = super().answer(call, writer)
        if not self.inbox.was_cancelled:  # else `end` is still to come
            self._look()
        return reply

    def end(self) -> None:
        super().end()
        self._look()

    def _look(self) -> None:
        if (reason := self._limits.reached(self.calls)) is not None:
            self._on_limit(reason)
