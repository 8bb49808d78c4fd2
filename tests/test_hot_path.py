"""What a warm call may cost, in counts that are the same on every machine and every day: system calls and bytecodes. And a
first one in pages."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
from support import APPS, PATIENCE, ROOT, Daemon, look_again
from tracing import CannotTraceError, SystemCall, traced

from warmpool import Session
from warmpool.client import sync_calls as client_calls

INPUT = {"key": "n", "value": 1}
APP = str(APPS / "counts_itself.py")
PLAIN_APP = str(ROOT / "benchmarks" / "apps" / "plain.py")
ASYNC_APP = str(ROOT / "benchmarks" / "apps" / "async_.py")
LENGTH = 400
"""System calls in one trace: of less than 256 calls, after which a worker looks at everybody."""
TRACES = 20
PAUSE = {"epoll_wait", "epoll_ctl"}
USUAL = 0.9
CALLS = 100
WORKER_BYTECODES = 380
CLIENT_BYTECODES = 374
"""On Python 3.11; later ones need fewer. Lower them when you can."""
FIRST_FAULTS = 8 if sys.version_info < (3, 12) else 16
"""With a rehearsal 3 to 5, and 6 to 11 in Python 3.13; without one 150."""

CLIENT = """
import sys
from tracing import allow_tracing
from warmpool import Client

allow_tracing()
with Client(sys.argv[1], autostart=False) as client, client.session(sys.argv[2]) as session:
    print("ready", flush=True)
    while True:
        session.call("add", {"key": "n", "value": 1})
"""


@pytest.fixture(autouse=True)
def tracing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the daemon's processes too."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))


@contextmanager
def called_over_and_over(session: Session) -> Iterator[None]:
    """The first call, with which the worker learns whom it serves, is over."""
    session.call("add", INPUT)
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            session.call("add", INPUT)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def trace(pid: int) -> list[SystemCall]:
    try:
        with traced(pid) as calls:
            return [next(calls) for _ in range(LENGTH)]
    except CannotTraceError as error:
        pytest.skip(str(error))


def by_call(calls: list[SystemCall]) -> list[tuple[str, ...]]:
    """What is done from when a request or an answer has been read until the next one has."""
    starts = [number for number, call in enumerate(calls) if call.name == "recv" and call.result > 0]
    return [tuple(call.name for call in calls[start:end]) for start, end in pairwise(starts)]


def undisturbed(calls: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those for which the worker waits in one recv. When a client pauses, as any does now and then on a busy machine,
    that recv ends, and the worker polls.
    """
    return [call for call in calls if call.count("recv") == 1 and not PAUSE & {*call}]


def test_a_worker_makes_one_recv_and_one_send_a_call(daemon: Daemon):
    with daemon.client.session(APP) as session, called_over_and_over(session):
        for _ in range(TRACES):
            calls = by_call(trace(session.info().pid))
            if len(undisturbed(calls)) > USUAL * len(calls):
                break
    assert set(undisturbed(calls)) == {("recv", "send")}
    assert len(undisturbed(calls)) > USUAL * len(calls), Counter(calls)


def test_a_worker_with_an_event_loop_polls_once_more_and_no_more(daemon: Daemon):
    with daemon.client.session(ASYNC_APP) as session, called_over_and_over(session):
        calls = by_call(trace(session.info().pid))
    assert calls.count(("recv", "send", "epoll_wait")) > USUAL * len(calls), Counter(calls)


def test_a_client_makes_one_send_and_one_recv_a_call(daemon: Daemon):
    """But for the few of which it looks for the answer some times before it sleeps."""
    command = [sys.executable, "-c", CLIENT, str(daemon.socket), APP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
            for _ in range(TRACES):
                calls = by_call(trace(client.pid))
                if calls.count(("recv", "send")) > USUAL * len(calls):
                    break
        finally:
            client.kill()
    assert calls.count(("recv", "send")) > USUAL * len(calls), Counter(calls)
    assert all(call.count("send") == 1 and {*call} <= {"recv", "send", "sched_yield"} for call in calls), Counter(calls)


def test_a_call_costs_a_worker_no_more_bytecodes_than_it_did(daemon: Daemon):
    with daemon.client.session(APP) as session:
        session.call("start_counting")
        for _ in range(CALLS):
            session.call("add", INPUT)
        counts = session.call("stop_counting")
    total = sum(counts.values()) / CALLS
    assert 0.5 * WORKER_BYTECODES < total <= WORKER_BYTECODES, counts


def test_a_call_costs_a_client_no_more_bytecodes_than_it_did(daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_calls, "SPINS", 0)
    with daemon.client.session(APP) as session:
        session.call("add", INPUT)
        counts = bytecodes_of(lambda: [session.call("add", INPUT) for _ in range(CALLS)])
    total = sum(counts.values()) / CALLS
    assert 0.5 * CLIENT_BYTECODES < total <= CLIENT_BYTECODES, counts


# --- the first call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [PLAIN_APP, ASYNC_APP], ids=["plain", "async"])
def test_the_first_call_of_a_session_meets_few_pages_for_the_first_time(start_daemon: Callable[..., Daemon], app: str):
    """Its worker has rehearsed. The least of some: a machine that is short of memory takes pages away."""
    daemon = start_daemon("--warm", "4", app)
    deadline = time.monotonic() + PATIENCE
    while daemon.client.status().workers_by_state != {"warm": 4}:
        assert time.monotonic() < deadline
        look_again()
    before = {child.pid: faults(child.pid) for child in psutil.Process(daemon.pid).children()}
    met = []
    for _ in range(4):
        session = daemon.client.session(app)
        session.call("add", INPUT)
        pid = session.info().pid
        if pid in before:  # or else it was made since
            met.append(faults(pid) - before[pid])
    assert min(met) <= FIRST_FAULTS, met


def faults(pid: int) -> int:
    """Pages of a process that the kernel had to map, or to copy, when they were used."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def bytecodes_of(work: Callable[[], object]) -> Counter[str]:
    """By function."""
    counts: Counter[str] = Counter()

    def entered(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return happened

    def happened(frame: FrameType, event: str, argument: Any) -> Any:
        counts[frame.f_code.co_qualname] += event == "opcode"
        return happened

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # or Python 3.12 tells of none
    sys.settrace(entered)
    try:
        work()
    finally:
        sys.settrace(before)
    return counts
