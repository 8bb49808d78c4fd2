"""The deadlines of the broker by name, in seconds of lease time; the wheel under them counts milliseconds."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from .wheel import TimerWheel

TICKS_PER_SECOND: Final = 1000


class Timer(NamedTuple):
    """What a deadline is for, and whom it is about. There is one of each."""

    kind: str
    about: object = None


class Timers:
    def __init__(self, now: float) -> None:
        self._wheel: TimerWheel[Timer] = TimerWheel(math.floor(now * TICKS_PER_SECOND))

    def __repr__(self) -> str:
        return repr(self._wheel)

    def __contains__(self, timer: Timer) -> bool:
        return self._wheel.deadline_of(timer) is not None

    def set(self, timer: Timer, deadline: float) -> None:
        """Never fires early: a deadline within a tick is met at the tick's end."""
        self._wheel.schedule(timer, math.ceil(deadline * TICKS_PER_SECOND))

    def cancel(self, timer: Timer) -> None:
        self._wheel.cancel(timer)

    def due(self, now: float) -> list[Timer]:
        tick = math.floor(now * TICKS_PER_SECOND)
        return self._wheel.advance(tick) if tick > self._wheel.now else []

    def next_deadline(self) -> float | None:
        tick = self._wheel.next_deadline()
        return None if tick is None else tick / TICKS_PER_SECOND
