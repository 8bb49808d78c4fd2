"""The blocking client, on real processes: threads, forks, interruptions, and every way that a connection ends."""

from __future__ import annotations

import _thread
import contextlib
import dis
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support import (
    APPS,
    MEMORY_LIMIT,
    PATIENCE,
    Daemon,
    all_are_gone,
    look_again,
    open_files,
    processes_marked,
    wait_for_exit,
    wait_until_said,
)

from warmpool import (
    AppBrokenError,
    AppNotFoundError,
    CallTimeoutError,
    Client,
    DaemonUnavailableError,
    Data,
    InvalidRequestError,
    PayloadTooLargeError,
    Session,
    SessionEndedError,
    SessionExpiredError,
    SessionNotFoundError,
    Stream,
    WarmpoolError,
    WorkerLostError,
)
from warmpool.client import kept_links, sync_links
from warmpool.wire import frames

COUNTER = str(APPS / "counter.py")
VALUES = str(APPS / "values.py")
TOLD = str(APPS / "told_to_stop.py") + ":Plain"
WAITS = str(APPS / "waits.py")
STREAMS = str(APPS / "streams.py") + ":Plain"
MIB = 1024 * 1024


def wait_until_busy(client: Client, session_id: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not client.sessions.get(session_id).busy:
        assert time.monotonic() < deadline
        look_again()


def wait_until_idle(client: Client, session_id: str) -> None:
    while client.sessions.get(session_id).busy:
        look_again()


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` gives in each of so many threads that begin at once."""
    barrier = threading.Barrier(count)

    def begin(index: int) -> Any:
        barrier.wait(PATIENCE)
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def in_child(work: Callable[[], Any]) -> str:
    """What `work` gives, or the error that it raises, in a fork of this process; nothing if it hangs or dies."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            try:
                answer = str(work())
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(writable, answer.encode())
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@contextlib.contextmanager
def call_under_way(client: Client, session: Session, fifo: Path) -> Iterator[Future[Any]]:
    """A thread waits for `session.call("wait")`, which answers "late" when this is left."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(session.call, "wait", fifo=str(fifo), answer="late")
        try:
            wait_until_busy(client, session.id)
            yield future
        finally:
            fifo.write_text("go")


# --- threads ------------------------------------------------------------------------------------------------------


def test_threads_share_a_session(client: Client):
    with client.session(COUNTER) as session:

        def work(thread: int) -> None:
            for index in range(50):
                label = f"{thread} {index}"
                assert session.call("plain", amount=thread, times=index, label=label) == [thread * index, label]
                assert session.call("add", amount=1)["total"] > index

        in_threads(8, work)
        assert session.call("add", amount=0) == {"total": 400}
        assert session.info().call_count == 801


def test_threads_run_calls_in_a_session(client: Client):
    """None of them finds a connection that is kept, and all of them make one."""
    with client.session(COUNTER) as session:

        def work(thread: int) -> None:
            for index in range(50):
                given = {"amount": 1, "times": 1, "label": f"{thread} {index}"}
                result = client.run(session=session.id, function="plain", input=given)
                assert result.output == [1, given["label"]]
                assert result.session_id == session.id
                client.run(app=COUNTER, session=session.id, function="add")

        in_threads(8, work)
        assert session.call("add", amount=0) == {"total": 400}


def test_threads_do_not_take_each_others_connections(client: Client, monkeypatch: pytest.MonkeyPatch):
    """Fewer connections are kept than sessions are used: what one thread is using must not be closed by another."""
    monkeypatch.setattr(kept_links, "KEPT_LINKS", 1)
    opened = [client.run(app=COUNTER, function="add", session="new").session_id for _ in range(3)]

    def work(thread: int) -> None:
        for _ in range(50):
            client.run(session=opened[thread % 3], function="add")

    in_threads(6, work)
    assert [client.run(session=id, function="add").output.total for id in opened] == [102, 102, 102]


def test_a_call_goes_by_another_connection_if_its_own_was_taken_meanwhile(client: Client, monkeypatch):
    """A thread has been given the session's connection, and before it uses that, another one's stream takes it for
    itself and is left early. The call has not been sent: it is made again.
    """
    with client.session(str(APPS / "streams.py") + ":Plain") as session:
        held = session.stream("forever")
        next(held)  # so the session has none
        reopen, given, left = session._twin._reopen, threading.Event(), threading.Event()

        async def reopen_slowly() -> Any:
            link = await reopen()
            given.set()
            assert left.wait(PATIENCE)
            return link

        monkeypatch.setattr(session._twin, "_reopen", reopen_slowly)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(session.call, "fine")
            assert given.wait(PATIENCE)
            monkeypatch.undo()
            held.close()
            with session.stream("forever") as stream:
                next(stream)
            left.set()
            assert answer.result(PATIENCE) == 1


def test_a_stream_has_one_reader_at_a_time_and_who_closes_it_ends_that_ones_reading(
    client: Client, fifo: Path, monkeypatch: pytest.MonkeyPatch
):
    next_parts, is_read = client._core.next_parts, threading.Event()

    async def next_parts_of_a_reader(*arguments: Any) -> list[Any]:
        is_read.set()
        return await next_parts(*arguments)

    monkeypatch.setattr(client._core, "next_parts", next_parts_of_a_reader)
    with client.session(WAITS) as session, ThreadPoolExecutor(1) as pool:
        stream = session.stream("wait", fifo=str(fifo), answer="late")
        events = pool.submit(list, stream)
        assert is_read.wait(PATIENCE)
        with pytest.raises(InvalidRequestError, match="the stream is being read already"):
            next(stream)
        stream.close()
        assert events.result(PATIENCE) == []
        fifo.write_text("go")
        assert session.call("echo", value=1) == 1


def test_a_time_out_waits_for_no_call_of_another_threads(client: Client, fifo: Path, directory: Path):
    os.mkfifo(never := directory / "never")
    with client.session(WAITS) as session, ThreadPoolExecutor(2) as pool:
        late = pool.submit(session.call, "wait", fifo=str(never), answer="late", timeout=0.5)
        wait_until_busy(client, session.id)
        other = pool.submit(session.call, "wait", fifo=str(fifo), answer="in its turn")
        try:
            assert isinstance(late.exception(PATIENCE), CallTimeoutError)
            assert not other.done()
        finally:
            fifo.write_text("go")
        assert other.result(PATIENCE) == "in its turn"


def test_a_thread_is_not_taken_for_a_reader_that_is_gone_though_it_has_its_number(client: Client):
    with client.session(STREAMS) as session:
        begun: list[tuple[int, Stream]] = []
        heard: list[Any] = []

        def begin() -> None:
            begun.append((threading.get_ident(), session.stream("count", to=2)))

        def call() -> None:
            if threading.get_ident() == begun[-1][0]:
                heard.append(session.call("heard"))

        for _ in range(20):  # somebody else may have been given the number meanwhile, and keep it
            for work in (begin, *[call] * 20):
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            assert [event.type for event in begun[-1][1]] == ["output", "output", "done"]
            if heard:
                break
        assert heard
        assert all(words == [] for words in heard)


def test_opening_again_says_what_has_become_of_the_session(client: Client):
    session = client.session(COUNTER)
    client.sessions.end(session.id)
    for _ in range(2):
        with pytest.raises(SessionEndedError):
            session.call("add")
        with pytest.raises(SessionEndedError):
            session.open()


def test_threads_open_sessions_at_once(client: Client):
    def work(thread: int) -> tuple[str, int]:
        with client.session(COUNTER) as session:
            assert session.call("add", amount=thread) == {"total": thread}
            return session.id, session.call("where")["pid"]

    opened = in_threads(8, work)
    assert len({id for id, _ in opened}) == len({pid for _, pid in opened}) == 8


def test_threads_ask_the_daemon_at_once(client: Client):
    with client.session(COUNTER) as one, client.session(COUNTER) as two:

        def work(thread: int) -> None:
            mine = (one, two)[thread % 2]
            for _ in range(50):
                assert mine.info().id == mine.id
                assert mine.keepalive().id == mine.id
                assert len(client.sessions.list()) == 2

        in_threads(8, work)


def test_a_session_can_be_asked_about_while_it_is_in_a_call(client: Client, fifo: Path):
    with client.session(WAITS) as session:
        with call_under_way(client, session, fifo) as future:
            assert session.info().busy is True
            assert session.keepalive().status == "active"
            assert not future.done()
        assert future.result() == "late"
        assert session.info().busy is False


# --- looking for an answer ----------------------------------------------------------------------------------------

SPINS = """
import sys
from warmpool import Client
from warmpool.client.sync_calls import SPIN_BACKOFF

with Client(sys.argv[1], autostart=False) as client, client.session(sys.argv[2]) as session:
    link = session._twin.link
    session.call("blink")
    assert link._backoff == 0, "a worker's first call is slow"
    session.call("blink")
    calm = [link._backoff]
    for number in range(SPIN_BACKOFF):
        assert session.call("fine", value=number) == number
        calm.append(link._backoff)
    print(calm == list(range(SPIN_BACKOFF, -1, -1)))
"""


def test_who_has_looked_in_vain_sleeps_for_a_while(client: Client):
    """In a process of its own: this one may have threads, and with them nobody looks."""
    command = [sys.executable, "-c", SPINS, str(client.places.socket), TOLD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "True\n"


SHARES = """
import os, sys
from warmpool import Client
from warmpool.client.sync_calls import SPIN_BACKOFF

with Client(sys.argv[1], autostart=False) as client, client.session(sys.argv[2]) as session:
    core = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, core)
    os.sched_setaffinity(session.info().pid, core)
    link = session._twin.link
    while link._backoff:
        session.call("fine", value=7)
    while link._backoff != SPIN_BACKOFF:
        session.call("fine", value=7)
"""


def test_who_shares_a_core_with_the_worker_sleeps_too(client: Client):
    subprocess.run([sys.executable, "-c", SHARES, str(client.places.socket), TOLD], timeout=PATIENCE, check=True)


# --- forks --------------------------------------------------------------------------------------------------------

FORKED = (
    "InvalidRequestError: this client cannot be used: it was made before this process was forked: make a new Client"
)


def test_a_client_cannot_be_used_after_a_fork(client: Client):
    with client.session(COUNTER) as session:
        session.call("add", amount=2)
        client.run(session=session.id, function="add", input={"amount": 2})
        answers = {
            in_child(use)
            for use in (
                lambda: session.call("add"),
                session.info,
                session.keepalive,
                session.end,
                lambda: client.run(session=session.id, function="add"),
                lambda: client.run(app=COUNTER, session="new", function="add"),
                lambda: client.run(app=COUNTER, function="add"),
                lambda: client.session(COUNTER),
                client.status,
                client.sessions.list,
            )
        }
        assert [answer for answer in answers if not answer.startswith(FORKED)] == []
        assert session.call("add", amount=3) == {"total": 7}, "the parent's goes on"
        assert client.run(session=session.id, function="add").output == {"total": 8}
        assert [info.id for info in client.sessions.list()] == [session.id]


def test_a_stream_and_a_map_of_the_parent_end_in_a_child_as_any_call_does(client: Client):
    with client.session(str(APPS / "streams.py") + ":Plain") as session:
        with session.stream("count", to=3) as stream:
            next(stream)
            assert in_child(lambda: next(stream)).startswith(FORKED)
            assert [event.type for event in stream][-1] == "done"
        outputs = session.map("fine", [{"value": 1}, {"value": 2}])
        assert next(outputs) == 1
        assert in_child(lambda: next(outputs)).startswith(FORKED)
        assert list(outputs) == [2]


def test_a_fork_in_the_middle_of_another_threads_call_hangs_nobody(client: Client, fifo: Path):
    with client.session(WAITS) as session:
        with call_under_way(client, session, fifo) as future:
            assert in_child(lambda: session.call("echo", value=1)).startswith(FORKED)
            assert in_child(lambda: client.run(session=session.id, function="echo")).startswith(FORKED)
            assert in_child(client.close) == "None"
        assert future.result() == "late"
        assert session.call("echo", value=2) == 2


def test_a_child_goes_on_with_a_session_by_a_client_of_its_own(client: Client):
    def go_on() -> Any:
        with Client(client.places.socket, autostart=False) as own:
            return own.run(session=session.id, function="add").output.total

    with client.session(COUNTER) as session:
        session.call("add")
        assert in_child(go_on) == "2"
        assert session.call("add") == {"total": 3}


def test_a_child_that_leaves_the_block_of_a_session_does_not_end_it(client: Client):
    def leave() -> str:
        with contextlib.suppress(SystemExit), client, session:
            raise SystemExit
        return "left"

    with client.session(COUNTER) as session:
        session.call("add")
        assert in_child(leave) == "left"
        assert session.info().status == "active"
        assert session.call("add") == {"total": 2}


# --- closing ------------------------------------------------------------------------------------------------------


def test_closing_a_client_leaves_its_sessions(client: Client):
    with Client(client.places.socket, autostart=False) as other:
        session = other.session(COUNTER)
        session.call("add")
        other.run(session=session.id, function="add")
        assert repr(other) == f"<Client {client.places.socket} open>"
    assert repr(other) == f"<Client {client.places.socket} closed>"
    other.close()
    assert client.run(session=session.id, function="add").output == {"total": 3}
    for use in (
        lambda: session.call("add"),
        session.info,
        session.end,
        other.status,
        other.sessions.list,
        lambda: other.run(session=session.id, function="add"),
        lambda: other.run(app=COUNTER, function="add"),
        lambda: other.session(COUNTER),
    ):
        with pytest.raises(InvalidRequestError, match=r"this client .*closed"):
            use()


def test_a_client_that_was_never_used_closes_too(directory: Path):
    with Client(directory / "d.sock"):
        pass


def test_closing_in_the_middle_of_another_threads_call_hangs_nobody(client: Client, fifo: Path):
    other = Client(client.places.socket, autostart=False)
    session = other.session(WAITS)
    with call_under_way(client, session, fifo) as future:
        other.close()
        assert isinstance(future.exception(PATIENCE), InvalidRequestError)


def test_closing_ends_another_threads_open_that_waits_in_line(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--max-workers", "1")
    other = Client(daemon.socket, autostart=False)
    with daemon.client.session(COUNTER), ThreadPoolExecutor(1) as pool:
        opening = pool.submit(other.session, COUNTER)
        while not daemon.client.status().waiting:
            look_again()
        other.close()
        assert isinstance(opening.exception(PATIENCE), InvalidRequestError)


def test_a_client_that_is_dropped_leaks_nothing(client: Client):
    client.status()
    files = open_files()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dropped = Client(client.places.socket, autostart=False)
        session = dropped.session(COUNTER)
        session.call("add")
        session_id = dropped.run(app=COUNTER, session="new", function="add").session_id
        dropped.status()
        assert len(open_files() - files) == 4, "for control, for each session, and the board"
        del dropped, session
        gc.collect()
    assert open_files() == files
    assert [str(warning.message) for warning in caught] == []
    assert client.sessions.get(session_id).status == "active"


def test_a_session_that_is_dropped_lives_on_and_leaks_nothing(client: Client):
    client.session(COUNTER).close()
    files = open_files()
    session = client.session(COUNTER)
    session_id = session.id
    del session
    gc.collect()
    assert open_files() == files
    assert client.sessions.get(session_id).status == "active"


def test_a_script_that_closes_nothing_ends_without_a_word(shared_daemon: Daemon, client: Client):
    script = (
        "import sys; from warmpool import Client; client = Client(sys.argv[1]); client.status()\n"
        "session = client.session(sys.argv[2]); print(session.call('add'))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-X", "dev", "-c", script, str(shared_daemon.socket), COUNTER],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("{'total': 1}\n", "")


# --- the daemon is gone, or another -------------------------------------------------------------------------------


def test_without_a_daemon_the_error_says_where_and_what_to_do(directory: Path):
    path = directory / "d.sock"
    with Client(path, autostart=False) as client:
        for use in (client.status, client.sessions.list, client.stop, lambda: client.session(COUNTER)):
            with pytest.raises(DaemonUnavailableError) as raised:
                use()
            message = str(raised.value)
            assert f"no daemon listens at {path} (" in message
            assert "`warmpool serve`" in message
            assert "autostart=True" in message
            assert f"{path}.log" not in message, "there is none"
            assert (raised.value.code, raised.value.status_code) == ("DAEMON_UNAVAILABLE", 503)
    assert list(directory.iterdir()) == []
    Path(f"{path}.log").touch()
    with Client(path, autostart=False) as client, pytest.raises(DaemonUnavailableError, match=f"{path}\\.log"):
        client.status()


def test_a_daemon_that_is_started_again_knows_no_sessions(start_daemon: Callable[..., Daemon]):
    first = start_daemon()
    with Client(first.socket, autostart=False) as client:
        session = client.session(COUNTER)
        session.call("add")
        kept = client.run(app=COUNTER, session="new", function="add").session_id
        first.stop()
        for use in (lambda: session.call("add"), lambda: client.run(session=kept, function="add"), client.status):
            with pytest.raises(DaemonUnavailableError, match=str(first.socket)):
                use()
        second = start_daemon()
        assert client.status().pid == second.pid != first.pid
        for use in (lambda: session.call("add"), lambda: client.run(session=kept, function="add"), session.info):
            with pytest.raises(SessionNotFoundError, match=r"(?i)session not found"):
                use()
        assert client.run(app=COUNTER, session="new", function="add").output == {"total": 1}
        assert client.sessions.list()[0].call_count == 1


def test_a_client_goes_on_with_the_next_daemon_at_once(start_daemon: Callable[..., Daemon]):
    first = start_daemon()
    with Client(first.socket, autostart=False) as client:
        client.status()
        session = client.session(COUNTER)
        first.stop()
        second = start_daemon()
        assert client.status().pid == second.pid
        with pytest.raises(SessionNotFoundError):
            session.call("add")


def test_no_daemon_is_started_to_ask_what_became_of_the_last(daemon: Daemon, fifo: Path):
    """Whoever stops or kills the daemon does not want another one because a call was under way."""
    with Client(daemon.socket, autostart=True) as client:
        session = client.session(WAITS)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(session.call, "wait", fifo=str(fifo), answer="late")
            wait_until_busy(daemon.client, session.id)
            os.kill(daemon.pid, signal.SIGKILL)
            error = future.exception(PATIENCE)
        assert all_are_gone(daemon.mark, PATIENCE)
        started = client.started_daemon
        if started:
            pid = client.stop()
            assert wait_for_exit(pid)
    assert isinstance(error, DaemonUnavailableError), error
    assert session.id in str(error)
    assert not started
    for path in daemon.socket.parent.glob("d.sock*"):
        if path != daemon.log:
            path.unlink()


def test_a_session_that_another_client_ends_is_over_for_all(client: Client):
    with Client(client.places.socket, autostart=False) as other:
        session = client.session(COUNTER)
        session.call("add")
        client.run(session=session.id, function="add")
        other.sessions.end(session.id)
        for use in (
            lambda: session.call("add"),
            lambda: client.run(session=session.id, function="add"),
            lambda: other.run(session=session.id, function="add"),
            session.keepalive,
        ):
            with pytest.raises(SessionEndedError, match=r"(?i)session ended") as raised:
                use()
            assert raised.value.session_id == session.id
        assert session.end().end_reason == "client"


def test_a_path_longer_than_an_address(tmp_path_factory: pytest.TempPathFactory, free_socket: Path):
    path = free_socket.parent / ("deep" * 25) / ("deeper" * 15) / "d.sock"
    assert len(os.fsencode(path)) > 200
    with Client(path) as client:
        try:
            assert client.status().socket == str(path)
            with client.session(COUNTER) as session:
                assert session.call("add") == {"total": 1}
            assert client.run(app=COUNTER, function="add").output.total >= 1
        finally:
            pid = client.stop()
            assert wait_for_exit(pid)
    assert [found.name for found in path.parent.iterdir()] == ["d.sock.log"]


# --- interruptions ------------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Whoever runs the tests in the background may have SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c_wakes_it() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@contextlib.contextmanager
def interrupted_when_begun(
    client: Client, press: Callable[[], None] = ctrl_c_wakes_it
) -> Iterator[pytest.ExceptionInfo[KeyboardInterrupt]]:
    """Ctrl-C as soon as the newest session is in its function."""

    def interrupt() -> None:
        with Client(client.places.socket, autostart=False) as other:
            while not (found := other.sessions.list()):
                look_again()
            wait_until_said(other, found[0].id, "begun")
        press()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as raised:
        yield raised
    thread.join()


def call_by(way: str, client: Client, session: Session, function: str, **fields: object) -> Any:
    """A call's output, by each of the ways to it."""
    if way == "run":
        return client.run(session=session.id, function=function, input=fields).output
    if way == "stream":
        return list(session.stream(function, fields))[-1].output
    timeout = PATIENCE if way == "call with a time-out" else None
    return session.call(function, fields, timeout=timeout)


WAYS = ["call", "call with a time-out", "run", "stream"]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("function", ["spin", "swallow"], ids=["stops", "answers late"])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_call_is_cancelled_and_its_late_answer_answers_no_other(client: Client, way: str, function: str):
    with client.session(TOLD) as session:
        assert call_by(way, client, session, "fine", value=5) == 5
        with interrupted_when_begun(client):
            call_by(way, client, session, function)
        for index in range(3):
            assert call_by(way, client, session, "fine", value=index) == index
        assert call_by(way, client, session, "seen") == [[True], function == "swallow"]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("way", WAYS)
def test_an_interruption_that_wakes_nobody_is_heard(client: Client, way: str, monkeypatch: pytest.MonkeyPatch):
    """As one that comes between Python's last look for signals and the system call that waits."""
    monkeypatch.setattr(sync_links, "SIGNAL_CHECK", 0.05)
    with client.session(TOLD) as session:
        with interrupted_when_begun(client, _thread.interrupt_main):
            call_by(way, client, session, "spin")
        assert call_by(way, client, session, "seen") == [[True], 0]


def test_a_map_is_not_read_on_where_a_stream_of_its_session_is_being_read(client: Client):
    with client.session(STREAMS) as session:
        values = session.map("fine", [{"value": n} for n in range(3)], window=1)
        assert next(values) == 0
        with session.stream("forever") as stream:
            next(stream)
            with pytest.raises(InvalidRequestError, match="being read here"):
                next(values)
        assert session.call("fine", value=5) == 5


def test_threads_that_call_map_and_stream_one_session_take_nothing_from_each_other(client: Client):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with client.session(STREAMS) as session:

            def work(thread: int) -> None:
                for n in range(40):
                    if (n + thread) % 3 == 0:
                        assert session.call("fine", value=n) == n
                    elif (n + thread) % 3 == 1:
                        assert list(session.map("fine", [{"value": v} for v in range(3)])) == [0, 1, 2]
                    else:
                        with session.stream("count", to=50) as stream:
                            assert next(stream).output == 0

            in_threads(6, work)
    finally:
        sys.setswitchinterval(before)


def test_a_call_whose_client_was_closed_says_so(client: Client, fifo: Path):
    other = Client(client.places.socket, autostart=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.run, app=WAITS, function="wait", input={"fifo": str(fifo), "answer": "late"})
        writer = os.open(fifo, os.O_WRONLY)  # opens when the app does: so it is in the call
        other.close()
        with pytest.raises(InvalidRequestError, match="closed"):
            waiting.result(PATIENCE)
        os.close(writer)


@pytest.mark.parametrize("way", ["call", "call with a time-out"])
def test_a_handler_cannot_call_into_the_call_that_it_has_interrupted(client: Client, way: str, fifo: Path):
    """It would wait for itself. Whatever else it asks for, it gets."""
    said: list[Any] = []

    def handler(*_: object) -> None:
        try:
            call_by(way, client, session, "echo", value=1)
        except InvalidRequestError as error:
            said.append(str(error))
        said.append(session.info().busy)
        fifo.write_text("go")

    def interrupt() -> None:
        with Client(client.places.socket, autostart=False) as other:
            wait_until_busy(other, session.id)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    with client.session(WAITS) as session:
        teller = threading.Thread(target=interrupt)
        teller.start()
        assert call_by(way, client, session, "wait", fifo=str(fifo), answer="late") == "late"
        teller.join()
        assert call_by(way, client, session, "echo", value=2) == 2
    signal.signal(signal.SIGUSR1, before)
    assert "by the handler of a signal" in said[0]
    assert said[1] is True


def test_a_handler_may_ask_whatever_the_client_is_about(client: Client):
    """The locks of a client are held for moments only, but a handler may fall into one."""
    with client._core._lock, client.session(COUNTER) as session:
        assert session.info().status == "active"
        assert client.run(session=session.id, function="add").output == {"total": 1}


@pytest.mark.usefixtures("ctrl_c")
def test_what_a_handler_raises_is_no_nonsense_of_the_daemons(client: Client, monkeypatch: pytest.MonkeyPatch):
    """Also where it falls into the decoding of an answer."""

    class TookTooLongError(Exception):
        pass

    def interrupted(*_: object, **__: object) -> None:
        raise TookTooLongError

    client.status()
    monkeypatch.setattr(frames, "unpack", interrupted)
    with pytest.raises(TookTooLongError):
        client.status()
    monkeypatch.undo()
    assert client.status().pid


def test_an_interrupted_first_call_leaves_its_session_and_says_which(client: Client):
    with interrupted_when_begun(client) as raised:
        client.run(app=TOLD, session="new", function="spin")
    (info,) = client.sessions.list()
    assert raised.value.__notes__ == [f"the session lives on: {info.id}"]
    assert client.run(session=info.id, function="seen").output == [[True], 0]


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_call_without_a_session_leaves_nothing(client: Client, fifo: Path):
    client.run(app=WAITS, function="echo")
    files = open_files()
    released = threading.Event()

    def interrupt() -> None:
        fifo.write_text("")  # opens when the app does: so it is in the call
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        released.set()

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        client.run(app=WAITS, function="wait", input={"fifo": str(fifo), "answer": "late"})
        released.wait(PATIENCE)  # should the answer have been faster
    thread.join()
    assert open_files() == files
    assert client.run(app=WAITS, function="echo", input={"value": 5}).output == 5


@pytest.mark.usefixtures("ctrl_c")
def test_whoever_is_interrupted_does_not_wait_for_a_daemon_that_stands_still(client: Client, shared_daemon: Daemon):
    with client.session(TOLD) as session, Client(shared_daemon.socket, autostart=False) as other:

        def interrupt() -> None:
            while not other.sessions.get(session.id).busy:
                look_again()
            os.kill(shared_daemon.pid, signal.SIGSTOP)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        try:
            thread.start()
            started = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                session.call("spin")
            assert time.monotonic() - started < 5
            thread.join()
        finally:
            os.kill(shared_daemon.pid, signal.SIGCONT)
        other.sessions.end(session.id, force=True)


LOOKS_UP = {dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD") if name in dis.opmap}
"""Bytecodes after which Python runs the handlers of signals that have come, unless they have raised."""
HANDLES = dis.opmap["PUSH_EXC_INFO"]


def interrupted_at(chance: int, work: Callable[[], object]) -> bool:
    """Does the work, and raises where a signal's handler could run in the client's code, at one of these places after
    another. False: there are fewer.
    """
    if chance < sys.maxsize and sys.version_info >= (3, 12):  # which looks at bytecodes from a function's second run on
        interrupted_at(sys.maxsize, work)
    left, last = chance, {}

    def entered(frame: FrameType, event: str, argument: object) -> Any:
        inside = frame.f_globals.get("__name__", "").startswith(("warmpool.client", "warmpool.wire"))
        frame.f_trace_lines, frame.f_trace_opcodes = False, inside
        return happened if inside else None

    def happened(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if event == "opcode":
            before, last[frame] = last.get(frame), frame.f_code.co_code[frame.f_lasti]
            left -= before in LOOKS_UP and last[frame] != HANDLES
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return happened

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        last.clear()  # these frames have connections in hand
    return False


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # by whoever is interrupted with it in hand
def test_an_interruption_anywhere_in_an_open_leaves_no_connection(client: Client):
    """Or its worker would never be free again."""
    before = open_files()
    chance, goes_on = 0, True
    gc.freeze()  # all that is not of an open: two hundred looks at it would take most of the time
    while goes_on:
        with Client(client.places.socket, autostart=False) as interrupted:
            goes_on = interrupted_at(chance, lambda: interrupted.run(app=COUNTER, function="add"))
        gc.collect()
        assert open_files() == before, chance
        chance += 1
    gc.unfreeze()
    assert chance > 100
    deadline = time.monotonic() + PATIENCE
    while "serving" in client.status().workers_by_state:
        assert time.monotonic() < deadline
        look_again()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("way", ["call", "run", "map", "control"])
def test_an_interruption_anywhere_mixes_up_no_answers(client: Client, way: str):
    def work() -> object:
        if way == "map":
            return list(session.map("fine", ({"value": value} for value in range(4))))
        if way == "control":
            return client.status()
        return call_by(way, client, session, "fine", value=0)

    with client.session(TOLD) as session:
        chance = 0
        while interrupted_at(chance, work):
            if way == "control":
                assert client.sessions.get(session.id).id == session.id
            else:
                assert session.call("fine", value=chance) == chance
                assert call_by(way if way in WAYS else "call", client, session, "fine", value=-chance) == -chance
            chance += 1
        assert chance > 10


@pytest.mark.timeout(20)
def test_interruptions_at_any_moment_mix_up_no_answers(client: Client):
    """Messages of many pieces, and a signal every millisecond that raises wherever the client is."""

    class InterruptedError_(BaseException):
        pass

    def interrupt(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False  # once: what the client does about it may take longer than it is to the next signal
            raise InterruptedError_

    def pester() -> None:
        while not done.wait(0.001):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    armed, done, interrupted = False, threading.Event(), 0
    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=pester)
    thread.start()
    try:
        with client.session(VALUES) as session:
            for index in range(500):
                size = MIB >> index % 5
                try:
                    armed = True
                    if index % 3:
                        assert len(session.call("large", size=size)) == size
                    else:
                        assert len(session.call("echo", value=bytes(size))) == size
                    armed = False
                except InterruptedError_:
                    interrupted += 1
                assert session.call("echo", value=index) == index
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert interrupted > 10


def test_what_threads_say_after_the_end_of_a_stream_is_said_to_nobody(client: Client):
    """A line of theirs that came behind the answer would belong to no call; and leaving must not pull the line from
    under them.
    """
    with client.session(str(APPS / "talks_on.py")) as session:
        session.call("start_talking")
        for number in range(30):
            numbers = [event.output for event in session.stream("count", to=3) if event.type == "output"]
            assert numbers == [0, 1, 2]
            assert session.call("failed") == []
            if number % 10 == 0:
                with session.stream("count", to=100) as stream:
                    next(stream)
        assert session.call("failed") == []


def test_an_interruption_in_the_block_of_a_stream_cancels_its_function(client: Client):
    """Where it leaves by another way, a function that is no generator runs to its end."""
    with client.session(TOLD) as session:
        with pytest.raises(KeyboardInterrupt), session.stream("spin"):
            wait_until_said(client, session.id, "begun")
            raise KeyboardInterrupt
        assert session.call("seen") == [[True], 0]
        with pytest.raises(ZeroDivisionError), session.stream("blink"):
            1 / 0  # noqa: B018
        assert session.call("seen") == [[True], 0]


# --- kept connections ---------------------------------------------------------------------------------------------


def test_more_sessions_than_kept_connections_stay_usable(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept_links, "KEPT_LINKS", 2)
    client.session(COUNTER).end()
    files = open_files()
    opened = [client.run(app=COUNTER, session="new", function="add").session_id for _ in range(5)]
    for total in (2, 3):
        for session_id in opened:
            assert client.run(session=session_id, function="add").output == {"total": total}
            assert client.run(app=COUNTER, session=session_id, function="history").output == [1] * total
            assert len(open_files() - files) <= 2
    left = client.sessions.list(status="active")
    assert [info.call_count for info in left] == [5] * len(opened)


def test_connections_that_are_kept_are_let_go_where_one_more_cannot_be_had(client: Client):
    with client.session(COUNTER):  # whatever a client opens once is open
        opened = [client.run(app=COUNTER, session="new", function="add").session_id for _ in range(4)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        taken = [os.dup(0) for _ in range(highest - len(open_files()))]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        try:
            opened += [client.run(app=COUNTER, session="new", function="add").session_id for _ in range(2)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)
        assert [client.run(session=id, function="add").output["total"] for id in opened] == [2] * 6


def test_a_kept_connection_of_a_session_that_is_over_is_let_go(client: Client):
    client.session(COUNTER).end()
    files = open_files()
    session_id = client.run(app=COUNTER, session="new", function="add").session_id
    client.sessions.end(session_id)
    with pytest.raises(SessionEndedError):
        client.run(session=session_id, function="add")
    assert open_files() == files


# --- a session as a context manager -------------------------------------------------------------------------------


def test_leaving_the_block_ends_the_session(client: Client):
    with client.session(COUNTER, session_timeout=300) as session:
        session.call("add")
        assert repr(session) == f"<Session {session.id} counter@{session.version}>"
    info = client.sessions.get(session.id)
    assert (info.status, info.end_reason) == ("ended", "client")
    assert wait_for_exit(info.pid, 0)
    with pytest.raises(SessionEndedError):
        session.call("add")


def test_an_exception_in_the_block_passes_and_ends_the_session(client: Client):
    with pytest.raises(ZeroDivisionError), client.session(COUNTER) as session:
        1 / 0  # noqa: B018
    assert session.info().status == "ended"
    with pytest.raises(WarmpoolError, match="out of luck") as raised, client.session(COUNTER) as session:
        session.call("fail", message="out of luck")
    assert raised.value.session_id == session.id
    assert session.info().status == "ended"


def test_a_session_may_be_ended_inside_its_block(client: Client):
    with client.session(COUNTER) as session:
        assert session.end().status == "ended"
    with client.session(COUNTER) as session:
        client.sessions.end(session.id)
    assert session.info().end_reason == "client"


def test_a_session_may_be_lost_or_expire_inside_its_block(client: Client):
    with client.session(COUNTER) as session:
        os.kill(session.info().pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            session.call("add")
    assert session.info().end_reason == "worker_lost"
    with client.session(COUNTER, session_timeout=1) as session:
        assert wait_for_exit(session.info().pid)
    assert session.info().end_reason == "idle"
    with pytest.raises(SessionExpiredError, match=r"(?i)session expired"):
        session.call("add")


def test_a_block_whose_daemon_has_gone_is_left_and_no_other_daemon_started(free_socket: Path):
    with Client(free_socket) as client, Client(free_socket) as other:
        with client.session(COUNTER) as session:
            assert wait_for_exit(other.stop())
        for ask in (session.info, session.keepalive, session.end):
            with pytest.raises(DaemonUnavailableError):
                ask()


def test_what_is_raised_in_the_block_goes_before_what_the_end_raises(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon()
    with (
        Client(daemon.socket, autostart=False) as client,
        pytest.raises(ZeroDivisionError),
        client.session(COUNTER),
    ):
        daemon.stop()
        1 / 0  # noqa: B018
    assert processes_marked(daemon.mark) == []


# --- large values -------------------------------------------------------------------------------------------------


def test_as_much_as_the_memory_limit_goes_both_ways_and_no_more(client: Client):
    with client.session(VALUES) as session:
        largest = b"x" * (MEMORY_LIMIT - 64)
        assert session.call("echo", value=largest) == largest
        with pytest.raises(PayloadTooLargeError, match=f"limit of {MEMORY_LIMIT} bytes.*--call-memory-limit") as raised:
            session.call("echo", value=largest + b"x" * 64)
        assert (raised.value.code, raised.value.status_code) == ("PAYLOAD_TOO_LARGE", 413)
        with pytest.raises(PayloadTooLargeError) as raised:
            session.call("large", size=MEMORY_LIMIT)
        assert raised.value.session_id == session.id
        assert session.call("echo", value=1) == 1
        assert session.info().call_count == 3, "the one that was too large was not sent"


@pytest.mark.parametrize("value", [object(), {"amount": lambda: 1}, 2**70, "\ud800", {1: {2: {3}}, "x": object}])
def test_what_cannot_be_sent_is_refused_and_harms_nothing(client: Client, value: object):
    with client.session(VALUES) as session:
        for use in (
            lambda: session.call("echo", value=value),
            lambda: client.run(session=session.id, function="echo", input={"value": value}),
        ):
            with pytest.raises(InvalidRequestError, match="the input cannot be sent"):
                use()
        assert session.call("echo", value=1) == 1
        assert session.info().call_count == 1


# --- what the daemon says -----------------------------------------------------------------------------------------


def test_status(shared_daemon: Daemon, client: Client):
    with client.session(COUNTER), client.session(COUNTER):
        status = client.status()
        assert type(status) is Data
        assert status.pid == shared_daemon.pid
        assert status.socket == str(shared_daemon.socket)
        assert status.log == str(shared_daemon.log)
        assert status.sessions == 2
        assert status.workers == sum(status.workers_by_state.values()) >= 2
        assert status.workers_by_state["leased"] == 2
        assert (status.max_workers, status.waiting) == (256, 0)
        assert status.apps >= 1
        assert 0 < status.uptime < 600
        assert client.status().uptime >= status.uptime
    assert client.status().sessions == 0


def test_apps_are_listed_by_name(client: Client):
    with client.session(COUNTER) as session:
        apps = {app.name: app for app in client.apps.list()}
        assert list(apps) == sorted(apps)
        counter = apps["counter"]
        assert (counter.state, counter.version, counter.error) == ("ready", session.version, None)
        assert counter.source == COUNTER
        assert counter.workers >= 1


def test_a_broken_app_is_listed_with_what_is_wrong(client: Client):
    with pytest.raises(AppBrokenError):
        client.session(str(APPS / "raises_on_import.py"))
    broken = next(app for app in client.apps.list() if app.name == "raises_on_import")
    assert broken.state == "broken"
    assert broken.version is None
    assert "no_such_module_anywhere" in broken.error


def test_an_app_is_described(client: Client):
    functions = {function.name: function for function in client.apps.describe(COUNTER)}
    assert list(functions) == ["add", "plain", "history", "where", "who", "fail"]
    assert functions["add"].input_schema["properties"]["amount"] == {
        "default": 1,
        "title": "Amount",
        "type": "integer",
    }
    assert functions["plain"].input_schema["required"] == ["amount"]
    assert functions["history"].output_schema == {"items": {"type": "integer"}, "type": "array"}
    assert functions["add"]["async"] is False
    waits = client.apps.describe(str(APPS / "async_counter.py") + ":add")
    assert {function.name: function["async"] for function in waits}["note"] is True
    assert client.sessions.list() == []


def test_an_app_is_described_by_a_relative_path_too(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(APPS)
    assert [function.name for function in client.apps.describe("limited.py")] == ["run"]
    with pytest.raises(AppNotFoundError, match="no_such_file"):
        client.apps.describe("no_such_file.py")
    with pytest.raises(AppBrokenError):
        client.apps.describe("raises_on_import.py")
