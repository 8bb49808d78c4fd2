"""What users of other session services and worker pools complain of, each by the thread that tells it best. A test
would fail on the service that its complaint was made about.

Those that no test can show are answered in ARCHITECTURE.md, "Complaints about others".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import APPS, PATIENCE, wait_until_busy

import warmpool
from warmpool import (
    AppBrokenError,
    Client,
    InvalidRequestError,
    SessionExpiredError,
)
from warmpool.errors import CallCancelledError

APP = str(APPS / "complained_of.py")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with warmpool.embedded([APP]) as client, client.clock.frozen():
        yield client


class Running:
    """A call in a thread of its own."""

    def __init__(self, session: Any, function: str, **fields: Any) -> None:
        self.result: Any = None
        self._session, self._function, self._fields = session, function, fields
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        wait_until_busy(session)

    def _call(self) -> None:
        try:
            self.result = self._session.call(self._function, **self._fields)
        except BaseException as error:
            self.result = error

    def wait(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.result


@contextmanager
def waiting_on(session: Any, fifo: Path) -> Iterator[Running]:
    running = Running(session, "wait_for", path=str(fifo))
    yield running
    fifo.write_text("done")
    assert running.wait() == "done"


def test_1_the_window_restarts_when_a_long_call_ends(client: Any, fifo: Path):
    """jupyter/notebook#3896: a call longer than the time-out was culled in the moment in which it finished."""
    with client.session(APP, session_timeout=600) as session:
        with waiting_on(session, fifo):
            client.clock.advance(720)
        client.clock.advance(599)
        assert session.call("count") == 2
        client.clock.advance(601)
        with pytest.raises(SessionExpiredError):
            session.call("count")


def test_2_what_runs_is_not_culled(client: Any, fifo: Path):
    """jupyterhub/jupyterhub#1498."""
    with client.session(APP, session_timeout=1) as session:
        with waiting_on(session, fifo):
            client.clock.advance(3_600)
            assert session.info().status == "active"
        assert session.call("count") == 2


def test_3_a_session_does_not_expire_in_the_middle_of_a_stream(client: Any, fifo: Path):
    """cloudflare/sandbox-sdk#460: the timer was renewed once, when the request began."""
    with client.session(APP, session_timeout=10) as session, session.stream("step_by_step", path=str(fifo)) as events:
        with fifo.open("w", buffering=1) as writer:
            for line in ("one\n", "two\n", "three\n"):
                client.clock.advance(60)
                writer.write(line)
                assert next(events).output == line
        assert next(events).type == "done"


def test_4_whoever_only_looks_keeps_nothing_alive(client: Any):
    """aws/bedrock-agentcore-sdk-python#542: health checks counted as use, and sessions never ended."""
    session = client.session(APP, session_timeout=10)
    for _ in range(9):
        client.clock.advance(1)
        session.info(), client.sessions.list(), client.status(), client.sessions.why(session.id)
    client.clock.advance(1.1)
    assert session.info().status == "expired"


def test_5_a_keepalive_counts_whatever_else_sleeps(client: Any):
    """cloudflare/sandbox-sdk#345: kept alive, and evicted all the same."""
    with client.session(APP, session_timeout=10) as session:
        for _ in range(20):
            client.clock.advance(9)
            session.keepalive()
        assert session.call("count") == 1


def test_6_a_time_out_belongs_to_its_session(client: Any):
    """mastra-ai/mastra#24621: each reconnect fell back to the default."""
    with client.session(APP, session_timeout=3000) as session:
        again = client.sessions.attach(session.id)
        assert again.call("count") == 1
        client.clock.advance(2999)
        assert again.info().session_timeout == 3000
        assert session.call("count") == 2


def test_8_no_value_is_quietly_taken_for_the_default(client: Any):
    """e2b-dev/E2B#873: 0, meant as "never", was."""
    for never in (0, -1, None.__class__, float("inf"), "never"):
        with pytest.raises(InvalidRequestError, match="session_timeout"):
            client.session(APP, session_timeout=never).open()


def test_9_an_app_is_told_that_its_session_expires(client: Any):
    """triton-inference-server/server#6846: the model was not, and leaked what it held."""
    session = client.session(APP, session_timeout=5)
    session.call("count")
    client.clock.advance(5.1)
    assert session.info().end_value == "told: idle"


def test_10_a_window_can_be_a_second(client: Any):
    """jupyter/notebook#2910: culling polled, so 300 s was the least."""
    session = client.session(APP, session_timeout=1)
    client.clock.advance(0.999)
    assert session.info().status == "active"
    client.clock.advance(0.002)
    assert session.info().status == "expired"


def test_11_an_hour_takes_no_time(client: Any):
    """dotnet/orleans#11117: tests of expiry flake, or wait on the real clock."""
    started = os.times().elapsed
    session = client.session(APP, session_timeout=3600)
    client.clock.advance(3601)
    assert session.info().status == "expired"
    assert os.times().elapsed - started < 60


def test_12_one_tests_time_is_not_anothers(client: Any):
    """cloudflare/workers-sdk#5394: fake timers do not move alarms, and alarms leak into the next test."""
    with warmpool.embedded([APP]) as other, other.session(APP, session_timeout=5) as session:
        client.clock.advance(3600)
        assert session.info().status == "active"


def test_13_a_cancel_reaches_code_that_swallows_exceptions(client: Any):
    """replicate/cog#2772: accepted, and never came to the worker; `except Exception` would have eaten it."""
    with client.session(APP) as session:
        running = Running(session, "swallow_exceptions")
        session.cancel()
        assert isinstance(running.wait(), CallCancelledError)
        assert session.call("count") == 1, "the state is as it was"


def test_14_a_cancel_is_not_lost_behind_a_flood(client: Any):
    """replicate/cog#2243: it shared the pipe with the output."""
    with client.session(APP) as session:
        with session.stream("flood") as events:
            assert next(events).type == "output"
            session.cancel()
            kinds = {event.type for event in _until_error(events)}
        assert kinds <= {"output", "error"}
        assert session.call("count") == 1


def _until_error(events: Any) -> Iterator[Any]:
    try:
        yield from events
    except CallCancelledError:
        return
    raise AssertionError("it was not cancelled")


def test_15_a_late_cancel_hits_no_other_call(client: Any, fifo: Path):
    """replicate/cog#791, bazelbuild/bazel#26251."""
    with client.session(APP) as session:
        with waiting_on(session, fifo):
            late = session.info().call_id
        with waiting_on(session, fifo):
            assert client.calls.cancel(session.id, late).state == "waiting"
            assert session.info().busy


def test_16_plain_functions_can_be_cancelled_in_a_sleep(client: Any):
    """ray-project/ray#34961: async methods only, "because actors have state"."""
    with client.session(APP) as session:
        for _ in range(3):
            running = Running(session, "swallow_exceptions")
            session.cancel()
            assert isinstance(running.wait(), CallCancelledError)
        assert session.call("count") == 1


def test_17_an_open_that_had_to_wait_says_for_what(client: Any):
    """ray-project/ray#33572: waiting for imports in each worker, and nobody says why a warm one was not there."""
    client.lose_template(APP)
    sessions = [client.session(APP) for _ in range(3)]
    for session in sessions:
        session.call("count")
    texts = [entry.text for session in sessions for entry in client.sessions.why(session.id).entries]
    assert any(text.startswith("waited: ") for text in texts)
    for session in sessions:
        session.end()


def test_18_what_fails_in_preloading_fails_aloud_and_what_is_preloaded_is(client: Any, tmp_path: Path):
    """python/cpython#117378: forkserver's preload ignored import errors, and some of it never happened."""
    with client.session(APP) as session:
        preloaded_in, served_in = session.call("preloaded")
    assert 0 != preloaded_in != served_in, "in the template, before the fork"
    broken = tmp_path / "broken.py"
    for decorator, words in ("@classmethod", "ZeroDivisionError"), ("", "TypeError: .*make it a classmethod"):
        broken.write_text(
            f"import warmpool\nclass Broken(warmpool.BaseApp):\n    {decorator}\n    def preload(cls): 1 / 0\n"
        )
        with pytest.raises(AppBrokenError, match=f"preload raised {words}"):
            client.session(str(broken)).open()


def test_19_the_collector_does_not_unshare_what_was_preloaded(client: Any, tmp_path: Path):
    """livekit/agents#7117: 96 MB more for each idle worker."""
    app = tmp_path / "large.py"
    app.write_text(
        "import gc, warmpool\nclass Large(warmpool.BaseApp):\n    @classmethod\n"
        "    def preload(cls): cls.kept = [[number] for number in range(400_000)]\n"
        "    def collect(self) -> int: return gc.collect()\n"
    )
    with client.session(str(app)) as session:
        session.call("collect")
        info = client.sessions.get(session.id, memory=True)
    assert info.shared_bytes > 30 * 2**20
    assert info.private_bytes < 15 * 2**20


def test_20_a_client_that_dies_while_it_opens_costs_no_worker(client: Any):
    """devinus/poolboy#64: a caller that gave up during the checkout took the worker with it for ever."""
    with warmpool.embedded([APP], max_workers=2) as small:
        for _ in range(6):
            with Client(small.places.socket, autostart=False) as one:
                session = one.session(APP)
                session.call("count")
                psutil.Process(session.info().pid).kill()
        with small.session(APP) as session:
            assert session.call("count") == 1
