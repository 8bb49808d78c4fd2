"""Time that a test can move: what falls due in it falls due in order, and is settled when `advance` returns."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import APPS, PATIENCE, look_again, processes_marked, wait_for_exit, wait_for_workers, wait_until_busy, when

from warmpool import (
    AppBrokenError,
    Client,
    InvalidRequestError,
    PoolExhaustedError,
    SessionEndedError,
    SessionExpiredError,
    TestingClient,
    WorkerLostError,
    embedded,
)

COUNTER = str(APPS / "counter.py")


def test_workers_are_kept_warm_also_while_time_stands():
    with embedded() as client:
        client.clock.freeze()
        for held in (1, 2):
            client.session(COUNTER)
            wait_for_workers(client, leased=held, warm=1)


def test_a_lifetime_that_is_over_in_a_call_ends_with_it(client: TestingClient, tmp_path: Path):
    """It counts from when the session was opened, also for its worker, who has heard of that later."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    client.clock.freeze()
    session = client.session(str(APPS / "limits.py") + ":ShortLived")
    pid = session.info().pid
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(session.call, "wait", fifo=fifo)
        wait_until_busy(session)
        client.clock.advance(60)
        assert session.info().status == "active"
        fifo.write_text("go")
        assert call.result(PATIENCE) == "go"
    assert wait_for_exit(pid)
    while session.info().status == "active":
        pass  # the daemon is about to see it
    assert session.info().end_reason == "max_lifetime"


@pytest.mark.parametrize("turn", range(3))
def test_an_hour_with_three_keepalives(client: TestingClient, turn: int):
    """The test that cannot flake: five hours go by, to the millisecond."""
    client.clock.freeze()
    session = client.session("counter", session_timeout=3600)
    pid = session.info().pid
    for _ in range(3):
        client.clock.advance(3599.999)
        assert session.keepalive().status == "active"
    client.clock.advance(3599.999)
    assert session.info().status == "active"
    client.clock.advance(0.001)
    assert wait_for_exit(pid, 0), "its process is gone when advance returns"
    info = session.info()
    assert (info.status, info.end_reason) == ("expired", "idle")
    assert when(info.ended_at) - when(info.created_at) == pytest.approx(4 * 3600 - 0.003, abs=0.0011)
    with pytest.raises(SessionExpiredError):
        session.call("get")


def test_a_call_slides_the_window_by_the_clock_that_stands(client: TestingClient):
    client.clock.freeze()
    session = client.session("counter", session_timeout=60)
    for _ in range(3):
        client.clock.advance(59.999)
        session.call("add")
        assert when(session.info().last_call_at) == pytest.approx(client.clock.now(), abs=0.001)
    client.clock.advance(59.999)
    assert session.info().status == "active"
    client.clock.advance(0.001)
    assert session.info().status == "expired"


def test_what_workers_write_while_time_stands_is_of_that_moment(client: TestingClient):
    """They go on to write real time: it must not be taken for later."""
    client.clock.freeze()
    with client.session("counter", session_timeout=60) as session:
        session.call("add")
        expires_at = session.info().expires_at
        threading.Event().wait(0.02)
        session.call("add")
        assert session.info().expires_at == expires_at
        client.clock.advance(1)
        assert when(session.info().expires_at) == when(expires_at), "the move does not change when the call was"


def test_looking_does_not_slide(client: TestingClient):
    client.clock.freeze()
    session = client.session("counter", session_timeout=60)
    client.clock.advance(59)
    assert session.info().status == "active"
    client.clock.advance(1)
    assert session.info().status == "expired"


def test_what_falls_due_on_the_way_falls_due_in_its_order(client: TestingClient):
    client.clock.freeze()
    start = client.clock.now()
    sessions = [client.session("counter", session_timeout=seconds) for seconds in (300, 10, 3600, 60)]
    client.clock.advance(7200)
    ends = {session.info().session_timeout: when(session.info().ended_at) - start for session in sessions}
    assert ends == pytest.approx({300: 300, 10: 10, 3600: 3600, 60: 60}, abs=0.0011)


def test_time_goes_on_where_nobody_stopped_it(client: TestingClient):
    real, before = time.monotonic(), client.clock.now()
    assert client.clock.advance(1000) - before >= 1000
    gone = client.clock.now() - before - 1000
    assert 0 <= gone <= time.monotonic() - real


def test_a_stopped_clock_stands_and_goes_on_from_there(client: TestingClient):
    stopped = client.clock.freeze()
    threading.Event().wait(0.02)
    assert client.clock.now() == stopped
    assert client.clock.freeze() == stopped
    assert client.clock.advance(5) == client.clock.now() == stopped + 5
    assert client.clock.thaw() == stopped + 5
    assert stopped + 5 < client.clock.now() < stopped + 15
    with client.clock.frozen() as now:
        assert client.clock.now() == now
    assert client.clock.now() > now


def test_a_block_leaves_a_clock_that_stood_standing(client: TestingClient):
    with client.clock.frozen() as outer:
        with client.clock.frozen() as inner:
            assert inner == outer
        assert client.clock.now() == outer
    assert client.clock.now() > outer


def test_what_was_said_of_a_moment_does_not_change(client: TestingClient):
    with client.session("counter", session_timeout=3600) as session:
        created = session.info().created_at
        client.clock.advance(1800)
        client.clock.freeze()
        assert session.info().created_at == created


def call_and_lose(session) -> None:
    with pytest.raises(WorkerLostError):
        session.call("echo")


def test_a_call_that_runs_holds_its_session_open_over_any_time(client: TestingClient):
    with client.session(str(APPS / "waits.py"), session_timeout=1) as session:
        client.hang_next_call(session)
        caller = threading.Thread(target=call_and_lose, args=(session,))
        caller.start()
        wait_until_busy(session)
        client.clock.advance(3600)
        assert session.info().status == "active"
        client.kill_worker(session)
        caller.join()


def call_in_vain(session) -> None:
    with pytest.raises((WorkerLostError, SessionEndedError)):
        session.call("ignore")


def test_the_grace_of_a_cancel_can_be_moved_over(client: TestingClient):
    """A call that does not stop is dumped, terminated and killed: all of that has happened when `advance` returns."""
    session = client.session(f"{APPS / 'told_to_stop.py'}:Plain")
    caller = threading.Thread(target=call_in_vain, args=(session,))
    caller.start()
    wait_until_busy(session)
    client.clock.freeze()
    session.cancel()
    client.clock.advance(9.99)
    assert session.info().status == "active"
    client.clock.advance(0.01)
    assert session.info().end_reason == "unresponsive"
    caller.join()


def test_hooks_have_run_when_time_has_come_to_a_stand(client: TestingClient, tmp_path):
    session = client.session(str(APPS / "ends_slowly.py"), session_timeout=1)
    pid = session.info().pid
    client.clock.advance(1)
    assert wait_for_exit(pid, 0)
    assert session.info().end_reason == "idle"


def test_a_worker_that_hangs_at_its_end_is_killed_in_real_time_also_while_time_stands(client: TestingClient):
    client.clock.freeze()
    session = client.session(str(APPS / "hangs_in_on_end.py"), session_timeout=1)
    assert session.end().end_reason == "client"


def test_a_pool_is_filled_up_also_while_time_stands(client: TestingClient):
    client.clock.freeze()
    for _ in range(3):
        client.session("counter").end()
    latest = time.monotonic() + PATIENCE
    while client.status()["workers_by_state"].get("warm", 0) < 1:
        assert time.monotonic() < latest
        look_again()


def test_an_open_waits_for_its_time_also_while_time_stands(client: TestingClient):
    client.clock.freeze()
    with client.fill_pool(), pytest.raises(PoolExhaustedError, match=r"within 0.05 s"):
        client.session("counter", open_timeout=0.05)


def test_an_open_that_waits_can_be_moved_over_its_time(client: TestingClient):
    refusals: list[BaseException] = []

    def wait_long() -> None:
        with (
            Client(client.places.socket, autostart=False) as other,
            pytest.raises(PoolExhaustedError, match="30 s") as caught,
        ):
            other.session("counter", open_timeout=30)
        refusals.append(caught.value)

    with client.fill_pool():
        waiter = threading.Thread(target=wait_long)
        waiter.start()
        while waiter.is_alive():
            client.clock.advance(30)
            waiter.join(0.01)
    assert len(refusals) == 1


def test_moves_are_made_one_after_another(client: TestingClient):
    client.clock.freeze()
    start = client.clock.now()
    clients = [TestingClient(client.places.socket) for _ in range(4)]
    threads = [threading.Thread(target=one.clock.advance, args=(100,)) for one in clients]
    for _ in range(4):
        client.session("counter", session_timeout=50)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.clock.now() == pytest.approx(start + 400, abs=1e-6)
    assert client.sessions.list() == []
    for one in clients:
        one.close()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "60", None, True, 1e12])
def test_time_does_not_run_backwards_nor_nowhere(client: TestingClient, seconds):
    before = client.clock.freeze()
    with pytest.raises(InvalidRequestError, match="seconds of testing.advance"):
        client.clock.advance(seconds)
    assert client.clock.now() == before


def test_a_pause_of_a_broken_app_can_be_moved_over(marked, tmp_path):
    app = tmp_path / "broken.py"
    app.write_text("raise ValueError('not today')\n")
    with embedded() as client:
        client.clock.freeze()
        for _ in range(2):
            with pytest.raises(AppBrokenError, match="not today"):
                client.session(str(app))
        assert client.apps.list()[0].state == "broken"
        tries = log_of(client).count("next try")
        client.clock.advance(0.6)
        with pytest.raises(AppBrokenError, match="not today"):
            client.session(str(app))
        assert (tries, log_of(client).count("next try")) == (1, 2)


def log_of(client: TestingClient) -> str:
    return client.places.log.read_text()


def test_other_daemons_have_no_time_to_move(daemon):
    with TestingClient(daemon.socket) as client:
        for ask in (client.clock.now, client.clock.freeze, client.clock.thaw, lambda: client.clock.advance(1)):
            with pytest.raises(InvalidRequestError, match=r"warmpool.embedded\(\)"):
                ask()
        with client.session(COUNTER) as session:
            for fault in (client.kill_worker, client.expire_now, client.hang_next_call):
                with pytest.raises(InvalidRequestError, match=r"warmpool.embedded\(\)"):
                    fault(session)
            assert session.call("add") == {"total": 1}


def test_nothing_of_it_outlives_its_block(marked):
    with embedded(apps=[COUNTER]) as client:
        client.clock.freeze()
        client.session("counter")
        assert len(processes_marked(marked)) >= 3
    assert processes_marked(marked) == []
