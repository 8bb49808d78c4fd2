"""What does the command line cost? `warmpool run` from its start to its end against a running daemon, of the time that
Python takes to start and to import what any such client needs.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from daemon import INPUT, PLAIN, daemon
from harness import Row, Work, against, arguments, in_turns, once, report


def running(*command: str) -> Work:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def program() -> str:
    """`warmpool` as it was installed."""
    beside = Path(sys.executable).with_name("warmpool")
    found = str(beside) if beside.exists() else shutil.which("warmpool")
    assert found is not None, "warmpool is not installed"
    return found


def main() -> None:
    options = arguments(__doc__, rounds=30)
    with daemon("--warm", "4") as client:
        socket = str(client.places.socket)
        run = (program(), "run", PLAIN, "add", "--input", json.dumps(INPUT), "--socket", socket)
        with client.session(PLAIN) as session:
            works = {
                "python, socket, msgpack": running(sys.executable, "-c", "import socket, msgpack"),
                "run, without a session": running(*run),
                "run, in a session": running(*run, "--session", session.id),
                "run, in a new session": running(*run, "--session", "new", "--session-timeout", "1"),
            }
            given = in_turns({name: partial(once, work) for name, work in works.items()}, options.rounds)
    floor, *others = given
    rows = [Row(floor, statistics.median(given[floor]) * 1e3, unit="ms")]
    for name in others:
        ratio, note = against(given[floor], given[name])
        rows.append(Row(name, statistics.median(given[name]) * 1e3, ratio, note, "ms", at_most=2.0))
    report("A command, from its start to its end", rows)


if __name__ == "__main__":
    main()
