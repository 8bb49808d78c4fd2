"""A session's window, what is told of it, the words for one that is over, and how long those are remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool.activity import IDLE, Activity
from warmpool.constants import RECORDS_AGE, RECORDS_LIMIT
from warmpool.errors import SessionEndedError, SessionExpiredError, SessionNotFoundError, WorkerLostError
from warmpool.policy import refusals, sessions
from warmpool.policy.refusals import not_found
from warmpool.policy.sessions import NO_LONGER_KEPT, Records, Session
from warmpool.policy.states import LeaseEvent, LeaseState

OPENED = 1000.0
HOURS = 3600.0


def a_session(id: str = "sess_1", *, timeout: float = 60.0, state: LeaseState = LeaseState.ACTIVE) -> Session:
    return Session(
        id, "/apps/counter.py", "counter", "v1", "w_7", 3, 4711, timeout, OPENED, "/home", {"user": "ann"}, state,
        slid_at=OPENED,
    )  # fmt: skip


def over(id: str, reason: str = "client", detail: str | None = None, at: float = OPENED):
    session = a_session(id)
    session.decide_end(reason, detail, at)
    session.step(LeaseEvent.WORKER_GONE)
    return session


def running(since: float, calls: int = 1) -> Activity:
    return Activity(since, calls, calls - 1)


def finished(at: float, calls: int = 1) -> Activity:
    return Activity(at, calls, calls)


# --- the window -------------------------------------------------------------------------------------------------


def test_an_unused_session_lasts_for_its_timeout():
    assert a_session(timeout=60).window_end(IDLE, OPENED + 5) == OPENED + 60


def test_the_window_restarts_when_a_call_ends():
    assert a_session(timeout=60).window_end(finished(OPENED + 40), OPENED + 41) == OPENED + 100


def test_the_window_of_a_busy_session_has_not_begun():
    session = a_session(timeout=60)
    assert session.window_end(running(OPENED + 1), OPENED + 2) == OPENED + 62
    assert session.window_end(running(OPENED + 1), OPENED + 5000) == OPENED + 5060


def test_a_keepalive_slides_the_window_and_the_later_of_both_counts():
    session = a_session(timeout=60)
    session.slid_at = OPENED + 30
    assert session.window_end(IDLE, OPENED + 31) == OPENED + 90
    assert session.window_end(finished(OPENED + 10), OPENED + 31) == OPENED + 90
    assert session.window_end(finished(OPENED + 50), OPENED + 51) == OPENED + 110


@given(
    slid=st.floats(0, 1e6),
    used=st.floats(0, 1e6),
    started=st.integers(0, 1000),
    busy=st.booleans(),
    now=st.floats(1e6, 2e6),
    timeout=st.floats(1, 3600),
)
def test_a_window_is_never_over_before_the_last_activity_and_the_timeout(slid, used, started, busy, now, timeout):
    session = a_session(timeout=timeout)
    session.slid_at = slid
    end = session.window_end(Activity(used, started + busy, started), now)
    assert end >= max(slid, used) + timeout
    if busy:
        assert end > now
    else:
        assert end == max(slid, used) + timeout


# --- what is told -----------------------------------------------------------------------------------------------


def test_a_new_session_is_told_whole():
    assert a_session().view(IDLE, OPENED + 1)._asdict() == {
        "id": "sess_1",
        "status": "active",
        "end_reason": None,
        "end_detail": None,
        "app": "counter",
        "version": "v1",
        "worker_id": "w_7",
        "pid": 4711,
        "session_timeout": 60.0,
        "created_at": OPENED,
        "expires_at": OPENED + 60,
        "last_call_at": None,
        "ended_at": None,
        "call_count": 0,
        "busy": False,
        "call_id": None,
        "cwd": "/home",
        "name": None,
        "labels": {"user": "ann"},
        "description": None,
        "tags": (),
        "end_value": None,
    }


def test_a_used_session_tells_its_calls():
    view = a_session().view(finished(OPENED + 7, calls=3), OPENED + 10)
    assert (view.call_count, view.last_call_at, view.expires_at, view.busy) == (3, OPENED + 7, OPENED + 67, False)


def test_a_busy_session_tells_when_it_would_expire_if_its_call_ended_now():
    view = a_session().view(running(OPENED + 7), OPENED + 500)
    assert (view.busy, view.call_count, view.expires_at) == (True, 1, OPENED + 560)


def test_an_expiring_session_is_still_active_for_whoever_looks():
    session = a_session()
    session.step(LeaseEvent.WINDOW_OVER)
    view = session.view(IDLE, OPENED + 60)
    assert (view.status, view.end_reason, view.ended_at) == ("active", None, None)
    assert session.is_open


@pytest.mark.parametrize("state", [LeaseState.CLOSING, LeaseState.CLOSED], ids=lambda s: s.value)
def test_a_session_that_is_over_expires_no_more_and_is_not_busy(state):
    session = a_session(state=state)
    session.decide_end("client", None, OPENED + 9)
    view = session.view(running(OPENED + 8), OPENED + 10)
    assert (view.status, view.end_reason, view.ended_at) == ("ended", "client", OPENED + 9)
    assert (view.expires_at, view.busy) == (None, False)
    assert view.call_count == 1


def test_the_first_decision_how_a_session_ends_stands():
    session = a_session()
    session.decide_end("idle", None, OPENED + 60)
    session.decide_end("worker_lost", "was killed by SIGKILL", OPENED + 61)
    view = session.view(IDLE, OPENED + 62)
    assert (view.status, view.end_reason, view.end_detail, view.ended_at) == ("expired", "idle", None, OPENED + 60)


# --- the words --------------------------------------------------------------------------------------------------


def test_an_expired_session_says_session_expired_and_what_to_do():
    error = refusals.over(over("sess_1", "idle"))
    assert type(error) is SessionExpiredError
    assert "session expired" in error.message
    assert "sess_1 was idle for 60 s" in error.message
    assert "open a new one" in error.message
    assert (error.session_id, error.end_reason) == ("sess_1", "idle")


@pytest.mark.parametrize("reason", ["client", "app", "daemon_stopped"])
def test_an_ended_session_says_session_ended_and_why(reason):
    error = refusals.over(over("sess_1", reason))
    assert type(error) is SessionEndedError
    assert "session ended" in error.message
    assert reason in error.message
    assert "open a new one" in error.message
    assert (error.session_id, error.end_reason) == ("sess_1", reason)


def test_a_session_whose_worker_was_lost_says_session_ended_and_how_the_worker_died():
    error = refusals.over(over("sess_1", "worker_lost", "was killed by SIGSEGV"))
    assert type(error) is WorkerLostError
    assert "session ended" in error.message
    assert "lost its worker, which was killed by SIGSEGV" in error.message
    assert "open a new one" in error.message
    assert (error.session_id, error.end_reason) == ("sess_1", "worker_lost")


def test_an_unknown_session_says_session_not_found():
    error = not_found("sess_nobody")
    assert type(error) is SessionNotFoundError
    assert "session not found" in error.message
    assert 'session="new"' in error.message
    assert error.session_id == "sess_nobody"


# --- the records ------------------------------------------------------------------------------------------------


def test_what_was_never_there_is_not_remembered():
    records = Records(lambda _: None)
    assert records.get("sess_1", OPENED) is None
    assert records.all(OPENED) == []
    assert len(records) == 0


def test_a_session_is_remembered_for_a_day():
    records = Records(lambda _: None)
    records.add(over("old", at=OPENED))
    records.add(over("young", at=OPENED + 1))
    day = OPENED + RECORDS_AGE
    assert RECORDS_AGE == 24 * HOURS
    assert [s.id for s in records.all(day - 0.001)] == ["old", "young"]
    assert records.get("old", day - 0.001) is not None
    assert records.get("old", day) is None
    assert [s.id for s in records.all(day)] == ["young"]
    assert records.get("young", day + 1) is None
    assert len(records) == 0


def test_only_the_last_ten_thousand_are_remembered():
    records = Records(lambda _: None)
    assert RECORDS_LIMIT == 10_000
    for number in range(RECORDS_LIMIT + 3):
        records.add(over(f"s{number}", at=OPENED + number))
    assert len(records) == RECORDS_LIMIT
    assert records.get("s2", OPENED) is None
    assert records.get("s3", OPENED) is not None
    assert records.get(f"s{RECORDS_LIMIT + 2}", OPENED) is not None
    assert records.all(OPENED)[0].id == "s3"


def test_of_what_ends_have_returned_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "END_VALUES_LIMIT", 100)
    monkeypatch.setattr(sessions, "RECORDS_LIMIT", 4)
    records = Records(lambda _: None)
    ended = [over(f"sess_{number}") for number in range(8)]
    for number, session in enumerate(ended):
        session.end_value = None if number == 2 else b"x" * 30
        records.add(session)
    values = [session.end_value for session in records.all(OPENED)]
    assert values == [NO_LONGER_KEPT, b"x" * 30, b"x" * 30, b"x" * 30]
    assert ended[2].end_value is None, "it had returned nothing"
    assert records._value_bytes == 90


def test_one_whose_worker_took_long_to_go_is_forgotten_with_its_neighbours():
    """Records come in the order in which workers exit, which differs by seconds from that of the decisions."""
    records = Records(lambda _: None)
    records.add(over("quick", at=OPENED + 3))
    records.add(over("slow", at=OPENED))
    assert records.get("slow", OPENED + RECORDS_AGE - 1) is not None
    assert records.get("slow", OPENED + 3 + RECORDS_AGE) is None
