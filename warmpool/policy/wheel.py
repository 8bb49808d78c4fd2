"""A hierarchical timer wheel: every deadline of the daemon, for the cost of a dict entry each.

Time is an integer number of ticks and keys are opaque: the wheel has no clock, and does not know that a tick is a
millisecond. Six levels of 64 slots: a slot of level 0 is one tick, a slot of level n is 64**n ticks, so the
wheel spans 64**6 ticks (2.2 years of milliseconds); what lies beyond waits in the last level and is filed again
when met. A bitmap per level names the slots in use, so the next one is found by a shift and a count of zeros.

`schedule` and `cancel` are O(1). `advance` costs a step per slot that is met and a re-filing per level that a
deadline comes down. A deadline never fires early and is never lost. (Refused: `heapq`, which must keep or search
for cancelled entries, and pays log n for each of them.)
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

BITS: Final = 6
SLOTS: Final = 1 << BITS
LEVELS: Final = 6
SPAN: Final = 1 << (BITS * LEVELS)
_MASK: Final = SLOTS - 1
_Place = tuple[int, int, int]


class TimerWheel(Generic[Key]):
    """Keys with deadlines. A key has one deadline; to schedule it again moves it."""

    __slots__ = ("_next", "_occupied", "_slot_of", "_slots", "now")

    def __init__(self, now: int) -> None:
        self.now = now
        """The tick up to which all has fired."""
        self._slots: list[list[dict[Key, int]]] = [[{} for _ in range(SLOTS)] for _ in range(LEVELS)]
        """Keys and their deadlines."""
        self._slot_of: dict[Key, dict[Key, int]] = {}
        self._occupied = [0] * LEVELS
        """Of a slot from which all was cancelled the bit stays, until it is looked at."""
        self._next: _Place | None = None
        """The slot that comes first, as far as it is known."""

    def __len__(self) -> int:
        return len(self._slot_of)

    def __repr__(self) -> str:
        return f"<TimerWheel now={self.now} timers={len(self)} next={self.next_deadline()}>"

    def deadline_of(self, key: Key) -> int | None:
        slot = self._slot_of.get(key)
        return None if slot is None else slot[key]

    def schedule(self, key: Key, deadline: int) -> None:
        """Fires `key` at `deadline`, or at the next tick if that is past."""
        if key in self._slot_of:
            self.cancel(key)
        self._file(key, deadline if deadline > self.now else self.now + 1)

    def cancel(self, key: Key) -> bool:
        """Forgets `key`; False if it was not scheduled."""
        slot = self._slot_of.pop(key, None)
        if slot is None:
            return False
        del slot[key]
        return True

    def next_deadline(self) -> int | None:
        """The earliest tick at which `advance` has something to do: to fire, or to file again. None: nothing."""
        place = self._first()
        return None if place is None else place[2]

    def advance(self, now: int) -> list[Key]:
        """Moves time forward to `now` and gives the keys that are due, in the order of their deadlines."""
        assert now >= self.now, f"time runs backwards: {now} < {self.now}"
        due: list[Key] = []
        while (place := self._first()) is not None and place[2] <= now:
            level, index, tick = place
            self.now, self._next = tick, None
            keys, self._slots[level][index] = self._slots[level][index], {}
            self._occupied[level] &= ~(1 << index)
            for key, deadline in keys.items():
                if deadline <= tick:
                    del self._slot_of[key]
                    due.append(key)
                else:
                    self._file(key, deadline)
        self.now = now
        return due

    def _file(self, key: Key, deadline: int) -> None:
        met = min(deadline, self.now + SPAN - 1)
        level = min(((self.now ^ met).bit_length() - 1) // BITS, LEVELS - 1)  # where their digits first differ
        index = (met >> (BITS * level)) & _MASK
        slot = self._slot_of[key] = self._slots[level][index]
        slot[key] = deadline
        self._occupied[level] |= 1 << index
        if self._next is not None and met < self._next[2]:
            self._next = None

    def _first(self) -> _Place | None:
        place = self._next
        if place is None or not self._slots[place[0]][place[1]]:
            place = self._next = self._find_next()
        return place

    def _find_next(self) -> _Place | None:
        """Level, index and first tick of the slot that comes first: one of the lowest level in use, since what is
        filed on a level shares all higher digits with the present.
        """
        for level, slots in enumerate(self._slots):
            shift = BITS * level
            after = (self.now >> shift) + 1  # our own index comes last: it is met again after a whole turn
            turn = after & _MASK
            while occupied := self._occupied[level]:
                rotated = (occupied >> turn | occupied << (SLOTS - turn)) & (1 << SLOTS) - 1
                ahead = (rotated & -rotated).bit_length() - 1
                index = (turn + ahead) & _MASK
                if slots[index]:
                    return level, index, (after + ahead) << shift
                self._occupied[level] &= ~(1 << index)
        return None
