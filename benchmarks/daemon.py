"""A daemon of the benchmark's own, in a directory that goes with it."""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from warmpool import Client

APPS = Path(__file__).parent / "apps"
PLAIN = str(APPS / "plain.py")
INPUT = {"key": "n", "value": 1}
"""What `add` takes."""
PATIENCE = 60.0


@contextmanager
def daemon(*options: str) -> Iterator[Client]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "daemon.sock")
        command = [sys.executable, "-m", "warmpool", "serve", "--detach", "--socket", str(path), *options]
        subprocess.run(command, check=True)
        client = Client(path, autostart=False)
        try:
            yield client
        finally:
            client.close()
            subprocess.run([sys.executable, "-m", "warmpool", "stop", "--socket", str(path)], check=True)


def wait_for_workers(client: Client, wanted: Callable[[dict[str, int]], bool]) -> None:
    """Until the daemon's workers, counted by their states, are as wanted."""
    deadline = time.monotonic() + PATIENCE
    while not wanted(states := client.status()["workers_by_state"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the workers are not as wanted: {states}")
        select.select([], [], [], 0.05)


def wait_until_warm(client: Client, count: int) -> None:
    """Until there are so many workers, all of them warm."""
    wait_for_workers(client, lambda states: states == ({"warm": count} if count else {}))
