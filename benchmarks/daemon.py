"""A daemon of the benchmark's own, in a directory that goes with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warmpool import Client

APPS = Path(__file__).parent / "apps"


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
