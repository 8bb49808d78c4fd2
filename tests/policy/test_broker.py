"""Sessions and leases: the sliding window, the question before the end, attaching, ending, losing, stopping."""

from __future__ import annotations

import pytest
from policy.story import Client, Story, kinds

from warmpool.activity import Activity
from warmpool.constants import (
    CANCEL_GRACE,
    DUMP_TIME,
    EXPIRE_ANSWER_TIMEOUT,
    EXPLAIN_TIMEOUT,
    RECORDS_AGE,
    STOP_GRACE,
    TERM_GRACE,
)
from warmpool.errors import (
    AppMismatchError,
    DaemonUnavailableError,
    SessionEndedError,
    SessionExpiredError,
    SessionNotFoundError,
    VersionMismatchError,
    WarmpoolError,
    WorkerLostError,
)
from warmpool.policy import effects as fx
from warmpool.policy import events as ev
from warmpool.settings import Settings
from warmpool.wire.process_messages import Expire


def asked(story: Story, client: Client) -> bool:
    """The session's worker is asked whether it may expire."""
    return story.workers[client.worker].asked is not None


def expiring(story: Story | None = None, **how: object) -> tuple[Story, Client]:
    """A session whose worker has been asked, and has not answered."""
    story = story or Story()
    client = story.session(**how)
    story.wait(story.look(client.session).session_timeout)
    assert asked(story, client)
    return story, client


# --- opening ----------------------------------------------------------------------------------------------------


def test_a_session_is_opened_with_what_its_opener_said():
    story = Story()
    client = story.session("chat", timeout=300, labels={"user": "ann"})
    view = story.look(client.session)
    assert (view.id, view.status, view.app, view.version) == (client.session, "active", "chat", "v1")
    assert (view.worker_id, view.session_timeout, view.labels) == (client.worker, 300, {"user": "ann"})
    assert (view.created_at, view.expires_at, view.last_call_at) == (1000, 1300, None)
    assert (view.busy, view.call_count, view.cwd) == (False, 0, "/home")
    assert view.pid is not None
    assert any(f"{client.session} opened: chat@v1 on {client.worker}, pid {view.pid}" in line for line in story.logs)


def test_the_window_begins_when_the_session_is_handed_over_not_when_it_was_asked_for():
    story = Story()
    client = story.open(timeout=60)
    story.wait(20)
    story.rest()
    assert story.look(client.session).expires_at == 1080


def test_a_stateless_client_has_no_session():
    story = Story()
    client = story.stateless()
    story.rest()
    assert client.attach.session_id is None
    assert len(story.sessions()) == 0
    assert story.sessions(over=True) == []


def test_a_session_that_its_opener_does_not_want_any_more_is_ended():
    story = Story()
    client = story.session()
    story.abandon(story.attach(client.session))
    assert story.look(client.session).status == "active"
    story.abandon(client)
    assert story.workers[client.worker].stop == "client"
    story.rest()
    assert story.look(client.session).status == "ended"
    before = repr(story.broker)
    for ticket in (client.ticket, (99, 1)):
        assert story.happens(ev.OpenAbandoned(ticket)) == []
    assert repr(story.broker) == before


def test_sessions_are_listed_newest_first_and_those_that_are_over_only_on_request():
    story = Story()
    clients = []
    for _ in range(4):
        clients.append(story.session(timeout=3600))
        story.wait(1)
    first, second, third, fourth = [client.session for client in clients]
    story.end(first)
    story.rest()
    story.end(second)
    assert [view.id for view in story.sessions()] == [fourth, third]
    over = {view.id: view.status for view in story.sessions(over=True)}
    assert list(over) == [fourth, third, second, first]
    assert list(over.values()) == ["active", "active", "ended", "ended"]
    assert len(story.sessions()) == 2


# --- the sliding window -----------------------------------------------------------------------------------------


def test_an_unused_session_expires_when_its_window_is_over():
    story = Story()
    client = story.session(timeout=60)
    story.wait(59.99)
    assert not asked(story, client)
    story.wait(0.02)
    assert asked(story, client)
    story.rest()
    view = story.look(client.session)
    assert (view.status, view.end_reason, view.end_detail) == ("expired", "idle", None)
    assert client.worker not in story.workers


def test_a_call_slides_the_window_when_it_begins_and_when_it_ends():
    story = Story()
    client = story.session(timeout=60)
    story.wait(50)
    story.begins(client)
    assert story.look(client.session).busy
    story.wait(30)
    story.finishes(client)
    view = story.look(client.session)
    assert (view.expires_at, view.last_call_at, view.call_count, view.busy) == (1140, 1080, 1, False)
    story.wait(59.99)
    assert not asked(story, client)
    story.wait(0.02)
    assert asked(story, client)


@pytest.mark.parametrize("hours", [0.1, 1, 5])
def test_a_busy_session_never_expires(hours):
    story = Story()
    client = story.session(timeout=1)
    story.begins(client)
    for _ in range(10):
        story.wait(hours * 360)
    assert not asked(story, client)
    view = story.look(client.session)
    assert view.busy
    assert view.expires_at == story.now + 1
    story.finishes(client)
    story.wait(0.99)
    assert not asked(story, client)
    story.wait(0.02)
    assert asked(story, client)


def test_a_busy_session_is_looked_at_once_a_window_and_no_more():
    story = Story(idle_exit=0)
    client = story.session(timeout=60)
    story.begins(client)
    looks = []
    read = story.broker.leases.activity_of
    story.broker.leases.activity_of = lambda row: looks.append(row) or read(row)
    story.wait(3600)
    assert len(looks) == 60
    assert not asked(story, client)


def test_a_keepalive_slides_the_window():
    story = Story()
    client = story.session(timeout=60)
    for _ in range(5):
        story.wait(50)
        assert story.keepalive(client.session).view.expires_at == story.now + 60
    assert not asked(story, client)
    story.wait(60.01)
    assert asked(story, client)


def test_looking_at_a_session_does_not_slide_its_window():
    story = Story()
    client = story.session(timeout=60)
    for _ in range(5):
        story.wait(11)
        assert story.look(client.session).expires_at == 1060
        story.await_end(client.session)
        story.sessions()
    story.wait(5.01)
    assert asked(story, client)


def test_attaching_alone_does_not_slide_the_window():
    story = Story()
    client = story.session(timeout=60)
    story.wait(50)
    story.attach(client.session)
    assert story.look(client.session).expires_at == 1060


def test_a_call_whose_time_is_on_the_board_before_its_count_slides_the_window():
    """The worker stores the time first: this is what a look between its two stores sees."""
    story = Story()
    client = story.session(timeout=60)
    story.wait(59)
    row = story.workers[client.worker].row
    story.board[row] = Activity(story.now, 0, 0)
    story.wait(59)
    assert not asked(story, client)


def test_each_session_has_a_window_of_its_own():
    story = Story()
    clients = [story.session(timeout=seconds) for seconds in (10, 20, 30)]
    story.wait(25)
    story.rest()
    assert [story.look(c.session).status for c in clients] == ["expired", "expired", "active"]


def test_the_row_of_a_dead_session_means_nothing_to_the_next_one_that_has_it():
    story = Story(max_workers=1, warm=0)
    first = story.session(timeout=600)
    story.calls(first)
    story.begins(first)
    story.exits(first.worker, status="was killed by SIGKILL")
    second = story.session(timeout=60)
    assert story.look(second.session).call_count == 0
    assert not story.look(second.session).busy
    assert story.look(first.session).call_count == 2, "what is remembered was read before"


# --- the question before the end --------------------------------------------------------------------------------


def test_the_worker_is_told_how_many_calls_the_daemon_saw():
    story = Story()
    client = story.session(timeout=60)
    for _ in range(3):
        story.calls(client)
    effects = story.wait(60)
    assert [e for e in effects if isinstance(e, fx.Tell)] == [fx.Tell(client.worker, Expire(3, "idle"))]


def test_a_worker_that_is_busy_after_all_keeps_its_session():
    story, client = expiring(timeout=60)
    story.begins(client)
    story.busy(client.worker)
    story.wait(EXPIRE_ANSWER_TIMEOUT + 1)
    assert story.look(client.session).status == "active"
    story.wait(600)
    assert story.look(client.session).status == "active"
    story.finishes(client)
    story.wait(60)
    assert asked(story, client)


def test_a_worker_that_has_bytes_waiting_keeps_its_session_for_another_window():
    story, client = expiring(timeout=60)
    story.busy(client.worker)
    story.wait(59.9)
    assert not asked(story, client)
    story.wait(0.2)
    assert asked(story, client)


def test_a_session_that_was_kept_tells_an_end_that_is_still_to_come():
    story, client = expiring(timeout=60)
    story.busy(client.worker)
    assert story.look(client.session).expires_at == story.now + 60


def test_a_worker_that_leaves_ends_its_session_as_expired():
    story, client = expiring()
    story.leaves(client.worker)
    view = story.look(client.session)
    assert (view.status, view.end_reason, view.expires_at) == ("expired", "idle", None)
    assert client.worker in story.told_to_stop()
    story.exits()
    assert story.look(client.session).status == "expired"


def test_a_worker_that_never_answers_loses_its_session_all_the_same():
    story, client = expiring()
    story.wait(EXPIRE_ANSWER_TIMEOUT - 0.01)
    assert story.look(client.session).status == "active"
    story.wait(0.02)
    assert story.look(client.session).status == "expired"
    story.wait(STOP_GRACE)
    assert story.workers[client.worker].killed
    story.exits(status="was killed by SIGKILL after it did not stop in time")
    view = story.look(client.session)
    assert (view.status, view.end_reason) == ("expired", "idle")
    session = story.broker.leases.known(str(client.session), story.now)
    told = [entry.text for entry in session.history.entries()]
    assert f"the worker did not say within {EXPIRE_ANSWER_TIMEOUT:g} s whether a call waits" in told


@pytest.mark.parametrize(("reason", "notes"), [("idle", ["on_end was told another reason: idle"]), ("client", [])])
def test_a_worker_that_had_agreed_to_expire_when_its_session_was_ended_tells_what_its_hook_was_told(
    reason: str, notes: list[str]
):
    story, client = expiring()
    story.end(client.session)
    story.leaves(client.worker, reason)
    story.exits()
    session = story.broker.leases.known(str(client.session), story.now)
    assert session.end_reason == "client"
    told = [entry.text for entry in session.history.entries()]
    assert [text for text in told if text.startswith("on_end")] == notes


def test_a_worker_that_a_call_keeps_from_answering_keeps_its_session():
    """The call came between the look at the board and the question; a plain function blocks its worker."""
    story, client = expiring(timeout=60)
    story.begins(client)
    story.wait(EXPIRE_ANSWER_TIMEOUT + 10)
    assert story.look(client.session).status == "active"
    assert story.workers[client.worker].stop is None
    story.finishes(client)
    story.busy(client.worker)
    story.wait(59)
    assert story.look(client.session).status == "active"
    story.wait(1.1)
    assert asked(story, client)


def test_a_call_that_came_and_went_while_the_worker_was_asked_keeps_the_session():
    story, client = expiring(timeout=60)
    story.calls(client)
    story.wait(EXPIRE_ANSWER_TIMEOUT + 0.01)
    assert story.look(client.session).status == "active"
    assert story.look(client.session).expires_at == 1120


def test_a_worker_that_dies_while_it_is_asked_is_lost():
    story, client = expiring()
    story.exits(client.worker, status="was killed by SIGSEGV")
    view = story.look(client.session)
    assert (view.status, view.end_reason, view.end_detail) == ("ended", "worker_lost", "was killed by SIGSEGV")


def test_to_end_a_session_whose_worker_is_asked_ends_it():
    story, client = expiring()
    ended = story.end(client.session)
    story.leaves(client.worker)
    story.wait(EXPIRE_ANSWER_TIMEOUT + 0.1)
    story.exits()
    assert (ended.view.status, ended.view.end_reason) == ("ended", "client")


def test_a_keepalive_while_the_worker_is_asked_is_kept_or_refused_but_never_broken():
    """An answer that says "active until then" must be true."""
    for busy in (True, False):
        story, client = expiring(timeout=60)
        keepalive = story.keepalive(client.session)
        if busy:
            story.busy(client.worker)
        else:
            story.leaves(client.worker)
        (told,) = keepalive.heard
        if isinstance(told, fx.Answer):
            assert story.look(client.session).status == "active"
            assert told.view.expires_at == story.now + 60
        else:
            assert type(keepalive.error) is SessionExpiredError


# --- attaching --------------------------------------------------------------------------------------------------


def test_an_attach_by_another_app_of_the_same_name_says_so():
    story = Story()
    client = story.session()
    other = story.client(request=1)
    story.happens(ev.AttachRequested(other.ticket, client.session, "counter", "/elsewhere/counter.py", None, 0))
    assert "belongs to app counter, not to another one of that name" in other.error.message


def test_an_attach_is_handed_to_the_sessions_worker():
    story = Story()
    client = story.session(labels={"user": "ann"})
    again = story.attach(client.session)
    assert again.worker == client.worker
    assert again.attach == (client.session, "/home", {"user": "ann"}, 0, client.attach.since)


@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize("app", [None, "counter"])
def test_an_attach_may_name_the_app_and_the_version(app, version):
    story = Story()
    client = story.session()
    assert story.attach(client.session, app, version).worker == client.worker


def test_an_attach_that_names_another_app_is_refused_and_says_which_it_is():
    story = Story()
    client = story.session("counter")
    error = story.attach(client.session, "chat").error
    assert type(error) is AppMismatchError
    assert "belongs to app counter, not to chat" in error.message
    assert (error.session_id, error.details) == (client.session, {"app": "counter", "wanted": "chat"})


def test_an_attach_that_names_another_version_is_refused_and_says_which_it_is():
    story = Story()
    client = story.session("counter", 1)
    story.session("counter", 2)
    error = story.attach(client.session, "counter", "v2").error
    assert type(error) is VersionMismatchError
    assert f"session {client.session} runs version v1 of app counter, not v2" in error.message
    assert error.session_id == client.session
    assert story.attach(client.session, "counter", "v1").worker == client.worker


def test_an_attach_to_nobodys_session_says_not_found():
    story = Story()
    error = story.attach("sess_nobody").error
    assert type(error) is SessionNotFoundError
    assert "session not found" in error.message


def test_an_attach_while_the_worker_is_asked_is_held_and_served_if_it_is_busy():
    story, client = expiring()
    held = [story.attach(client.session), story.attach(client.session)]
    assert [c.waits for c in held] == [True, True]
    story.busy(client.worker)
    assert [c.worker for c in held] == [client.worker] * 2


@pytest.mark.parametrize("how", ["leaves", "never answers", "is ended", "is lost", "the daemon stops"])
def test_an_attach_that_is_held_is_refused_if_the_session_ends(how):
    story, client = expiring()
    held = story.attach(client.session)
    match how:
        case "leaves":
            story.leaves(client.worker)
        case "never answers":
            story.wait(EXPIRE_ANSWER_TIMEOUT + 0.01)
        case "is ended":
            story.end(client.session)
        case "is lost":
            story.exits(client.worker, status="was killed by SIGSEGV")
        case "the daemon stops":
            story.stop()
    expected = {
        "is ended": SessionEndedError,
        "is lost": WorkerLostError,
        "the daemon stops": SessionEndedError,
    }
    assert type(held.error) is expected.get(how, SessionExpiredError)
    assert held.error.session_id == client.session


def test_an_attach_that_is_held_and_whose_client_leaves_is_forgotten():
    story, client = expiring()
    held = story.attach(client.session)
    story.leave(held)
    story.busy(client.worker)
    assert held.heard == []


def test_an_attach_that_does_not_fit_is_refused_at_once_though_the_worker_is_asked():
    story, client = expiring()
    assert type(story.attach(client.session, "chat").error) is AppMismatchError


# --- ending -----------------------------------------------------------------------------------------------------


def test_an_end_is_answered_when_the_worker_is_gone():
    story = Story()
    client = story.session()
    ended = story.end(client.session)
    assert ended.waits
    assert story.workers[client.worker].stop == "client"
    assert story.look(client.session).status == "ended"
    story.leaves(client.worker)
    assert ended.waits
    story.wait(1)
    story.exits()
    view = ended.view
    assert (view.status, view.end_reason, view.ended_at) == ("ended", "client", 1000)


def test_an_end_has_its_own_reason():
    story = Story()
    client, ending = story.session(), story.client(request=1)
    story.happens(ev.EndRequested(ending.ticket, str(client.session), "app"))
    story.rest()
    assert ending.view.end_reason == "app"


def test_to_end_a_session_twice_is_answered_twice_and_done_once():
    story = Story()
    client = story.session()
    first, second = story.end(client.session), story.end(client.session)
    story.exits()
    assert first.view == second.view
    third = story.end(client.session)
    assert third.view.end_reason == "client"


def test_to_end_an_expired_session_says_that_it_has_expired():
    story, client = expiring()
    story.rest()
    view = story.end(client.session).view
    assert (view.status, view.end_reason) == ("expired", "idle")


def test_to_end_a_session_that_is_expiring_for_good_waits_for_its_worker():
    story, client = expiring()
    story.leaves(client.worker)
    ended = story.end(client.session)
    assert ended.waits
    story.exits()
    assert ended.view.status == "expired"


def test_to_end_nobodys_session_says_not_found():
    assert type(Story().end("sess_nobody").error) is SessionNotFoundError


def test_a_busy_session_can_be_ended():
    story = Story()
    client = story.session()
    story.begins(client)
    ended = story.end(client.session)
    worker = story.workers[client.worker]
    assert worker.cancelled == [story.board[worker.row].call_id]
    story.wait(CANCEL_GRACE - 0.01)
    assert not worker.dumped
    story.wait(0.02)
    assert worker.dumped, "it did not come to read that it should stop"
    story.wait(DUMP_TIME)
    assert worker.terminated
    assert not worker.killed
    story.wait(TERM_GRACE)
    assert worker.killed
    story.exits(status="was killed by SIGKILL after it did not stop in time")
    assert (ended.view.end_reason, ended.view.end_detail, ended.view.busy) == ("client", None, False)


def test_a_worker_that_goes_in_time_is_not_killed():
    story = Story()
    client = story.session()
    story.end(client.session)
    story.wait(STOP_GRACE - 0.01)
    story.exits()
    assert "Kill" not in kinds(story.wait(100))


@pytest.mark.parametrize("what", ["attach", "keepalive"])
def test_a_session_that_is_over_cannot_be_used(what):
    for ends, error in {"client": SessionEndedError, "idle": SessionExpiredError, "lost": WorkerLostError}.items():
        story = Story()
        client = story.session()
        if ends == "client":
            story.end(client.session)
        elif ends == "idle":
            story.wait(60)
        else:
            story.exits(client.worker, status="was killed by SIGKILL")
        story.rest()
        refused = getattr(story, what)(client.session)
        assert type(refused.error) is error
        assert refused.error.session_id == client.session


@pytest.mark.parametrize("what", ["attach", "keepalive"])
def test_a_session_whose_worker_is_on_its_way_out_cannot_be_used(what):
    story = Story()
    client = story.session()
    story.end(client.session)
    assert type(getattr(story, what)(client.session).error) is SessionEndedError


def test_one_who_ended_a_session_and_left_is_not_answered():
    story = Story()
    client = story.session()
    ended = story.end(client.session)
    story.leave(ended)
    story.exits()
    assert ended.heard == []


# --- losing a worker --------------------------------------------------------------------------------------------


def test_a_lost_worker_ends_its_session_and_the_record_says_how():
    story = Story()
    client = story.session(timeout=600)
    story.calls(client)
    story.begins(client)
    story.wait(5)
    story.exits(client.worker, status="was killed by SIGKILL that we did not send, perhaps out of memory")
    view = story.look(client.session)
    assert (view.status, view.end_reason, view.ended_at) == ("ended", "worker_lost", 1005)
    assert view.end_detail == "was killed by SIGKILL that we did not send, perhaps out of memory"
    assert (view.call_count, view.busy, view.expires_at) == (2, False, None)
    assert any(f"{client.session} ended (worker_lost: it was killed by SIGKILL" in line for line in story.logs)


def test_one_who_asks_after_a_broken_connection_is_told_when_the_worker_is_seen_to_be_gone():
    story = Story()
    client = story.session()
    asking = story.await_end(client.session)
    assert asking.waits
    story.exits(client.worker, status="exited with status 3")
    assert (asking.view.end_reason, asking.view.end_detail) == ("worker_lost", "exited with status 3")


def test_one_who_asks_after_a_broken_connection_is_told_in_the_end_that_nothing_is_wrong():
    story = Story()
    client = story.session()
    asking = story.await_end(client.session)
    story.wait(EXPLAIN_TIMEOUT - 0.01)
    assert asking.waits
    story.wait(0.02)
    assert asking.view.status == "active"
    story.exits(client.worker)
    assert len(asking.heard) == 1


def test_one_who_asks_about_a_session_that_is_over_is_told_at_once():
    story = Story()
    client = story.session()
    story.exits(client.worker, status="exited with status 3")
    assert story.await_end(client.session).view.end_reason == "worker_lost"


def test_one_who_asked_and_left_is_not_answered():
    story = Story()
    client = story.session()
    asking = story.await_end(client.session)
    story.leave(asking)
    story.wait(EXPLAIN_TIMEOUT + 1)
    assert asking.heard == []


def test_one_who_asks_about_nobodys_session_is_told_not_found():
    story = Story()
    for asking in (story.await_end("sess_nobody"), story.keepalive("sess_nobody")):
        assert type(asking.error) is SessionNotFoundError


def test_one_who_asks_twice_at_once_is_answered_twice():
    story = Story()
    client = story.session()
    asking = [story.await_end(client.session) for _ in range(3)]
    story.exits(client.worker)
    assert [a.view.end_reason for a in asking] == ["worker_lost"] * 3


# --- what is remembered -----------------------------------------------------------------------------------------


def test_a_session_that_is_over_is_remembered_for_a_day():
    story = Story()
    client = story.session()
    story.end(client.session)
    story.rest()
    story.wait(RECORDS_AGE - 1)
    assert type(story.attach(client.session).error) is SessionEndedError
    story.wait(2)
    assert type(story.attach(client.session).error) is SessionNotFoundError


def test_those_beyond_the_limit_are_forgotten(monkeypatch):
    monkeypatch.setattr("warmpool.policy.sessions.RECORDS_LIMIT", 3)
    story = Story(warm=0)
    clients = [story.session() for _ in range(5)]
    for client in clients:
        story.end(client.session)
        story.rest()
    found = [type(story.attach(client.session).error) for client in clients]
    assert found == [SessionNotFoundError] * 2 + [SessionEndedError] * 3


# --- connections ------------------------------------------------------------------------------------------------


def test_a_closed_connection_that_waited_for_nothing_changes_nothing():
    story = Story()
    story.session()
    before = repr(story.broker)
    assert story.leave(story.client()) == []
    assert repr(story.broker) == before


# --- idle exit --------------------------------------------------------------------------------------------------


def test_a_daemon_that_nobody_uses_leaves_after_a_while():
    story = Story(idle_exit=600)
    story.wait(599.9)
    assert not story.exited
    effects = story.wait(0.2)
    assert set(kinds(effects)) == {"Exit"}
    assert any("idle for 600 s: leaving" in line for line in story.logs)


def test_a_daemon_stays_for_a_session_and_counts_from_its_end():
    story = Story(idle_exit=600)
    client = story.session(timeout=3600)
    story.wait(3500)
    story.end(client.session)
    story.rest()
    story.wait(599)
    assert not story.exited
    story.wait(2)
    story.rest()
    assert story.exited


def test_a_daemon_stays_while_it_is_asked_for_something():
    story = Story(idle_exit=600)
    for _ in range(4):
        story.wait(500)
        story.await_end("sess_nobody")
    assert not story.exited
    story.wait(601)
    assert story.exited


def test_a_daemon_stays_for_one_who_waits():
    story = Story(idle_exit=60, start_timeout=1000)
    client = story.open(patience=500)
    story.wait(400)
    assert client.waits


def test_a_daemon_stays_for_a_stateless_client_that_is_being_served():
    """Its calls go to the worker: the daemon does not see them."""
    story = Story(idle_exit=60)
    client = story.stateless()
    story.rest()
    story.wait(500)
    assert story.is_alive(client)
    assert story.workers[client.worker].stop is None
    story.released(client)
    story.wait(500)
    story.rest()
    assert story.exited


def test_without_an_idle_exit_a_daemon_stays_and_sleeps():
    story = Story(idle_exit=0)
    assert story.broker.next_deadline() is None
    story.wait(1e6)
    assert not story.exited


# --- stopping ---------------------------------------------------------------------------------------------------


def test_a_daemon_with_nothing_to_stop_leaves_at_once():
    story = Story()
    assert kinds(story.stop()) == ["Exit"]
    assert story.broker.next_deadline() is None


def test_a_stop_refuses_who_waits_ends_the_sessions_and_leaves_when_all_are_gone():
    story = Story(max_workers=2)
    holder = story.session("counter")
    stateless = story.stateless("counter")
    story.rest()
    waiting, loading = story.open("counter"), story.open("chat")
    ended = story.end(holder.session)
    story.stop()
    for client in (waiting, loading):
        assert type(client.error) is DaemonUnavailableError
        assert "stopping" in client.error.message
    assert story.templates == {}
    assert sorted(story.told_to_stop()) == sorted(story.workers)
    assert stateless.worker in story.told_to_stop()
    *others, last = list(story.workers)
    story.exits(*others)
    assert not story.exited
    story.exits(last)
    assert story.exited
    assert ended.view.end_reason == "client", "it was ended before"


def test_a_session_that_a_stop_ends_says_so():
    story = Story()
    client = story.session()
    story.stop()
    assert story.workers[client.worker].stop == "daemon_stopped"
    error = story.attach(client.session).error
    assert type(error) is SessionEndedError
    assert error.end_reason == "daemon_stopped"
    asking = story.await_end(client.session)
    story.exits(*story.told_to_stop())
    assert (asking.view.status, asking.view.end_reason) == ("ended", "daemon_stopped")


def test_who_does_not_go_is_killed_and_the_daemon_leaves_at_the_latest_after_its_grace():
    story = Story()
    client = story.session()
    story.stop()
    story.wait(STOP_GRACE + 0.01)
    assert story.workers[client.worker].killed
    assert not story.exited
    story.wait(1)
    assert story.exited
    assert STOP_GRACE + 1 < 5


def test_to_stop_twice_is_to_stop_once():
    story = Story()
    story.session()
    first = story.stop()
    assert "Tell" in kinds(first)
    assert story.stop() == []
    story.exits()
    assert story.exited


def test_a_daemon_that_stops_opens_nothing():
    story = Story()
    story.session("counter")
    story.stop()
    for client in (story.open("counter"), story.stateless("counter"), story.open("chat"), story.open("counter", 2)):
        assert type(client.error) is DaemonUnavailableError
    story.rest()
    assert story.exited
    assert len(story.starts) == 1


def test_a_daemon_that_stops_loads_nothing():
    story = Story()
    story.session("counter")
    story.stop()
    asking = [story.describe("counter"), story.describe("chat"), story.describe("counter", 2)]
    story.warm_up("poll")
    assert len(story.starts) == 1
    assert [type(client.error) for client in asking] == [DaemonUnavailableError] * 3
    story.exits()
    assert story.exited, "nothing is left"


def test_who_waits_for_the_functions_of_an_app_is_told_that_the_daemon_stops():
    story = Story()
    client = story.describe()
    story.stop()
    assert type(client.error) is DaemonUnavailableError


def test_a_worker_that_is_born_while_the_daemon_stops_goes_at_once():
    story = Story()
    story.open()
    story.loads()
    unborn = story.unborn()
    story.stop()
    assert sorted(story.told_to_stop()) == sorted(unborn)
    for worker in unborn:
        story.forked(worker)
        story.happens(ev.WorkerReady(worker))
    story.exits()
    assert story.exited


def test_a_setup_that_fails_while_the_daemon_stops_starts_nothing():
    story = Story()
    story.open()
    story.loads()
    unborn = story.unborn()
    story.stop()
    for worker in unborn:
        story.setup_fails(worker)
    story.exits()
    assert story.exited


def test_a_session_that_is_asked_when_the_daemon_stops_is_ended():
    story, client = expiring()
    story.stop()
    story.leaves(client.worker)
    story.rest()
    assert story.look(client.session).end_reason == "daemon_stopped"


# --- the clock --------------------------------------------------------------------------------------------------


def test_a_broker_at_rest_sleeps_until_something_can_be_over():
    story = Story()
    client = story.session(timeout=60)
    deadline = story.broker.next_deadline()
    assert deadline is not None
    assert story.now < deadline <= 1060
    wakes = 0
    while not asked(story, client):
        deadline = story.broker.next_deadline()
        assert deadline is not None
        assert deadline > story.now
        story.wait(deadline - story.now)
        wakes += 1
    assert wakes <= 6, "a wake a level of the wheel, no more"


def test_after_a_stall_the_oldest_deadline_comes_first():
    story = Story()
    clients = [story.session(timeout=seconds) for seconds in (30, 10, 20)]
    effects = story.stall(3600)
    told = [effect.worker for effect in effects if isinstance(effect, fx.Tell) and isinstance(effect.message, Expire)]
    assert told == [clients[1].worker, clients[2].worker, clients[0].worker]


def test_a_keepalive_that_was_in_the_buffer_during_a_stall_wins_over_the_deadline():
    """The shell hands over what it reads before it tells the time."""
    story = Story()
    client = story.session(timeout=60)
    story.now += 90
    assert story.keepalive(client.session).view.status == "active"
    story.stall(0)
    assert not asked(story, client)


# --- what it tells of itself ------------------------------------------------------------------------------------


def test_a_broker_tells_its_state_in_a_line():
    story = Story(max_workers=9)
    story.session()
    story.open("chat")
    assert repr(story.broker) == f"<Broker 1 sessions, 1 waiting, {story.broker.fleet!r}>"


def test_a_worker_is_told_to_stop_once():
    story = Story()
    client = story.session()
    story.end(client.session)
    effects = [*story.happens(ev.WorkerLeaving(client.worker)), *story.stop()]
    told = [effect for effect in effects if isinstance(effect, fx.Tell) and effect.worker == client.worker]
    assert told == []


def test_each_refusal_is_an_error_that_can_be_sent():
    story = Story(max_workers=1, warm=0)
    holder = story.session(timeout=3600)
    refused = [story.open(patience=1), story.attach("sess_nobody"), story.attach(holder.session, "chat")]
    story.wait(2)
    for client in refused:
        assert isinstance(client.error, WarmpoolError)
        assert set(client.error.to_wire()) == {"code", "message", "session_id", "details"}


def test_the_defaults_are_what_the_product_promises():
    assert Settings().max_workers == 256
    assert Settings().warm == 1
    assert Settings().open_timeout == 30
