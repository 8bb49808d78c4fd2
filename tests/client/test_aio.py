"""What only an async client promises: order, cancelled tasks, loops, connections that come and go. What it has in common
with the blocking one is in `test_conformance.py`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from adapters import LOOPS
from support import APPS, PATIENCE, Daemon, end_when_done, look_again, open_files, wait_for_exit

from warmpool import (
    AsyncClient,
    AsyncSession,
    AsyncStream,
    AsyncTestingClient,
    CallTimeoutError,
    Client,
    DaemonUnavailableError,
    InvalidRequestError,
    SessionEndedError,
    TestingClient,
    WorkerLostError,
)
from warmpool.client import aio_calls, sessions, sync
from warmpool.testing.clock import Clock
from warmpool.testing.embedded_async import AsyncClock

COUNTER = str(APPS / "counter.py")
ASYNC_COUNTER = str(APPS / "async_counter.py")
VALUES = str(APPS / "values.py")
WAITS = str(APPS / "waits.py")
PLAIN, ASYNC = (str(APPS / "told_to_stop.py") + f":{name}" for name in ("Plain", "Async"))
STREAMS = str(APPS / "streams.py") + ":Plain"
MIB = 1024 * 1024

Run = Callable[[Callable[[AsyncClient], Coroutine[Any, Any, Any]]], Any]


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [
        (Client, AsyncClient),
        (sync.Session, AsyncSession),
        (sync.Stream, AsyncStream),
        (sync.Sessions, sessions.AsyncSessions),
        (sync.Calls, sessions.AsyncCalls),
        (sync.Apps, sessions.AsyncApps),
        (TestingClient, AsyncTestingClient),
        (Clock, AsyncClock),
    ],
    ids=lambda kind: kind.__name__,
)
def test_it_has_the_names_of_the_blocking_client(blocking: type, awaited: type):
    missing = {name for name in set(dir(blocking)) - set(dir(awaited)) if not name.startswith("_")}
    assert missing <= {"opened"}, "of the plugin alone"


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest, shared_daemon: Daemon, client: Client) -> Run:
    """Runs a test's coroutine with a client, as `asyncio.run` would on this kind of loop."""

    def run(main: Callable[[AsyncClient], Coroutine[Any, Any, Any]]) -> Any:
        async def with_client() -> Any:
            async with AsyncClient(shared_daemon.socket, autostart=False) as made:
                return await main(made)

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(with_client())

    return run


async def until_begun(session: AsyncSession, client: AsyncClient) -> None:
    """Returns when the session's function has said so."""
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(client.sessions.logs(session.id, follow=True)) as lines:
        async for line in lines:
            if line.endswith("begun"):
                return
    raise AssertionError("the session is over, and its function never began")


# --- order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opened_first", [True, False])
def test_ten_calls_gathered_on_one_session_run_in_order(run: Run, opened_first: bool):
    async def main(client: AsyncClient) -> None:
        session = client.session(ASYNC_COUNTER)
        if opened_first:
            await session
        order = await asyncio.gather(*(session.call("note", name=str(n)) for n in range(10)))
        assert order[-1] == [f"{n} {word}" for n in range(10) for word in ("begins", "ends")]
        assert [len(seen) for seen in order] == [2 * n + 2 for n in range(10)]

    run(main)


def test_calls_that_were_answered_have_their_answers_though_a_later_one_finds_the_worker_gone(run: Run, client: Client):
    async def main(asking: AsyncClient) -> None:
        session = await asking.session(COUNTER)
        answered = [asyncio.create_task(session.call("add", amount=n)) for n in (1, 2)]
        await asyncio.sleep(0)
        end_when_done(client, session.id, calls=2)
        late, *found = await asyncio.gather(session.call("add", amount=3), *answered, return_exceptions=True)
        assert isinstance(late, SessionEndedError)
        assert found == [{"total": 1}, {"total": 3}]

    run(main)


def test_calls_in_many_sessions_run_at_once(run: Run):
    async def main(client: AsyncClient) -> None:
        sessions = await asyncio.gather(*(client.session(COUNTER) for _ in range(8)))
        for _ in range(5):
            await asyncio.gather(*(session.call("add") for session in sessions))
        assert [await session.call("add") for session in sessions] == [{"total": 6}] * 8
        infos = await asyncio.gather(*(session.info() for session in sessions for _ in range(10)))
        assert {info.call_count for info in infos} == {6}

    run(main)


def test_large_values_of_calls_at_once_do_not_block_each_other(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(VALUES) as session:
            values = await asyncio.gather(*(session.call("echo", value=bytes([n]) * MIB) for n in range(20)))
            assert values == [bytes([n]) * MIB for n in range(20)]

    run(main)


# --- waiting for an answer ----------------------------------------------------------------------------------------

KEPT_AWAKE = """
import asyncio, sys
from warmpool import AsyncClient
from warmpool.client import aio_calls
from warmpool.client.connections import SPIN_BACKOFF

aio_calls.AWAKE = 0.05  # enough for two rounds on a busy machine, and less than a blink

async def main():
    async with AsyncClient(sys.argv[1], autostart=False) as client, client.session(sys.argv[2]) as session:
        link, loop = session.link, asyncio.get_running_loop()
        rounds = []
        stay_awake = link._stay_awake
        link._stay_awake = lambda *arguments: (rounds.append(arguments[0]), stay_awake(*arguments))
        await session.call("blink")
        assert link._backoff == 0, "a worker's first call is slow"
        rounds.clear()
        await session.call("blink")
        print(len(rounds) > 1, len(set(rounds)) == 1, link._backoff == SPIN_BACKOFF)
        rounds.clear()
        for number in range(SPIN_BACKOFF, 0, -1):
            assert link._backoff == number
            assert await session.call("fine", value=number) == number
        print(rounds, link._backoff)
        assert await asyncio.gather(*(session.call("fine", value=value) for value in range(9))) == list(range(9))
        print(len(set(rounds)))

with asyncio.Runner(loop_factory=eval(sys.argv[3])) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "__import__('uvloop').new_event_loop"])
def test_a_loop_is_kept_awake_for_a_lone_call_but_not_after_that_was_in_vain(shared_daemon: Daemon, factory: str):
    """In a process of its own: this one may have threads, and with them no loop is kept awake."""
    command = [sys.executable, "-c", KEPT_AWAKE, str(shared_daemon.socket), PLAIN, factory]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines() == ["True True True", "[] 0", "1"]


# --- cancelled tasks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [PLAIN, ASYNC])
@pytest.mark.parametrize("way", ["call", "run", "stream", "block of a stream"])
def test_to_cancel_a_task_cancels_its_call(run: Run, app: str, way: str):
    async def main(client: AsyncClient) -> None:
        async with client.session(app) as session:

            async def work() -> None:
                if way == "call":
                    await session.call("sleep")
                elif way == "run":
                    await client.run(session=session.id, function="sleep")
                elif way == "stream":
                    async for _ in session.stream("sleep"):
                        pass
                else:
                    async with session.stream("sleep"):
                        await asyncio.Event().wait()

            task = asyncio.ensure_future(work())
            await until_begun(session, client)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await session.call("fine", value=3) == 3
            assert (await session.call("seen"))[0] == [True]

    run(main)


def test_a_call_that_is_overdue_and_cancelled_at_once_is_cancelled(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(PLAIN) as session:
            task = asyncio.ensure_future(session.call("sleep"))
            await until_begun(session, client)
            (call_id,) = session.link._calls.awaited()
            session.link.overdue(call_id)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await session.call("fine", value=3) == 3
            assert (await session.call("seen"))[0] == [True]

    run(main)


def test_a_cancelled_call_that_waits_is_never_run(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(PLAIN) as session:
            first = asyncio.ensure_future(session.call("sleep"))
            second = asyncio.ensure_future(session.call("swallow"))
            third = asyncio.ensure_future(session.call("fine", value=3))
            await until_begun(session, client)
            second.cancel()
            await asyncio.wait([second])
            assert second.cancelled()
            assert not first.done()
            first.cancel()
            assert await third == 3
            assert await session.call("seen") == [[True], 0]

    run(main)


def test_time_outs_of_asyncio_cancel_too(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(PLAIN) as session:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await session.call("spin")
                with pytest.raises(CallTimeoutError):
                    await session.call("spin", timeout=0.05)
            assert await session.call("fine", value=1) == 1

    run(main)


def test_tasks_cancelled_at_any_moment_mix_up_no_answers(run: Run):
    async def main(client: AsyncClient) -> int:
        cancelled = 0
        async with client.session(VALUES) as session:
            for index in range(150):
                task = asyncio.ensure_future(session.call("echo", value=bytes(MIB >> index % 8)))
                for _ in range(index % 7):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                cancelled += task.cancelled()
                assert await session.call("echo", value=index) == index
        return cancelled

    assert run(main) > 10


def test_a_group_that_fails_cancels_its_calls(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(PLAIN) as one, client.session(PLAIN) as other:
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(one.call("sleep"))
                    group.create_task(other.call("nothing"))
            assert await one.call("fine") == 1

    run(main)


# --- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_in_one_task_and_calls_in_another(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(STREAMS) as session:
            stream = await session.stream("count", to=3).begin()
            call = asyncio.ensure_future(session.call("fine", value=2))
            assert [event.type async for event in stream] == ["output", "output", "output", "done"]
            assert await call == 2
            assert await session.call("fine") == 1

    run(main)


def test_who_lets_a_task_read_a_stream_is_its_reader(run: Run):
    """As `asyncio.wait_for` does, before Python 3.12."""

    async def main(client: AsyncClient) -> None:
        async with client.session(STREAMS) as session:
            stream = session.stream("count", to=2)
            assert (await asyncio.create_task(anext(stream))).output == 0
            with pytest.raises(InvalidRequestError, match="a stream of this session is being read"):
                await session.call("fine")
            elsewhere = asyncio.create_task(session.call("fine"))
            assert [event.output async for event in stream] == [1, "counted"]
            assert await elsewhere == 1

    run(main)


def test_a_reader_that_stops_stops_the_generator(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aio_calls, "INBOX_LIMIT", 1000)

    async def main(client: AsyncClient) -> None:
        async with client.session(STREAMS) as session:
            async with session.stream("forever", size=10_000) as stream:
                assert (await anext(stream)).output == "x" * 10_000
                await client.status()  # the loop has had time to read on
                assert len(stream._link._queues[stream._call_id]._parts) < 5
            (_, closed) = await session.call("heard")
            assert int(closed.removeprefix("closed after ")) < 100

    run(main)


def test_who_closes_a_generator_around_a_stream_has_no_need_of_more_and_cancels_nothing(run: Run):
    """As who breaks off reading: a function that is no generator runs to its end."""

    async def main(client: AsyncClient) -> None:
        async with client.session(PLAIN) as session:

            async def within() -> AsyncGenerator[object, None]:
                async with session.stream("blink") as stream:
                    yield stream

            block = within()
            await anext(block)
            await block.aclose()
            assert await session.call("seen") == [[], 0]

            async def read() -> None:
                async for _ in session.stream("blink"):
                    pass

            reading = read()
            reading.send(None)  # as far as it gets without a loop
            reading.close()
            assert await session.call("seen") == [[], 0]

    run(main)


def test_a_stream_that_is_dropped_is_closed(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(STREAMS) as session:
            stream = session.stream("forever")
            await anext(stream)
            del stream
            assert (await session.call("heard"))[0] == "GeneratorExit"

    run(main)


# --- loops and connections ----------------------------------------------------------------------------------------


def test_nothing_is_left_when_nothing_is_closed(run: Run, client: Client, recwarn: pytest.WarningsRecorder):
    client.status()
    files = open_files()

    async def main(_: AsyncClient) -> None:
        careless = AsyncClient(client.places.socket, autostart=False)
        session = await careless.session(COUNTER)
        await session.call("add")
        await careless.run(app=COUNTER, session="new", function="add")
        stream = await session.stream("history").begin()
        await anext(stream)
        assert len(client.sessions.list()) == 2

    run(main)
    gc.collect()
    assert open_files() - files == set()
    assert not recwarn.list
    assert len(client.sessions.list()) == 2, "they live on"


def test_a_handle_that_is_dropped_closes_its_connection(run: Run):
    async def main(client: AsyncClient) -> None:
        files = open_files()
        session = await client.session(COUNTER)
        session_id = session.id
        await session.call("add")
        del session
        gc.collect()
        assert len(open_files() - files) == 2, "the client's own, for control, and the board"
        assert (await client.sessions.attach(session_id)).id == session_id

    run(main)


def test_a_handle_may_be_dropped_in_another_thread(run: Run):
    async def main(client: AsyncClient) -> None:
        await (await client.session(COUNTER)).end()
        files = open_files()
        held = [await client.session(COUNTER), await client.run(app=STREAMS, function="forever", stream=True)]
        await asyncio.to_thread(held.clear)
        await client.status()
        assert open_files() - files == set()

    run(main)


def test_another_loop_needs_another_client(run: Run, client: Client):
    kept: list[Any] = []

    async def first(other: AsyncClient) -> None:
        kept.extend([other, await other.session(COUNTER)])
        for coroutine in (kept[0].status(), kept[1].call("add")):
            with pytest.raises(InvalidRequestError, match="another event loop"):
                await asyncio.get_running_loop().run_in_executor(None, asyncio.run, coroutine)
        assert await kept[1].call("add") == {"total": 1}

    run(first)


def test_where_no_loop_of_asyncios_runs_it_says_so(shared_daemon: Daemon):
    client = AsyncClient(shared_daemon.socket)
    stream = client.stream(app=STREAMS, function="count", input={"to": 1})
    for step in (client.status(), anext(stream)):
        with pytest.raises(InvalidRequestError, match="works on asyncio's loops"):
            step.send(None)  # type: ignore[attr-defined]


def test_a_stream_may_be_made_before_its_loop_runs(shared_daemon: Daemon):
    client = AsyncClient(shared_daemon.socket, autostart=False)
    stream = client.stream(app=STREAMS, function="count", input={"to": 2})

    async def main() -> list[object]:
        async with client, stream:
            return [event.output async for event in stream]

    assert asyncio.run(main()) == [0, 1, "counted"]


def test_a_session_must_be_opened_before_it_is_looked_at(run: Run):
    async def main(client: AsyncClient) -> None:
        session = client.session(COUNTER)
        assert repr(session) == f"<AsyncSession of {COUNTER}, not open>"
        with pytest.raises(InvalidRequestError, match="not open yet"):
            _ = session.id
        await session.close()
        async with await session as same:
            assert same is session
            assert repr(session) == f"<AsyncSession {session.id} counter@{session.version}>"

    run(main)


@pytest.fixture
def full_backlog(free_socket: Path) -> Iterator[socket.socket]:
    """A listener that does not accept who has come, and so nobody else can come."""
    with ExitStack() as stack:
        listener, first, second = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3))
        listener.bind(str(free_socket))
        listener.listen(0)
        first.connect(str(free_socket))
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.connect(str(free_socket))
        yield listener
        free_socket.unlink()


def test_a_full_backlog_is_waited_for_and_gives_no_dead_connection(full_backlog: socket.socket):
    """Linux answers EAGAIN, which asyncio's own connections take for success."""

    async def main() -> None:
        async with AsyncClient(full_backlog.getsockname(), autostart=False) as client:
            task = asyncio.ensure_future(client.status())
            done, _ = await asyncio.wait([task], timeout=0.1)
            assert not done
            with full_backlog.accept()[0], full_backlog.accept()[0] as connection:
                hello = await asyncio.to_thread(connection.recv, 100)
                assert b"Control" in hello
                task.cancel()
                await asyncio.wait([task])

    asyncio.run(main())


def test_two_loops_that_take_a_client_for_the_first_time_at_once_do_not_wait_for_each_other(
    full_backlog: socket.socket,
):
    async def main() -> None:
        async with AsyncClient(full_backlog.getsockname(), autostart=False) as client:
            session = client.session(COUNTER)
            tasks = [asyncio.ensure_future(client.status()), asyncio.ensure_future(session.open())]
            await asyncio.sleep(0)
            for coroutine in (client.status(), session.open()):
                with pytest.raises(InvalidRequestError, match="another event loop"):
                    await asyncio.to_thread(asyncio.run, coroutine)
            with full_backlog.accept()[0], full_backlog.accept()[0]:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    asyncio.run(main())


def test_the_next_loop_may_use_a_client_that_has_come_to_nothing(daemon: Daemon):
    path = daemon.socket.with_name("late.sock")
    client = AsyncClient(path, autostart=False)
    with pytest.raises(DaemonUnavailableError):
        asyncio.run(client.status())
    path.symlink_to(daemon.socket)

    async def main() -> None:
        async with client:
            assert await asyncio.gather(client.status(), client.status())

    asyncio.run(main())
    path.unlink()


def test_it_starts_a_daemon_when_none_runs(free_socket: Path):
    async def main() -> None:
        async with AsyncClient(free_socket) as client:
            statuses = await asyncio.gather(*(client.status() for _ in range(5)))
            assert len({status.pid for status in statuses}) == 1
            assert client.started_daemon is True
        async with AsyncClient(free_socket, autostart=False) as other:
            assert await other.stop() == statuses[0].pid
            assert wait_for_exit(statuses[0].pid)
            with pytest.raises(DaemonUnavailableError):
                await other.status()

    asyncio.run(main())


def test_a_child_touches_nothing_of_its_parents(run: Run):
    async def main(client: AsyncClient) -> None:
        session = await client.session(COUNTER)
        child = os.fork()
        if child == 0:
            del session
            gc.collect()
            os._exit(0)
        assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
        assert await session.call("add") == {"total": 1}

    run(main)


def test_calls_under_way_are_told_when_their_worker_dies_while_the_loop_is_busy(run: Run, client: Client, fifo: Path):
    """What has been answered before comes together with the end; some loops tell of that once."""

    async def main(mine: AsyncClient) -> None:
        async with mine.session(WAITS) as session:
            asking = [
                asyncio.create_task(session.call("echo", value=1)),
                asyncio.create_task(session.call("wait", fifo=str(fifo), answer="late")),
                asyncio.create_task(session.call("echo", value=MIB * "2")),  # more than a worker reads at once
            ]
            await asyncio.sleep(0)  # all are sent; from here on the loop is busy
            while (info := client.sessions.get(session.id)).call_count < 2:
                look_again()
            exit_of = os.pidfd_open(info.pid)
            os.kill(info.pid, signal.SIGKILL)
            select.select([exit_of], [], [], PATIENCE)
            os.close(exit_of)
            async with asyncio.timeout(PATIENCE):
                first, *others = await asyncio.gather(*asking, return_exceptions=True)
            assert first == 1
            assert [type(other) for other in others] == [WorkerLostError, WorkerLostError]

    run(main)


def test_a_task_that_is_cancelled_in_a_map_leaves_nothing_behind_it_to_be_done(run: Run, client: Client, fifo: Path):
    async def main(mine: AsyncClient) -> None:
        async with mine.session(WAITS) as session:
            inputs = [{"value": 0}, {"value": 1}]

            async def consume() -> None:
                async for _ in session.map("wait", [{"fifo": str(fifo), "answer": "late"}, *inputs]):
                    raise AssertionError

            consuming = asyncio.create_task(consume())
            while client.sessions.get(session.id).call_count < 1:
                await asyncio.sleep(0)
            consuming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await consuming
            assert await session.call("echo", value=5) == 5
            assert (await session.info()).call_count == 2

    run(main)


def test_a_stream_is_closed_though_a_child_has_a_copy_of_its_connection(run: Run):
    async def main(client: AsyncClient) -> None:
        async with client.session(STREAMS) as session:
            stream = await session.stream("forever").begin()
            await anext(stream)
            readable, writable = os.pipe()
            child = os.fork()
            if child == 0:
                os.read(readable, 1)
                os._exit(0)
            await stream.close()
            async with asyncio.timeout(PATIENCE):
                assert await session.call("fine", value=5) == 5
            os.write(writable, b"x")
            await asyncio.to_thread(os.waitpid, child, 0)
            os.close(readable)
            os.close(writable)

    run(main)


def test_a_client_is_closed_quietly_after_its_loop(shared_daemon: Daemon, fifo: Path):
    loop = asyncio.new_event_loop()
    mine: list[AsyncClient] = []

    async def begin() -> None:
        mine.append(AsyncClient(shared_daemon.socket, autostart=False))
        session = await mine[0].session(WAITS)
        link: Any = session.link
        link.start("wait", {"fifo": str(fifo), "answer": "late"})

    loop.run_until_complete(begin())
    loop.close()
    asyncio.run(mine[0].close())
    with Client(shared_daemon.socket, autostart=False) as client:
        for info in client.sessions.list():
            client.sessions.end(info.id, force=True)
