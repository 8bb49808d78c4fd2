"""Sessions that end by themselves, after a call and never in the middle of one."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scripted import FIRST_ID, Worker
from support import APPS, PATIENCE

from warmpool.app import BaseApp
from warmpool.board import OFFSET_NS, Board
from warmpool.constants import MIB
from warmpool.footprint import Footprint, footprint_of
from warmpool.wire.frames import decode
from warmpool.wire.process_messages import Ended, Leaving, Stop, Wake, WakeMe
from warmpool.wire.shapes import Message
from warmpool.worker import limits
from warmpool.worker.limits import Limits
from warmpool.worker.options import options_of

LIMITS = APPS / "limits.py"

Start = Callable[..., Worker]
plain_and_async = pytest.mark.parametrize("kind", ["Plain", "Async"])


@pytest.fixture
def start(start_worker: Start) -> Start:
    return partial(start_worker, LIMITS)


def told(worker: Worker) -> Message:
    """What the daemon is told next, but for who wants to be woken up."""
    heard = worker.hear()
    return worker.hear() if heard == WakeMe() else heard


def assert_leaves(worker: Worker, reason: str) -> None:
    assert told(worker) == Leaving(reason)
    worker.wait_for_text(f"ended: {reason}")
    assert worker.client.hear() is None
    assert worker.wait_for_exit() == 0


# --- the app ends its session -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "function"), [("Plain", "end"), ("Async", "end"), ("Async", "end_at_once")])
def test_an_app_ends_its_session_after_the_reply(start: Start, kind: str, function: str):
    worker = start(kind)
    worker.client.send(["Call", 1, function, {}], ["Call", 2, "fine", {}])
    assert worker.client.hear() == ["Result", 1, "x"]
    assert_leaves(worker, "app")
    assert worker.activity.finished == 1, "what came behind was not begun"


@plain_and_async
def test_an_app_may_end_its_session_between_calls(start: Start, kind: str):
    worker = start(kind)
    assert worker.client.call(1, "end_later") == ["Result", 1, "x"]
    if kind == "Plain":
        assert worker.hear() == WakeMe()
        worker.say(Wake())
    assert_leaves(worker, "app")


def test_the_loop_is_woken_up_whoever_ends_the_session(start: Start):
    """It may be the handler of a signal, just before the loop blocks."""
    worker = start("Plain")
    assert worker.client.call(1, "end") == ["Result", 1, "x"]
    assert worker.hear() == WakeMe()
    assert_leaves(worker, "app")


@plain_and_async
def test_a_large_reply_is_taken_before_the_worker_leaves(start: Start, kind: str):
    worker = start(kind)
    other = worker.attach()
    worker.client.send(["Call", 1, "end", {"size": MIB - 100}])
    assert worker.client.is_answered(PATIENCE)
    other.send(["Call", 2, "fine", {}])
    assert not other.is_answered(0.05)
    assert worker.client.hear() == ["Result", 1, "x" * (MIB - 100)]
    assert_leaves(worker, "app")
    assert other.hear() is None


@plain_and_async
def test_who_does_not_take_the_last_reply_holds_nobody_when_he_leaves(start: Start, kind: str):
    worker = start(kind)
    worker.client.send(["Call", 1, "end", {"size": MIB - 100}])
    assert worker.client.is_answered(PATIENCE)
    worker.client.close()
    assert told(worker) == Leaving("app")
    assert worker.wait_for_exit() == 0


@plain_and_async
def test_the_daemon_can_stop_it_though_a_reply_is_not_taken(start: Start, kind: str):
    worker = start(kind)
    worker.client.send(["Call", 1, "end", {"size": MIB - 100}])
    assert worker.client.is_answered(PATIENCE)
    worker.say(Stop("client"))
    assert told(worker) == Leaving("client")
    assert worker.wait_for_exit() == 0


@plain_and_async
def test_a_stream_is_sent_whole_before_its_session_ends(start: Start, kind: str):
    worker = start(kind)
    worker.client.send(["Stream", FIRST_ID, "count", {"to": 3000}])
    assert len(worker.client.events()) == 3001
    assert_leaves(worker, "app")


@plain_and_async
@pytest.mark.parametrize(
    ("kind_of_value", "wanted"),
    [
        ("data", {"calls": 2}),
        ("none", None),
        ("large", "a str that cannot be kept: a message of 100005 bytes is larger"),
        ("odd", "a object that cannot be kept: a value of type builtins.object cannot be sent"),
        ("deep", "a list that cannot be kept: "),
        ("lazy", [0, 1, 2]),
    ],
)
def test_what_on_end_returns_is_told(start: Start, kind: str, kind_of_value: str, wanted: Any):
    worker = start(kind)
    worker.client.call(1, "end_with", kind=kind_of_value)
    assert told(worker) == Leaving("app")
    if wanted is None:
        assert worker.wait_for_exit() == 0
        with pytest.raises((AssertionError, ConnectionError)):
            worker.hear()
        return
    ended = worker.hear()
    assert isinstance(ended, Ended)
    value = decode(ended.packed)
    assert value == wanted or (isinstance(wanted, str) and str(value).startswith(wanted))


# --- the daemon stops it ------------------------------------------------------------------------------------------


def test_a_call_that_runs_is_finished_before_the_worker_stops(start: Start, directory: Path):
    worker = start("Async")
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    worker.client.send(["Call", 1, "wait", {"fifo": str(fifo)}], ["Call", 2, "fine", {}])
    worker.wait_for_text("begun")
    worker.say(Stop("client"))
    assert not worker.client.is_answered(0.05)
    fifo.write_text("")
    assert worker.client.hear() == ["Result", 1, "waited"]
    assert_leaves(worker, "client")


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ThreeCalls", "ThreeAsyncCalls"])
def test_a_session_ends_after_its_calls(start: Start, kind: str):
    worker = start(kind)
    worker.client.send(*(["Call", number, "fine", {"value": number}] for number in range(1, 5)))
    for number in (1, 2, 3):
        assert worker.client.hear() == ["Result", number, number]
    assert_leaves(worker, "max_calls")


def test_a_session_ends_when_its_memory_is_too_much(start: Start):
    worker = start("Small")
    for number in range(3):
        assert worker.client.call(number, "grow", megabytes=20) == ["Result", number, 20]
    assert worker.client.call(3, "grow", megabytes=120) == ["Result", 3, 120]
    assert_leaves(worker, "max_private_bytes")


def test_a_session_ends_after_its_lifetime(start: Start):
    """Which began when the daemon says so, however late the worker heard of it."""
    worker = start("ShortLived")
    assert worker.client.call(1, "fine") == ["Result", 1, 1]
    worker.board.cells[OFFSET_NS] += 20 * 10**9
    assert worker.client.call(2, "fine") == ["Result", 2, 1]
    worker.board.cells[OFFSET_NS] += 40 * 10**9
    assert worker.client.call(3, "fine") == ["Result", 3, 1]
    assert_leaves(worker, "max_lifetime")


def test_memory_that_the_template_shares_is_not_looked_at_closely_again_and_again(monkeypatch: pytest.MonkeyPatch):
    class App(BaseApp):
        max_private_bytes = 160

    looked: list[int] = []
    memory = {"seen": 0, "private": 100}
    monkeypatch.setattr(limits, "_unshared_bytes", lambda: memory["seen"])
    monkeypatch.setattr(
        limits, "footprint_of", lambda _: looked.append(memory["seen"]) or Footprint(memory["private"], 0)
    )
    board = Board.create(1)
    mine = Limits(App, board)
    for memory["seen"] in (160, 161, 165, 171, 172, 181, 182):
        assert mine.reached(1) is None
    assert looked == [161, 172]
    memory.update(seen=500, private=161)
    assert mine.reached(1) == "max_private_bytes"
    board.close()


def test_the_kernels_account_of_memory_is_read_rightly():
    before = footprint_of(os.getpid()).private
    with mmap.mmap(-1, 16 * MIB) as held:  # a bytearray may get memory that this process has and does not use
        piece = os.urandom(MIB)
        for _ in range(16):
            held.write(piece)
        assert 14 * MIB < footprint_of(os.getpid()).private - before < 20 * MIB
        assert limits._unshared_bytes() >= len(held)


# --- options ------------------------------------------------------------------------------------------------------


def test_options_reach_the_daemon(start: Start):
    options = start("Grace").loaded.options
    assert options == {"warm": 2, "max_workers": 3, "cancel_grace": 0, "max_lifetime": 0.5}
    assert options_of(BaseApp) == {"warm": None, "max_workers": None, "cancel_grace": 10.0, "max_lifetime": None}


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("warm", [-1, 1.5, "2", True]),
        ("max_workers", [-1, 0, 1.5, "2", True]),
        ("max_calls", [0, -1, 1.5, "2", True, 2**64]),
        ("max_private_bytes", [0, -1, 1.5, "2", True]),
        ("cancel_grace", [-1, "2", True, None, float("nan"), float("inf"), 3601]),
        ("max_lifetime", [0, -1, "2", True, float("nan"), float("inf"), sys.float_info.max, 10**5000]),
    ],
)
def test_an_option_that_cannot_be_is_named(option: str, values: list[Any]):
    for value in values:
        app = type("Odd", (BaseApp,), {option: value})
        with pytest.raises(ValueError, match=f"Odd.{option} must be a"):
            options_of(app)
