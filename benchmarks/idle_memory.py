"""What does an idle session weigh? Memory that its process shares with nobody, after its first calls; small apps."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from daemon import APPS, INPUT, daemon
from harness import Row, arguments, report

from warmpool import Client
from warmpool.footprint import footprint_of

MB = 1_000_000
CALLS = 10


def weigh(client: Client, app: str, count: int) -> list[float]:
    with ExitStack() as stack:
        sessions = [stack.enter_context(client.session(str(APPS / app))) for _ in range(count)]
        for session in sessions:
            for _ in range(CALLS):
                session.call("add", INPUT)
        return [footprint_of(session.info().pid).private / MB for session in sessions]


def main() -> None:
    options = arguments(__doc__, sessions=20)
    rows = []
    with daemon() as client:
        for name, app in (("an app of plain functions", "plain.py"), ("an app of async functions", "async_.py")):
            sizes = weigh(client, app, options.sessions)
            note = f"{min(sizes):.2f}-{max(sizes):.2f} over {len(sizes)} sessions"
            rows.append(Row(name, statistics.median(sizes), note=note, unit="MB", at_most=2.5))
    report("Private memory of an idle session", rows)


if __name__ == "__main__":
    main()
