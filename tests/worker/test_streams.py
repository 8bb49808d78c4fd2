"""Calls that are followed: their events, no faster than they are taken, and what becomes of them when nobody is there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted import FIRST_ID, Worker
from support import APPS, PATIENCE

from warmpool.constants import MIB

STREAMS = APPS / "streams.py"
AT_ONCE = 0.1
"""Seconds in which a cancel arrives, whatever flows the other way."""
SOON = 1.0
"""Seconds in which what can be done at once is done, on a busy machine."""

Start = Callable[..., Worker]
plain_and_async = pytest.mark.parametrize("kind", ["Plain", "Async"])
endless = pytest.mark.parametrize(
    ("kind", "function"), [("Plain", "forever"), ("Async", "forever"), ("Async", "plain_forever")]
)


@pytest.fixture
def start(start_worker: Start) -> Start:
    return partial(start_worker, STREAMS)


def stream(worker: Worker, function: str, **fields: Any) -> list[list[Any]]:
    worker.client.send(["Stream", FIRST_ID, function, fields])
    return worker.client.events()


def data_of(events: list[list[Any]], kind: str = "output") -> list[Any]:
    """What the events of a kind carry, after a look at their form."""
    numbers = [event[2] for event in events[:-1]]
    assert numbers == list(range(1, len(events)))
    times = [event[3] for event in events[:-1]]
    assert times == sorted(times)
    assert all(abs(time.time() - moment) < PATIENCE for moment in times)
    assert {event[1] for event in events} == {FIRST_ID}
    return [event[5] for event in events[:-1] if event[4] == kind]


def cancelled(message: list[Any], call_id: int = FIRST_ID) -> bool:
    return message[:2] == ["Failure", call_id] and message[2]["code"] == "CALL_CANCELLED"


def wait_until_asleep(worker: Worker) -> None:
    process = psutil.Process(worker.process.pid)
    worker.wait_until(lambda: process.status() == psutil.STATUS_SLEEPING)


# --- events -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "function", "returned"),
    [
        ("Plain", "count", "counted"),
        ("Plain", "iterator", None),
        ("Plain", "wrapped", None),
        ("Async", "count", None),
        ("Async", "wrapped", None),
        ("Async", "plain_count", "counted"),
    ],
)
def test_items_come_in_order_and_then_what_the_generator_returns(start: Start, kind: str, function: str, returned: Any):
    worker = start(kind)
    for to in (3, 0, 1000):
        events = stream(worker, function, to=to)
        assert data_of(events) == list(range(to))
        assert events[-1] == ["Result", FIRST_ID, returned]
    assert worker.client.call(7, "fine") == ["Result", 7, 1]
    assert worker.activity.started == worker.activity.finished == 4


@plain_and_async
@pytest.mark.parametrize("function", ["models", "unannotated"])
def test_items_are_serialised_as_results_are(start: Start, kind: str, function: str):
    worker = start(kind)
    wanted = [{"number": number, "day": "2026-01-02"} for number in range(3)]
    assert data_of(stream(worker, function, to=3)) == wanted


@plain_and_async
def test_a_plain_call_of_a_generator_gives_its_last_item(start: Start, kind: str):
    worker = start(kind)
    assert worker.client.call(1, "count", to=5) == ["Result", 1, 4]
    assert worker.client.call(2, "count", to=0) == ["Result", 2, None]
    assert worker.client.call(3, "models", to=2) == ["Result", 3, {"number": 1, "day": "2026-01-02"}]
    answer = worker.client.call(4, "fail", after=2)
    assert answer is not None
    assert answer[2]["code"] == "APP_ERROR"
    worker.wait_for_text("closed")


@pytest.mark.parametrize(("kind", "function"), [("Plain", "work"), ("Async", "work"), ("Async", "plain_work")])
def test_any_function_tells_its_progress_to_who_follows(start: Start, kind: str, function: str):
    worker = start(kind)
    events = stream(worker, function, steps=3, message="so far")
    wanted = [{"done": done, "total": 3, "message": "so far"} for done in (1, 2, 3)]
    assert data_of(events, "progress") == wanted
    assert events[-1] == ["Result", FIRST_ID, "worked"]
    assert worker.client.call(7, function, steps=3) == ["Result", 7, "worked"]
    assert worker.client.call(8, "fine") == ["Result", 8, 1]


def test_what_a_call_has_left_running_tells_nothing_to_who_follows_another(start: Start):
    worker = start("Async")
    assert worker.client.call(1, "leave_at_work") == ["Result", 1, None]
    events = stream(worker, "work_beside")
    assert data_of(events, "progress") == [{"done": 1, "total": 1, "message": ""}]


@pytest.mark.parametrize("what", ["text", "none", "message", "huge"])
def test_nonsense_about_progress_is_an_error_of_the_app_or_lost(start: Start, what: str):
    events = stream(start("Plain"), "tell_nonsense", what=what)
    if what == "huge":
        assert events == [["Result", FIRST_ID, None]]
    else:
        assert events[0][2]["code"] == "APP_ERROR"
        assert events[0][2]["details"]["type"] == "TypeError"


def test_threads_may_tell_too(start: Start):
    worker = start("Plain")
    events = stream(worker, "work_in_threads", steps=100)
    assert len(data_of(events, "progress")) == 500
    assert events[-1] == ["Result", FIRST_ID, 4]


@pytest.mark.parametrize(("kind", "function"), [("Plain", "talk"), ("Async", "talk"), ("Async", "plain_talk")])
def test_what_is_printed_and_logged_can_be_followed_and_is_in_the_log(start: Start, kind: str, function: str):
    worker = start(kind)
    assert worker.client.call(1, function) == ["Result", 1, "talked"]
    before = worker.wait_for_text("past the streams\n")
    events = stream(worker, function)
    told = [(log["level"], log["logger"], log["message"].partition("\n")[0]) for log in data_of(events, "log")]
    assert told == [
        ("INFO", "stdout", "one 1"),
        ("INFO", "stdout", "two"),
        ("INFO", "stdout", "lines"),
        ("INFO", "stderr", "to stderr"),
        ("INFO", "stdout", "kept"),
        ("INFO", f"warmpool.app.{kind}", "an info"),
        ("INFO", "stderr", "of a library"),
        ("ERROR", f"warmpool.app.{kind}", "failed"),
        ("INFO", "stdout", "no end"),
    ]
    assert "ValueError: oops ?" in data_of(events, "log")[-2]["message"]
    assert events[-1] == ["Result", FIRST_ID, "talked"]
    after = worker.wait_for_text("past the streams\n")
    assert after == f"no end{before}", "a line without its end waits for it"
    for line in ("one 1", "two", "to stderr", "kept", f"INFO warmpool.app.{kind}: an info", "past the streams"):
        assert f"{line}\n" in after
    assert f"ERROR warmpool.app.{kind}: failed\nTraceback" in after
    assert after.count("an info") == 1
    assert "not told" not in after


def test_a_line_that_is_long_is_cut_for_who_follows(start: Start):
    worker = start("Plain")
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append(worker.wait_for_text("x\n")))
    reader.start()
    (log,) = data_of(stream(worker, "talk_at_length"), "log")
    reader.join(PATIENCE)
    assert log["message"] == "x" * 16 * 1024
    assert [len(text) for text in texts] == [100_001]


def test_all_that_is_printed_comes_if_it_is_read(start: Start):
    worker = start("Plain")
    reader = threading.Thread(target=worker.wait_for_text, args=("\n19999 ",))
    reader.start()
    events = stream(worker, "talk_much", lines=20_000)
    reader.join(PATIENCE)
    assert [int(log["message"].split()[0]) for log in data_of(events, "log")] == list(range(20_000))


@plain_and_async
def test_an_error_comes_after_what_was_before_it(start: Start, kind: str):
    worker = start(kind)
    events = stream(worker, "fail", after=2)
    assert data_of(events) == [0, 1]
    assert events[-1][2]["message"] == "fail raised ValueError: enough"
    assert worker.client.call(7, "fine") == ["Result", 7, 1]


@plain_and_async
def test_a_plain_generator_that_raises_the_end_of_an_async_one_has_failed(start: Start, kind: str):
    worker = start(kind)
    events = stream(worker, "raise_the_end_of_others")
    assert data_of(events) == [1]
    assert events[-1][2]["details"]["type"] == "StopAsyncIteration"


@plain_and_async
@pytest.mark.parametrize(
    ("function", "fields", "code"),
    [("count", {"to": "many"}, "INVALID_INPUT"), ("count", {}, "INVALID_INPUT"), ("none", {}, "FUNCTION_NOT_FOUND")],
)
def test_a_stream_that_cannot_begin_is_refused(start: Start, kind: str, function: str, fields: Any, code: str):
    worker = start(kind)
    (answer,) = stream(worker, function, **fields)
    assert answer[2]["code"] == code
    assert not worker.activity.busy


@plain_and_async
@pytest.mark.parametrize(
    ("function", "fields", "items", "code"),
    [("give_what_cannot_be_sent", {}, [1], "APP_ERROR"), ("give", {"size": 2 * MIB}, [], "PAYLOAD_TOO_LARGE")],
)
def test_an_item_that_cannot_be_sent_ends_the_stream(
    start: Start, kind: str, function: str, fields: Any, items: list[Any], code: str
):
    worker = start(kind)
    events = stream(worker, function, **fields)
    assert data_of(events) == items
    assert events[-1][2]["code"] == code
    worker.wait_for_text("closed")
    assert worker.client.call(7, "fine") == ["Result", 7, 1]


@plain_and_async
def test_calls_behind_a_stream_wait_for_its_end(start: Start, kind: str):
    worker = start(kind)
    call = ["Call", FIRST_ID + 1, "fine", {"value": 5}]
    worker.client.send(["Stream", FIRST_ID, "count", {"to": 500}], call, ["Stream", FIRST_ID, "count", {"to": 2}])
    assert len(worker.client.events()) == 501
    assert worker.client.hear() == ["Result", FIRST_ID + 1, 5]
    assert len(worker.client.events()) == 3


# --- no faster than it is taken -----------------------------------------------------------------------------------


@endless
def test_who_does_not_read_stops_the_generator(start: Start, kind: str, function: str):
    worker = start(kind)
    process = psutil.Process(worker.process.pid)
    stream_of_large_items = ["Stream", FIRST_ID, function, {"size": 100_000}]
    before = process.memory_info().rss
    worker.client.send(stream_of_large_items)
    assert worker.client.is_answered(PATIENCE)
    wait_until_asleep(worker)
    used = sum(process.cpu_times()[:2])
    assert not worker.client.socket.recv(0)
    assert process.memory_info().rss - before < 8 * MIB
    started = time.monotonic()
    worker.cancel(FIRST_ID)
    made = int(worker.wait_for_text("closed after").split()[-1])
    worker.wait_until(lambda: not worker.activity.busy)  # what it says at its end waits for nobody
    assert time.monotonic() - started < SOON
    assert made < 20, "two megabytes at most are on their way"
    assert sum(process.cpu_times()[:2]) - used < 0.1, "it slept"
    events = worker.client.events()
    assert len(data_of(events)) == made
    assert cancelled(events[-1])
    heard = worker.client.call(7, "heard")
    assert heard is not None
    assert heard[2][0] == ("CancelledError" if function == "forever" and kind == "Async" else "CallCancelled")


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("Plain", "work_forever"),
        ("Async", "plain_work_forever"),
        ("Plain", "talk_for_ever"),
        ("Async", "plain_talk_for_ever"),
    ],
)
def test_who_does_not_read_stops_what_tells_its_progress(start: Start, kind: str, function: str):
    worker = start(kind)
    worker.client.send(["Stream", FIRST_ID, function, {}])
    assert worker.client.is_answered(PATIENCE)
    reader = threading.Thread(target=worker.wait_for_text, args=("closed",))
    reader.start()
    wait_until_asleep(worker)
    worker.cancel(FIRST_ID)
    reader.join(PATIENCE)
    assert not reader.is_alive()
    events = worker.client.events()
    assert data_of(events, "log" if "talk" in function else "progress")
    assert cancelled(events[-1])


def test_async_code_cannot_wait_so_much_progress_is_lost_and_the_numbers_show_it(start: Start):
    worker = start("Async")
    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss
    message = "x" * 1000
    worker.client.send(["Stream", FIRST_ID, "work", {"steps": 50_000, "message": message}])
    worker.wait_until(lambda: worker.activity.finished == 1)
    assert process.memory_info().rss - before < 16 * MIB
    events = worker.client.events()
    numbers = [event[2] for event in events[:-1]]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 50_000, "the last are the ones that are kept"
    assert events[-2][5]["done"] == 50_000
    assert 1000 < len(numbers) < 50_000
    assert events[-1] == ["Result", FIRST_ID, "worked"]


@endless
def test_a_cancel_arrives_against_a_flood_that_is_read(start: Start, kind: str, function: str):
    """The client has all that was on its way before, and its answer, at once. Of five, since the machine may be busy."""
    worker = start(kind)
    taken = []
    for call_id in range(FIRST_ID, FIRST_ID + 5):
        worker.client.send(["Stream", call_id, function, {}])
        for _ in range(1000):
            worker.client.hear()
        started = time.monotonic()
        worker.cancel(call_id)
        events = worker.client.events()
        taken.append(time.monotonic() - started)
        assert cancelled(events[-1], call_id)
        assert worker.client.call(7, "fine") == ["Result", 7, 1]
    assert sorted(taken)[2] < AT_ONCE


@plain_and_async
def test_a_generator_may_swallow_its_cancel(start: Start, kind: str):
    worker = start(kind)
    worker.client.send(["Stream", FIRST_ID, "go_on", {}])
    for _ in range(10):
        worker.client.hear()
    worker.cancel(FIRST_ID)
    events = worker.client.events()
    assert [event[5] for event in events[:-1] if event[4] == "output"][-2:] == [-1, -2]
    assert events[-1] == ["Result", FIRST_ID, None]


@plain_and_async
def test_a_cancel_reaches_a_generator_that_stands(start: Start, kind: str):
    worker = start(kind)
    worker.client.send(["Stream", FIRST_ID, "stand", {}])
    worker.client.hear()
    worker.cancel(FIRST_ID)
    assert cancelled(worker.client.events()[-1])
    worker.wait_for_text("closed")


# --- a client that leaves -----------------------------------------------------------------------------------------


@endless
@pytest.mark.parametrize("read", [0, 1000], ids=["that never read", "that read"])
def test_a_client_that_leaves_closes_the_generator(start: Start, kind: str, function: str, read: int):
    worker = start(kind)
    other = worker.attach()
    worker.client.send(["Stream", FIRST_ID, function, {}])
    for _ in range(read):
        worker.client.hear()
    if not read:
        assert worker.client.is_answered(PATIENCE)
        wait_until_asleep(worker)
    worker.client.close()
    worker.wait_for_text("closed after")
    assert other.call(7, "fine") == ["Result", 7, 1]
    heard = other.call(8, "heard")
    assert heard is not None
    assert heard[2][0] in {"GeneratorExit", "CancelledError"}
    assert not worker.activity.busy


def test_a_client_that_leaves_closes_an_async_generator_that_stands(start: Start):
    worker = start("Async")
    other = worker.attach()
    worker.client.send(["Stream", FIRST_ID, "stand", {}])
    worker.client.hear()
    worker.client.close()
    worker.wait_for_text("closed")
    assert other.call(7, "fine") == ["Result", 7, 1]


@plain_and_async
def test_another_function_runs_to_its_end_though_its_follower_has_left(start: Start, kind: str, directory: Path):
    worker = start(kind)
    other = worker.attach()
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    worker.client.send(["Stream", FIRST_ID, "work_on", {"fifo": str(fifo)}])
    worker.client.hear()
    worker.client.close()
    fifo.write_text("")
    worker.wait_for_text("worked")
    assert other.call(7, "heard") == ["Result", 7, ["worked"]]
