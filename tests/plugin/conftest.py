"""Runs of pytest in which warmpool is a guest, and a look at what it leaves there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from conftest import nothing_left
from support import APPS, MARK

COUNTER = str(APPS / "counter.py")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.Pytester]:
    """A directory with a suite of its own, run in processes of its own; nothing of them is left."""
    monkeypatch.delenv("WARMPOOL_SOCKET", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    pytester.makeini(f"[pytest]\nwarmpool_apps = {COUNTER}\nasyncio_default_fixture_loop_scope = function\n")
    with nothing_left() as mark:
        monkeypatch.setenv(MARK, mark)
        yield pytester


Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(suite: pytest.Pytester) -> Run:
    """Runs it in this process, which is quick."""
    return lambda *options: suite.runpytest_inprocess("-p", "no:cacheprovider", "-W", "always", *options)


@pytest.fixture(params=[(), ("-n", "2")], ids=["one-process", "xdist"])
def run_apart(suite: pytest.Pytester, request: pytest.FixtureRequest) -> Run:
    """Runs it in a process of its own, and under xdist."""
    return lambda *options: suite.runpytest_subprocess(*request.param, "-p", "no:cacheprovider", *options, timeout=50)
