"""Measuring in turns, and printing what came of it.

Machines are noisy and drift: so a thing and what it is divided by are measured in alternating rounds of one run, and
the ratio that is shown is the median of the rounds' ratios.

A row is judged by its ratio, where it has one, else by its value; `at_most` and `at_least` say what was hoped for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial

Work = Callable[[], object]
Maker = Callable[[], AbstractContextManager[Work]]
"""Gives work, with everything that it needs until it is done."""
Points = Sequence[tuple[float, float]]

ROUND = 0.05
"""Seconds that a round lasts, where its count is found out."""


@dataclass
class Row:
    """One line: a figure, and what it is of the floor."""

    name: str
    value: float
    ratio: float | None = None
    note: str = ""
    unit: str = "us"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the bar was met; empty without one."""
        judged = self.value if self.ratio is None else self.ratio
        if self.at_most is not None:
            return f"{'met' if judged <= self.at_most else 'MISSED'}: at most {self.at_most:g}"
        if self.at_least is not None:
            return f"{'met' if judged >= self.at_least else 'MISSED'}: at least {self.at_least:g}"
        return ""


@dataclass
class Plot:
    """Curves over a scale, both axes logarithmic."""

    x: str
    y: str
    curves: Mapping[str, Points]


def arguments(description: str | None, **defaults: float) -> argparse.Namespace:
    """What was typed: `--json`, and a number for each name."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document a table")
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"({default})")
    return parser.parse_args()


ONE_CORE, TWO_CORES = PLACEMENTS = "one core", "two cores"


@contextmanager
def placed(pids: Iterable[int], placement: str) -> Iterator[None]:
    """Meanwhile this process is on the first CPU, and the others are on the same or on the last; then all of them are
    wherever the scheduler wants. Where it puts two processes that talk is worth more than what they do, and it changes
    its mind from run to run.
    """
    cpus, pids = os.sched_getaffinity(0), list(pids)
    _keep_on({min(cpus)}, [os.getpid()])
    _keep_on({(min if placement == ONE_CORE else max)(cpus)}, pids)
    try:
        yield
    finally:
        _keep_on(cpus, [os.getpid(), *pids])


def _keep_on(cpus: set[int], pids: Iterable[int]) -> None:
    """All threads of these processes, as far as they are still there."""
    for pid in pids:
        with suppress(FileNotFoundError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(task), cpus)


@contextmanager
def no_collection() -> Iterator[None]:
    """For what is measured in nanoseconds: the collector runs before, not in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class OnLoop:
    """Work to be awaited, many times within one run of its loop, as an async program would."""

    def __init__(self, runner: asyncio.Runner, work: Callable[[], Awaitable[object]]) -> None:
        self._runner = runner
        self._work = work

    def sample(self, count: int) -> list[float]:
        return self._runner.run(self._sample(count))

    async def _sample(self, count: int) -> list[float]:
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            await self._work()
            taken.append(time.perf_counter() - start)
        return taken


def sample(work: Work | OnLoop, count: int, warmup: int = 0) -> list[float]:
    """Seconds that each of `count` runs took."""
    if isinstance(work, OnLoop):
        return work.sample(warmup + count)[warmup:]
    for _ in range(warmup):
        work()
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken


def once(work: Work) -> float:
    """Seconds that it took."""
    (taken,) = sample(work, 1)
    return taken


def times_a_round(work: Work, at_least: int = 1) -> int:
    """How often it is done in `ROUND`, going by doing it once."""
    return max(at_least, int(ROUND / once(work)))


def median_of(seconds: Sequence[float]) -> float:
    """In microseconds."""
    return statistics.median(seconds) * 1e6


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them lie, from 0 to 1."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def in_turns(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each gives, round by round."""
    given: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            given[name].append(work())
    return given


def against(base: Sequence[float], own: Sequence[float]) -> tuple[float, str]:
    """The median of the rounds' ratios, and how far they lie apart."""
    ratios = [mine / floor for mine, floor in zip(own, base, strict=True)]
    return statistics.median(ratios), f"{min(ratios):.2f}-{max(ratios):.2f} over {len(ratios)} rounds"


def compare(
    floor: Work,
    others: Mapping[str, Work | OnLoop],
    *,
    rounds: int,
    count: int,
    warmup: int,
    at_most: Mapping[str, float] = {},
) -> list[Row]:
    """The floor, then each of the others as a ratio to it."""
    works: dict[str, Work | OnLoop] = {"floor": floor, **others}
    for work in works.values():
        sample(work, warmup)
    medians = in_turns({name: partial(_median, work, count) for name, work in works.items()}, rounds)
    rows = [Row("floor", statistics.median(medians["floor"]))]
    for name in others:
        ratio, note = against(medians["floor"], medians[name])
        rows.append(Row(name, statistics.median(medians[name]), ratio, note, at_most=at_most.get(name)))
    return rows


def _median(work: Work | OnLoop, count: int) -> float:
    return median_of(sample(work, count))


def report(title: str, rows: Sequence[Row], plot: Plot | None = None) -> None:
    if "--json" in sys.argv:
        drawn = None if plot is None else asdict(plot)
        lines = [{**asdict(row), "verdict": row.verdict} for row in rows]
        print(json.dumps({"title": title, "rows": lines, "plot": drawn}), flush=True)
        return
    print(title)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:8.2f}x"
        tail = "  ".join(part for part in (row.note, row.verdict) if part)
        print(f"  {row.name:42s} {row.value:12.2f} {row.unit:8s} {ratio:>9s}  {tail}".rstrip(), flush=True)
