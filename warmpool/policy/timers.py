"""The deadlines of the broker by name, in seconds of lease time; the wheel under them counts milliseconds."""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple, TypeAlias

from .wheel import TimerWheel

TICKS_PER_SECOND: Final = 1000
_ROUNDING: Final = 1e-5
"""Ticks (10 ns) by which sums of binary fractions may miss a whole one. A clock that stands on a millisecond, moved by
seconds, must meet the deadlines that lie there.
"""


Kind: TypeAlias = Literal[
    "open", "explain", "cancel", "memory", "no room", "refill", "idle app", "idle exit", "stopped",
    "load", "start", "spare", "kill", "lease", "answer", "lifetime",
]  # fmt: skip


class Timer(NamedTuple):
    """What a deadline is for, and whom it is about. There is one of each."""

    kind: Kind
    about: object = None


class Timers:
    def __init__(self, now: float) -> None:
        self._wheel: TimerWheel[Timer] = TimerWheel(_tick(now))

    def __repr__(self) -> str:
        return repr(self._wheel)

    def __contains__(self, timer: Timer) -> bool:
        return self._wheel.deadline_of(timer) is not None

    def set(self, timer: Timer, deadline: float) -> None:
        """Never fires early: a deadline within a tick is met at the tick's end."""
        self._wheel.schedule(timer, tick_of(deadline))

    def cancel(self, timer: Timer) -> None:
        self._wheel.cancel(timer)

    def due(self, now: float) -> list[Timer]:
        """What is due, in order. A handler must look whether it still matters: one before it may have settled it."""
        tick = _tick(now)
        return self._wheel.advance(tick) if tick > self._wheel.now else []

    def keep_up(self, now: float) -> None:
        """Moves the wheel's time to `now` if nothing is in between, so that what is set next is filed from there and
        the next deadline lies ahead.
        """
        tick, deadline = _tick(now), self._wheel.next_deadline()
        if tick > self._wheel.now and (deadline is None or deadline > tick):
            self._wheel.advance(tick)

    def next_deadline(self) -> float | None:
        """A moment at which there is something to do, also where binary fractions cannot say the tick's own."""
        tick = self._wheel.next_deadline()
        if tick is None:
            return None
        moment = tick / TICKS_PER_SECOND
        return moment if _tick(moment) == tick else math.nextafter(moment, math.inf)


def is_over(deadline: float, now: float) -> bool:
    """Whether it has come, as near as sums of binary fractions can say. True for each timer that is due."""
    return deadline <= now + 2 * _ROUNDING / TICKS_PER_SECOND


def tick_of(deadline: float) -> int:
    """The tick at whose end a deadline is met."""
    return math.ceil(deadline * TICKS_PER_SECOND - _ROUNDING)


def _tick(now: float) -> int:
    return math.floor(now * TICKS_PER_SECOND + _ROUNDING)
