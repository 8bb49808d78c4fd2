"""What does a warm call cost? Of the call floor: one request and reply between two blocking Python processes.

The call is complete: pydantic in and out, the lease kept on the board, errors and limits checked. Measured with both
ends on one core, which shows what the software costs, and on two, as most calls are made.
"""

from __future__ import annotations

import os

from daemon import APPS, daemon
from floors import call_floor
from harness import compare, place, report

INPUT = {"key": "n", "value": 1}


def main() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with (
        daemon() as client,
        client.session(str(APPS / "plain.py")) as plain,
        client.session(str(APPS / "async_.py")) as async_,
        call_floor() as (floor, floor_pids),
    ):
        works = {
            "sync client, sync app": lambda: plain.call("add", INPUT),
            "sync client, async app": lambda: async_.call("add", INPUT),
        }
        pids = [plain.info().pid, async_.info().pid, *floor_pids]
        for title, others in (("one core", cpus[0]), ("two cores", cpus[-1])):
            place(pids, own=cpus[0], others=others)
            report(f"A warm call, {title}", compare(floor, works, rounds=9, count=2000, warmup=500))


if __name__ == "__main__":
    main()
