"""Several connections of one session, cut frames, slow readers, and errors that are hard to tell."""

from __future__ import annotations

import random
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import psutil
import pytest
from scripted import Client as Talker
from support import (
    APPS,
    PATIENCE,
    Daemon,
    framed,
    look_again,
    to_worker,
    wait_until_busy,
)

from warmpool import Client, SessionError, SessionExpiredError, WarmpoolError
from warmpool.constants import MIB

COUNTER = str(APPS / "counter.py")
ASYNC_COUNTER = str(APPS / "async_counter.py")
TURNS = str(APPS / "takes_turns.py")
VALUES = str(APPS / "values.py")
LENGTH = str(APPS / "answers_at_length.py")
MISBEHAVES = str(APPS / "misbehaves.py")
SOON = 2.0
"""Seconds in which a worker that has nothing else to do must answer."""

plain_and_async = pytest.mark.parametrize("app", [COUNTER, ASYNC_COUNTER], ids=["plain", "async"])


def talker(path: Path, session_id: str) -> Talker:
    """A connection to the worker of a session, byte by byte."""
    opened, raw = to_worker(path, None, session_id)
    assert opened[2] == session_id
    return Talker(raw.socket)


@pytest.fixture
def connect(client: Client, shared_daemon: Daemon) -> Iterator[Callable[[str], Talker]]:
    made: list[Talker] = []

    def make(session_id: str) -> Talker:
        made.append(talker(shared_daemon.socket, session_id))
        return made[-1]

    yield make
    for raw in made:
        raw.close()


# --- turns --------------------------------------------------------------------------------------------------------


def test_calls_of_five_clients_run_one_at_a_time_in_the_order_of_arrival(
    client: Client, connect: Callable[[str], Talker], fifo: Path
):
    with client.session(TURNS) as session:
        raws = {name: connect(session.id) for name in "abcde"}
        for number, (name, raw) in enumerate(raws.items(), 1):  # so that the worker has them all
            assert raw.call(0, "note", name=name) == ["Result", 0, [*"abcde"[:number]]]
        raws["a"].send(["Call", 1, "wait", {"fifo": str(fifo), "name": "a"}])
        wait_until_busy(session)
        for name in "ecdb":
            raws[name].send(["Call", 1, "note", {"name": name}])
        assert not any(raw.is_answered(0) for raw in raws.values())
        fifo.write_text("")
        for number, name in enumerate("aecdb", 1):
            assert raws[name].hear() == ["Result", 1, [*"abcde", *"aecdb"[:number]]]
        assert session.call("note", name="f") == [*"abcdeaecdbf"]
        assert session.info().call_count == 11


@pytest.mark.parametrize("count", [2, 5])
def test_async_calls_of_several_clients_run_one_at_a_time_in_the_order_of_arrival(
    client: Client, connect: Callable[[str], Talker], count: int
):
    with client.session(ASYNC_COUNTER) as session:
        raws = {str(index): connect(session.id) for index in range(count)}
        for raw in raws.values():
            assert raw.call(0, "plain", value=1) == ["Result", 0, 2]
        worker = psutil.Process(session.info().pid)
        while worker.status() != psutil.STATUS_SLEEPING:  # epoll puts whom it has just told about first until it waits
            look_again()
        names = list(raws)
        random.Random(count).shuffle(names)
        for name in names:
            raws[name].send(["Call", 1, "note", {"name": name}])
        expected = [f"{name} {what}" for name in names for what in ("begins", "ends")]
        for number, name in enumerate(names, 1):
            assert raws[name].hear() == ["Result", 1, expected[: 2 * number]]


@plain_and_async
def test_calls_that_come_in_one_write_are_answered_in_their_order(
    client: Client, connect: Callable[[str], Talker], app: str
):
    with client.session(app) as session:
        raw, other = connect(session.id), connect(session.id)
        raw.send(*(["Call", number, "add", {"amount": 1}] for number in range(1, 501)))
        totals = []
        for number in range(1, 501):
            answer = raw.hear()
            assert answer is not None
            assert answer[:2] == ["Result", number]
            totals.append(answer[2] if app == ASYNC_COUNTER else answer[2]["total"])
        assert totals == list(range(1, 501))
        assert other.call(7, "add", amount=0) == ["Result", 7, 500 if app == ASYNC_COUNTER else {"total": 500}]


@plain_and_async
def test_who_sends_much_and_who_sends_little_take_turns(client: Client, connect: Callable[[str], Talker], app: str):
    with client.session(app) as session:
        much, little = connect(session.id), connect(session.id)
        assert little.call(0, "add", amount=0) is not None
        stop = threading.Event()

        def send_much() -> None:
            while not stop.is_set():
                much.send(*(["Call", number, "add", {"amount": 1}] for number in range(100)))
                for _ in range(100):
                    much.hear()

        thread = threading.Thread(target=send_much)
        thread.start()
        try:
            for number in range(20):
                little.send(["Call", number, "add", {"amount": 0}])
                assert little.is_answered()
                answer = little.hear()
                assert answer is not None
                assert answer[:2] == ["Result", number]
        finally:
            stop.set()
            thread.join(PATIENCE)


# --- cut frames ---------------------------------------------------------------------------------------------------


@plain_and_async
def test_a_call_in_single_bytes(client: Client, connect: Callable[[str], Talker], app: str):
    with client.session(app) as session:
        for raw in (connect(session.id), connect(session.id)):
            for byte in framed(["Call", 3, "add", {"amount": 1}]):
                raw.socket.sendall(bytes([byte]))
            answer = raw.hear()
            assert answer is not None
            assert answer[:2] == ["Result", 3]
        assert session.info().call_count == 2


@plain_and_async
def test_others_are_served_in_the_middle_of_a_frame(client: Client, connect: Callable[[str], Talker], app: str):
    with client.session(app) as session:
        slow, quick = connect(session.id), connect(session.id)
        data = framed(["Call", 1, "add", {"amount": 1}])
        for cut in (2, 4, len(data) // 2, len(data) - 1):
            slow.socket.sendall(data[:cut])
            answer = quick.call(cut, "add", amount=0)
            assert answer is not None
            assert answer[:2] == ["Result", cut]
            assert not slow.is_answered(0.03)
            assert not session.info().busy
            slow.socket.sendall(data[cut:])
            answer = slow.hear()
            assert answer is not None
            assert answer[:2] == ["Result", 1]


def test_a_frame_of_16_mib_in_pieces(client: Client, connect: Callable[[str], Talker]):
    with client.session(VALUES) as session:
        slow, quick = connect(session.id), connect(session.id)
        room = 16 * MIB - len(msgpack.packb(["Call", 1, "echo", {"value": b"x" * MIB}])) + MIB
        data = framed(["Call", 1, "echo", {"value": b"x" * room}])
        assert len(data) == 16 * MIB + 4
        for start in range(0, len(data), 4 * MIB):
            assert quick.call(start, "echo", value=start) == ["Result", start, start]
            slow.socket.sendall(data[start : start + 4 * MIB])
        assert slow.hear() == ["Result", 1, b"x" * room]
        assert session.info().call_count == 6


@plain_and_async
def test_a_connection_that_is_closed_in_the_middle_of_a_frame(
    client: Client, connect: Callable[[str], Talker], app: str
):
    with client.session(app) as session:
        for data in (
            b"\0",
            struct.pack("!I", 10 * MIB) + b"\x94" * MIB,
            framed(["Call", 1, "add", {"amount": 1}])[:-1],
        ):
            raw = connect(session.id)
            raw.socket.sendall(data)
            raw.close()
            session.call("add", amount=1)
        assert session.info().call_count == 3


def test_a_client_that_leaves_while_its_call_runs(client: Client, connect: Callable[[str], Talker], fifo: Path):
    with client.session(TURNS) as session:
        raw = connect(session.id)
        raw.send(["Call", 1, "wait", {"fifo": str(fifo), "name": "a"}], ["Call", 2, "note", {"name": "b"}])
        wait_until_busy(session)
        raw.close()
        fifo.write_text("")
        assert session.call("note", name="c")[0] == "a", "what had begun was done"


@pytest.mark.parametrize(("kind", "function"), [("Plain", "sleep"), ("Async", "wait")])
def test_a_call_that_runs_when_its_session_ends_is_cancelled(client: Client, kind: str, function: str):
    session = client.session(f"{APPS / 'told_to_stop.py'}:{kind}")
    errors: list[WarmpoolError] = []

    def call() -> None:
        try:
            session.call(function)
        except WarmpoolError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until_busy(session)
    assert client.sessions.end(session.id).end_reason == "client"
    thread.join(PATIENCE)
    assert [error.code for error in errors] == ["CALL_CANCELLED"]


# --- messages of the daemon ---------------------------------------------------------------------------------------


@plain_and_async
def test_a_second_connection_is_served_though_the_first_has_just_called(
    client: Client, connect: Callable[[str], Talker], app: str
):
    with client.session(app) as session:
        for _ in range(30):
            session.call("add", amount=1)
            started = time.monotonic()
            second = connect(session.id)
            assert second.call(1, "add", amount=1) is not None
            assert time.monotonic() - started < SOON
            second.close()


@plain_and_async
def test_the_daemon_reaches_the_worker_of_a_client_that_calls_without_a_pause(
    client: Client, connect: Callable[[str], Talker], app: str
):
    session = client.session(app)
    ended: list[Exception] = []

    def call_without_a_pause() -> None:
        try:
            while True:
                session.call("add", amount=1)
        except SessionError as error:
            ended.append(error)

    thread = threading.Thread(target=call_without_a_pause)
    thread.start()
    try:
        for number in range(10):
            raw = connect(session.id)
            raw.send(["Call", number, "add", {"amount": 0}])
            assert raw.is_answered()
            client.sessions.keepalive(session.id)
            raw.close()
    finally:
        info = client.sessions.end(session.id)
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert [error.code for error in ended] == ["SESSION_ENDED"]  # type: ignore[attr-defined]
    assert info.end_reason == "client"


def test_the_daemon_reaches_it_too_if_the_app_ignores_signals(client: Client, connect: Callable[[str], Talker]):
    with client.session(MISBEHAVES) as session:
        session.call("ignore_signals")
        stop = threading.Event()

        def call_until_told() -> None:
            while not stop.is_set():
                session.call("fine")

        thread = threading.Thread(target=call_until_told)
        thread.start()
        try:
            raw = connect(session.id)
            raw.send(["Call", 1, "fine", {}])
            assert raw.is_answered()
        finally:
            stop.set()
            thread.join(PATIENCE)


def test_a_session_does_not_expire_while_bytes_wait(client: Client, connect: Callable[[str], Talker]):
    """Nor does the one beside it live on because of them."""
    sessions = [client.session(app, session_timeout=1) for app in (COUNTER, ASYNC_COUNTER)]
    idle = client.session(COUNTER, session_timeout=1)
    raws = [connect(session.id) for session in sessions]
    data = framed(["Call", 1, "add", {"amount": 1}])
    for raw in raws:
        raw.socket.sendall(data[:-1])
    assert select.select([raw.socket for raw in raws], [], [], 1.4) == ([], [], [])
    assert [session.info().status for session in sessions] == ["active"] * 2
    with pytest.raises(SessionExpiredError):
        idle.call("add")
    for raw in raws:
        raw.socket.sendall(data[-1:])
        answer = raw.hear()
        assert answer is not None
        assert answer[:2] == ["Result", 1]


# --- slow readers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "function"),
    [(VALUES, "large"), (LENGTH, "large"), (LENGTH, "large_at_once")],
    ids=["plain", "async", "plain in async"],
)
def test_one_who_does_not_read_a_large_answer_holds_nobody_up(
    client: Client, connect: Callable[[str], Talker], app: str, function: str
):
    with client.session(app) as session:
        slow, quick = connect(session.id), connect(session.id)
        slow.send(["Call", 1, function, {"size": 8 * MIB}])
        assert slow.is_answered()
        for number in (1, 2, 3):
            quick.send(["Call", number, "large", {"size": number}])
            assert quick.is_answered(), "everybody waits for the one who does not read"
            assert quick.hear() == ["Result", number, b"x" * number]
        assert slow.hear() == ["Result", 1, b"x" * 8 * MIB]
        assert slow.call(2, "large", size=1) == ["Result", 2, b"x"]


@pytest.mark.parametrize("function", ["large", "large_at_once"])
def test_one_who_asks_much_and_reads_nothing_fills_no_memory(
    client: Client, connect: Callable[[str], Talker], function: str
):
    """Its calls wait until it reads."""
    with client.session(LENGTH) as session:
        process = psutil.Process(session.info().pid)
        before = process.memory_info().rss
        raw = connect(session.id)
        raw.send(*(["Call", number, function, {"size": 2 * MIB}] for number in range(60)))
        assert raw.is_answered()
        assert session.call("fine") == "fine"
        assert process.memory_info().rss - before < 40 * MIB
        for number in range(60):
            assert raw.hear() == ["Result", number, b"x" * 2 * MIB]


# --- errors that are hard to tell ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Plain", "Async"])
@pytest.mark.parametrize(
    ("function", "fields", "codes"),
    [
        ("take", {"kind": "key error"}, {"APP_ERROR"}),
        ("take", {"kind": "exit"}, {"APP_ERROR"}),
        ("take", {"kind": "no words"}, {"APP_ERROR", "INVALID_INPUT"}),
        ("raise_no_words", {}, {"APP_ERROR"}),
        ("raise_unspeakable", {}, {"APP_ERROR"}),
        ("return_no_words", {}, {"APP_ERROR"}),
        *(("raise_one", {"kind": kind}, {"APP_ERROR"}) for kind in ("endless", "nested", "nameless", "syntax")),
        *(("speak", {"kind": kind}, {"APP_ERROR"}) for kind in ("unspeakable", "interrupted")),
    ],
    ids=[
        "a validator with a bug",
        "a validator that exits",
        "a validator without words",
        "an error without words",
        "an error that cannot be shown",
        "a result without words",
        "one for each try of a thousand",
        "groups in groups",
        "one whose type cannot say its name",
        "one that Python cannot show",
        "a result that raises what cannot be shown",
        "a result that interrupts",
    ],
)
def test_an_error_that_is_hard_to_tell_is_told_and_the_session_lives(
    client: Client, connect: Callable[[str], Talker], kind: str, function: str, fields: dict[str, str], codes: set[str]
):
    with client.session(f"{APPS / 'raises_oddly.py'}:{kind}") as session:
        raw = connect(session.id)
        raw.send(["Call", 1, function, fields])
        assert raw.is_answered()
        answer = raw.hear()
        assert answer is not None, "the worker died of it"
        assert answer[:2] == ["Failure", 1]
        assert answer[2]["code"] in codes
        assert raw.call(2, "fine") == ["Result", 2, "fine"]
        info = session.info()
        assert (info.status, info.busy, info.call_count) == ("active", False, 2)


@pytest.mark.parametrize("kind", ["Plain", "Async"])
def test_an_error_larger_than_a_frame_may_be_is_cut_and_the_session_lives(
    start_daemon: Callable[..., Daemon], kind: str
):
    """One word for each of a thousand wrong items is more than fits."""
    daemon = start_daemon("--call-frame-limit", "8192")
    session = daemon.client.session(f"{APPS / 'raises_oddly.py'}:{kind}")
    raw = talker(daemon.socket, session.id)
    try:
        raw.send(["Call", 1, "take", {"items": ["x"] * 1000}])
        assert raw.is_answered()
        answer = raw.hear()
        assert answer is not None
        assert answer[0] == "Failure"
        assert answer[2]["code"] in {"INVALID_INPUT", "PAYLOAD_TOO_LARGE"}
        assert not session.info().busy, "the call is over"
        assert answer[1] == 1, "it is the answer to the call"
        assert raw.call(2, "fine") == ["Result", 2, "fine"]
    finally:
        raw.close()


@pytest.mark.parametrize("kind", ["Plain", "Async"])
def test_a_worker_without_descriptors_keeps_its_session(client: Client, connect: Callable[[str], Talker], kind: str):
    """A client that comes then is turned away; the state is not lost for it."""
    session = client.session(f"{APPS / 'runs_out_of_descriptors.py'}:{kind}")
    assert session.call("run_out") > 10
    raw = connect(session.id)
    try:
        raw.socket.settimeout(SOON)
        raw.send(["Call", 1, "fine", {}])
        raw.hear()
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert session.info().status == "active"
    assert session.call("relent") == "one is free"
    assert connect(session.id).call(1, "fine") == ["Result", 1, "fine"]
    session.end()


def test_a_timer_that_an_app_sets_in_setup_goes_on(client: Client):
    with client.session(str(APPS / "sets_an_alarm.py")) as session:
        assert session.call("times_rung") >= 1


def test_a_connection_ends_though_a_fork_of_the_app_has_a_copy(client: Client, connect: Callable[[str], Talker]):
    """As after nonsense: the client sees the end, or it would wait for ever."""
    with client.session(str(APPS / "leaves_a_fork.py")) as session:
        raw = connect(session.id)
        answer = raw.call(1, "leave")
        assert answer is not None
        raw.send(["Nonsense"])
        answer = raw.hear()
        assert answer is not None
        assert answer[:2] == ["Failure", 0]
        assert raw.is_answered(), "nothing says that the connection is over"
        assert raw.hear() is None
        assert session.call("fine") == "fine"
