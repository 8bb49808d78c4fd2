"""What has happened to one session, for whoever asks why. Bounded: what repeats is counted, the middle is dropped.

The first entries tell how the session came to be and the last ones how it ended, so both are kept.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

FIRST_KEPT: Final = 16
LAST_KEPT: Final = 48


class Entry(NamedTuple):
    at: float
    """Lease time at which it happened last."""
    text: str
    times: int = 1


class History:
    __slots__ = ("_first", "_last", "_lost")

    def __init__(self) -> None:
        self._first: list[Entry] = []
        self._last: deque[Entry] | None = None
        self._lost = 0

    def __repr__(self) -> str:
        return f"<History {len(self.entries())} entries>"

    def add(self, now: float, text: str) -> None:
        """The same once more is counted, not repeated."""
        place = self._last or self._first
        if place and place[-1].text == text:
            place[-1] = Entry(now, text, place[-1].times + 1)
        elif len(self._first) < FIRST_KEPT:
            self._first.append(Entry(now, text))
        else:
            self._last = self._last or deque(maxlen=LAST_KEPT)
            self._lost += len(self._last) == LAST_KEPT
            self._last.append(Entry(now, text))

    def entries(self) -> list[Entry]:
        """Oldest first."""
        last = list(self._last or ())
        gap = [Entry(last[0].at, f"({self._lost} entries are not kept)")] if self._lost else []
        return [*self._first, *gap, *last]
