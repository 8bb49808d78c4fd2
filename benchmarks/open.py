"""What does it cost to open a session on a warm worker, with its first call? Of the open floor: connect, hello,
hand-over of the connection to a process that is ready, one request and reply.

Enough workers are warm before a round begins; sessions are ended between the rounds, outside of the measured time.
"""

from __future__ import annotations

import statistics

from daemon import APPS, daemon, wait_until_warm
from floors import open_floor
from harness import Row, against, arguments, median_of, report, sample

from warmpool import Client

ROUNDS = 7
COUNT = 40
INPUT = {"key": "n", "value": 1}


def main() -> None:
    arguments(__doc__)
    app = str(APPS / "plain.py")
    with daemon("--warm", str(COUNT), "--max-workers", str(3 * COUNT)) as client, open_floor() as (floor, _):
        floors, opens = [], []
        client.session(app).end()
        for index in range(ROUNDS):
            wait_until_warm(client, COUNT)
            floors.append(median_of(sample(floor, 4 * COUNT, warmup=20 if index == 0 else 0)))
            opens.append(median_of(open_sessions(client, app)))
    ratio, note = against(floors, opens)
    report(
        "Opening a session on a warm worker, with its first call",
        [
            Row("floor", statistics.median(floors)),
            Row("warmpool", statistics.median(opens), ratio, f"{note} of {COUNT}", at_most=1.4),
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


if __name__ == "__main__":
    main()
