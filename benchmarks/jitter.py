"""How even is a warm call? 50,000 of them, while another session prints a hundred lines a second, and twenty sessions
a second are opened, called and left to expire. The floor is called in turns under the same load.
"""

from __future__ import annotations

import select
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from daemon import APPS, INPUT, PLAIN, daemon
from floors import call_floor, process
from harness import Row, arguments, percentile, report, sample

from warmpool import Client

ROUNDS = 10
PRINT_EVERY = 0.01
OPEN_EVERY = 0.05
SHORTEST_WINDOW = 1.0


@contextmanager
def beside(socket: Path, *works: Callable[[Client], None]) -> Iterator[None]:
    """Runs each over and over, in a process of its own with a client of its own."""

    def forever(work: Callable[[Client], None]) -> None:
        client = Client(socket, autostart=False)
        while True:
            work(client)

    with ExitStack() as stack:
        for work in works:
            stack.enter_context(process(partial(forever, work)))
        yield


def print_lines(client: Client) -> None:
    with client.session(str(APPS / "chatter.py")) as session:
        while True:
            session.call("chat", lines=100, pause=PRINT_EVERY)


def open_and_leave(client: Client) -> None:
    session = client.session(PLAIN, session_timeout=SHORTEST_WINDOW)
    session.call("add", INPUT)
    select.select([], [], [], OPEN_EVERY)


def rows_of(name: str, seconds: list[float], at_most: float | None = None) -> list[Row]:
    """The ratios are to its own median."""
    median = statistics.median(seconds)
    rows = [Row(f"{name}: median", median * 1e6)]
    for part, label in ((0.99, "p99"), (0.999, "p99.9"), (1.0, "worst")):
        value = percentile(seconds, part)
        bar = at_most if label == "p99" else None
        rows.append(Row(f"{name}: {label}", value * 1e6, value / median, "of its median", at_most=bar))
    return rows


def main() -> None:
    options = arguments(__doc__, calls=50_000)
    floors: list[float] = []
    calls: list[float] = []
    with call_floor() as (floor, _), daemon() as client, client.session(PLAIN) as session:

        def measure(taken: list[float], work: Callable[[], object]) -> None:
            taken += sample(work, options.calls // ROUNDS)

        def call() -> object:
            return session.call("add", INPUT)

        sample(floor, 500)
        sample(call, 500)
        with beside(client.places.socket, print_lines, open_and_leave):
            open_and_leave(client)
            for _ in range(ROUNDS):
                measure(floors, floor)
                measure(calls, call)
    report(
        f"{options.calls} calls beside a session that prints and sessions that come and go",
        [*rows_of("call", calls, at_most=3.0), *rows_of("floor", floors)],
    )


if __name__ == "__main__":
    main()
