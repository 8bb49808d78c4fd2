"""A client that finds no daemon starts one: one, however many look at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support import APPS, MARK, PATIENCE, Daemon, processes_marked, wait_for_exit

from warmpool import AsyncClient, Client, DaemonUnavailableError, InvalidRequestError, WorkerLostError
from warmpool.paths import Places

COUNTER = str(APPS / "counter.py")

ASK = """\
import json, sys
from warmpool import Client
sys.stdout.write("here\\n")
sys.stdout.flush()
sys.stdin.read()
with Client(sys.argv[1]) as client:
    total = client.run(app=sys.argv[2], function="add", input={"amount": 2}, session="new").output.total
    json.dump([client.status().pid, client.started_daemon, total], sys.stdout)
"""


def files_beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob(path.name + "*"))


def test_the_first_client_starts_a_daemon_and_the_second_finds_it(free_socket: Path):
    with Client(free_socket) as first, Client(free_socket) as second:
        assert first.started_daemon is False, "not before it is needed"
        assert files_beside(free_socket) == []
        pid = first.status().pid
        assert first.started_daemon is True
        assert second.status().pid == pid
        assert second.started_daemon is False
        assert first.run(app=COUNTER, function="add").output.total == 1
        assert os.getsid(pid) == pid, "it outlives this terminal"
        assert files_beside(free_socket) == ["d.sock", "d.sock.lock", "d.sock.log"]
    assert not wait_for_exit(pid, 0)


def test_its_starter_is_not_inspected_by_a_person(free_socket: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONINSPECT", "1")
    with Client(free_socket) as client:
        assert client.run(app=COUNTER, function="add").output.total == 1


def test_twenty_processes_at_once_start_one_daemon(free_socket: Path):
    command = [sys.executable, "-P", "-c", ASK, str(free_socket), COUNTER]
    asking = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    try:
        for process in asking:
            assert process.stdout.readline() == "here\n"
        for process in asking:
            process.stdin.close()
            process.stdin = None
        answers = []
        for process in asking:
            out, err = process.communicate(timeout=PATIENCE)
            assert (process.returncode, err) == (0, "")
            answers.append(json.loads(out))
    finally:
        for process in asking:
            process.kill()
            process.communicate()
    assert len({pid for pid, _, _ in answers}) == 1
    assert sum(started for _, started, _ in answers) == 1
    assert {total for _, _, total in answers} == {2}
    assert "already running" not in free_socket.with_name("d.sock.log").read_text()
    with Client(free_socket, autostart=False) as client:
        assert client.status().sessions == 20


def test_threads_of_one_client_start_one_daemon(free_socket: Path):
    pids: list[int] = []
    barrier = threading.Barrier(8)
    with Client(free_socket) as client:

        def ask() -> None:
            barrier.wait()
            client.run(app=COUNTER, function="add")
            pids.append(client.status().pid)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(pids) == 8
        assert len(set(pids)) == 1
        assert client.started_daemon is True


CARELESS = """\
import signal, sys
from warmpool import Client
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGURG})
with Client(sys.argv[1]) as client:
    print(client.status().pid)
"""


def test_a_daemon_does_not_inherit_how_its_starter_treats_signals(free_socket: Path):
    command = [sys.executable, "-P", "-c", CARELESS, str(free_socket)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    with Client(free_socket, autostart=False) as client:
        pid = client.status().pid
        try:
            assert (done.stdout, done.stderr) == (f"{pid}\n", "")
            session = client.session(COUNTER)
            assert session.call("add") == {"total": 1}
            os.kill(session.info().pid, signal.SIGKILL)
            with pytest.raises(WorkerLostError, match="SIGKILL"):
                session.call("add")
            os.kill(pid, signal.SIGTERM)
            assert wait_for_exit(pid, 5)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert files_beside(free_socket) == ["d.sock.log"]


def test_a_killed_daemons_socket_and_lock_are_replaced(free_socket: Path):
    with Client(free_socket) as first:
        pid = first.status().pid
        session = first.session(COUNTER)
        family = processes_marked(os.environ[MARK])
        os.kill(pid, signal.SIGKILL)
        assert all(wait_for_exit(process.pid) for process in family)
        assert {"d.sock", "d.sock.lock"} <= set(files_beside(free_socket)), "left as they were"
        with Client(free_socket, autostart=False) as other, pytest.raises(DaemonUnavailableError):
            other.status()
        with Client(free_socket) as second:
            assert second.status().pid != pid
            assert second.started_daemon is True
            assert session.id not in {info.id for info in second.sessions.list(status="all")}
            assert second.run(app=COUNTER, function="add").output.total == 1
    assert int(free_socket.with_name("d.sock.lock").read_text()) != pid


def test_a_socket_of_which_nobody_is_the_owner_is_replaced(free_socket: Path):
    with socket.socket(socket.AF_UNIX) as nobodys:
        nobodys.bind(str(free_socket))
    with Client(free_socket) as client:
        assert client.status().sessions == 0


def test_a_daemon_that_cannot_start_is_explained_by_its_log(free_socket: Path):
    places = Places.of(free_socket)
    places.lock.mkdir()
    with Client(free_socket) as client:
        for _ in range(2):
            with pytest.raises(DaemonUnavailableError, match="did not start") as raised:
                client.status()
            message = str(raised.value)
            assert str(places.log) in message
            assert "Is a directory" in message, "the end of the log"
            assert len(message.splitlines()) < 16
            assert message.count("Is a directory") == 1, "not what was tried before"
        assert client.started_daemon is False
        assert files_beside(free_socket) == ["d.sock.lock", "d.sock.log"]
        places.lock.rmdir()
        assert client.status().sessions == 0, "once it is mended, the same client starts one"


@pytest.mark.parametrize("below", ["file/d.sock", "file/sub/d.sock", "y" * 254, "z" * 300])
def test_a_place_where_no_socket_can_be_is_one_of_our_errors(directory: Path, below: str):
    (directory / "file").touch()
    with Client(directory / below) as client, pytest.raises((DaemonUnavailableError, InvalidRequestError)):
        client.status()
    assert files_beside(directory / "file") == ["file"]


def test_without_autostart_nothing_is_started(free_socket: Path):
    with Client(free_socket, autostart=False) as client:
        for use in (client.status, client.sessions.list, lambda: client.run(app=COUNTER)):
            with pytest.raises(DaemonUnavailableError):
                use()
    assert files_beside(free_socket) == []


def test_a_client_that_has_stopped_the_daemon_does_not_start_another(free_socket: Path):
    with Client(free_socket) as client:
        session = client.session(str(APPS / "misbehaves.py"))
        pid = client.status().pid
        os.kill(session.info().pid, signal.SIGSTOP)
        assert client.stop() == pid
        with pytest.raises(DaemonUnavailableError, match="has stopped its daemon"):
            client.session(COUNTER)
        info = session.info()
        assert info.status == "ended", "as long as somebody can be asked"
        os.kill(info.pid, signal.SIGCONT)
        assert wait_for_exit(pid)
        with pytest.raises(DaemonUnavailableError, match="has stopped its daemon"):
            client.status()
    assert files_beside(free_socket) == ["d.sock.log"]


# --- the default directory ----------------------------------------------------------------------------------------


def test_the_default_directory_is_made_for_the_user_alone(directory: Path, monkeypatch: pytest.MonkeyPatch):
    directory.chmod(0o700)
    monkeypatch.delenv("WARMPOOL_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    with _default_daemon() as client:
        assert client.places.socket == directory / "warmpool" / "daemon.sock"
        for path, mode in (("", 0o40700), ("daemon.sock", 0o140600), ("daemon.sock.log", 0o100600)):
            assert (directory / "warmpool" / path).stat().st_mode == mode
    assert os.listdir(directory / "warmpool") == ["daemon.sock.log"]


@contextmanager
def _default_daemon() -> Iterator[Client]:
    with Client() as client:
        pid = client.status().pid
        try:
            yield client
        finally:
            client.stop()
            assert wait_for_exit(pid)


def make_open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.mkdir(mode=0o700)
    path.symlink_to(target)


def make_others(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize(
    "make",
    [
        make_open_to_all,
        make_link,
        Path.touch,
        pytest.param(make_others, marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can give away")),
    ],
)
def test_a_default_directory_that_is_not_the_users_alone_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
):
    directory.chmod(0o700)
    monkeypatch.delenv("WARMPOOL_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    make(directory / "warmpool")
    with Client() as client, pytest.raises(InvalidRequestError, match="mode 0700 that belongs to you"):
        client.status()
    assert not (directory / "warmpool" / "daemon.sock.log").exists()


# --- leaving when idle --------------------------------------------------------------------------------------------


def test_an_idle_daemon_leaves_by_itself(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--idle-exit", "0.5")
    assert wait_for_exit(daemon.pid)
    assert processes_marked(daemon.mark) == []
    assert files_beside(daemon.socket) == ["d.sock.log"]
    assert "idle for 0.5 s: leaving" in daemon.text_of_log()


def test_a_daemon_with_a_session_stays_until_it_is_over(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--idle-exit", "0.5")
    opened = time.monotonic()
    session = daemon.client.session(COUNTER, session_timeout=1)
    assert wait_for_exit(daemon.pid)
    assert time.monotonic() - opened >= 1.5, "the session's window, then the daemon's own"
    log = daemon.text_of_log()
    assert f"{session.id} expired (idle)" in log
    assert log.index("expired (idle)") < log.index("idle for 0.5 s: leaving")


def test_a_daemon_does_not_leave_in_the_middle_of_a_call_without_a_session(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--idle-exit", "0.5")
    # 120 ticks of at least 10 ms: longer than the daemon's patience, twice over
    result = daemon.client.run(app=str(APPS / "async_counter.py"), function="wait_for_ticks", input={"count": 120})
    assert result.output >= 120
    assert daemon.client.status().pid == daemon.pid
    daemon.client.close()
    assert wait_for_exit(daemon.pid)


def test_a_daemon_that_a_client_started_leaves_after_ten_idle_minutes(free_socket: Path):
    with Client(free_socket) as client, open(f"/proc/{client.status().pid}/cmdline") as file:
        arguments = file.read().split("\0")
    assert arguments[arguments.index("--idle-exit") + 1] == "600.0"


STAYS = """\
import time
from warmpool import BaseApp

class Stays(BaseApp):
    def run(self) -> int:
        return 1

    def unload(self):
        time.sleep(1000)
"""


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_who_comes_while_a_daemon_leaves_waits_for_that_and_starts_another(free_socket: Path, kind: str):
    """It leaves when its workers have, who are given a second for their last hook."""
    app = free_socket.parent / "stays.py"
    app.write_text(STAYS)

    async def run_async() -> tuple[int, int]:
        async with AsyncClient(free_socket) as client:
            await client.status()
            first.stop()
            return (await client.run(app=str(app))).output, (await client.status()).pid

    def run() -> tuple[int, int]:
        with Client(free_socket) as client:
            client.status()
            first.stop()
            return client.run(app=str(app)).output, client.status().pid

    with Client(free_socket) as first:
        assert first.run(app=str(app)).output == 1
        leaving = first.status().pid
        output, pid = run() if kind == "blocking" else asyncio.run(run_async())
    assert output == 1
    assert pid != leaving
    assert wait_for_exit(leaving, 0)
