"""Do sessions run in parallel? The total rate of 2, 8 and 64 sessions, each with a client process of its own that
calls as fast as it can, of that of as many pairs of the call floor.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from daemon import INPUT, PLAIN, daemon
from floors import call_floor, process
from harness import Maker, Plot, Row, Work, against, arguments, in_turns, report

from warmpool import Client

PAIRS = (2, 8, 64)
CALLS_A_LOOK = 20
_COUNT = struct.Struct("!Q")


@contextmanager
def floor_pair() -> Iterator[Work]:
    with call_floor() as (work, _):
        yield work


def session_on(path: Path) -> Maker:
    @contextmanager
    def a_session() -> Iterator[Work]:
        with Client(path, autostart=False) as client, client.session(PLAIN) as session:
            yield lambda: session.call("add", INPUT)

    return a_session


@contextmanager
def callers(make: Maker, count: int) -> Iterator[Callable[[float], float]]:
    """So many processes; the function gives how often a second they all together call, over so many seconds."""
    with ExitStack() as stack:
        ends = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            stack.enter_context(process(partial(_call_when_told, make, theirs)))
            theirs.close()
            ends.append(stack.enter_context(ours))
        for end in ends:
            end.recv(1)
        yield lambda seconds: _total(ends, seconds)
        for end in ends:
            end.shutdown(socket.SHUT_WR)
            end.recv(1)  # it has ended what it had


def _call_when_told(make: Maker, end: socket.socket) -> None:
    os.setsid()
    with make() as work:
        for _ in range(100):
            work()
        end.send(b"r")
        while told := end.recv(8):
            deadline = time.monotonic() + struct.unpack("!d", told)[0]
            count = 0
            while time.monotonic() < deadline:
                for _ in range(CALLS_A_LOOK):
                    work()
                count += CALLS_A_LOOK
            end.send(_COUNT.pack(count))


def _total(ends: list[socket.socket], seconds: float) -> float:
    start = time.monotonic()
    for end in ends:
        end.send(struct.pack("!d", seconds))
    count: int = sum(_COUNT.unpack(end.recv(_COUNT.size))[0] for end in ends)
    return count / (time.monotonic() - start)


def main() -> None:
    options = arguments(__doc__, rounds=7, seconds=0.5)
    rows, floors, sessions = [], [], []
    with daemon() as client:
        client.session(PLAIN).end()
        path = client.places.socket
        for count in PAIRS:
            with callers(floor_pair, count) as floor, callers(session_on(path), count) as own:
                works = {"floor": partial(floor, options.seconds), "own": partial(own, options.seconds)}
                given = in_turns(works, options.rounds)
            ratio, note = against(given["floor"], given["own"])
            floors.append((count, statistics.median(given["floor"])))
            sessions.append((count, statistics.median(given["own"])))
            rows.append(Row(f"{count} floor pairs", floors[-1][1], unit="calls/s"))
            rows.append(Row(f"{count} sessions", sessions[-1][1], ratio, note, "calls/s", at_least=0.85))
    report(
        "Sessions in parallel",
        rows,
        Plot("pairs", "calls a second, all together", {"floor": floors, "warmpool": sessions}),
    )


if __name__ == "__main__":
    main()
