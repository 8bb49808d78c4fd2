"""Calls that are told to stop, wherever they are; and calls that are not, and must not notice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted import FIRST_ID, Worker
from support import (
    APPS,
    PATIENCE,
    is_asleep,
)

from warmpool.constants import HOOK_TIMEOUT
from warmpool.wire.process_messages import Cancel, Relabel, Wake, WakeMe

TOLD = APPS / "told_to_stop.py"
SOON = 1.0
"""Seconds in which a cancel that can work has worked, on a busy machine."""

Start = Callable[..., Worker]
plain_and_async = pytest.mark.parametrize("kind", ["Plain", "Async"])


@pytest.fixture
def start(start_worker: Start) -> Start:
    return lambda kind, app=TOLD: start_worker(app, kind)


def cancelled(call_id: int, message: list[Any] | None) -> bool:
    assert message is not None
    return message[:2] == ["Failure", call_id] and message[2]["code"] == "CALL_CANCELLED"


def begin(worker: Worker, function: str, call_id: int = FIRST_ID, **fields: Any) -> None:
    worker.client.send(["Call", call_id, function, fields])
    worker.wait_for_text("begun")


# --- a call that runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("Plain", "spin"),
        ("Plain", "sleep"),
        ("Plain", "sleep_lazily"),
        ("Plain", "validate"),
        ("Plain", "compute"),
        ("Plain", "serialise"),
        ("Plain", "read_a_socket"),
        ("Plain", "wait_for_a_lock"),
        ("Plain", "run_asyncio"),
        ("Plain", "swallow_exceptions"),
        ("Async", "wait"),
        ("Async", "spin"),
        ("Async", "sleep"),
        ("Async", "validate"),
        ("Async", "serialise"),
    ],
)
def test_it_stops_wherever_it_is_and_the_session_lives(start: Start, kind: str, function: str):
    worker = start(kind)
    for call_id in (FIRST_ID, FIRST_ID + 1):
        begin(worker, function, call_id)
        started = time.monotonic()
        worker.cancel(call_id)
        assert cancelled(call_id, worker.client.hear())
        assert time.monotonic() - started < SOON
    hooks, cleaned = worker.client.call(7, "seen")[2]
    assert hooks == [True, True], "the hook runs once a cancel, and can still see it"
    assert cleaned == (0 if kind == "Plain" else 110)
    assert not worker.activity.busy
    assert worker.activity.started == 3


@plain_and_async
def test_it_may_clean_up_and_is_not_told_twice(start: Start, kind: str):
    worker = start(kind)
    begin(worker, "clean_up")
    for _ in range(3):
        worker.cancel(FIRST_ID)
    assert cancelled(FIRST_ID, worker.client.hear())
    assert worker.client.call(7, "seen") == ["Result", 7, [[True], 1 if kind == "Plain" else 20]]


@plain_and_async
def test_one_that_swallows_it_has_its_result_taken(start: Start, kind: str):
    worker = start(kind)
    begin(worker, "swallow")
    worker.cancel(FIRST_ID)
    assert worker.client.hear() == ["Result", FIRST_ID, "swallowed"]
    assert worker.client.call(7, "seen") == ["Result", 7, [[True], 1 if kind == "Plain" else 20]]
    assert worker.client.call(8, "fine", value=8) == ["Result", 8, 8]


def test_what_it_raises_instead_is_told_too(start: Start):
    worker = start("Plain")
    begin(worker, "raise_instead")
    worker.cancel(FIRST_ID)
    answer = worker.client.hear()
    assert cancelled(FIRST_ID, answer)
    assert answer is not None
    assert answer[2]["details"]["message"] == "no, this"
    assert "told_to_stop.py" in answer[2]["details"]["traceback"]
    assert "warmpool/worker" not in answer[2]["details"]["traceback"]


def test_one_that_cancels_itself_is_an_error_of_the_app(start: Start):
    worker = start("Async")
    answer = worker.client.call(FIRST_ID, "cancel_itself")
    assert answer is not None
    assert answer[2]["code"] == "APP_ERROR"
    assert worker.client.call(7, "seen") == ["Result", 7, [[], 0]]


def test_one_that_looks_sees_the_board_at_once(start: Start):
    worker = start("Plain")
    begin(worker, "look")
    worker.board.cancel(0, FIRST_ID + 1)
    assert not worker.client.is_answered(0.05), "another call's cancel"
    worker.board.cancel(0, FIRST_ID)
    assert worker.client.hear() == ["Result", FIRST_ID, "seen"]


def test_one_that_ignores_it_is_told_once_and_left_to_the_daemon(start: Start):
    worker = start("Plain")
    begin(worker, "ignore")
    worker.cancel(FIRST_ID)
    worker.wait_for_text("ignored")
    worker.cancel(FIRST_ID)
    worker.process.send_signal(signal.SIGUSR1)
    assert "ignored" not in worker.wait_for_text("in ignore"), "it was told once"
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait_for_exit() == -signal.SIGTERM


def test_one_that_holds_the_interpreters_lock_shows_where_it_is_and_dies(start: Start):
    worker = start("Plain")
    begin(worker, "hold_the_gil")
    worker.wait_until(lambda: is_asleep(worker.process.pid))
    worker.cancel(FIRST_ID)
    worker.process.send_signal(signal.SIGUSR1)
    assert "told_to_stop.py" in worker.wait_for_text("in hold_the_gil")
    assert worker.activity.busy
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait_for_exit() == -signal.SIGTERM


# --- the hook -----------------------------------------------------------------------------------------------------


def test_a_hook_that_raises_changes_nothing(start: Start):
    worker = start("BrokenHook")
    begin(worker, "spin")
    worker.cancel(FIRST_ID)
    assert cancelled(FIRST_ID, worker.client.hear())
    assert "no hook" in worker.wait_for_text("no hook")
    assert worker.client.call(7, "fine") == ["Result", 7, 1]


def test_a_hook_that_hangs_is_cut_short(start: Start):
    worker = start("SlowHook")
    begin(worker, "spin")
    started = time.monotonic()
    worker.cancel(FIRST_ID)
    assert cancelled(FIRST_ID, worker.client.hear())
    assert HOOK_TIMEOUT - 0.1 < time.monotonic() - started < HOOK_TIMEOUT + SOON
    assert worker.client.call(7, "fine") == ["Result", 7, 1]


# --- a call that does not run yet, or no more ---------------------------------------------------------------------


@plain_and_async
def test_one_that_waits_is_never_begun(start: Start, kind: str):
    """In the buffer, on another connection, or not even sent."""
    worker = start(kind)
    other = worker.attach()
    begin(worker, "clean_up")
    worker.client.send(["Call", FIRST_ID + 1, "swallow", {}], ["Call", FIRST_ID + 2, "fine", {"value": 2}])
    other.send(["Call", FIRST_ID + 3, "swallow", {}])
    for later in (1, 3, 9):
        worker.cancel(FIRST_ID + later)
    worker.cancel(FIRST_ID)
    assert cancelled(FIRST_ID, worker.client.hear())
    assert cancelled(FIRST_ID + 1, worker.client.hear())
    assert worker.client.hear() == ["Result", FIRST_ID + 2, 2]
    assert cancelled(FIRST_ID + 3, other.hear())
    assert cancelled(FIRST_ID + 9, other.call(FIRST_ID + 9, "swallow"))
    assert other.call(7, "seen") == ["Result", 7, [[True], 1 if kind == "Plain" else 20]]


@plain_and_async
def test_one_that_is_over_is_not_touched_and_neither_is_the_next(start: Start, kind: str):
    worker = start(kind)
    assert worker.client.call(FIRST_ID, "fine", value=3) == ["Result", FIRST_ID, 3]
    for _ in range(3):
        worker.cancel(FIRST_ID)
    for number in range(1, 20):
        assert worker.client.call(FIRST_ID + number, "fine", value=number) == ["Result", FIRST_ID + number, number]
    assert worker.client.call(7, "seen") == ["Result", 7, [[], 0]]


@plain_and_async
def test_a_cancel_of_another_call_stops_nothing(start: Start, kind: str):
    worker = start(kind)
    begin(worker, "clean_up")
    worker.cancel(FIRST_ID - 1)
    worker.say(Relabel({"a": "b"}))
    assert not worker.client.is_answered(0.05)
    worker.cancel(FIRST_ID)
    worker.board.cancel(0, FIRST_ID - 1)
    assert cancelled(FIRST_ID, worker.client.hear())


@plain_and_async
def test_whenever_a_cancel_comes_it_stops_its_own_call_or_none(start: Start, kind: str):
    """A thousand cancels at random moments about the time of their calls, which are 30 us long; every tenth is late."""
    worker = start(kind)
    chance = random.Random(1)
    results = 0
    for number in range(1000):
        call_id = FIRST_ID + 2 * number
        worker.client.send(["Call", call_id, "fine", {"value": number}])
        moment = time.perf_counter() + chance.uniform(0, 100e-6)
        if number % 10 == 0:
            assert worker.client.is_answered(PATIENCE)
        while time.perf_counter() < moment:
            pass
        worker.cancel(call_id)
        answer = worker.client.hear()
        assert answer is not None
        assert answer == ["Result", call_id, number] or cancelled(call_id, answer)
        results += answer[0] == "Result"
        assert worker.client.call(call_id + 1, "fine", value=-number) == ["Result", call_id + 1, -number]
    assert results >= 100
    assert not worker.activity.busy
    assert 1000 + results <= worker.activity.started <= 2000, "those that have begun"


@plain_and_async
@pytest.mark.parametrize("message", ["Call", "Stream"])
def test_a_call_that_is_cancelled_before_it_begins_counts_as_none(start: Start, kind: str, message: str):
    worker = start(kind)
    assert worker.client.call(FIRST_ID, "fine", value=1) == ["Result", FIRST_ID, 1]
    before = worker.activity
    worker.say(Cancel(FIRST_ID + 1))
    worker.client.send([message, FIRST_ID + 1, "fine", {"value": 1}])
    assert cancelled(FIRST_ID + 1, worker.client.hear())
    assert worker.activity == before, "nor does the window slide"
    assert worker.client.call(FIRST_ID + 2, "fine", value=2) == ["Result", FIRST_ID + 2, 2]
    assert worker.activity.started == 2


def test_cancels_of_calls_that_never_come_take_no_memory(start: Start):
    worker = start("Plain")
    for number in range(5000):
        worker.say(Cancel(FIRST_ID + number))
        if number % 100 == 0:
            assert worker.client.call(number, "fine", value=number) == ["Result", number, number]
    assert cancelled(FIRST_ID + 4999, worker.client.call(FIRST_ID + 4999, "fine"))
    assert worker.client.call(FIRST_ID, "fine") == ["Result", FIRST_ID, 1], "forgotten: it came first of too many"


@plain_and_async
@pytest.mark.parametrize("call_id", [2**63, 2**64 - 1, -(2**63)])
def test_an_id_that_the_board_cannot_hold_is_refused(start: Start, kind: str, call_id: int):
    worker = start(kind)
    answer = worker.client.call(call_id, "fine")
    assert answer is not None
    if call_id > 0:
        assert answer[:2] == ["Failure", call_id]
        assert answer[2]["code"] == "PROTOCOL_ERROR"
    else:
        assert answer == ["Result", call_id, 1]
    assert worker.client.call(1, "fine") == ["Result", 1, 1]
    assert not worker.activity.busy


def test_a_cancel_that_python_swallows_comes_again(start: Start):
    """It falls into a `__del__`, of which Python lets nothing pass."""
    worker = start("Plain")
    begin(worker, "finalize")
    worker.cancel(FIRST_ID)
    assert worker.hear() == WakeMe()
    worker.say(Wake())
    assert cancelled(FIRST_ID, worker.client.hear())
    assert "CallCancelled" not in worker.text
    assert worker.client.call(7, "seen") == ["Result", 7, [[True], 1]]


def test_the_daemons_death_reaches_a_call_that_runs(start: Start):
    """Its end of the channel closes: who is stopped in the handler need not come back."""
    worker = start("Plain")
    begin(worker, "sleep")
    worker.hang_up()
    assert worker.wait_for_exit() == 0
    assert not os.path.exists(f"/proc/{worker.process.pid}/fd")


@plain_and_async
@pytest.mark.parametrize("kind_of_call", ["Call", "Stream"])
def test_what_comes_with_a_cancel_is_heeded_though_the_signal_has_taken_both(
    start: Start, kind: str, kind_of_call: str
):
    worker = start(kind)
    worker.client.send([kind_of_call, FIRST_ID, "sleep", {}])
    worker.wait_for_text("begun")
    worker.process.send_signal(signal.SIGSTOP)
    worker.cancel(FIRST_ID)
    other = worker.attach()
    worker.process.send_signal(signal.SIGCONT)
    assert cancelled(FIRST_ID, worker.client.events()[-1])
    assert other.call(7, "fine", value=2) == ["Result", 7, 2]
