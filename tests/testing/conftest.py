"""Daemons that are embedded here, and a look at what they leave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
from conftest import nothing_left
from support import APPS, MARK

from warmpool import TestingClient, embedded


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Whatever this test starts carries the mark, and is gone at its end, with its files."""
    monkeypatch.delenv("WARMPOOL_SOCKET", raising=False)
    temporary = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with nothing_left() as mark:
        monkeypatch.setenv(MARK, mark)
        yield mark
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="module")
def shared_embedded() -> Iterator[TestingClient]:
    with pytest.MonkeyPatch.context() as patch, nothing_left() as mark:
        patch.setenv(MARK, mark)
        with embedded(apps=[APPS / "counter.py", APPS / "async_counter.py", APPS / "hooks.py"]) as client:
            yield client


@pytest.fixture
def client(shared_embedded: TestingClient) -> Iterator[TestingClient]:
    yield shared_embedded
    shared_embedded.clock.thaw()
    for info in shared_embedded.sessions.list():
        shared_embedded.sessions.end(info.id)
