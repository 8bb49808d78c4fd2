"""The async twin: the same daemon, the same powers, awaited."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from support import APPS, processes_marked

from warmpool import (
    InvalidRequestError,
    PoolExhaustedError,
    SessionExpiredError,
    WorkerLostError,
    embedded,
)

COUNTER = APPS / "counter.py"

uvloop.new_event_loop().close()  # libuv makes a pipe with its first loop, and keeps it


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return run


def test_a_block_has_a_daemon_of_its_own(marked, run):
    async def main():
        async with embedded(apps=[COUNTER]) as client, client.session("counter") as session:
            assert await session.call("add", amount=2) == {"total": 2}
            assert len(processes_marked(marked)) >= 3
        with pytest.raises(InvalidRequestError, match="closed"):
            await client.status()
        assert processes_marked(marked) == []

    run(main)


def test_an_hour_with_three_keepalives(marked, run):
    async def main():
        async with embedded(apps=[COUNTER]) as client, client.clock.frozen() as start:
            session = await client.session("counter", session_timeout=3600)
            for _ in range(3):
                await client.clock.advance(3599)
                await session.keepalive()
            assert await client.clock.now() == pytest.approx(start + 3 * 3599)
            await client.clock.advance(3600)
            with pytest.raises(SessionExpiredError):
                await session.call("add")

    run(main)


def test_time_moves_while_others_wait(marked, run):
    """What a blocking test cannot do: the one who waits in line is moved over its time."""

    async def main():
        async with embedded(apps=[COUNTER]) as client, client.fill_pool():
            waiting = asyncio.ensure_future(client.session("counter", open_timeout=30).open())
            while not waiting.done():
                await client.clock.advance(30)
            with pytest.raises(PoolExhaustedError):
                await waiting

    run(main)


def test_faults_on_demand(marked, run):
    async def main():
        async with embedded(apps=[COUNTER]) as client:
            lost = await client.session("counter")
            assert (await client.kill_worker(lost)).end_reason == "worker_lost"
            expired = await client.session("counter")
            assert (await client.expire_now(expired)).status == "expired"
            hung = await client.session("counter")
            await client.hang_next_call(hung)
            call = asyncio.ensure_future(hung.call("add"))
            while not (await hung.info()).busy:
                pass
            await client.kill_worker(hung.id)
            with pytest.raises(WorkerLostError):
                await call
            await client.lose_template("counter")
            async with client.session("counter") as session:
                assert await session.call("add") == {"total": 1}
            await client.clock.freeze()
            await client.clock.thaw()

    run(main)
