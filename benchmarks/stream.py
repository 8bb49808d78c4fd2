"""What does an item of a stream cost? Of the call floor, of which it should be no more than half: 100,000 small items
of a plain and of an async generator, read by both clients. Both ends on one core, and on two.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from daemon import APPS, daemon
from floors import call_floor
from harness import PLACEMENTS, Row, against, arguments, in_turns, median_of, placed, report, sample

from warmpool import AsyncClient, Session

COUNT = 100_000
ROUNDS = 5
AT_MOST = 0.5


def main() -> None:
    arguments(__doc__)
    app = str(APPS / "items.py")
    with (
        daemon() as client,
        client.session(app + ":Plain") as plain,
        client.session(app + ":Async") as async_,
        call_floor() as (floor, floor_pids),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        works: dict[str, Callable[[], float]] = {
            "floor": lambda: median_of(sample(floor, 5000)),
            "sync client, plain generator": lambda: streamed(plain),
            "sync client, async generator": lambda: streamed(async_),
            "async client, plain generator": lambda: runner.run(streamed_async(client.places.socket, plain.id)),
        }
        pids = [plain.info().pid, async_.info().pid, *floor_pids]
        for placement in PLACEMENTS:
            with placed(pids, placement):
                given = in_turns(works, ROUNDS)
            rows = [Row("floor", statistics.median(given["floor"]))]
            for name in list(works)[1:]:
                ratio, note = against(given["floor"], given[name])
                rows.append(Row(name, statistics.median(given[name]), ratio, note, at_most=AT_MOST))
            report(f"An item of {COUNT}, {placement}", rows)


def streamed(session: Session) -> float:
    """Microseconds an item."""
    start = time.perf_counter()
    with session.stream("count", to=COUNT) as events:
        assert sum(1 for _ in events) == COUNT + 1
    return (time.perf_counter() - start) / COUNT * 1e6


async def streamed_async(socket: Path, session_id: str) -> float:
    async with AsyncClient(socket) as client, client.sessions.attach(session_id) as session:
        start = time.perf_counter()
        seen = 0
        async with session.stream("count", to=COUNT) as events:
            async for _ in events:
                seen += 1
        assert seen == COUNT + 1
        return (time.perf_counter() - start) / COUNT * 1e6


if __name__ == "__main__":
    main()
