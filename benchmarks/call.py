"""What does a warm call cost? Of the call floor: one request and reply between two blocking Python processes.

The call is complete: pydantic in and out, the lease kept on the board, errors and limits checked. Measured with both
ends on one core, which shows what the software costs, and on two, as most calls are made; and over both clients, the
async one on asyncio's loop and on uvloop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from daemon import APPS, INPUT, PLAIN, daemon
from floors import call_floor
from harness import PLACEMENTS, OnLoop, Work, arguments, compare, placed, report

from warmpool import AsyncClient, AsyncSession

ASYNC = str(APPS / "async_.py")
SYNC, ASYNC_APP = "sync client, sync app", "sync client, async app"
ON_ASYNCIO, ON_UVLOOP = "async client, sync app", "async client on uvloop, sync app"
AT_MOST = {SYNC: 1.3, ASYNC_APP: 1.8, ON_ASYNCIO: 1.8, ON_UVLOOP: 1.8}


@contextmanager
def async_call(
    socket: Path, app: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> Iterator[tuple[OnLoop, int]]:
    """A call of the async client on a loop of its own, and the pid that it goes to."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:

        async def open_session() -> tuple[AsyncClient, AsyncSession, int]:
            client = AsyncClient(socket)
            session = await client.session(app)
            return client, session, (await session.info()).pid

        async def end() -> None:
            await session.end()
            await client.close()

        client, session, pid = runner.run(open_session())
        yield OnLoop(runner, lambda: session.call("add", INPUT)), pid
        runner.run(end())


def main() -> None:
    arguments(__doc__)
    with (
        daemon() as client,
        client.session(PLAIN) as plain,
        client.session(ASYNC) as async_,
        async_call(client.places.socket, PLAIN, asyncio.new_event_loop) as (on_asyncio, asyncio_pid),
        async_call(client.places.socket, PLAIN, uvloop.new_event_loop) as (on_uvloop, uvloop_pid),
        call_floor() as (floor, floor_pids),
    ):
        works: dict[str, Work | OnLoop] = {
            SYNC: lambda: plain.call("add", INPUT),
            ASYNC_APP: lambda: async_.call("add", INPUT),
            ON_ASYNCIO: on_asyncio,
            ON_UVLOOP: on_uvloop,
        }
        pids = [plain.info().pid, async_.info().pid, asyncio_pid, uvloop_pid, *floor_pids]
        for placement in PLACEMENTS:
            with placed(pids, placement):
                rows = compare(floor, works, rounds=9, count=2000, warmup=500, at_most=AT_MOST)
            report(f"A warm call, {placement}", rows)


if __name__ == "__main__":
    main()
