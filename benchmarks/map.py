"""What does a call cost when many are under way at once? `session.map` against one call after another, and the window
at which there is no more to win. Both ends on one core, where only the work that is saved counts, and on two. And of
what is left, which is what packing, dispatching and unpacking cost in one process, without another to talk to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from apps.plain import Plain
from daemon import INPUT, PLAIN, daemon
from harness import PLACEMENTS, Row, against, arguments, in_turns, placed, report

from warmpool import Session
from warmpool.signatures import functions_of
from warmpool.wire.frames import HEADER_SIZE, FrameWriter, decode
from warmpool.wire.messages import call_from_wire

COUNT = 10_000
ROUNDS = 7
FRAME_LIMIT = 64 * 1024
WINDOWS = (1, 8, 64, 512)
USUAL = 64
SINGLE = "one call after another"
BARE = "packed, dispatched and unpacked alone"


def main() -> None:
    arguments(__doc__)
    with daemon() as client, client.session(PLAIN) as session:
        works: dict[str, Callable[[], float]] = {SINGLE: lambda: one_by_one(session)}
        works[BARE] = bare
        works |= {f"map, window {window}": partial(mapped, session, window) for window in WINDOWS}
        for placement in PLACEMENTS:
            with placed([session.info().pid], placement):
                given = in_turns(works, ROUNDS)
            rows = [Row(SINGLE, min(given[SINGLE]))]
            for window in WINDOWS:
                name = f"map, window {window}"
                rate, note = against(given[name], given[SINGLE])
                rows.append(Row(name, min(given[name]), rate, note, at_least=4.0 if window == USUAL else None))
            excess, note = against(given[BARE], given[f"map, window {USUAL}"])
            rows.append(Row(BARE, min(given[BARE])))
            rows.append(
                Row(f"map, window {USUAL}, of that", min(given[f"map, window {USUAL}"]), excess, note, at_most=1.5)
            )
            report(f"{COUNT} calls, each; the ratio is of rates, {placement}", rows)


def one_by_one(session: Session) -> float:
    """Microseconds a call."""
    start = time.perf_counter()
    for _ in range(COUNT):
        session.call("add", INPUT)
    return (time.perf_counter() - start) / COUNT * 1e6


def bare() -> float:
    """Microseconds a call, of all that both ends do but send and receive."""
    app = Plain()
    app.setup()
    functions, writer = functions_of(Plain), FrameWriter(FRAME_LIMIT)
    start = time.perf_counter()
    for number in range(COUNT):
        call_id, name, value = call_from_wire(memoryview(writer.frame(("Call", number, "add", INPUT)))[HEADER_SIZE:])
        function = functions[name]  # type: ignore[index]
        output = function.encode(function.method(app, *function.decode(value)))
        decode(memoryview(writer.frame(("Result", call_id, output)))[HEADER_SIZE:])
    return (time.perf_counter() - start) / COUNT * 1e6


def mapped(session: Session, window: int) -> float:
    start = time.perf_counter()
    assert sum(1 for _ in session.map("add", (INPUT for _ in range(COUNT)), window=window)) == COUNT
    return (time.perf_counter() - start) / COUNT * 1e6


if __name__ == "__main__":
    main()
