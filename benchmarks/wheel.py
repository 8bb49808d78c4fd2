"""Does the timer wheel stay as fast with a million deadlines as with a thousand? Each of schedule, cancel and advance
in nanoseconds a deadline, beside `heapq` used as its own documentation advises: cancelled entries stay in the heap and
are skipped when they come up. And what a warm session costs instead: a store on the board.

Deadlines are windows of 1 s to an hour, in milliseconds, in no order. One half of them is cancelled, oldest first; then
time moves from one deadline to the next, as the daemon moves it, until the other half has fired. The processor's time
is counted and not the clock's, and the collector is off. To cancel in no order is to miss the processor's caches at
every step, in the wheel as in any dict: what that costs comes last.
"""

from __future__ import annotations

import heapq
import random
import statistics
import time
from collections.abc import Callable

from harness import Plot, Row, arguments, no_collection, report

from warmpool.board import USED_NS, Board
from warmpool.policy.timers import Timer
from warmpool.policy.wheel import TimerWheel

SECOND = 1000
HOUR = 3600 * SECOND
SCALES = (10**3, 10**4, 10**5, 10**6)
STEPS = ("schedule", "cancel", "advance")
TIMED = 30_000
"""At the smaller scales the work is repeated until so many deadlines have been timed."""

Times = dict[str, float]
Maker = Callable[[], "TimerWheel[Timer] | HeapTimers"]


class HeapTimers:
    """What one would write with heapq."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._number_of: dict[Timer, int] = {}
        self._last = 0

    def schedule(self, key: Timer, deadline: int) -> None:
        self._last = number = self._last + 1
        self._number_of[key] = number
        heapq.heappush(self._heap, (deadline, number, key))

    def cancel(self, key: Timer) -> None:
        self._number_of.pop(key, None)

    def next_deadline(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def advance(self, now: int) -> list[Timer]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, number, key = heapq.heappop(self._heap)
            if self._number_of.get(key) == number:
                del self._number_of[key]
                due.append(key)
        return due


def oldest_first(keys: list[Timer]) -> list[Timer]:
    return keys


def in_no_order(keys: list[Timer]) -> list[Timer]:
    return random.Random(1).sample(keys, len(keys))


def measure(make: Maker, count: int, order: Callable[[list[Timer]], list[Timer]] = oldest_first) -> Times:
    """Nanoseconds a deadline of each step."""
    chance = random.Random(count)
    taken: dict[str, list[float]] = {step: [] for step in STEPS}
    for _ in range(max(1, TIMED // count)):
        keys = [Timer("lease", f"sess_{number:020}") for number in range(count)]
        deadlines = [(key, chance.randrange(SECOND, HOUR)) for key in keys]
        for step, seconds in zip(STEPS, _once(make(), deadlines, order(keys)[: count // 2]), strict=True):
            taken[step].append(seconds / (count if step == "schedule" else count / 2) * 1e9)
    return {step: statistics.median(values) for step, values in taken.items()}


def _once(
    timers: TimerWheel[Timer] | HeapTimers, deadlines: list[tuple[Timer, int]], cancelled: list[Timer]
) -> tuple[float, ...]:
    schedule, cancel, advance = timers.schedule, timers.cancel, timers.advance
    fired = 0
    with no_collection():
        start = time.thread_time()
        for key, deadline in deadlines:
            schedule(key, deadline)
        scheduled = time.thread_time()
        for key in cancelled:
            cancel(key)
        gone = time.thread_time()
        while (now := timers.next_deadline()) is not None:
            fired += len(advance(now))
        end = time.thread_time()
    assert fired == len(deadlines) - len(cancelled)
    return scheduled - start, gone - scheduled, end - gone


def measure_touch(count: int = 1_000_000) -> float:
    """Nanoseconds of one store in the board, the loop around it taken off."""
    board = Board.create(1)
    cells, used = board.cells, board.start_of(0) + USED_NS
    with no_collection():
        start = time.thread_time()
        for number in range(count):
            cells[used] = number
        stored = time.thread_time()
        for number in range(count):  # noqa: B007
            pass
        end = time.thread_time()
    board.close()
    return ((stored - start) - (end - stored)) / count * 1e9


def main() -> None:
    options = arguments(__doc__, rounds=3, largest=SCALES[-1])
    makers: dict[str, Maker] = {"wheel": lambda: TimerWheel(0), "heapq": HeapTimers}
    scales = [scale for scale in SCALES if scale <= options.largest]
    runs: dict[tuple[str, int], list[Times]] = {(name, scale): [] for scale in scales for name in makers}
    scattered: dict[str, list[Times]] = {name: [] for name in makers}
    for _ in range(options.rounds):
        for (name, scale), times in runs.items():
            times.append(measure(makers[name], scale))
        for name, times in scattered.items():
            times.append(measure(makers[name], scales[-1], in_no_order))
    rows, curves = [], {}
    for step in STEPS:
        best = {key: min(times[step] for times in runs[key]) for key in runs}
        for name in makers:
            curves[f"{name}: {step}"] = [(scale, best[name, scale]) for scale in scales]
        for scale in scales:
            growth = None if scale == scales[0] else best["wheel", scale] / best["wheel", scales[0]]
            bar = None if growth is None else 2.0
            note = f"heapq {best['heapq', scale]:.0f} ns"
            rows.append(Row(f"{step}, {scale:,}", best["wheel", scale], growth, note, "ns", at_most=bar))
    cancels = {name: min(one["cancel"] for one in times) for name, times in scattered.items()}
    note = f"heapq {cancels['heapq']:.0f} ns"
    rows.append(Row(f"cancel in no order, {scales[-1]:,}", cancels["wheel"], note=note, unit="ns"))
    rows.append(Row("a touch: one store on the board", measure_touch(), unit="ns"))
    report("The timer wheel (ratios to a thousand deadlines)", rows, Plot("deadlines", "ns a deadline", curves))


if __name__ == "__main__":
    main()
