"""What does it cost to open a session on a warm worker, with its first call? Of the open floor: connect, hello,
hand-over of the connection to a process that is ready, one request and reply.

Enough workers are warm before a round begins; sessions are ended between the rounds, outside of the measured time.
"""

from __future__ import annotations

import select
import statistics
import time

from daemon import APPS, daemon
from floors import open_floor
from harness import Row, median_of, report, sample

from warmpool import Client

ROUNDS = 7
COUNT = 40
INPUT = {"key": "n", "value": 1}


def main() -> None:
    app = str(APPS / "plain.py")
    with daemon("--warm", str(COUNT), "--max-workers", str(3 * COUNT)) as client, open_floor() as (floor, _):
        floors, opens, ratios = [], [], []
        client.session(app).end()
        for index in range(ROUNDS):
            wait_until_warm(client, COUNT)
            base = median_of(sample(floor, 4 * COUNT, warmup=20 if index == 0 else 0))
            own = median_of(open_sessions(client, app))
            floors.append(base)
            opens.append(own)
            ratios.append(own / base)
    note = f"{min(ratios):.2f}-{max(ratios):.2f} over {ROUNDS} rounds of {COUNT}"
    report(
        "Opening a session on a warm worker, with its first call",
        [
            Row("floor", statistics.median(floors)),
            Row("warmpool", statistics.median(opens), statistics.median(ratios), note),
        ],
    )


def open_sessions(client: Client, app: str) -> list[float]:
    sessions = []

    def once() -> None:
        session = client.session(app)
        session.call("add", INPUT)
        sessions.append(session)

    taken = sample(once, COUNT)
    for session in sessions:
        session.end()
    return taken


def wait_until_warm(client: Client, count: int) -> None:
    deadline = time.monotonic() + 30
    while client.status()["workers_by_state"] != {"warm": count}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {count} warm workers: {client.status()}")
        select.select([], [], [], 0.05)


if __name__ == "__main__":
    main()
