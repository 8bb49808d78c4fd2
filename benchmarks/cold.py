"""What does the command line cost? `warmpool run` from its start to its end against a running daemon, of the time that
Python takes to start and to import what any such client needs. And where no daemon runs: that is started, and imports
the app.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from daemon import INPUT, PLAIN, daemon
from harness import Row, Work, against, arguments, in_turns, once, report

STARTS = "run, where no daemon runs yet"


def running(*command: str) -> Work:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def program() -> str:
    """`warmpool` as it was installed."""
    beside = Path(sys.executable).with_name("warmpool")
    found = str(beside) if beside.exists() else shutil.which("warmpool")
    assert found is not None, "warmpool is not installed"
    return found


def run(socket: str, *options: str) -> Work:
    return running(program(), "run", PLAIN, "add", "--input", json.dumps(INPUT), "--socket", socket, *options)


def with_its_daemon(directory: str) -> float:
    """Seconds."""
    socket = str(Path(directory, "s"))
    try:
        return once(run(socket))
    finally:
        running(program(), "stop", "--socket", socket)()


def main() -> None:
    options = arguments(__doc__, rounds=30)
    with daemon("--warm", "4") as client, tempfile.TemporaryDirectory() as directory:
        socket = str(client.places.socket)
        with client.session(PLAIN) as session:
            works = {
                "python, socket, msgpack": running(sys.executable, "-c", "import socket, msgpack"),
                "run, without a session": run(socket),
                "run, in a session": run(socket, "--session", session.id),
                "run, in a new session": run(socket, "--session", "new", "--session-timeout", "1"),
            }
            samples = {name: partial(once, work) for name, work in works.items()}
            given = in_turns({**samples, STARTS: partial(with_its_daemon, directory)}, options.rounds)
    floor, *others = given
    rows = [Row(floor, statistics.median(given[floor]) * 1e3, unit="ms")]
    for name in others:
        ratio, note = against(given[floor], given[name])
        bar = None if name == STARTS else 2.0
        rows.append(Row(name, statistics.median(given[name]) * 1e3, ratio, note, "ms", at_most=bar))
    report("A command, from its start to its end", rows)


if __name__ == "__main__":
    main()
