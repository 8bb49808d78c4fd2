"""What does a warm call cost? Of the call floor: one request and reply between two blocking Python processes.

The call is complete: pydantic in and out, the lease kept on the board, errors and limits checked.
"""

from __future__ import annotations

from daemon import APPS, daemon
from floors import call_floor
from harness import compare, report

INPUT = {"key": "n", "value": 1}


def main() -> None:
    with (
        daemon() as client,
        client.session(str(APPS / "plain.py")) as plain,
        client.session(str(APPS / "async_.py")) as async_,
        call_floor() as floor,
    ):
        works = {
            "sync client, sync app": lambda: plain.call("add", INPUT),
            "sync client, async app": lambda: async_.call("add", INPUT),
        }
        report("A warm call", compare(floor, works, rounds=9, count=2000, warmup=500))


if __name__ == "__main__":
    main()
