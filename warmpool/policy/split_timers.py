"""Deadlines where a test moves time: two times instead of one.

Lease time is what a test stops and moves: windows, pauses and idle times fall due in it. Whoever waits for a process,
a client or the machine waits in real time, which no test can move: a worker that was told to go needs its
milliseconds, also while lease time stands still or jumps over an hour. (Refused: one time for all. A jump would
kill each worker that is being set up, and with the clock stopped a worker that hangs would never be killed.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .timers import Kind, Timer, Timers, tick_of

LEASE_TIME: Final = frozenset[Kind]({"lease", "lifetime", "spare", "idle app", "idle exit"})
"""Kinds of deadlines that come in lease time alone."""

WAITS: Final = frozenset[Kind]({"answer", "explain", "load", "start", "kill", "memory", "no room", "refill", "stopped"})
"""Those that come in real time alone."""

EITHER: Final = frozenset[Kind]({"open", "cancel"})
"""Those that real time brings as well as lease time: what waits may wait it out, or be moved over it."""


class SplitTimers(Timers):
    def __init__(self, now: float, lead: Callable[[], float], stands: Callable[[], bool]) -> None:
        """`lead`: real time minus lease time, in seconds; `stands`: whether lease time stands still."""
        super().__init__(now)
        self._lead = lead
        self._stands = stands
        self._real = Timers(now + lead())

    def __repr__(self) -> str:
        return f"<SplitTimers lease={super().__repr__()} real={self._real!r}>"

    def __contains__(self, timer: Timer) -> bool:
        return super().__contains__(timer) or timer in self._real

    def set(self, timer: Timer, deadline: float) -> None:
        if timer.kind not in LEASE_TIME:
            self._real.set(timer, deadline + self._lead())
        if timer.kind not in WAITS:
            super().set(timer, deadline)

    def cancel(self, timer: Timer) -> None:
        super().cancel(timer)
        self._real.cancel(timer)

    def due(self, now: float) -> list[Timer]:
        """As ever, but lease time is met to the tick in which it stands: nothing but a test will move it on."""
        tick = tick_of(now)
        leases = self._wheel.advance(tick) if tick > self._wheel.now else []
        found = dict.fromkeys([*self._real.due(now + self._lead()), *leases])
        for timer in found:
            self.cancel(timer)
        return list(found)

    def keep_up(self, now: float) -> None:
        super().keep_up(now)
        self._real.keep_up(now + self._lead())

    def next_deadline(self) -> float | None:
        """Of both, in lease time; of real time alone while lease time stands still."""
        real = self._real.next_deadline()
        deadlines = [] if real is None else [real - self._lead()]
        if not self._stands() and (lease := self.next_lease_deadline()) is not None:
            deadlines.append(lease)
        return min(deadlines, default=None)

    def next_lease_deadline(self) -> float | None:
        """When lease time brings the next."""
        return super().next_deadline()
