"""The life of a session, on real processes."""

from __future__ import annotations

import os
import re
import select
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import APPS, EXAMPLES, PATIENCE, Daemon, wait_for_exit, when

from warmpool import (
    AppError,
    AppMismatchError,
    Client,
    InvalidRequestError,
    SessionEndedError,
    SessionExpiredError,
    SessionNotFoundError,
    VersionMismatchError,
)

COUNTER = str(APPS / "counter.py")


def wait_until_closed(session) -> None:
    """The worker closes its connections when it goes."""
    readable, _, _ = select.select([session._twin.link._socket], [], [], PATIENCE)
    assert readable


def test_state_is_kept_between_calls(client: Client):
    first = client.run({"app": COUNTER, "function": "add", "input": {"amount": 2}, "session": "new"})
    second = client.run({"app": COUNTER, "function": "add", "input": {"amount": 3}, "session": first["session_id"]})
    assert first.output == {"total": 2}
    assert second["output"] == {"total": 5}
    assert second.session_id == first.session_id


def test_sessions_do_not_share_state(client: Client):
    with client.session(COUNTER) as one, client.session(COUNTER) as other:
        one.call("add", amount=5)
        assert other.call("add", amount=1) == {"total": 1}
        assert other.call("history") == [1]
        assert one.call("history") == [5]
        assert one.call("where")["pid"] != other.call("where")["pid"]


def test_another_client_can_go_on_with_a_session(client: Client):
    with client.session(COUNTER) as session, Client(client.places.socket, autostart=False) as second:
        session.call("add", amount=2)
        assert second.run(session=session.id, app=COUNTER, function="add").output == {"total": 3}
        assert session.call("add") == {"total": 4}


def test_info_tells_the_truth(client: Client):
    with client.session(COUNTER, session_timeout=300) as session:
        before = session.info()
        assert before.last_call_at is None
        assert before.call_count == 0
        session.call("add")
        info = client.sessions.get(session.id)
        assert re.fullmatch(r"sess_[\w-]{16,}", info.id)
        assert info["status"] == info.status == "active"
        assert info.end_reason is None
        assert info.call_count == 1
        assert info.app == "counter"
        assert re.fullmatch(r"[0-9a-f]{8}", info.version)
        assert info.pid == session.call("where")["pid"]
        assert info.worker_id == session.worker_id
        assert info.session_timeout == 300
        assert info.busy is False
        assert when(info.expires_at) - when(info.last_call_at) == pytest.approx(300, abs=0.01)
        assert when(info.created_at) <= when(info.last_call_at)
        assert [listed.id for listed in client.sessions.list()] == [session.id]


def test_the_list_is_of_open_sessions_newest_first(client: Client):
    opened = [client.session(COUNTER) for _ in range(3)]
    opened[1].end()
    assert [info.id for info in client.sessions.list()] == [opened[2].id, opened[0].id]
    assert {info.id: info.status for info in client.sessions.list(status="all")}[opened[1].id] == "ended"


def test_an_ended_session_says_so(client: Client):
    session = client.session(COUNTER)
    pid = session.info().pid
    info = session.end()
    assert wait_for_exit(pid, 0), "end returns when the worker is gone"
    assert (info.status, info.end_reason) == ("ended", "client")
    with pytest.raises(SessionEndedError, match="(?i)session ended") as raised:
        session.call("add")
    assert raised.value.session_id == session.id
    assert raised.value.code == "SESSION_ENDED"
    assert raised.value.status_code == 410
    assert raised.value.end_reason == "client"
    assert client.sessions.end(session.id).status == "ended", "to end it again is no error"
    with pytest.raises(SessionEndedError):
        client.sessions.keepalive(session.id)


def test_an_unknown_session_says_so(client: Client):
    for use in (
        lambda: client.run(app=COUNTER, session="sess_nobody_knows_this_one"),
        lambda: client.sessions.get("sess_nobody_knows_this_one"),
        lambda: client.sessions.end("sess_nobody_knows_this_one"),
    ):
        with pytest.raises(SessionNotFoundError, match="(?i)session not found"):
            use()


def test_a_window_of_one_second_expires_and_says_so(client: Client):
    session = client.session(COUNTER, session_timeout=1)
    pid = session.info().pid
    session.call("add")
    wait_until_closed(session)
    with pytest.raises(SessionExpiredError, match="(?i)session expired") as raised:
        session.call("add")
    assert raised.value.end_reason == "idle"
    info = client.sessions.get(session.id)
    assert (info.status, info.end_reason, info.call_count) == ("expired", "idle", 1)
    assert when(info.ended_at) - when(info.last_call_at) >= 1.0
    assert wait_for_exit(pid)


def test_calls_and_keepalives_slide_the_window(client: Client):
    session = client.session(COUNTER, session_timeout=1)
    opened = when(session.info().created_at)
    for index in range(4):
        select.select([session._twin.link._socket], [], [], 0.5)  # nothing comes: half a window passes
        if index % 2:
            session.call("add")
        else:
            session.keepalive()
    wait_until_closed(session)
    info = session.info()
    assert info.status == "expired"
    assert when(info.ended_at) - opened >= 3.0


def test_looking_does_not_slide_the_window(client: Client):
    session = client.session(COUNTER, session_timeout=1)
    before = session.info().expires_at
    assert session.info().expires_at == before
    assert client.sessions.list()[0].expires_at == before


def test_a_long_call_holds_the_session_open_and_the_window_restarts_at_its_end(client: Client):
    session = client.session(str(APPS / "async_counter.py"), session_timeout=1)
    session.call("wait_for_ticks", count=150)  # longer than the window
    info = session.info()
    assert info.status == "active"
    assert when(info.expires_at) - when(info.last_call_at) == pytest.approx(1, abs=0.01)
    wait_until_closed(session)
    ended = session.info()
    assert when(ended.ended_at) - when(ended.last_call_at) >= 1.0


def test_the_app_and_version_of_a_session_are_fixed(client: Client):
    with client.session(COUNTER) as session:
        with pytest.raises(AppMismatchError, match="belongs to app counter") as raised:
            client.run(app=str(EXAMPLES / "counter.py"), session=session.id, function="add")
        assert raised.value.session_id == session.id
        with pytest.raises(VersionMismatchError):
            client.run(app=f"{COUNTER}@other", session=session.id, function="add")
        pinned = client.run(app=f"{COUNTER}@{session.version}:add", session=session.id)
        assert pinned.output == {"total": 1}
        assert client.run(session=session.id, function="add").output == {"total": 2}


def test_a_registered_name_works_after_the_path_was_used(client: Client):
    with client.session(COUNTER) as session:
        assert client.run(app="counter", session=session.id, function="add").output == {"total": 1}
        assert client.run(app="counter:add", input={"amount": 7}, session="new").output == {"total": 7}


def test_a_failed_first_call_leaves_the_session_and_names_it(client: Client):
    with pytest.raises(AppError) as raised:
        client.run(app=COUNTER, function="fail", session="new")
    session_id = raised.value.session_id
    assert client.sessions.get(session_id).status == "active"
    assert client.run(session=session_id, function="add").output == {"total": 1}


def test_a_session_works_where_its_opener_stands(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with client.session(COUNTER) as session:
        assert session.call("where")["cwd"] == str(tmp_path)
        assert session.info().cwd == str(tmp_path)


def test_calls_without_a_session_keep_nothing_promised(client: Client):
    result = client.run(app=COUNTER, function="who")
    assert result.session_id is None
    assert result.output["session_id"] is None
    assert client.sessions.list() == []
    with client.session(COUNTER) as session:
        stateless = client.run(app=COUNTER, function="where").output["pid"]
        assert session.call("where")["pid"] != stateless


@pytest.mark.parametrize("timeout", [0, 0.5, 3601, -1, "60", True, float("nan")])
def test_an_illegal_window_is_refused(client: Client, timeout: object):
    with pytest.raises(InvalidRequestError, match="session_timeout"):
        client.run(app=COUNTER, session="new", session_timeout=timeout)
    assert client.sessions.list() == []


def test_a_window_goes_only_with_a_new_session(client: Client):
    with client.session(COUNTER) as session:
        for target in (session.id, None):
            with pytest.raises(InvalidRequestError, match="session_timeout"):
                client.run(app=COUNTER, function="add", session=target, session_timeout=5)
        assert session.info().call_count == 0


def test_a_keepalive_that_was_there_in_time_counts_though_the_daemon_was_late(daemon: Daemon):
    session = daemon.client.session(COUNTER, session_timeout=1)
    os.kill(daemon.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        keepalive = pool.submit(session.keepalive)
        select.select([], [], [], 1.3)  # the window is over, and nobody has met its end
        os.kill(daemon.pid, signal.SIGCONT)
        assert keepalive.result(PATIENCE).status == "active"
