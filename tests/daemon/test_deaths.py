"""Whoever dies, the others know it, say it, and nothing is left behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support import (
    APPS,
    PATIENCE,
    Daemon,
    all_are_gone,
    look_again,
    processes_marked,
    template_of,
    wait_for_exit,
    wait_until_busy,
    wait_until_said,
)

from warmpool import Client, DaemonUnavailableError, Session, SessionError, WorkerLostError

COUNTER = str(APPS / "counter.py")
MISBEHAVES = str(APPS / "misbehaves.py")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("kill_itself", "was killed by SIGKILL that we did not send, perhaps out of memory"),
        ("exit_quietly", "exited with status 0"),
        ("close_all_descriptors", "exited with status"),
    ],
)
def test_a_worker_that_dies_in_a_call_is_lost(client: Client, function: str, words: str):
    session = client.session(MISBEHAVES)
    with pytest.raises(WorkerLostError, match="(?i)session ended") as raised:
        session.call(function)
    assert words in str(raised.value)
    assert raised.value.session_id == session.id
    info = session.info()
    assert (info.status, info.end_reason) == ("ended", "worker_lost")
    assert words in info.end_detail
    with pytest.raises(WorkerLostError):
        session.call("fine")
    with client.session(MISBEHAVES) as another:
        assert another.call("fine") == "fine"


def test_a_machine_short_of_memory_takes_workers_and_templates_before_the_daemon(daemon: Daemon):
    def expendable(pid: int | str) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    with daemon.client.session(COUNTER) as session:
        assert expendable(daemon.pid) == expendable("self")
        assert expendable(template_of(daemon).pid) == expendable(session.info().pid) == 500


def test_a_worker_killed_from_outside_while_idle_is_lost(client: Client):
    session = client.session(COUNTER)
    pid = session.info().pid
    os.kill(pid, signal.SIGSEGV)
    assert wait_for_exit(pid)
    with pytest.raises(WorkerLostError, match="SIGSEGV"):
        session.call("add")


def test_a_daemon_that_is_killed_takes_everything_with_it(daemon: Daemon):
    session = daemon.client.session(COUNTER)
    stuck = daemon.client.session(MISBEHAVES)
    threading.Thread(target=_call_until_broken, args=(stuck, "hold_the_gil"), daemon=True).start()
    wait_until_busy(stuck)
    assert len(processes_marked(daemon.mark)) >= 5
    os.kill(daemon.pid, signal.SIGKILL)
    assert all_are_gone(daemon.mark, 1)
    with pytest.raises(DaemonUnavailableError):
        session.call("add")
    for path in daemon.socket.parent.glob("d.sock*"):
        if path.is_dir():
            shutil.rmtree(path)  # what the stuck one has said
        elif path != daemon.log:
            path.unlink()


def wait_until_stuck(client: Client, session: Session) -> None:
    """Busy it is before it holds the lock, and could be cancelled."""
    wait_until_said(client, session.id, "holds it")
    process = psutil.Process(session.info().pid)
    while process.status() != psutil.STATUS_SLEEPING:
        look_again()


def _call_until_broken(session, function: str) -> None:
    with pytest.raises((SessionError, DaemonUnavailableError)):
        session.call(function)


def test_sessions_survive_their_template(daemon: Daemon):
    with daemon.client.session(COUNTER) as session:
        session.call("add", amount=4)
        template = template_of(daemon)
        template.kill()
        assert wait_for_exit(template.pid)
        assert session.call("add", amount=1) == {"total": 5}
        with daemon.client.session(COUNTER) as one, daemon.client.session(COUNTER) as two:
            assert one.call("add") == {"total": 1}
            assert two.call("add") == {"total": 1}, "a new template was made"


def test_a_daemon_whose_files_were_removed_leaves_those_of_the_next_one_alone(start_daemon: Callable[..., Daemon]):
    """Somebody has cleaned up, and a client has started another daemon in the same place."""
    first = start_daemon()
    gone = os.pidfd_open(first.pid)
    for path in list(first.socket.parent.iterdir()):
        path.unlink()
    second = start_daemon()
    try:
        session = second.client.session(COUNTER)
        os.kill(first.pid, signal.SIGTERM)
        assert select.select([gone], [], [], PATIENCE)[0]
    finally:
        os.close(gone)
    files = sorted(path.name for path in second.socket.parent.iterdir())
    assert [name for name in files if name != "d.sock.logs"] == ["d.sock", "d.sock.lock", "d.sock.log"]
    with Client(second.socket, autostart=False) as client, client.session(MISBEHAVES) as other:
        assert client.status().pid == second.pid
        assert other.info().status == session.info().status == "active"


def test_what_an_app_leaves_running_dies_with_its_session(client: Client):
    session = client.session(MISBEHAVES)
    left = session.call("leave_children")
    assert all(psutil.pid_exists(pid) for pid in left)
    session.end()
    for pid in left:
        assert wait_for_exit(pid, PATIENCE)


def kill(daemon: Daemon, _: Session) -> None:
    os.kill(daemon.pid, signal.SIGKILL)
    assert all_are_gone(daemon.mark, 1)


ENDS: dict[str, Callable[[Daemon, Session], object]] = {
    "it is ended": lambda _, session: session.end(),
    "it is killed": lambda _, session: os.kill(session.info().pid, signal.SIGKILL),
    "the daemon is stopped": lambda daemon, _: daemon.stop(),
}


@pytest.mark.parametrize(
    ("end", "helpers"),
    [(end, helpers) for helpers in (0, 2) for end in ENDS.values()] + [(kill, 0)],
    ids=[f"{name}, {helpers} helpers" for helpers in (0, 2) for name in ENDS] + ["the daemon is killed"],
)
def test_shared_memory_goes_with_its_session(daemon: Daemon, end: Callable[[Daemon, Session], object], helpers: int):
    session = daemon.client.session(MISBEHAVES)
    name, tracker = session.call("share_memory", helpers=helpers)
    shared = Path("/dev/shm", name)
    assert shared.exists()
    try:
        end(daemon, session)
        assert wait_for_exit(tracker)
        assert not shared.exists()
    finally:
        shared.unlink(missing_ok=True)


def test_what_an_app_leaves_has_time_to_remove_its_files(client: Client, directory: Path):
    """As a daemon that it has embedded, which is in a kernel session of its own."""
    session = client.session(str(APPS / "leaves_a_daemon.py"))
    pid, files = session.call("leave", directory=str(directory))
    assert Path(files).is_dir()
    session.end()
    assert wait_for_exit(pid)
    assert not Path(files).exists()


@pytest.mark.parametrize("step", ["pass", "os.setsid()"], ids=["near", "far"])
def test_what_is_forked_by_what_an_app_has_left_is_not_spared_anew(client: Client, directory: Path, step: str):
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    session = client.session(MISBEHAVES)
    session.call("leave_runners", pipe=str(pipe), step=step)
    with pipe.open() as runners:
        session.end()
        assert runners.read() == "", "the last of them is dead"


def test_what_an_app_leaves_running_dies_with_the_daemon_and_what_that_leaves(daemon: Daemon):
    daemon.client.session(MISBEHAVES).call("leave_generations")
    daemon.stop()
    assert processes_marked(daemon.mark) == []


def test_a_deaf_worker_is_killed_when_its_session_ends(client: Client):
    session = client.session(MISBEHAVES)
    assert session.call("ignore_signals") == "deaf"
    assert session.call("fine") == "fine"
    assert session.end().status == "ended"


def test_a_worker_that_holds_the_gil_is_killed_when_its_session_is_ended_by_force(client: Client):
    session = client.session(MISBEHAVES)
    thread = threading.Thread(target=_call_until_broken, args=(session, "hold_the_gil"))
    thread.start()
    wait_until_stuck(client, session)
    started = time.monotonic()
    info = client.request("sessions.end", session_id=session.id, force=True)
    assert time.monotonic() - started < 5
    assert (info["status"], info["end_reason"]) == ("ended", "client")
    assert wait_for_exit(info["pid"], 0)
    assert "was killed by SIGKILL at once, as was asked for" in str(session.why())
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_daemon_within_five_seconds(start_daemon: Callable[..., Daemon], number: signal.Signals):
    daemon = start_daemon()
    daemon.client.session(COUNTER)
    stuck = daemon.client.session(MISBEHAVES)
    thread = threading.Thread(target=_call_until_broken, args=(stuck, "hold_the_gil"))
    thread.start()
    wait_until_stuck(daemon.client, stuck)
    os.kill(daemon.pid, number)
    assert wait_for_exit(daemon.pid, 5)
    thread.join(PATIENCE)
    assert processes_marked(daemon.mark) == []
    assert sorted(path.name for path in daemon.socket.parent.glob("d.sock*")) == ["d.sock.log"]


def test_a_client_that_dies_in_a_call_harms_nothing(daemon: Daemon):
    session = daemon.client.session(str(APPS / "async_counter.py"))
    child = os.fork()
    if child == 0:
        try:
            Client(daemon.socket, autostart=False).run(
                session=session.id, function="wait_for_ticks", input={"count": 1_000_000}
            )
        finally:
            os._exit(0)
    wait_until_busy(session)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert session.info().status == "active"


def test_a_stopped_worker_does_not_stop_the_daemon(client: Client):
    stopped = client.session(COUNTER, session_timeout=1)
    pid = stopped.info().pid
    os.kill(pid, signal.SIGSTOP)
    with client.session(COUNTER) as session:
        assert session.call("add") == {"total": 1}
    assert wait_for_exit(pid), "its window ends, it does not answer, it is killed"
    assert stopped.info().status == "expired"
