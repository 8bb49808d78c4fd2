"""What does it cost to open a session on a warm worker, with its first call? Of the open floor: connect, hello,
hand-over of the connection to a process that is ready, one request and reply.

Enough workers are warm before a round begins; sessions are ended between the rounds, outside of the measured time. One
after another is how a test suite opens them. A person opens one after a pause, in which the machine does something
else: both cores have slept, and nothing of all that runs then is in their caches.
"""

from __future__ import annotations

import select
import statistics

from daemon import INPUT, PLAIN, daemon, wait_until_warm
from floors import open_floor
from harness import Row, Work, against, arguments, median_of, once, report, sample

from warmpool import Client, Session

ROUNDS = 7
COUNT = 40
PAUSES = 10
"""Opens of a round that come after a pause."""
PAUSE = 0.05


def main() -> None:
    arguments(__doc__)
    at_once: dict[str, list[float]] = {"floor": [], "warmpool": []}
    paused: dict[str, list[float]] = {"floor": [], "warmpool": []}
    with daemon("--warm", str(COUNT), "--max-workers", str(3 * COUNT)) as client, open_floor() as (floor, _):
        sessions: list[Session] = []

        def own() -> None:
            sessions.append(opened(client))

        client.session(PLAIN).end()
        sample(floor, 20)
        for _ in range(ROUNDS):
            wait_until_warm(client, COUNT)
            at_once["floor"].append(median_of(sample(floor, 4 * COUNT)))
            at_once["warmpool"].append(median_of(sample(own, COUNT - PAUSES)))
            for name, work in (("floor", floor), ("warmpool", own)):
                paused[name].append(median_of([after_a_pause(work) for _ in range(PAUSES)]))
            while sessions:
                sessions.pop().end()
    rows = rows_of(at_once, "one after another", at_most=1.4)
    report("Opening a session on a warm worker, with its first call", rows + rows_of(paused, "after a pause"))


def opened(client: Client) -> Session:
    session = client.session(PLAIN)
    session.call("add", INPUT)
    return session


def after_a_pause(work: Work) -> float:
    select.select([], [], [], PAUSE)
    return once(work)


def rows_of(given: dict[str, list[float]], what: str, at_most: float | None = None) -> list[Row]:
    ratio, note = against(given["floor"], given["warmpool"])
    return [
        Row(f"floor, {what}", statistics.median(given["floor"])),
        Row(f"warmpool, {what}", statistics.median(given["warmpool"]), ratio, note, at_most=at_most),
    ]


if __name__ == "__main__":
    main()
