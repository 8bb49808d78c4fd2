"""Sockets on which no daemon listens yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import nothing_left
from support import MARK, wait_for_exit

from warmpool import Client, DaemonUnavailableError


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
        with Client(path, autostart=False) as client, suppress(DaemonUnavailableError):
            assert wait_for_exit(client.stop())
    assert {found.name for found in directory.glob("d.sock*")} <= {"d.sock.log"}
