"""Who gets a worker when there are not enough, and what the daemon does when the machine has no more to give."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import (
    APPS,
    PATIENCE,
    Daemon,
    Raw,
    all_are_gone,
    look_again,
    seconds_of_cpu,
    wait_for_exit,
    wait_for_workers,
)

from warmpool import Client, PoolExhaustedError, Session, WorkerLostError
from warmpool.constants import SPARE_DESCRIPTORS
from warmpool.wire.messages import Open

COUNTER = str(APPS / "counter.py")
LIMITED = str(APPS / "limited.py")
MISBEHAVES = str(APPS / "misbehaves.py")


class Waiting:
    """An open that waits in line, without a thread that waits for it."""

    def __init__(self, daemon: Daemon, app: str, session: str | None = "new", open_timeout: float = PATIENCE) -> None:
        """Returns when the daemon has put it in line."""
        self._daemon = daemon
        self.raw = Raw.to(daemon.socket)
        self.raw.say("Open", *Open(1, app, session, "/", None, open_timeout))
        daemon.client.status()

    @property
    def answered(self) -> bool:
        self._daemon.client.status()  # the daemon has nothing left to do that it was told before
        return self.raw.has_heard()

    def answer(self) -> list[Any]:
        answer = self.raw.hear()
        assert answer is not None, "closed without a word"
        return answer

    def session_id(self) -> str:
        answer = self.answer()
        assert answer[:2] == ["Opened", 1], answer
        return answer[2]


@pytest.fixture
def wait_in_line() -> Iterator[Callable[..., Waiting]]:
    waiting: list[Waiting] = []

    def wait(*arguments: Any, **options: Any) -> Waiting:
        waiting.append(Waiting(*arguments, **options))
        return waiting[-1]

    yield wait
    for one in waiting:
        one.raw.close()


# --- the line -----------------------------------------------------------------------------------------------------


def test_who_waits_is_served_in_the_order_of_arrival(
    start_daemon: Callable[..., Daemon], wait_in_line: Callable[..., Waiting]
):
    daemon = start_daemon("--max-workers", "2", COUNTER, MISBEHAVES)
    wait_for_workers(daemon.client, warm=2)
    held = [daemon.client.session(COUNTER).id for _ in range(2)]
    line = [wait_in_line(daemon, app) for app in (COUNTER, MISBEHAVES, COUNTER)]
    assert not any(one.answered for one in line)
    for index, one in enumerate(line):
        daemon.client.sessions.end(held.pop(0))
        held.append(one.session_id())
        assert not any(later.answered for later in line[index + 1 :])
    assert daemon.client.status().workers == 2


def test_who_has_waited_long_enough_is_told_why(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--max-workers", "2", "--open-timeout", "0.2")
    held = [daemon.client.session(COUNTER, open_timeout=PATIENCE) for _ in range(2)]
    for options, seconds in (({}, 0.2), ({"open_timeout": 0.4}, 0.4), ({"open_timeout": 0}, 0)):
        started = time.monotonic()
        with pytest.raises(PoolExhaustedError, match="2 of 2 workers") as raised:
            daemon.client.session(COUNTER, **options)
        assert seconds <= time.monotonic() - started < seconds + 0.5
        assert "--max-workers" in str(raised.value)
        assert (raised.value.code, raised.value.status_code) == ("POOL_EXHAUSTED", 503)
        with pytest.raises(PoolExhaustedError):
            daemon.client.run(app=COUNTER, function="add", **{"open_timeout": 0} | options)
    assert [session.call("add") for session in held] == [{"total": 1}] * 2
    held[0].end()
    assert daemon.client.session(COUNTER).call("add") == {"total": 1}


def test_one_who_leaves_the_line_is_passed_over(
    start_daemon: Callable[..., Daemon], wait_in_line: Callable[..., Waiting]
):
    daemon = start_daemon("--max-workers", "1")
    held = daemon.client.session(COUNTER)
    first, second, third = (wait_in_line(daemon, COUNTER) for _ in range(3))
    first.raw.close()
    second.raw.socket.shutdown(socket.SHUT_WR)
    daemon.client.status()
    held.end()
    assert [info.id for info in daemon.client.sessions.list()] in ([], [third.session_id()])
    assert daemon.client.status().sessions == 1


def test_one_who_will_not_wait_is_served_by_a_warm_worker_only(daemon: Daemon):
    with pytest.raises(PoolExhaustedError, match="import"):
        daemon.client.session(COUNTER, open_timeout=0)
    daemon.client.session(COUNTER)
    wait_for_workers(daemon.client, leased=1, warm=1)
    assert daemon.client.session(COUNTER, open_timeout=0).call("add") == {"total": 1}


def test_an_apps_own_limit_holds_nobody_else_up(daemon: Daemon, wait_in_line: Callable[..., Waiting]):
    held = daemon.client.session(LIMITED)
    line = [wait_in_line(daemon, LIMITED) for _ in range(2)]
    with daemon.client.session(COUNTER) as other:
        assert other.call("add") == {"total": 1}
    assert not line[0].answered
    with pytest.raises(PoolExhaustedError, match="limited"):
        daemon.client.session(LIMITED, open_timeout=0.05)
    held.end()
    first = line[0].session_id()
    assert not line[1].answered
    daemon.client.sessions.end(first)
    assert line[1].session_id() != first


def test_one_who_waits_for_an_apps_own_limit_keeps_no_other_app_cold(
    daemon: Daemon, wait_in_line: Callable[..., Waiting]
):
    daemon.client.session(LIMITED)
    waiting = wait_in_line(daemon, LIMITED)
    daemon.client.session(COUNTER)
    wait_for_workers(daemon.client, leased=2, warm=1)
    assert not waiting.answered


def test_idle_workers_of_another_app_make_room(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--max-workers", "3", "--warm", "2")
    daemon.client.session(COUNTER).end()
    assert daemon.client.run(app=COUNTER, function="add").output == {"total": 1}
    sessions = [daemon.client.session(MISBEHAVES) for _ in range(3)]
    assert [session.call("fine") for session in sessions] == ["fine"] * 3
    wait_for_workers(daemon.client, leased=3)
    with pytest.raises(PoolExhaustedError):
        daemon.client.session(COUNTER, open_timeout=0.05)
    for session in sessions:
        session.end()
    wait_for_workers(daemon.client, warm=3)


# --- warm, spare and short of memory ------------------------------------------------------------------------------


def test_as_many_workers_are_kept_warm_as_was_said(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--warm", "2")
    assert daemon.client.status().workers == 0, "an app that nobody has used has no worker"
    session = daemon.client.session(COUNTER)
    wait_for_workers(daemon.client, leased=1, warm=2)
    session.end()
    wait_for_workers(daemon.client, warm=2)
    daemon.client.session(LIMITED)
    wait_for_workers(daemon.client, warm=2, leased=1)


def test_calls_without_a_session_share_workers_but_never_a_sessions(client: Client):
    def where() -> int:
        return client.run(app=COUNTER, function="where").output["pid"]

    with client.session(COUNTER) as session:
        first = where()
        assert first != session.call("where")["pid"]
        wait_for_workers(client, leased=1, spare=1, warm=1)
        for _ in range(5):
            assert where() == first
            wait_for_workers(client, leased=1, spare=1, warm=1)
        with client.session(COUNTER) as other:
            assert other.call("where")["pid"] != first
    wait_for_workers(client, spare=1, warm=1)
    assert where() == first


def test_calls_without_a_session_at_the_same_time_have_a_worker_each(
    shared_daemon: Daemon, client: Client, wait_in_line: Callable[..., Waiting]
):
    opened = [wait_in_line(shared_daemon, COUNTER, session=None).answer() for _ in range(3)]
    workers = {answer[5] for answer in opened}
    assert len(workers) == 3
    assert [answer[2] for answer in opened] == [None] * 3


def test_without_memory_no_worker_is_made_and_the_error_says_so(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--min-free-mb", str(2**30))
    daemon.client.apps.describe(COUNTER)  # imports it, so that memory is all that is waited for
    with pytest.raises(PoolExhaustedError, match=r"(?i)memory.*--min-free-mb"):
        daemon.client.session(COUNTER, open_timeout=0.5)
    assert daemon.client.status().workers == 0


# --- descriptors --------------------------------------------------------------------------------------------------


def leave_descriptors(daemon: Daemon, count: int) -> None:
    """The daemon may open so many more."""
    used = max(int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd")) + 1
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + count, hard))


def test_a_daemon_that_is_allowed_fewer_than_at_its_start_serves_on(daemon: Daemon):
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (500, 500))
    with daemon.client.session(str(APPS / "counter.py")) as session:
        assert session.call("add") == {"total": 1}


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def test_a_daemon_without_descriptors_for_a_single_worker_says_so_and_does_not_start(directory: Path):
    serve = f"ulimit -n 16; exec {sys.executable} -P -m warmpool serve --detach --socket {directory}/d.sock"
    ended = subprocess.run(["bash", "-c", serve], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode != 0
    assert "out of file descriptors" in ended.stderr
    assert not (directory / "d.sock").exists()


def test_clients_that_the_daemon_has_no_descriptor_for_cost_nothing_and_are_served_later(daemon: Daemon):
    session = daemon.client.session(COUNTER)
    wait_for_workers(daemon.client, leased=1, warm=1)
    leave_descriptors(daemon, 4)
    crowd = [connect(daemon.socket) for _ in range(50)]
    try:
        assert daemon.client.status().sessions == 1, "who is connected already is answered"
        before = seconds_of_cpu(daemon.pid)
        started = time.monotonic()
        select.select([], [], [], 0.6)
        assert seconds_of_cpu(daemon.pid) - before < 0.1 * (time.monotonic() - started)
        assert session.call("add") == {"total": 1}
    finally:
        for one in crowd:
            one.close()
    with Client(daemon.socket, autostart=False) as late:
        assert late.sessions.get(session.id).call_count == 1


def test_opens_that_the_daemon_has_no_descriptor_for_get_the_named_error_and_leave_nothing(
    daemon: Daemon, wait_in_line: Callable[..., Waiting]
):
    opened = [daemon.client.session(COUNTER).id]
    wait_for_workers(daemon.client, leased=1, warm=1)
    leave_descriptors(daemon, SPARE_DESCRIPTORS + 6)
    refused = 0
    for _ in range(8):
        waiting = wait_in_line(daemon, COUNTER, open_timeout=0.3)
        assert waiting.raw.has_heard(2), "nobody answers"
        answer = waiting.answer()
        waiting.raw.close()
        if answer[0] == "Opened":
            opened.append(answer[2])
        else:
            assert answer[2]["code"] == "POOL_EXHAUSTED"
            assert "file descriptors" in answer[2]["message"]
            assert "ulimit" in answer[2]["message"]
            refused += 1
    assert refused
    with Client(daemon.socket, autostart=False) as late:
        assert late.status().sessions == len(opened), "there is a descriptor left for who asks"
    for session_id in opened:
        assert daemon.client.sessions.end(session_id).end_reason == "client"
    session = open_when_there_is_room(daemon.client)
    assert session.call("add") == {"total": 1}
    wait_for_workers(daemon.client, leased=1, warm=1)
    started = time.monotonic()
    daemon.stop()
    assert time.monotonic() - started < 3


@contextmanager
def no_descriptor_left(daemon: Daemon) -> Iterator[None]:
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    leave_descriptors(daemon, 0)
    allowed, _ = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    crowd: list[socket.socket] = []
    try:
        while len(os.listdir(f"/proc/{daemon.pid}/fd")) < allowed:
            crowd.append(connect(daemon.socket))
            look_again()
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        for one in crowd:
            one.close()


def test_a_worker_that_no_connection_can_be_made_to_stays_free(daemon: Daemon):
    """The one that was made with it is used."""
    daemon.client.run(app=LIMITED)
    wait_for_workers(daemon.client, spare=1)
    with no_descriptor_left(daemon), pytest.raises(PoolExhaustedError, match="no connection to the worker"):
        daemon.client.run(app=LIMITED)
    wait_for_workers(daemon.client, spare=1)
    assert daemon.client.run(app=LIMITED).output == "ran"


def test_a_call_that_broke_while_the_daemon_had_no_descriptor_is_told_as_what_it_is(daemon: Daemon):
    session = daemon.client.session(COUNTER)
    session.call("add")
    with no_descriptor_left(daemon), pytest.raises(WorkerLostError, match="may have had its effects") as lost:
        session._twin.link._socket.shutdown(socket.SHUT_RD)
        session.call("add")
    assert lost.value.session_id == session.id


def test_an_app_that_the_daemon_has_no_descriptor_for_is_not_called_broken(daemon: Daemon):
    daemon.client.session(COUNTER)
    wait_for_workers(daemon.client, leased=1, warm=1)
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    leave_descriptors(daemon, 3)
    for _ in range(2):
        with pytest.raises(PoolExhaustedError, match=r"no worker of app limited .*file descriptors.*ulimit"):
            daemon.client.session(LIMITED, open_timeout=0.1)
        with pytest.raises(
            PoolExhaustedError, match=r"app limited cannot be started for now, ask again: .*file descriptors.*ulimit"
        ):
            daemon.client.apps.describe(LIMITED)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    assert daemon.client.session(LIMITED, open_timeout=5).id


def test_an_app_of_which_the_machine_can_make_no_process_is_not_called_broken(daemon: Daemon, tmp_path: Path):
    """As where a limit of processes is reached: of a user's, or of a container's."""
    full, app = tmp_path / "full", tmp_path / "many.py"
    app.write_text(
        "import errno, os\n"
        "from warmpool import BaseApp\n"
        "real = os.fork\n"
        "def fork():\n"
        f"    if os.path.exists({str(full)!r}):\n"
        "        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
        "    return real()\n"
        "os.fork = fork\n"
        "class Many(BaseApp):\n"
        "    def get(self) -> int:\n"
        "        return 1\n"
    )
    daemon.client.session(app)
    wait_for_workers(daemon.client, leased=1, warm=1)
    full.touch()
    daemon.client.session(app)
    with pytest.raises(PoolExhaustedError, match="the machine cannot make another process"):
        daemon.client.session(app, open_timeout=0.5)
    (listed,) = daemon.client.apps.list()
    assert (listed["name"], listed["error"]) == ("many", None)
    full.unlink()
    assert daemon.client.session(app, open_timeout=PATIENCE).call("get") == 1


@pytest.mark.parametrize("left", range(4))
def test_a_daemon_without_descriptors_still_stops_and_takes_everything_with_it(daemon: Daemon, left: int):
    """Clients have taken the last one. Nothing can be looked at and nobody watched anew, but all die with it."""
    session = daemon.client.session(MISBEHAVES)
    session.call("leave_children")
    other = daemon.client.session(MISBEHAVES)
    wait_for_workers(daemon.client, leased=2, warm=1)
    leave_descriptors(daemon, left)
    crowd = [connect(daemon.socket) for _ in range(8)]
    try:
        assert session.call("fine") == "fine"
        assert session.end().end_reason == "client"
        assert other.call("fine") == "fine"
        os.kill(daemon.pid, signal.SIGTERM)
        assert wait_for_exit(daemon.pid, 4)
        assert all_are_gone(daemon.mark, 1)
    finally:
        for one in crowd:
            one.close()


def open_when_there_is_room(client: Client) -> Session:
    """Soon after there is."""
    deadline = time.monotonic() + 3
    while True:
        try:
            return client.session(COUNTER)
        except PoolExhaustedError:
            assert time.monotonic() < deadline
