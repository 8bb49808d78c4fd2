"""What must not pile up, wake up, or be left behind: processes, zombies, descriptors, memory, work for nobody."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import nothing_left
from support import (
    APPS,
    MARK,
    PATIENCE,
    Daemon,
    Raw,
    all_are_gone,
    children_of,
    framed,
    look_again,
    seconds_of_cpu,
    template_of,
    to_worker,
    wait_for_exit,
    wait_for_workers,
)

from warmpool import AppBrokenError, Client, PoolExhaustedError, WarmpoolError, embedded
from warmpool.board import Board
from warmpool.constants import MIB
from warmpool.daemon import children, processes
from warmpool.daemon.catalog import Catalog
from warmpool.daemon.session_logs import Logs
from warmpool.daemon.workers import WorkerEnd
from warmpool.wire.messages import Open
from warmpool.wire.process_messages import Forked

COUNTER = str(APPS / "counter.py")
ASYNC_COUNTER = str(APPS / "async_counter.py")
MISBEHAVES = str(APPS / "misbehaves.py")
HELPERS = str(APPS / "starts_helpers_on_import.py")


def asking(path: Path, *message: Any) -> Raw:
    """A connection on which this has been said."""
    raw = Raw.to(path)
    raw.say(*message)
    return raw


def open_of(app: str | None, session: str = "new") -> list[Any]:
    return ["Open", *Open(1, app, session, "/")]


def answer_of(raw: Raw, within: float = PATIENCE) -> list[Any]:
    assert raw.has_heard(within), f"no answer within {within} s"
    answer = raw.hear()
    assert answer is not None, "closed without a word"
    return answer


def wake_ups(processes: list[psutil.Process]) -> list[int]:
    return [process.num_ctx_switches().voluntary for process in processes]


@pytest.fixture
def stopped() -> Iterator[Callable[[int], None]]:
    """Stops processes, and lets them go on at the end whatever happens."""
    pids: list[int] = []

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        pids.append(pid)

    yield stop
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# --- at rest ------------------------------------------------------------------------------------------------------


def test_nobody_wakes_up_when_nothing_happens(daemon: Daemon):
    """Not the daemon, its zygote, a template or a worker, be it warm or with a session, plain or of an event loop; and not
    when a client has sent half a call.
    """
    sessions = [daemon.client.session(app) for app in (COUNTER, COUNTER, str(APPS / "answers_at_length.py"))]
    for session in sessions:
        session.call("history" if session.app == "counter" else "fine")
    for session in sessions[1:]:
        session._twin.link._socket.sendall(b"\0\0")
    daemon.client.run(app=COUNTER, function="history")
    wait_for_workers(daemon.client, leased=3, warm=2, spare=1)
    everybody = [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children()]
    assert len(everybody) == 10
    select.select([], [], [], 0.1)  # the worker of the last call has waited for another one by then
    before = wake_ups(everybody)
    select.select([], [], [], 1)
    after = wake_ups(everybody)
    assert [late - early for late, early in zip(after, before, strict=True)] == [pytest.approx(0, abs=2)] * 10


def test_sessions_that_are_over_leave_neither_descriptors_nor_processes_nor_memory(daemon: Daemon):
    process = psutil.Process(daemon.pid)

    def open_and_end(count: int) -> tuple[int, int, int]:
        for _ in range(count // 5):
            sessions = [daemon.client.session(COUNTER, labels={"label": "x" * 100}) for _ in range(5)]
            for session in sessions:
                session.call("add")
            for session in sessions:
                session.end()
        wait_for_workers(daemon.client, warm=1)
        return process.num_fds(), len(process.children()), process.memory_info().rss

    fds, children, memory = open_and_end(20)
    fds_after, children_after, memory_after = open_and_end(150)
    assert (fds_after, children_after) == (fds, children)
    assert memory_after - memory < 2 * MIB, "a record of a session is some kilobytes"


def test_there_is_never_a_zombie_for_long(daemon: Daemon):
    """However they die: killed, ended, by themselves, with children, in their setup, while they are made."""
    ways: list[Callable[[Any], object]] = [
        lambda session: os.kill(session.info().pid, signal.SIGKILL),
        lambda session: session.end(),
        lambda session: session.call("kill_itself"),
        lambda session: session.call("exit_quietly"),
        lambda session: session.call("leave_children") and session.end(),
    ]
    for way in ways * 3:
        with suppress(WarmpoolError):
            way(daemon.client.session(MISBEHAVES))
    for app in ("exits_in_setup", "raises_in_setup", "raises_on_import"):
        with pytest.raises(AppBrokenError):
            daemon.client.session(str(APPS / f"{app}.py"))
    wait_for_workers(daemon.client, warm=1)
    assert no_zombie(daemon)


def no_zombie(daemon: Daemon) -> bool:
    """Waits for one that has just died to be reaped; False if one stays."""
    deadline = time.monotonic() + 1.5
    while any(map(is_zombie, psutil.Process(daemon.pid).children(recursive=True))):
        if time.monotonic() > deadline:
            return False
        daemon.client.status()
    return True


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_orphan_that_dies_while_it_is_the_daemons_child_is_no_zombie_either(daemon: Daemon):
    session = daemon.client.session(str(APPS / "forks_twice_on_import.py"))
    assert session.call() == "ran"
    wait_for_workers(daemon.client, leased=1, warm=1)
    assert no_zombie(daemon)


# --- who goes, and what goes with him -----------------------------------------------------------------------------


def test_what_an_import_leaves_running_dies_with_its_template(daemon: Daemon):
    with daemon.client.session(HELPERS) as session:
        helpers = session.call("helpers")
        assert all(psutil.Process(pid).is_running() for pid in helpers)
        template = psutil.Process(helpers[0]).parent()
        assert template is not None
        template.kill()
        for pid in helpers:
            assert wait_for_exit(pid, 5)
        assert session.call("helpers") == helpers, "the session goes on"
    assert no_zombie(daemon)


def test_when_a_daemon_is_gone_so_is_what_the_last_worker_has_left_running(daemon: Daemon):
    """It is killed when that worker dies, which is the end of the daemon; and it takes long to die."""
    session = daemon.client.session(str(APPS / "misbehaves.py"))
    child = session.call("leave_a_large_child")
    gone = os.pidfd_open(daemon.pid)
    try:
        daemon.client.stop()
        assert select.select([gone], [], [], PATIENCE)[0]
        assert not psutil.pid_exists(child)
    finally:
        os.close(gone)


def test_a_client_that_goes_with_its_answers_unread_is_let_go_of(daemon: Daemon):
    """Its last word and its end come to the daemon at once, as an error on the socket, of which its loop tells once."""
    daemon.client.session(COUNTER).end()
    process = psutil.Process(daemon.pid)
    raw = Raw.to(daemon.socket)
    wait_for_workers(daemon.client, warm=1)
    descriptors = process.num_fds()
    raw.say("Request", 1, "daemon.status", {})
    assert raw.has_heard(PATIENCE)
    process.suspend()
    try:
        while process.status() != psutil.STATUS_STOPPED:
            look_again()
        raw.say("Abandon", 2)
        raw.socket.close()
    finally:
        process.resume()
    deadline = time.monotonic() + PATIENCE
    while process.num_fds() >= descriptors:
        assert time.monotonic() < deadline, "it is still held"
        look_again()


def test_who_says_much_leaves_others_their_turn(daemon: Daemon):
    """Things of which each is handled, and none is answered."""
    told = framed(["Abandon", 1]) * 5000
    enough = threading.Event()

    def talk() -> None:
        with Raw.to(daemon.socket) as raw:
            while not enough.is_set():
                raw.send(told)

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        with Raw.to(daemon.socket) as other:
            for number in range(5):
                other.say("Request", number + 1, "daemon.status", {})
                assert other.has_heard(2), "it has to wait"
                other.hear()
    finally:
        enough.set()
        talking.join()


def test_a_worker_that_was_just_born_is_never_taken_for_an_orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It becomes the daemon's child at any moment, also between two looks of the one who sweeps up orphans. Its
    birth is announced before: who looks at the announcements after he has looked at the children knows it.
    """
    loop = asyncio.new_event_loop()
    board = Board.create(1)
    reported: list[Any] = []
    logs = Logs(loop, tmp_path / "logs", 4096, calls_of=lambda _: 0, reply=lambda *_: None, tail=None)
    hands = processes.Processes(
        loop,
        board,
        logs,
        Catalog(),
        None,
        frame_limit=1,
        open_files=1024,
        report=reported.append,
        described=lambda *_: None,
        printed=lambda *_: None,
        hangs_next=lambda _: None,
    )
    ours, theirs = processes.packets.pair()
    channel = processes.Channel(
        ours, loop, processes.FROM_WORKER, lambda message: hands._from_worker("app", "w_1", message), lambda: None
    )
    first = socket.socket(socket.AF_UNIX)
    hands._workers["w_1"] = WorkerEnd("w_1", loop, channel, first)
    newborn = subprocess.Popen(["sleep", "1000"])

    def adopted_now() -> list[int]:
        if not reported:
            processes.packets.send(theirs, Forked(newborn.pid))
        return [newborn.pid]

    monkeypatch.setattr(children, "children_of_this_process", adopted_now)
    monkeypatch.setattr(children, "ORPHAN_GRACE", 0)
    try:
        hands.children.sweep()
        channel.drain()
        assert newborn.poll() is None
        assert [event.pid for event in reported] == [newborn.pid]
        assert not wait_for_exit(newborn.pid, 0.05), "the sweep has killed a newborn worker"
    finally:
        newborn.kill()
        newborn.wait()
        for child in hands.children._known.values():
            loop.remove_reader(child._pidfd)
            os.close(child._pidfd)
        hands._workers["w_1"].close()
        theirs.close()
        loop.close()
        board.close()


def test_clients_that_open_and_end_all_the_time_never_see_a_broken_app(shared_daemon: Daemon, client: Client):
    """Workers die and others are born at the same time, all the time."""
    client.session(COUNTER).end()
    errors: list[WarmpoolError] = []
    until = time.monotonic() + 1.2

    def open_and_end() -> None:
        with Client(shared_daemon.socket, autostart=False) as own:
            while time.monotonic() < until:
                try:
                    with own.session(COUNTER) as session:
                        session.call("add")
                except WarmpoolError as error:
                    errors.append(error)
                    return

    threads = [threading.Thread(target=open_and_end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []


# --- at a bad moment ----------------------------------------------------------------------------------------------


def test_a_warm_worker_that_has_just_died_is_no_answer_to_an_open(daemon: Daemon, stopped: Callable[[int], None]):
    """The daemon finds the open before it finds the death. There are other workers to be had."""
    daemon.client.session(COUNTER).end()
    wait_for_workers(daemon.client, warm=1)
    _, _, warm = children_of(daemon)
    stopped(daemon.pid)
    before = len(unix_sockets(daemon.socket))
    totals: list[Any] = []

    def open_and_call() -> None:
        try:
            with Client(daemon.socket, autostart=False) as client, client.session(COUNTER) as session:
                totals.append(session.call("add"))
        except WarmpoolError as error:
            totals.append(error)

    thread = threading.Thread(target=open_and_call)
    thread.start()
    while len(unix_sockets(daemon.socket)) == before:
        look_again()
    warm.kill()
    assert wait_for_exit(warm.pid)
    os.kill(daemon.pid, signal.SIGCONT)
    thread.join(PATIENCE)
    assert totals == [{"total": 1}]
    wait_for_workers(daemon.client, warm=1)
    assert daemon.client.sessions.list() == []


def unix_sockets(path: Path) -> list[str]:
    """The machine's sockets at `path`, a line each: the listener, and the far end of each connection to it."""
    return [line for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f" {path}")]


def test_a_session_whose_worker_dies_with_a_client_on_its_way_is_lost_and_says_so(
    shared_daemon: Daemon, client: Client, stopped: Callable[[int], None]
):
    session = client.session(COUNTER)
    pid = session.info().pid
    stopped(pid)
    with asking(shared_daemon.socket, *open_of(None, session.id)) as control:
        assert answer_of(control)[0] == "Opened"
        os.kill(pid, signal.SIGKILL)
        assert wait_for_exit(pid)
        with control.take() as connection:
            assert connection.hear() is None
    with pytest.raises(WarmpoolError) as raised:
        session.call("add")
    assert raised.value.code == "WORKER_LOST"
    with asking(shared_daemon.socket, *open_of(None, session.id)) as control:
        assert answer_of(control)[2]["code"] == "WORKER_LOST"


def test_a_keepalive_that_was_confirmed_holds(shared_daemon: Daemon, client: Client, stopped: Callable[[int], None]):
    """Also while the worker is asked whether the session may expire."""
    session = client.session(COUNTER, session_timeout=1)
    pid = session.info().pid
    stopped(pid)
    select.select([], [], [], 1.1)
    keepalive = ["Request", 1, "sessions.keepalive", {"session_id": session.id}]
    with asking(shared_daemon.socket, *keepalive) as control:
        client.status()
        os.kill(pid, signal.SIGCONT)
        answer = answer_of(control)
    if answer[0] == "Reply":
        assert not wait_for_exit(pid, 0.3), "it was confirmed, and the session expired all the same"
        assert session.call("add") == {"total": 1}
    else:
        assert answer[2]["code"] == "SESSION_EXPIRED"


def test_a_keepalive_that_came_while_the_daemon_was_stopped_is_in_time(daemon: Daemon):
    """It was there before the window was over, and is read before the deadline is looked at."""
    daemon.client.session(COUNTER).end()
    wait_for_workers(daemon.client, warm=1)
    session = daemon.client.session(COUNTER, session_timeout=1)
    wait_for_workers(daemon.client, leased=1, warm=1)
    with asking(daemon.socket, "Request", 1, "daemon.status", {}) as control:
        assert answer_of(control)[:2] == ["Reply", 1]
        while psutil.Process(daemon.pid).status() != psutil.STATUS_SLEEPING:
            look_again()
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            control.say("Request", 2, "sessions.keepalive", {"session_id": session.id})
            assert session.call("history") == [], "a call does not need the daemon"
            select.select([], [], [], 1.2)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        answer = answer_of(control)
    assert (answer[0], answer[2]["status"]) == ("Reply", "active")
    assert session.call("add") == {"total": 1}


def test_a_stopped_template_holds_up_its_own_app_only(daemon: Daemon, stopped: Callable[[int], None]):
    session = daemon.client.session(COUNTER)
    wait_for_workers(daemon.client, leased=1, warm=1)
    template = template_of(daemon)
    stopped(template.pid)
    assert daemon.client.session(COUNTER).call("add") == {"total": 1}, "the warm one"
    with pytest.raises(PoolExhaustedError):
        daemon.client.session(COUNTER, open_timeout=0.2)
    assert daemon.client.session(ASYNC_COUNTER).call("add", amount=1) == 1
    assert session.call("add") == {"total": 1}
    with asking(daemon.socket, *open_of(COUNTER)) as control:
        daemon.client.status()
        template.resume()
        assert answer_of(control)[0] == "Opened"


def test_who_asks_for_a_description_is_answered_though_the_template_dies(
    daemon: Daemon, stopped: Callable[[int], None]
):
    daemon.client.session(COUNTER).end()
    template = template_of(daemon)
    stopped(template.pid)
    request = ["Request", 1, "apps.describe", {"app": COUNTER, "cwd": "/"}]
    with asking(daemon.socket, *request) as control:
        daemon.client.status()
        template.kill()
        assert answer_of(control, 3)[1] == 1


def test_a_template_that_dies_at_every_fork_is_a_broken_app(daemon: Daemon):
    """It is not started again and again for the one who waits."""
    with pytest.raises(AppBrokenError, match="no worker can be made of it"):
        daemon.client.session(str(APPS / "dies_at_its_fork.py"))
    assert daemon.text_of_log().count("exited with status 3") <= 3


def test_an_app_whose_workers_cannot_tell_of_their_birth_is_broken():
    """They are not made again and again, as fast as can be. (After the back-off they are tried again.)"""
    with embedded() as client, client.clock.frozen():
        with pytest.raises(AppBrokenError):
            client.session(str(APPS / "closes_all_at_its_fork.py"))
        session = client.session(COUNTER)
        assert int(session.worker_id.removeprefix("w_")) < 10, "names are given in their order"


def test_an_app_that_breaks_in_a_process_of_its_own_is_called_by_its_name(client: Client, directory: Path):
    """Its first import starts a thread, so each worker imports it for itself."""
    app = directory / "unsteady.py"
    app.write_text(
        "import os, threading\nfrom pathlib import Path\nfrom warmpool import BaseApp\n"
        "mark = Path(__file__).with_name('mark')\nif mark.exists():\n    os._exit(5)\nmark.touch()\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "class Unsteady(BaseApp):\n    def run(self) -> str:\n        return 'never'\n"
    )
    with pytest.raises(AppBrokenError, match="app unsteady .*exited with status 5"):
        client.session(str(app))


def test_a_process_of_its_own_in_which_an_app_does_not_load_is_gone_though_it_has_a_thread(
    client: Client, directory: Path
):
    app = directory / "alone.py"
    app.write_text(
        "import os, threading\nfrom pathlib import Path\nfrom warmpool import BaseApp\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "with Path(__file__).with_name('pids').open('a') as pids:\n    pids.write(f'{os.getpid()}\\n')\n"
        "Path(__file__).with_name('mark').touch(exist_ok=False)\n"
        "class Alone(BaseApp):\n    def run(self) -> str:\n        return 'never'\n"
    )
    with pytest.raises(AppBrokenError, match="FileExistsError"):
        client.session(str(app))
    while "starting" in client.status().workers_by_state:
        look_again()
    template, *others = map(int, (directory / "pids").read_text().split())
    assert others
    for pid in (template, *others):
        assert wait_for_exit(pid, 5), "it has failed, and stays"


def test_more_opens_than_a_stopped_template_has_room_for_cost_no_cpu(
    start_daemon: Callable[..., Daemon], stopped: Callable[[int], None]
):
    """A channel takes some 278 messages that nobody reads."""
    daemon = start_daemon("--max-workers", "400", "--warm", "0")
    daemon.client.session(COUNTER).end()
    template = template_of(daemon)
    stopped(template.pid)
    crowd = [asking(daemon.socket, *open_of(COUNTER)) for _ in range(320)]
    try:
        daemon.client.status()
        before = seconds_of_cpu(daemon.pid)
        started = time.monotonic()
        select.select([], [], [], 0.5)
        assert seconds_of_cpu(daemon.pid) - before < 0.2 * (time.monotonic() - started)
        assert not any(one.has_heard() for one in crowd), "they wait; a template that is slow is not broken"
    finally:
        for one in crowd:
            one.close()
        daemon.client.status()
        template.kill()
        wait_for_exit(template.pid)
    wait_for_workers(daemon.client)


def test_a_log_that_nobody_reads_stops_nobody_but_who_writes_it(directory: Path):
    """In the foreground the log goes to whoever started the daemon, and an app's prints with it."""
    path = directory / "d.sock"
    with nothing_left() as mark:
        command = [sys.executable, "-P", "-m", "warmpool", "serve", "--socket", str(path)]
        daemon = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, MARK: mark}
        )
        assert daemon.stderr is not None
        try:
            assert b"listening" in daemon.stderr.readline()
            with Client(path, autostart=False) as client:
                session = client.session(MISBEHAVES)
                _, connection = to_worker(path, None, session.id)
                with connection:
                    connection.say("Call", 1, "write_to_stdout", {"count": 200_000})
                    with asking(path, *open_of(COUNTER)) as control:
                        assert answer_of(control, 5)[0] == "Opened"
                        control.say("Request", 2, "daemon.status", {})
                        assert answer_of(control, 2)[:2] == ["Reply", 2]
        finally:
            daemon.kill()
            daemon.wait()
            daemon.stderr.close()
            assert all_are_gone(mark, 2)
