"""What does a call cost when many are under way at once? `session.map` against one call after another, and the window
at which there is no more to win. Both ends on one core, where only the work that is saved counts, and on two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from daemon import APPS, daemon
from harness import Row, against, in_turns, place, report

from warmpool import Session

COUNT = 10_000
ROUNDS = 7
INPUT = {"key": "n", "value": 1}
WINDOWS = (1, 8, 64, 512)
SINGLE = "one call after another"


def main() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with daemon() as client, client.session(str(APPS / "plain.py")) as session:
        works: dict[str, Callable[[], float]] = {SINGLE: lambda: one_by_one(session)}
        works |= {f"map, window {window}": lambda window=window: mapped(session, window) for window in WINDOWS}
        for title, others in (("one core", cpus[0]), ("two cores", cpus[-1])):
            place([session.info().pid], own=cpus[0], others=others)
            given = in_turns(works, ROUNDS)
            rows = [Row(SINGLE, min(given[SINGLE]))]
            for window in WINDOWS:
                name = f"map, window {window}"
                rate, note = against(given[name], given[SINGLE])
                rows.append(Row(name, min(given[name]), rate, note, at_least=3.0 if window == 64 else None))
            report(f"{COUNT} calls, each; the ratio is of rates, {title}", rows)


def one_by_one(session: Session) -> float:
    """Microseconds a call."""
    start = time.perf_counter()
    for _ in range(COUNT):
        session.call("add", INPUT)
    return (time.perf_counter() - start) / COUNT * 1e6


def mapped(session: Session, window: int) -> float:
    start = time.perf_counter()
    assert sum(1 for _ in session.map("add", (INPUT for _ in range(COUNT)), window=window)) == COUNT
    return (time.perf_counter() - start) / COUNT * 1e6


if __name__ == "__main__":
    main()
