"""How many sessions can be open at once? Three thousand: each called when it is opened and once more while all others
are open, then left to expire by its window.

What the daemon has of memory for each; what a call to one of them costs, of the call floor; how late each expires:
when the daemon has decided so, and when its process is gone. The second calls are spread over some seconds, and so are
the ends of the windows: the processes' own ends are work for two cores.
"""

from __future__ import annotations

import os
import random
import select
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from functools import partial

from daemon import INPUT, PLAIN, daemon
from floors import call_floor
from harness import ONE_CORE, Row, Work, against, arguments, median_of, once, percentile, placed, report, sample

from warmpool import Client, Session
from warmpool.footprint import footprint_of

TEMPLATE_AND_WARM = 10
CHOSEN = 50
PATIENCE = 60.0


def main() -> None:
    options = arguments(__doc__, sessions=3000, window=90.0, spread=30.0)
    room = options.sessions + TEMPLATE_AND_WARM
    with daemon("--max-workers", str(room), "--open-timeout", "120") as client, call_floor() as (floor, floor_pids):
        client.session(PLAIN).end()
        pid = client.status()["pid"]
        before = footprint_of(pid).private
        started = time.monotonic()
        sessions = [_open(client, options.window) for _ in range(options.sessions)]
        opening = time.monotonic() - started
        assert client.status()["sessions"] == options.sessions
        size = (footprint_of(pid).private - before) / options.sessions
        calls = measure_calls(sessions, floor, floor_pids)
        lateness = expire(client, sessions, options.window, options.spread)
    report(
        f"{options.sessions} sessions at once",
        [
            Row("opened and called, one after the other", opening / options.sessions * 1e6),
            Row("the daemon's memory for each", size, unit="bytes", at_most=8000),
            *calls,
            *lateness,
        ],
    )


def _open(client: Client, window: float) -> Session:
    session = client.session(PLAIN, session_timeout=window)
    session.call("add", INPUT)
    return session


def measure_calls(sessions: Sequence[Session], floor: Work, floor_pids: Sequence[int]) -> list[Row]:
    """Of some sessions that are called again and again, both ends on one core, each in turn with the floor; and of all
    of them, one call each: their processes have not run for a while.
    """
    each = statistics.median(once(partial(one.call, "add", INPUT)) for one in sessions) * 1e6
    chosen = random.Random(1).sample(sessions, min(CHOSEN, len(sessions)))
    floors, calls = [], []
    with placed([session.info().pid for session in chosen] + [*floor_pids], ONE_CORE):
        for session in chosen:
            floors.append(median_of(sample(floor, 200, warmup=20)))
            calls.append(median_of(sample(partial(session.call, "add", INPUT), 200, warmup=20)))
    ratio, note = against(floors, calls)
    base = statistics.median(floors)
    return [
        Row("call floor", base),
        Row(f"a warm call to any, {len(chosen)} tried", statistics.median(calls), ratio, note, at_most=2.0),
        Row("one call to each in turn", each, each / base, "their processes have not run for a while"),
    ]


def expire(client: Client, sessions: Sequence[Session], window: float, spread: float) -> list[Row]:
    """Calls each for the last time, and waits for the ends of all."""
    ends: dict[int, float] = {}
    pids = {session.id: session.info()["pid"] for session in sessions}
    for session in sessions:
        session.call("add", INPUT)
        ends[pids[session.id]] = time.monotonic() + window
        select.select([], [], [], spread / len(sessions))
    gone = wait_for_deaths(ends, timeout=window + spread + PATIENCE)
    infos = [client.sessions.get(session.id) for session in sessions]
    assert all(info["end_reason"] == "idle" and info["call_count"] >= 2 for info in infos), "all expired by themselves"
    decided = [_seconds(info["ended_at"]) - _seconds(info["last_call_at"]) - window for info in infos]
    dead = [gone[pid] - end for pid, end in ends.items()]
    assert min(decided) >= -0.001, "none expired early"
    return [
        Row("expired too late: median", statistics.median(decided) * 1e3, unit="ms"),
        Row("expired too late: p99", percentile(decided, 0.99) * 1e3, unit="ms", at_most=20),
        Row("its process gone: p99", percentile(dead, 0.99) * 1e3, unit="ms", note="after the end of the window"),
    ]


def wait_for_deaths(ends: dict[int, float], timeout: float) -> dict[int, float]:
    """When each process died, by the monotonic clock."""
    gone: dict[int, float] = {}
    deadline = time.monotonic() + timeout
    with watching(ends) as (poll, pid_of):
        while len(gone) < len(ends):
            events = poll.poll(max(0.0, deadline - time.monotonic()))
            if not events:
                raise TimeoutError(f"{len(ends) - len(gone)} sessions have not expired")
            for fd, _ in events:
                gone[pid_of[fd]] = time.monotonic()
                poll.unregister(fd)
    return gone


@contextmanager
def watching(pids: dict[int, float]) -> Iterator[tuple[select.epoll, dict[int, int]]]:
    pid_of = {os.pidfd_open(pid): pid for pid in pids}
    with closing(select.epoll()) as poll:
        for fd in pid_of:
            poll.register(fd, select.EPOLLIN)
        yield poll, pid_of
    for fd in pid_of:
        os.close(fd)


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


if __name__ == "__main__":
    main()
