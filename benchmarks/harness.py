"""Measuring in turns, and printing what came of it.

Machines are noisy and drift: so a thing and what it is divided by are measured in alternating rounds of one run, and
the ratio that is shown is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

Work = Callable[[], object]


@dataclass
class Row:
    """One line: a median in microseconds, and what it is of the floor."""

    name: str
    median_us: float
    ratio: float | None = None
    note: str = ""


def place(pids: Sequence[int], *, own: int, others: int) -> None:
    """Puts this process on one CPU and the others on another, or on the same. Where the scheduler puts two processes
    that talk is worth more than what they do, and it changes its mind from run to run."""
    os.sched_setaffinity(0, {own})
    for pid in pids:
        os.sched_setaffinity(pid, {others})


def sample(work: Work, count: int, warmup: int = 0) -> list[float]:
    """Seconds that each of `count` runs took."""
    for _ in range(warmup):
        work()
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


def median_of(seconds: Sequence[float]) -> float:
    """In microseconds."""
    return statistics.median(seconds) * 1e6


def compare(floor: Work, others: dict[str, Work], *, rounds: int, count: int, warmup: int) -> list[Row]:
    """The floor, then each of the others as a ratio to it."""
    medians: dict[str, list[float]] = {"floor": []} | {name: [] for name in others}
    for work in (floor, *others.values()):
        sample(work, warmup)
    for _ in range(rounds):
        for name, work in {"floor": floor, **others}.items():
            medians[name].append(median_of(sample(work, count)))
    rows = [Row("floor", statistics.median(medians["floor"]))]
    for name in others:
        ratios = [own / base for own, base in zip(medians[name], medians["floor"], strict=True)]
        note = f"{min(ratios):.2f}-{max(ratios):.2f} over {rounds} rounds"
        rows.append(Row(name, statistics.median(medians[name]), statistics.median(ratios), note))
    return rows


def report(title: str, rows: Sequence[Row]) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"title": title, "rows": [asdict(row) for row in rows]}))
        return
    print(title)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:6.2f}x"
        print(f"  {row.name:34s} {row.median_us:10.2f} us {ratio:>8s}  {row.note}")
