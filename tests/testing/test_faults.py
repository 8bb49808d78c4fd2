"""Faults on demand: each looks to the one who tests as the real one would, and is settled when it returns."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import APPS, PATIENCE, wait_for_exit, wait_until_busy

from warmpool import (
    CallTimeoutError,
    InvalidRequestError,
    PoolExhaustedError,
    SessionEndedError,
    SessionExpiredError,
    SessionNotFoundError,
    TestingClient,
    WorkerLostError,
)


def test_a_killed_worker_looks_as_if_memory_had_been_short(client: TestingClient):
    session = client.session("counter")
    pid = session.info().pid
    info = client.kill_worker(session)
    assert wait_for_exit(pid, 0)
    assert (info.status, info.end_reason) == ("ended", "worker_lost")
    assert info.end_detail == "was killed by SIGKILL that we did not send, perhaps out of memory"
    with pytest.raises(WorkerLostError, match="perhaps out of memory"):
        session.call("add")


def test_a_worker_can_be_killed_in_the_middle_of_a_call(client: TestingClient):
    session = client.session("counter")
    lost = []

    def call() -> None:
        with pytest.raises(WorkerLostError) as caught:
            session.call("add")
        lost.append(caught.value)

    client.hang_next_call(session)
    caller = threading.Thread(target=call)
    caller.start()
    wait_until_busy(session)
    client.kill_worker(session.id)
    caller.join()
    assert lost[0].session_id == session.id


def test_a_session_that_expires_now_runs_its_hooks(client: TestingClient, tmp_path):
    log = tmp_path / "log"
    session = client.session("hooks")
    session.call("begin", file=str(log))
    info = client.expire_now(session)
    assert (info.status, info.end_reason, info.busy) == ("expired", "idle", False)
    assert log.read_text() == "on_end idle\nunload\n"
    with pytest.raises(SessionExpiredError):
        session.call("begin", file=str(log))


@pytest.mark.parametrize("app", ["counter", "async_counter"])
def test_the_next_call_hangs_and_those_of_others_do_not(client: TestingClient, app: str):
    with client.session(app) as session, client.session(app) as other:
        client.hang_next_call(session)
        caller = threading.Thread(target=call_and_lose, args=(session,))
        caller.start()
        wait_until_busy(session)
        other.call("add", amount=1)
        with pytest.raises(InvalidRequestError, match="a call of it runs"):
            client.expire_now(session)
        client.kill_worker(session)
        caller.join()


@pytest.mark.parametrize("app", ["Plain", "Async"])
@pytest.mark.parametrize("way", ["stream", "call"])
def test_it_hangs_whatever_it_calls_and_once(client: TestingClient, app: str, way: str):
    with client.session(f"{APPS / 'streams.py'}:{app}") as session:
        for _ in range(2):
            client.hang_next_call(session)
        with pytest.raises(CallTimeoutError):
            if way == "stream":
                list(session.stream("count", to=2, timeout=0.3))
            else:
                session.call("fine", timeout=0.3)
        assert [event.output for event in session.stream("count", to=2)][:2] == [0, 1]
        assert session.call("fine") == 1


def call_and_lose(session) -> None:
    with pytest.raises(WorkerLostError):
        session.call("add", amount=1)


def test_a_lost_template_takes_no_session_with_it_and_is_made_again(client: TestingClient):
    with client.session("counter") as session:
        session.call("add")
        client.lose_template("counter")
        assert session.call("add") == {"total": 2}
        for _ in range(3):
            with client.session("counter") as another:
                assert another.call("add") == {"total": 1}


def test_in_a_full_pool_an_open_waits_and_is_refused(client: TestingClient):
    with client.session("counter") as session:
        with client.fill_pool():
            with pytest.raises(PoolExhaustedError, match="256 of 256 workers are in use"):
                client.session("counter", open_timeout=0)
            with pytest.raises(PoolExhaustedError):
                client.run(app="counter", function="add", open_timeout=0)
            assert session.call("add") == {"total": 1}, "who has one keeps it"
        client.session("counter").end()


def test_a_pool_that_is_filled_twice_is_free_after_the_outer_block(client: TestingClient):
    with client.fill_pool():
        with client.fill_pool():
            pass
        with pytest.raises(PoolExhaustedError):
            client.session("counter", open_timeout=0)
    client.session("counter").end()


def test_who_waits_is_served_when_the_pool_is_free_again(client: TestingClient):
    served = threading.Event()

    def wait() -> None:
        with client.session("counter", open_timeout=20):
            served.set()

    with client.fill_pool():
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not served.is_set()
    waiter.join()
    assert served.is_set()


def test_a_worker_that_dies_before_it_has_heard_that_it_is_to_hang(client: TestingClient, tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with client.session(str(APPS / "waits.py")) as session, ThreadPoolExecutor(2) as pool:
        call = pool.submit(session.call, "wait", fifo=str(fifo), answer="never")
        wait_until_busy(session)
        hanging = pool.submit(client.hang_next_call, session)
        while client.sessions.get(session.id).status == "active":
            client.sessions.end(session.id, force=True)
        with pytest.raises(SessionEndedError):
            hanging.result(PATIENCE)
        with pytest.raises(SessionEndedError):
            call.result(PATIENCE)


FAULTS = ["kill_worker", "expire_now", "hang_next_call"]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_over_cannot_fail_any_more(client: TestingClient, fault: str):
    session = client.session("counter")
    session.end()
    with pytest.raises(SessionEndedError):
        getattr(client, fault)(session)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_never_was_cannot_fail(client: TestingClient, fault: str):
    with pytest.raises(SessionNotFoundError):
        getattr(client, fault)("sess_nobody")


def test_a_template_that_is_not_there_cannot_be_lost(client: TestingClient):
    with pytest.raises(InvalidRequestError, match="nobody has used it yet"):
        client.lose_template(str(APPS / "actions.py"))


def test_a_template_can_be_lost_while_it_loads_and_when_it_is_lost(client: TestingClient):
    app = str(APPS / "prints_on_import.py")
    for _ in range(2):
        with client.session(app):
            for _ in range(3):
                client.lose_template(app)


def test_faults_work_from_inside_a_loop(client: TestingClient):
    async def test() -> None:
        session = client.session("async_counter")
        await asyncio.to_thread(client.kill_worker, session)
        with pytest.raises(WorkerLostError):
            session.call("add", amount=1)

    asyncio.run(test())
