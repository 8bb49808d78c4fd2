"""What both clients promise, told once: each test runs over the blocking client, and over the async one on asyncio's loop
and on uvloop's."""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from adapters import CLIENTS, Face, open_client
from pydantic import BaseModel, model_serializer
from support import APPS, MEMORY_LIMIT, PATIENCE, Daemon, end_when_done, look_again, open_files, wait_until_said

from warmpool import (
    AppError,
    AppMismatchError,
    AppNotFoundError,
    AsyncClient,
    CallCancelledError,
    CallTimeoutError,
    Client,
    DaemonUnavailableError,
    FunctionNotFoundError,
    InvalidInputError,
    InvalidRequestError,
    NameTakenError,
    PayloadTooLargeError,
    SessionEndedError,
    SessionExpiredError,
    SessionNotFoundError,
    WorkerLostError,
)
from warmpool.client import streams

COUNTER = str(APPS / "counter.py")
ASYNC_COUNTER = str(APPS / "async_counter.py")
MISBEHAVES = str(APPS / "misbehaves.py")
VALUES = str(APPS / "values.py")
STREAMS, ASYNC_STREAMS = (str(APPS / "streams.py") + f":{name}" for name in ("Plain", "Async"))
PLAIN, ASYNC, STUBBORN = (str(APPS / "told_to_stop.py") + f":{name}" for name in ("Plain", "Async", "Impatient"))
NOBODY = "sess_00000000000000000000"
MIB = 1024 * 1024


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def both(kind: str, shared_daemon: Daemon) -> Iterator[Any]:
    """One of the clients; no session outlives its test."""
    files = open_files()
    with open_client(kind, shared_daemon.socket) as client:
        yield client
    with Client(shared_daemon.socket, autostart=False) as judge:
        for info in judge.sessions.list():
            judge.sessions.end(info.id)
    assert open_files() - files == set()


@pytest.fixture
def judge(shared_daemon: Daemon) -> Iterator[Client]:
    """A client that only looks."""
    with Client(shared_daemon.socket, autostart=False) as client:
        yield client


# --- what cannot be sent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "advice"),
    [(2**64, "goes as a string"), ("\ud800", "goes as bytes"), (object(), "give plain data")],
    ids=["integer", "surrogate", "object"],
)
def test_what_to_do_about_a_value_that_cannot_be_sent(both: Any, value: object, advice: str):
    with pytest.raises(InvalidRequestError, match=advice):
        both.run(app=VALUES, function="echo", input={"value": value})


@pytest.mark.parametrize("value", [object(), memoryview(b"abcd")[::2]], ids=["object", "view-with-gaps"])
def test_a_first_call_that_cannot_be_sent_says_which_session_it_leaves(both: Any, judge: Client, value: object):
    given = {"app": VALUES, "function": "echo", "input": {"value": value}, "session": "new"}
    for ask in (both.run, lambda given: list(both.stream(given))):
        with pytest.raises(InvalidRequestError, match="the input cannot be sent") as raised:
            ask(given)
        assert raised.value.session_id is not None
        assert both.run(session=raised.value.session_id, function="echo", input={"value": 1}).output == 1
        judge.sessions.end(raised.value.session_id)
    assert judge.sessions.list() == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda session, bad: session.call("echo", {"value": bad}),
        lambda session, bad: session.call("echo", {"value": bad}, timeout=PATIENCE),
        lambda session, bad: list(session.stream("echo", {"value": bad})),
        lambda session, bad: list(session.map("echo", [{"value": 1}, {"value": bad}])),
    ],
    ids=["call", "within", "stream", "map"],
)
def test_whatever_cannot_be_sent_says_in_which_session(both: Any, ask: Callable[[Any, object], Any]):
    session = both.session(VALUES)
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="the input cannot be sent") as raised:
            ask(session, object())
        assert raised.value.session_id == session.id
    assert session.call("echo", value=1) == 1


# --- run ----------------------------------------------------------------------------------------------------------


def test_run_opens_a_session_and_goes_on_in_it(both: Any):
    first = both.run({"app": COUNTER, "function": "add", "input": {"amount": 2}, "session": "new"})
    assert first.output == {"total": 2}
    assert first.output.total == 2
    again = both.run({"session": first.session_id, "function": "add"}, input={"amount": 3})
    assert again == {**first, "output": {"total": 5}}
    assert both.run(app=COUNTER, session=first.session_id, function="add").output.total == 6
    assert both.sessions.get(first.session_id).call_count == 3


def test_run_without_a_session(both: Any):
    result = both.run(app=COUNTER, function="plain", input={"amount": 2, "times": 3})
    assert result.session_id is None
    assert result.output == [6, "none"]
    assert both.sessions.list() == []


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"function": "nothing"}, FunctionNotFoundError),
        ({"function": "add", "input": {"amount": "many"}}, InvalidInputError),
        ({"function": "fail"}, AppError),
        ({"function": "add", "input": {"amount": object()}}, InvalidRequestError),
        ({"function": "add", "input": {"amount": b"x" * MEMORY_LIMIT}}, PayloadTooLargeError),
        ({"function": "add", "session_timeout": 9}, InvalidRequestError),
        ({"function": "add", "timeout": 0}, InvalidRequestError),
        ({"app": VALUES, "function": "echo"}, AppMismatchError),
    ],
)
def test_an_error_leaves_the_session_as_it_was(both: Any, given: dict[str, Any], error: type[Exception]):
    first = both.run(app=COUNTER, session="new", function="add")
    with pytest.raises(error):
        both.run({"session": first.session_id, **given})
    assert both.run(session=first.session_id, function="add").output == {"total": 2}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"app": "no-such-app"}, AppNotFoundError),
        ({"app": COUNTER, "session": "new", "session_timeout": 0}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "colour": "red"}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "labels": {"": "x"}}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "labels": {"x": ""}}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "labels": {str(n): "x" for n in range(65)}}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "labels": {"k" * 129: "x"}}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "labels": {"k": "x" * 257}}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "name": "a b"}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "name": "x" * 129}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "name": "a\x00"}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "description": "x" * 1001}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "tags": ["x"] * 65}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "tags": [""]}, InvalidRequestError),
        ({"app": COUNTER, "session": "new", "if_exists": "attach"}, InvalidRequestError),
        ({"session": NOBODY}, SessionNotFoundError),
    ],
)
def test_a_refused_open_opens_nothing(both: Any, given: dict[str, Any], error: type[Exception]):
    before = both.sessions.list(status="all").total
    with pytest.raises(error):
        both.run(given, function="add")
    assert both.sessions.list(status="all").total == before


@pytest.mark.parametrize(
    "use",
    [
        lambda client, text: client.session(text),
        lambda client, text: client.session(COUNTER, labels={"key": text}),
        lambda client, text: client.run(app=COUNTER, session=text),
        lambda client, text: client.sessions.get(text),
    ],
    ids=["app", "label", "session", "id"],
)
def test_a_text_that_is_none_is_named(both: Any, use: Callable[[Any, str], Any]):
    """Of a file whose name is no UTF-8 the path is such a text."""
    with pytest.raises(InvalidRequestError, match=r"^'/apps/\\udcff.py' cannot be sent: .*surrogates not allowed$"):
        use(both, "/apps/\udcff.py")
    assert both.sessions.list() == []


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.session(COUNTER, description="x" * 100_000),
        lambda client: client.session(COUNTER, labels={"key": "x" * 100_000}),
        lambda client: client.session("x" * 100_000),
        lambda client: client.sessions.get("x" * 100_000),
    ],
    ids=["description", "labels", "app", "id"],
)
def test_what_the_daemon_is_told_has_a_limit_that_nobody_sets(both: Any, use: Callable[[Any], Any]):
    with pytest.raises(PayloadTooLargeError, match="than the limit of 65536 bytes; send less at once$"):
        use(both)


# --- sessions that are held ---------------------------------------------------------------------------------------


def test_the_forms_of_a_call(both: Any):
    with both.session(COUNTER) as session:
        assert session.call("add", {"amount": 2}) == {"total": 2}
        assert session.call("add", amount=2) == {"total": 4}
        assert session.call({"action": "add", "amount": 2}) == {"total": 6}
        assert session.call("plain", {"amount": 2, "label": "x"}) == [2, "x"]
        with pytest.raises(InvalidRequestError, match="not both"):
            session.call("add", {"amount": 1}, amount=1)
        with pytest.raises(AppError, match="no"):
            session.call("fail")
        assert session.call("add") == {"total": 7}


def test_leaving_the_block_ends_the_session(both: Any, judge: Client):
    with both.session(COUNTER, session_timeout=300) as session:
        assert judge.sessions.get(session.id).session_timeout == 300
        assert session.app == "counter"
        assert session.worker_id == session.info().worker_id
    assert judge.sessions.get(session.id).end_reason == "client"
    with pytest.raises(SessionEndedError, match="ended"):
        session.call("add")


def test_an_exception_in_the_block_passes_and_ends_the_session(both: Any, judge: Client):
    with pytest.raises(ZeroDivisionError), both.session(COUNTER) as session:
        raise ZeroDivisionError
    assert judge.sessions.get(session.id).status == "ended"


def test_a_session_that_is_closed_is_what_one_is_whose_block_was_left(both: Any, judge: Client):
    session = both.session(COUNTER)
    session.open()
    assert session.call("add") == {"total": 1}
    session.close()
    session.close()
    assert judge.sessions.get(session.id).status == "ended"
    with pytest.raises(SessionEndedError):
        session.open()


def test_a_session_that_was_attached_to_is_let_go_of(both: Any, judge: Client):
    with judge.session(COUNTER) as owned:
        owned.call("add", amount=5)
        with both.sessions.attach(owned.id) as session:
            assert (session.id, session.app, session.version) == (owned.id, owned.app, owned.version)
            assert session.call("add") == {"total": 6}
        assert owned.info().status == "active"
        assert session.open().call("add") == {"total": 7}
        session.close()
        assert owned.call("add") == {"total": 8}


@pytest.mark.parametrize("session_id", ["", "new", None, 5])
def test_what_cannot_be_attached_to(both: Any, session_id: object):
    with pytest.raises(InvalidRequestError, match="attach needs the id"):
        both.sessions.attach(session_id)
    with pytest.raises(SessionNotFoundError):
        both.sessions.attach(NOBODY)


def test_an_expired_session_says_so(both: Any):
    session = both.session(COUNTER, session_timeout=1)
    with pytest.raises(SessionExpiredError) as raised:
        while True:
            if session.info().status != "active":
                session.call("add")
    assert (raised.value.session_id, raised.value.end_reason) == (session.id, "idle")


def test_a_lost_session_says_so(both: Any):
    session = both.session(COUNTER)
    os.kill(session.info().pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        session.call("add")
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        both.run(session=session.id, function="add")


def test_a_session_that_is_lost_in_a_call_says_so(both: Any):
    session = both.session(MISBEHAVES)
    with pytest.raises(WorkerLostError, match="SIGKILL") as raised:
        session.call("kill_itself")
    assert raised.value.session_id == session.id


def test_keepalive_slides_and_info_does_not(both: Any):
    with both.session(COUNTER) as session:
        before = session.info().expires_at
        assert session.info().expires_at == before
        while session.keepalive().expires_at == before:
            pass  # it is told to the millisecond
        slid = session.info().expires_at
        assert slid > before
        while both.sessions.keepalive(session.id).expires_at == slid:
            pass
        assert session.info().expires_at > slid


def test_ending_twice_is_no_error(both: Any):
    session = both.session(COUNTER)
    assert session.end().status == "ended"
    assert both.sessions.end(session.id).status == "ended"


@pytest.mark.parametrize("size", [0, 1, 100_000, MIB, 5 * MIB])
def test_large_values_go_both_ways(both: Any, size: int):
    for value in (bytes(size), {"data": bytes(size), "name": "x"}, [bytes(size // 2), bytes(size // 2)], "x" * size):
        with both.session(VALUES) as session:
            assert session.call("echo", value=value) == value
            assert session.call("echo", value=1) == 1
        assert both.run(app=VALUES, function="echo", input={"value": value}).output == value


@pytest.mark.parametrize("size", [70_000, MIB // 2, 5 * MIB])
def test_calls_go_on_after_a_large_last_answer(both: Any, size: int):
    """After so much nothing is read until it is taken; and then it is."""
    with both.session(VALUES) as session:
        for _ in range(2):
            assert [len(value) for value in session.map("large", [{"size": size}])] == [size]
            assert session.call("echo", value=1) == 1
            assert [event.type for event in session.stream("large", {"size": size})] == ["done"]
            assert session.call("echo", value=2) == 2


@pytest.mark.parametrize("app", [STREAMS, ASYNC_STREAMS])
@pytest.mark.parametrize("size", [MIB // 2, 5 * MIB])
def test_large_items_come_in_a_stream(both: Any, app: str, size: int):
    with both.session(app) as session:
        for _ in range(3):
            assert [event.output for event in session.stream("give", size=size) if event.type == "output"] == [
                b"x" * size
            ]


# --- map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [COUNTER, ASYNC_COUNTER])
@pytest.mark.parametrize("window", [1, 2, 64, 4096])
def test_map_gives_results_in_order(both: Any, app: str, window: int):
    with both.session(app) as session:
        totals = session.map("add", ({"amount": n} for n in range(300)), window=window)
        found = [total["total"] if app == COUNTER else total for total in totals]
        assert found == list(itertools.accumulate(range(300)))
        assert list(session.map("add", [])) == []
        assert session.info().call_count == 300


def test_map_takes_what_it_needs_and_no_more(both: Any):
    taken = []

    def source() -> Iterator[dict[str, int]]:
        for n in itertools.count():
            taken.append(n)
            yield {"amount": 1}

    with both.session(COUNTER) as session:
        totals = session.map("add", source(), window=8)
        assert [next(totals)["total"] for _ in range(20)] == list(range(1, 21))
        assert 20 <= len(taken) <= 28
        totals.close()
        assert session.call("add")["total"] == len(taken) + 1, "what was sent is done, and its answers are dropped"


def test_map_raises_the_first_error_by_position(both: Any):
    with both.session(COUNTER) as session:
        totals = session.map("add", [{"amount": 1}, {"amount": 2}, {"amount": "x"}, {"amount": 3}, {"amount": "y"}])
        assert next(totals) == {"total": 1}
        assert next(totals) == {"total": 3}
        with pytest.raises(InvalidInputError, match="amount"):
            next(totals)
        with pytest.raises(StopIteration):
            next(totals)
        assert session.call("add") == {"total": 7}


def test_an_input_that_cannot_be_sent_is_an_error_in_its_turn(both: Any):
    with both.session(COUNTER) as session:
        totals = session.map("add", [{"amount": 1}, {"amount": object()}, {"amount": 5}])
        assert next(totals) == {"total": 1}
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            next(totals)
        assert session.call("add") == {"total": 2}, "nothing after it was sent"


class Raises(BaseModel):
    @model_serializer
    def raises(self) -> dict[str, int]:
        raise ZeroDivisionError


def test_an_error_in_an_input_comes_in_its_turn(both: Any):
    with both.session(COUNTER) as session:
        totals = session.map("add", [{"amount": 1}, {"amount": 2}, {"amount": Raises()}, {"amount": 3}])
        assert [next(totals), next(totals)] == [{"total": 1}, {"total": 3}]
        with pytest.raises(Exception, match=r"ZeroDivisionError|Error calling function"):
            next(totals)
        assert session.call("add")["total"] == 4


def test_an_error_of_the_source_passes(both: Any):
    def source() -> Iterator[dict[str, int]]:
        yield {"amount": 1}
        raise ZeroDivisionError

    with both.session(COUNTER) as session:
        totals = session.map("add", source())
        assert next(totals) == {"total": 1}, "what has been done comes first"
        with pytest.raises(ZeroDivisionError):
            next(totals)
        assert session.call("add") == {"total": 2}


@pytest.mark.parametrize("size", [MIB // 2, MIB, 3 * MIB])
def test_map_of_large_values_both_ways_blocks_nobody(both: Any, size: int):
    """Neither end reads while it cannot write, if it is not careful; and no memory is held for all of them."""
    with both.session(VALUES) as session:
        for value in session.map("echo", ({"value": bytes(size)} for _ in range(40))):
            assert len(value) == size
            assert sum("warmpool-message" in name for name in open_files()) <= 3


def test_a_call_in_the_middle_of_a_map(both: Any):
    with both.session(COUNTER) as session:
        totals = session.map("add", ({"amount": 1} for _ in range(100)), window=4)
        next(totals)
        assert session.call("history")
        assert len(list(totals)) == 99
        assert session.call("add") == {"total": 101}


@pytest.mark.parametrize("given", [{"window": 0}, {"window": 4097}, {"window": 1.5}, {"window": "64"}, {"function": 5}])
def test_a_map_with_wrong_parameters_does_nothing(both: Any, given: dict[str, Any]):
    with both.session(COUNTER) as session:
        with pytest.raises(InvalidRequestError):
            session.map(**{"function": "add", "inputs": [{"amount": 1}], **given})
        with pytest.raises(TypeError):
            session.map("add", 5)
        assert session.info().call_count == 0


def test_a_session_that_is_lost_in_a_map(both: Any):
    with both.session(MISBEHAVES) as session:
        results = session.map("write_to_stdout", ({"count": n} for n in range(10)))
        assert next(results) == 1
        os.kill(session.info().pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            for _ in range(10):
                list(session.map("fine", itertools.repeat({}, 1000)))


@pytest.mark.parametrize("app", [COUNTER, ASYNC_COUNTER])
def test_what_was_answered_before_a_worker_has_gone_is_given_though_more_cannot_be_sent(
    both: Any, judge: Client, app: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "GATHERING", PATIENCE)  # the eight are sent before a ninth is asked for

    def source() -> Iterator[dict[str, int]]:
        yield from ({"amount": 1} for _ in range(8))
        end_when_done(judge, session.id, calls=8)
        while True:
            yield {"amount": 1}

    with both.session(app) as session:
        totals, seen = session.map("add", source(), window=8), 0
        with pytest.raises(SessionEndedError):
            for _ in totals:
                seen += 1
        assert seen == 8


def test_connections_of_sessions_that_are_over_are_let_go(both: Any):
    both.run(app=COUNTER, session="new", function="add")
    few = len(open_files())
    for _ in range(3):
        both.sessions.end(both.run(app=COUNTER, session="new", function="add").session_id)
    assert len(open_files()) == few


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_who_has_sigpipe_as_it_was_meets_errors_too(both: Any, judge: Client, how: str):
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        session = both.session(COUNTER)
        session.call("add")
        if how == "ended":
            judge.sessions.end(session.id)
        else:
            os.kill(judge.sessions.get(session.id).pid, signal.SIGKILL)
        with pytest.raises(SessionEndedError if how == "ended" else WorkerLostError):
            session.call("add")
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_an_attached_session_has_its_id_before_it_is_connected(both: Any):
    with both.session(COUNTER) as session:
        assert both.sessions.attach(session.id).id == session.id
        assert both.sessions.attach(session.id).info().id == session.id


# --- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [STREAMS, ASYNC_STREAMS])
def test_a_stream_tells_each_item_and_the_end(both: Any, app: str):
    with both.session(app) as session:
        before = time.time()
        events = list(session.stream("count", to=3))
        assert [event.type for event in events] == ["output", "output", "output", "done"]
        assert [event.number for event in events] == [1, 2, 3, 4]
        assert [event.output for event in events] == [0, 1, 2, "counted" if app == STREAMS else None]
        assert before <= events[0].time <= events[-1].time <= time.time()
        assert [event.type for event in session.stream("count", {"to": 0})] == ["done"]
        assert [event.output.number for event in session.stream("models", to=2) if event.type == "output"] == [0, 1]
        assert session.call("count", to=3) == 2, "a plain call gives the last item"
        assert session.call("count", to=0) is None


def test_a_stream_keeps_what_the_function_returned(both: Any):
    with both.session(STREAMS) as session, session.stream("count", to=2) as stream:
        assert stream.output is None
        assert stream.session_id == session.id
        assert len(list(stream)) == 3
        assert stream.output == "counted"
        assert list(stream) == []


def test_any_function_can_be_followed(both: Any):
    with both.session(STREAMS) as session:
        assert [(event.type, event.output) for event in session.stream("fine", value=7)] == [("done", 7)]
        *steps, done = session.stream("work", steps=3, message="at it")
        assert [(step.type, step.done, step.total, step.message) for step in steps] == [
            ("progress", 1, 3, "at it"), ("progress", 2, 3, "at it"), ("progress", 3, 3, "at it")
        ]  # fmt: skip
        assert (done.type, done.output) == ("done", "worked")
        assert session.call("work", steps=3) == "worked"


def test_an_error_is_the_last_event_and_then_raised(both: Any):
    with both.session(STREAMS) as session:
        stream = session.stream("fail", after=2)
        events = [next(stream) for _ in range(4)]
        assert [event.type for event in events] == ["output", "output", "log", "error"]
        assert events[2].message == "closed", "what is printed is told too"
        assert (events[3].number, events[3].error.code, events[3].error.message) == (
            4,
            "APP_ERROR",
            "fail raised ValueError: enough",
        )
        with pytest.raises(AppError, match="enough"):
            next(stream)
        assert list(stream) == []
        assert session.call("heard") == ["closed"]
        with pytest.raises(AppError, match="enough"):
            list(session.stream("fail", after=5))
        with pytest.raises(FunctionNotFoundError):
            list(session.stream("nothing"))
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            session.stream("fine", value=object())
        assert session.call("fine") == 1


@pytest.mark.parametrize("app", [STREAMS, ASYNC_STREAMS])
def test_who_leaves_a_stream_closes_the_generator_and_the_session_lives(both: Any, app: str):
    with both.session(app) as session:
        with session.stream("forever", size=100_000) as stream:
            assert next(stream).output == "x" * 100_000
        with pytest.raises(StopIteration):
            next(stream)
        (_, closed) = session.call("heard")
        assert int(closed.removeprefix("closed after ")) < 20, "the generator waited for its reader"
        stream = session.stream("forever")
        next(stream)
        stream.close()
        stream.close()
        assert len(session.call("heard")) == 4
        assert session.info().status == "active"


def test_a_stream_of_many_items_that_is_read_slowly_at_first(both: Any):
    with both.session(STREAMS) as session, session.stream("count", to=20_000) as stream:
        first = next(stream)
        assert session.info().busy, "it stands still, with more to give than the sockets hold"
        assert [first.output, *(event.output for event in stream)] == [*range(20_000), "counted"]


def test_a_call_in_the_middle_of_reading_a_stream_is_refused(both: Any):
    """It would wait for the end of the stream, which waits for its reader."""
    if isinstance(both, Face):
        both.runner.run(_call_while_reading(both.thing))
        return
    with both.session(STREAMS) as session:
        for event in session.stream("count", to=2):
            if event.type == "output":
                with pytest.raises(InvalidRequestError, match="a stream of this session is being read"):
                    session.call("fine")
        assert session.call("fine") == 1


def test_nothing_else_can_wait_for_ones_own_stream(both: Any):
    if isinstance(both, Face):
        both.runner.run(_use_while_reading(both.thing))
        return
    with both.session(STREAMS) as session:
        for stream in (
            session.stream("count", to=2),
            both.stream(session=session.id, function="count", input={"to": 2}),
        ):
            next(stream)
            for use in (
                lambda: session.call("fine"),
                lambda: session.call("fine", timeout=5),
                lambda: list(session.map("fine", [{}])),
                lambda: list(session.stream("fine")),
                lambda: both.run(session=session.id, function="fine"),
                lambda: list(both.stream(session=session.id, function="fine")),
            ):
                with pytest.raises(InvalidRequestError, match="a stream of this session is being read"):
                    use()
            assert both.run(app=VALUES, function="echo", input={"value": 1}).output == 1, "that is another matter"
            assert [event.output for event in stream] == [1, "counted"]
        assert session.call("fine") == 1


async def _use_while_reading(client: AsyncClient) -> None:
    async def items(stream: Any) -> list[Any]:
        return [item async for item in stream]

    async with client.session(STREAMS) as session:
        for stream in (
            session.stream("count", to=2),
            client.stream(session=session.id, function="count", input={"to": 2}),
        ):
            await anext(stream)
            for use in (
                lambda: session.call("fine"),
                lambda: session.call("fine", timeout=5),
                lambda: items(session.map("fine", [{}])),
                lambda: items(session.stream("fine")),
                lambda: client.run(session=session.id, function="fine"),
                lambda: items(client.stream(session=session.id, function="fine")),
            ):
                with pytest.raises(InvalidRequestError, match="a stream of this session is being read"):
                    await use()
            assert [event.output async for event in stream] == [1, "counted"]
        assert await session.call("fine") == 1


async def _call_while_reading(client: AsyncClient) -> None:
    async with client.session(STREAMS) as session:
        async for event in session.stream("count", to=2):
            if event.type == "output":
                with pytest.raises(InvalidRequestError, match="a stream of this session is being read"):
                    await session.call("fine")
        assert await session.call("fine") == 1


@pytest.mark.parametrize("session", [None, "new"])
def test_run_streams_too(both: Any, session: str | None):
    with both.run({"app": STREAMS, "function": "count", "input": {"to": 2}, "session": session}, stream=True) as stream:
        assert (stream.session_id is None) is (session is None)
        assert [event.type for event in stream] == ["output", "output", "done"]
    if session is not None:
        assert both.run(session=stream.session_id, function="fine").output == 1
        again = both.run({"session": stream.session_id, "function": "count", "input": {"to": 1}, "stream": True})
        assert [event.type for event in again] == ["output", "done"]
        assert both.sessions.get(stream.session_id).call_count == 3
    with pytest.raises(InvalidRequestError, match="stream must be true or false"):
        both.run({"app": STREAMS, "stream": "yes"})


def test_a_stream_of_a_client_begins_when_it_is_asked_for_an_event(both: Any):
    stream = both.stream({"app": STREAMS, "function": "count"}, input={"to": 2}, session="new")
    if isinstance(both, Client):  # to look at an async one begins it here
        assert not stream.has_begun
        assert both.sessions.list() == []
    assert [event.type for event in stream] == ["output", "output", "done"]
    assert stream.has_begun
    assert both.run(session=stream.session_id, function="fine").output == 1


def test_a_stream_can_be_cancelled(both: Any):
    with both.session(STREAMS) as session:
        stream = session.stream("stand")
        assert next(stream).output == 1
        assert session.cancel()["state"] == "running"
        assert [next(stream).message, next(stream).error.code] == ["closed", "CALL_CANCELLED"]
        with pytest.raises(CallCancelledError):
            next(stream)
        assert session.call("heard") == ["CallCancelled", "closed"]


def test_a_stream_takes_no_longer_than_its_time_out(both: Any):
    with both.session(STREAMS) as session:
        stream = session.stream("stand", timeout=0.1)
        assert [next(stream).type, next(stream).error.code] == ["output", "CALL_TIMEOUT"]
        with pytest.raises(CallTimeoutError, match=r"within 0.1 s"):
            next(stream)
        assert session.call("heard") == ["CallCancelled", "closed"]
        with pytest.raises(CallTimeoutError):
            list(session.stream("forever", timeout=0.1))
        assert session.call("fine") == 1


def test_a_session_that_is_lost_in_a_stream(both: Any):
    session = both.session(STREAMS)
    stream = session.stream("stand")
    next(stream)
    os.kill(session.info().pid, signal.SIGKILL)
    assert next(stream).error.code == "WORKER_LOST"
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        next(stream)


# --- names, labels, lists -----------------------------------------------------------------------------------------


def test_labels(both: Any):
    with both.session(COUNTER, labels={"project": "demo"}) as session:
        assert session.get_labels() == {"project": "demo"}
        assert session.call("who")["labels"] == {"project": "demo"}
        assert session.set_labels({"stage": "test", "team": "x"}).labels == {"stage": "test", "team": "x"}
        assert both.sessions.get_labels(session.id) == {"stage": "test", "team": "x"}
        for wrong in ({"": "x"}, {"x": ""}, {"x": None}, {1: "x"}, None, ["a"], {str(n): "x" for n in range(65)}):
            with pytest.raises(InvalidRequestError):
                both.sessions.set_labels(session.id, wrong)
        assert session.info().labels == {"stage": "test", "team": "x"}
        session.set_labels({})
        assert session.get_labels() == {}


def test_a_name_is_one_living_sessions(both: Any):
    with both.session(COUNTER, name="vision/resnet50", description="for the demo", tags=["a", "b"]) as session:
        info = session.info()
        assert (info.name, info.description, info.tags) == ("vision/resnet50", "for the demo", ["a", "b"])
        with pytest.raises(NameTakenError) as raised:
            both.session(COUNTER, name="vision/resnet50")
        assert raised.value.session_id == session.id
        with pytest.raises(NameTakenError):
            both.run(app=COUNTER, session="new", name="vision/resnet50", function="add")
    with both.session(COUNTER, name="vision/resnet50") as other:
        assert other.id != session.id


def test_get_or_create_by_name(both: Any, judge: Client):
    with both.session(COUNTER, name="mine", if_exists="attach", session_timeout=100) as first:
        first.call("add", amount=5)
        with both.session(COUNTER, name="mine", if_exists="attach", session_timeout=200) as second:
            assert second.id == first.id
            assert second.call("add") == {"total": 6}
        assert judge.sessions.get(first.id).status == "active", "whoever is the last one ends it, by its id"
        assert judge.sessions.get(first.id).session_timeout == 100


def test_lists_have_pages(both: Any):
    ids = [both.session(COUNTER, labels={"n": str(n % 2), "all": "yes"}, name=f"page/{n}").id for n in range(5)]
    page = both.sessions.list(labels={"all": "yes"}, limit=2)
    assert [info.id for info in page] == [ids[4], ids[3]]
    assert page.total == 5
    both.sessions.end(ids[3])
    rest = both.sessions.list(labels={"all": "yes"}, limit=9, cursor=page.cursor)
    assert [info.id for info in rest] == [ids[2], ids[1], ids[0]]
    assert rest.cursor is None
    assert [info.id for info in both.sessions.list(labels={"n": "0"}, app="counter")] == [ids[4], ids[2], ids[0]]
    assert [info.id for info in both.sessions.list(name_prefix="page/1")] == [ids[1]]
    assert ids[3] in [info.id for info in both.sessions.list(status="ended", limit=1000)]
    for app, found in ((COUNTER, 4), (Path(COUNTER), 4), (f"{COUNTER}#primed", 4), (f"{COUNTER}@1.0", 0), (PLAIN, 0),
                       (f"counter@{page[0].version}", 4), ("counter@1.0", 0)):  # fmt: skip
        assert both.sessions.list(app=app, labels={"all": "yes"}).total == found, app
    assert both.sessions.list(app="nothing") == []


@pytest.mark.parametrize(
    "given", [{"limit": 0}, {"limit": 1001}, {"limit": "5"}, {"status": "dead"}, {"cursor": "x"}, {"labels": 5},
              {"labels": {"": "x"}}, {"app": 5}, {"name_prefix": ["x"]}, {"labels": {"x": object()}}],
)  # fmt: skip
def test_a_list_with_wrong_filters_is_refused(both: Any, given: dict[str, Any]):
    with pytest.raises(InvalidRequestError):
        both.sessions.list(**given)


# --- the daemon ---------------------------------------------------------------------------------------------------


def test_apps_and_status(both: Any, shared_daemon: Daemon):
    both.run(app=COUNTER, function="add")
    assert "counter" in [app.name for app in both.apps.list()]
    assert "add" in [function.name for function in both.apps.describe(COUNTER)]
    assert both.status().pid == shared_daemon.pid
    assert both.places.socket == shared_daemon.socket
    assert both.started_daemon is False


def test_without_a_daemon(kind: str, directory: Path):
    with open_client(kind, directory / "d.sock") as client:
        for work in (client.status, lambda: client.session(COUNTER), lambda: client.run(app=COUNTER)):
            with pytest.raises(DaemonUnavailableError, match="warmpool serve"):
                work()


def test_a_daemon_behind_a_door_is_not_said_to_be_missing(kind: str, daemon: Daemon):
    directory = daemon.socket.parent
    with open_client(kind, daemon.socket) as client:
        directory.chmod(0)
        os.seteuid(os.getuid() or 65534)  # no door stops root
        try:
            with pytest.raises(InvalidRequestError, match=f"reached at {daemon.socket}: Permission denied"):
                client.status()
        finally:
            os.seteuid(os.getuid())
            directory.chmod(0o700)
        assert client.status().pid == daemon.pid


def test_a_client_that_is_closed_says_so(kind: str, shared_daemon: Daemon):
    with open_client(kind, shared_daemon.socket) as client:
        session = client.session(COUNTER)
        client.close()
        for work in (client.status, lambda: client.session(COUNTER), lambda: session.call("add")):
            with pytest.raises(InvalidRequestError, match="closed"):
                work()


def test_a_daemon_that_dies_takes_its_sessions(kind: str, start_daemon: Callable[..., Daemon]):
    daemon = start_daemon()
    with open_client(kind, daemon.socket) as client:
        session = client.session(COUNTER)
        daemon.stop()
        with pytest.raises(DaemonUnavailableError, match="no daemon listens"):
            session.call("add")


# --- cancels and time-outs ----------------------------------------------------------------------------------------


@contextmanager
def once_begun(judge: Client, work: Callable[[str], Any]) -> Iterator[Future[Any]]:
    """Does something with the id of the session in which a function runs, as soon as one does."""

    def wait() -> Any:
        while not (busy := [info.id for info in judge.sessions.list() if info.busy]):
            look_again()
        wait_until_said(judge, busy[0], "begun")
        return work(busy[0])

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(wait)


@pytest.mark.parametrize("function", ["spin", "sleep", "read_a_socket"])
def test_a_call_can_be_cancelled_and_the_session_lives(both: Any, judge: Client, function: str):
    with both.session(PLAIN) as session:
        with once_begun(judge, judge.calls.cancel) as cancelled, pytest.raises(CallCancelledError) as raised:
            session.call(function)
        assert cancelled.result(PATIENCE)["state"] == "running"
        assert cancelled.result()["call_id"] > 2**16
        assert raised.value.session_id == session.id
        assert session.call("fine") == 1
        assert session.call("seen") == [[True], 0]


def test_a_call_of_an_async_function_can_be_cancelled(both: Any, judge: Client):
    with both.session(ASYNC) as session:
        with once_begun(judge, judge.calls.cancel), pytest.raises(CallCancelledError):
            session.call("wait")
        assert session.call("seen") == [[True], 10]


def test_nothing_to_cancel(both: Any):
    with both.session(COUNTER) as session:
        assert session.cancel() == {"call_id": None, "state": "idle"}
        assert both.calls.cancel(session.id, 5, force=True) == {"call_id": 5, "state": "waiting"}
        assert session.call("add") == {"total": 1}
        for wrong in (0, -1, "5", 2**63):
            with pytest.raises(InvalidRequestError, match="call_id"):
                both.calls.cancel(session.id, wrong)
        with pytest.raises(SessionNotFoundError):
            both.calls.cancel(NOBODY)


@pytest.mark.parametrize("name", ["timeout", "timeout_seconds"])
def test_a_call_takes_no_longer_than_its_time_out(both: Any, name: str):
    with both.session(PLAIN) as session:
        with pytest.raises(CallTimeoutError, match=r"no answer within 0.3 s") as raised:
            session.call("sleep", **{name: 0.3})
        assert raised.value.session_id == session.id
        assert session.call("seen", timeout=PATIENCE) == [[True], 0]
        with pytest.raises(CallTimeoutError):
            both.run(session=session.id, function="spin", timeout=0.05)
        assert session.call("fine", {"value": 2}) == 2
        for wrong in (0, -1, "5", True):
            with pytest.raises(InvalidRequestError, match="timeout must be a number"):
                session.call("fine", timeout=wrong)


def test_an_answer_in_spite_of_the_time_out_is_no_answer(both: Any):
    with both.session(PLAIN) as session:
        with pytest.raises(CallTimeoutError):
            session.call("swallow", timeout=0.05)
        assert session.call("fine", value=3) == 3


@contextmanager
def occupied(judge: Client, session_id: str) -> Iterator[None]:
    """Somebody else's call sleeps in the session's worker, and is cancelled at the end."""
    other = judge.sessions.attach(session_id)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(other.call, "sleep")
        while not judge.sessions.get(session_id).busy:
            look_again()
        yield
        judge.calls.cancel(session_id)
        assert isinstance(running.exception(PATIENCE), CallCancelledError)
    other.close()


def test_a_call_that_waits_for_its_turn_is_not_run_after_its_time(both: Any, judge: Client):
    with both.session(PLAIN) as session:
        with occupied(judge, session.id), pytest.raises(CallTimeoutError):
            session.call("clean_up", timeout=0.05)
        assert session.call("seen") == [[True], 0], "the hook ran for the first one alone, and the second never did"


@pytest.mark.parametrize("app", ["Plain", "Async"])
def test_a_time_out_that_is_set_for_all_new_sockets_is_not_for_ours(both: Any, judge: Client, app: str):
    """By the app, and by who uses the client."""
    socket.setdefaulttimeout(0.05)
    try:
        with both.session(f"{APPS / 'sets_a_default_timeout.py'}:{app}") as session:
            for seconds in (0, 0.2):
                assert session.call("wait", seconds=seconds) == 0.05
            select.select([], [], [], 0.2)  # longer than a socket of theirs would wait
            other = judge.sessions.attach(session.id)
            assert (session.call("wait", seconds=0), other.call("wait", seconds=0)) == (0.05, 0.05)
            other.close()
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("size", [900_000, 5_000_000], ids=["by the stream", "in memory"])
def test_the_time_out_is_that_of_the_sending_too(both: Any, judge: Client, size: int):
    """A worker that is busy reads nothing, and a socket does not hold all of it."""
    with both.session(PLAIN) as session:
        with occupied(judge, session.id):
            begun = time.monotonic()
            with pytest.raises(CallTimeoutError):
                session.call("fine", {"value": 2, "more": bytes(size)}, timeout=0.2)
            assert time.monotonic() - begun < PATIENCE / 4
        assert session.call("fine", value=3) == 3
        assert session.call("seen") == [[True], 0], "the second was never begun"


def test_a_call_that_does_not_stop_takes_its_session_with_it(both: Any):
    session = both.session(STUBBORN)
    with pytest.raises(CallTimeoutError) as raised:
        session.call("ignore", timeout=0.05)
    assert raised.value.details["end_reason"] == "unresponsive"
    assert re.fullmatch(
        r"no answer within 0\.05 s; the call was cancelled; session ended: \S+ was ended \(unresponsive\); .*",
        str(raised.value),
    )
    with pytest.raises(SessionEndedError, match="unresponsive"):
        session.call("fine")


def test_a_forced_end_waits_for_no_call(both: Any, judge: Client):
    session = both.session(STUBBORN)
    with once_begun(judge, lambda id: judge.sessions.end(id, force=True)), pytest.raises(SessionEndedError):
        session.call("ignore")


def test_a_call_without_a_session_is_named_by_its_worker_and_its_id(both: Any):
    worker = both.run(app=COUNTER, function="add").worker_id
    for wrong, words in (
        ({"worker_id": worker}, "needs the call_id"),
        ({"worker_id": worker, "call_id": 5, "force": True}, "does not take force"),
        ({"worker_id": 7, "call_id": 5}, "worker_id"),
        ({"worker_id": worker, "call_id": 0}, "call_id"),
    ):
        with pytest.raises(InvalidRequestError, match=words):
            both.request("calls.cancel", **wrong)
    assert both.request("calls.cancel", worker_id=worker, call_id=5) == {"call_id": 5, "state": "waiting"}
    assert both.request("calls.cancel", worker_id="w_0", call_id=5) == {"call_id": 5, "state": "idle"}
    assert both.run(app=COUNTER, function="add").output.total > 0


@pytest.mark.parametrize("function", ["spin", "sleep"])
def test_a_call_without_a_session_has_a_time_out_too_and_is_stopped(both: Any, judge: Client, function: str):
    assert both.run(app=PLAIN, function="fine", timeout=PATIENCE).output == 1
    with pytest.raises(CallTimeoutError):
        both.run(app=PLAIN, function=function, timeout=0.3)
    while "serving" in judge.status().workers_by_state:
        look_again()
    hooks, _ = both.run(app=PLAIN, function="seen", timeout=PATIENCE).output
    assert hooks[-1:] == [True], "its worker is free again, and knows of it"


# --- logs and reasons ---------------------------------------------------------------------------------------------


def test_logs(both: Any):
    session = both.session(MISBEHAVES)
    session.call("write_to_stdout", count=3)
    session.call("write_to_stdout", count=4)
    lines = both.sessions.logs(session.id, follow=True)
    assert next(lines).endswith("xxx")
    assert next(lines).endswith("xxxx")
    assert [line[-4:] for line in session.logs()] == [" xxx", "xxxx"]
    session.end()
    assert list(lines) == []
    assert len(list(both.sessions.logs(session.id))) == 2
    with pytest.raises(SessionNotFoundError):
        list(both.sessions.logs(NOBODY))


def test_why(both: Any):
    session = both.session(MISBEHAVES)
    session.call("write_to_stdout", count=3)
    session.end()
    story = session.why()
    assert (story.session_id, story.status, story.end_reason) == (session.id, "ended", "client")
    assert story.entries[0].count == 1
    assert story.log[-1].endswith("xxx")
    with pytest.raises(SessionNotFoundError):
        both.sessions.why(NOBODY)


def test_memory_on_demand(both: Any):
    with both.session(COUNTER) as session:
        info = both.sessions.get(session.id, memory=True)
        assert 0 < info.private_bytes < info.shared_bytes
        assert "private_bytes" not in session.info()
