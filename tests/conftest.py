"""Daemons for tests: each its own, in a directory of its own, and nothing of it left behind."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings
from support import MARK, MEMORY_LIMIT, Daemon, open_files, processes_marked, wait_for_exit

from warmpool import Client, DaemonUnavailableError

settings.register_profile("warmpool", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("searching", settings.get_profile("warmpool"), derandomize=False, database=None)
"""`pytest --hypothesis-profile=searching` draws other examples each time."""
settings.load_profile("warmpool")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Tests wait a good part of their time, for daemons and for windows to end."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_the_foreground() -> Iterator[None]:
    """A shell starts what a script puts in the background with SIGINT ignored, and all its children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def nothing_left() -> Iterator[str]:
    """Gives a mark for a daemon's processes. At the end there must be none of them, and no descriptor or child more
    than before."""
    mark = uuid.uuid4().hex
    files, children = open_files(), set(psutil.Process().children())
    yield mark
    left = processes_marked(mark)
    for process in left:
        process.kill()
    assert not left, f"processes were left behind: {left}"
    assert open_files() - files == set()
    assert set(psutil.Process().children()) - children == set()


def stop_and_look(daemon: Daemon) -> None:
    """Stops a daemon, unless the test has, and looks at what it leaves."""
    daemon.client.close()
    if wait_for_exit(daemon.pid, 0):
        return
    daemon.stop()
    assert sorted(path.name for path in daemon.socket.parent.glob("d.sock*")) == ["d.sock.log"]
    assert "warmpool/" not in daemon.text_of_log(), f"a traceback of ours: {daemon.text_of_log()}"


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a short name, as sockets want it."""
    path = tmp_path_factory.mktemp("w")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start_daemon(directory: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts a daemon of the test's own, with options."""
    started: list[Daemon] = []
    with nothing_left() as mark:

        def start(*options: str) -> Daemon:
            started.append(Daemon(directory, *options, mark=mark))
            return started[-1]

        yield start
        for daemon in started:
            stop_and_look(daemon)


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon of the test's own, for a test that harms it or looks at all of it."""
    return start_daemon()


@pytest.fixture
def fifo(directory: Path) -> Path:
    """Who opens one end waits for the other."""
    path = directory / "fifo"
    os.mkfifo(path)
    return path


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


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with nothing_left() as mark:
        daemon = Daemon(tmp_path_factory.mktemp("shared"), "--call-memory-limit", str(MEMORY_LIMIT), mark=mark)
        yield daemon
        stop_and_look(daemon)


@pytest.fixture
def client(shared_daemon: Daemon) -> Iterator[Client]:
    """A client of a daemon that the tests of a module share; no session outlives its test."""
    files = open_files()
    with Client(shared_daemon.socket, autostart=False) as client:
        yield client
        for info in client.sessions.list():
            client.sessions.end(info.id)
    assert open_files() - files == set()
