"""Sockets on which no daemon listens yet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import nothing_left
from support import MARK, PATIENCE


@pytest.fixture
def free_socket(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket for a daemon that the test's own code starts. Whatever runs there at the end is stopped, and of all
    that was made there only a log may remain.
    """
    path = directory / "d.sock"
    monkeypatch.delenv("WARMPOOL_SOCKET", raising=False)
    with nothing_left() as mark:
        monkeypatch.setenv(MARK, mark)
        yield path
        command = [sys.executable, "-P", "-m", "warmpool", "stop", "--socket", str(path)]
        subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True)
    assert {found.name for found in directory.glob("d.sock*")} <= {"d.sock.log"}
