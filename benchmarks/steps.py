"""Where does the time of a warm call go? Each step by itself, done over and over in one process, in the processor's
time. `send` and `recv` are of a pair of sockets of this process, so without what it takes to wake another one up: that
is the rest of a call, and what the call floor is mostly made of.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from apps.plain import AddInput, Plain
from daemon import INPUT
from harness import Row, arguments, no_collection, report

from warmpool.board import CALL_ID, FINISHED, OFFSET_NS, STARTED, USED_NS, Board
from warmpool.signatures import functions_of
from warmpool.wire.calls import OpenCalls
from warmpool.wire.frames import HEADER_SIZE, FrameReader, FrameWriter
from warmpool.wire.messages import call_from_wire

LIMIT = 64 * 1024
ROUNDS = 7
FIRST_ID = 1 << 61
"""As wide as a client's."""


@contextmanager
def steps() -> Iterator[dict[str, Callable[[], object]]]:
    """In the order of a call."""
    app, writer, reader, calls = Plain(), FrameWriter(LIMIT), FrameReader(LIMIT), OpenCalls(FIRST_ID)
    app.setup()
    functions = functions_of(Plain)
    function = functions["add"]
    request = writer.frame(("Call", FIRST_ID, "add", INPUT))
    body = memoryview(request)[HEADER_SIZE:]
    decoded = function.decode(INPUT)
    output = function.method(app, AddInput.model_validate(INPUT))
    encoded = function.encode(output)
    answer = writer.frame(("Result", FIRST_ID, encoded))
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(Board.create(1)) as board:
        cells, row, number = board.cells, board.start_of(0), itertools.count()

        def mark() -> None:
            cells[row + USED_NS] = time.monotonic_ns() + cells[OFFSET_NS]
            cells[row + CALL_ID] = cells[row + STARTED] = next(number)
            cells[row + USED_NS] = time.monotonic_ns() + cells[OFFSET_NS]
            cells[row + FINISHED] = 1

        def travel() -> None:
            ours.sendall(request)
            reader.read(theirs.recv_into)

        def travel_back() -> None:
            ours.sendall(answer)
            reader.read(theirs.recv_into)

        def answered() -> None:
            calls.answer(memoryview(writer.frame(("Result", calls.start(), encoded)))[HEADER_SIZE:])

        yield {
            "client: pack": lambda: writer.frame(("Call", FIRST_ID, "add", INPUT)),
            "send and recv, nobody woken": travel,
            "worker: unpack, check": lambda: call_from_wire(body),
            "worker: board, at both ends": mark,
            "worker: select": lambda: functions.get("add"),
            "worker: validate": lambda: function.decode(INPUT),
            "worker: run": lambda: function.method(app, *decoded),
            "worker: serialise": lambda: function.encode(output),
            "worker: pack": lambda: writer.frame(("Result", FIRST_ID, encoded)),
            "send and recv of the answer": travel_back,
            "client: new id, unpack, check (and a pack)": answered,
        }


def nanoseconds_of(work: Callable[[], object], count: int) -> float:
    with no_collection():
        start = time.thread_time_ns()
        for _ in range(count):
            work()
        end = time.thread_time_ns()
    return (end - start) / count


def main() -> None:
    options = arguments(__doc__, count=20_000)
    with steps() as works:
        best = {name: min(nanoseconds_of(work, options.count) for _ in range(ROUNDS)) for name, work in works.items()}
    empty = min(nanoseconds_of(lambda: None, options.count) for _ in range(ROUNDS))
    rows = [Row(name, (taken - empty) / 1000) for name, taken in best.items()]
    twice = best["worker: pack"] - empty
    rows[-1] = Row("client: new id, unpack, check", rows[-1].value - twice / 1000)
    report("The steps of a warm call", [*rows, Row("all of them", sum(row.value for row in rows))])


if __name__ == "__main__":
    main()
