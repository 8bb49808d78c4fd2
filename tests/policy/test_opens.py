"""Names, the worker that is wished for, and hand-overs to workers that turn out to be dead."""

from __future__ import annotations

import pytest
from policy.story import Client, Story

from warmpool.constants import LIFETIME_RECHECK, REFILL_QUIET
from warmpool.errors import (
    AppMismatchError,
    DaemonUnavailableError,
    InvalidRequestError,
    NameTakenError,
    PoolExhaustedError,
    SessionExpiredError,
    SessionNotFoundError,
    VersionMismatchError,
    WorkerLeasedError,
    WorkerLostError,
)
from warmpool.policy import events as ev

NAME = "vision/resnet50"


def named(story: Story, **how: object) -> Client:
    return story.session(name=NAME, **how)


def get_or_create(story: Story, app: str = "counter", **how: object) -> Client:
    return story.open(app, name=NAME, if_exists="attach", **how)


def expiring(**how: object) -> tuple[Story, Client]:
    """A session with a name whose worker has been asked whether it may expire."""
    story = Story()
    client = named(story, timeout=60, **how)
    story.wait(60)
    assert story.workers[client.worker].asked
    return story, client


# --- names ------------------------------------------------------------------------------------------------------


def test_a_name_is_of_one_living_session_and_the_refusal_tells_which():
    story = Story()
    holder = named(story)
    assert story.look(holder.session).name == NAME
    error = story.open(name=NAME).error
    assert type(error) is NameTakenError
    assert error.session_id == holder.session
    assert "if_exists" in str(error)
    story.session(name="another")
    story.rest()
    assert len(story.sessions()) == 2


def test_a_name_is_no_id_and_the_refusal_tells_which_one_has_it():
    story = Story()
    holder = named(story)
    for what in (story.await_end, story.keepalive, story.end, story.attach):
        error = what(NAME).error
        assert type(error) is SessionNotFoundError
        assert (
            str(error) == f"session not found: {NAME} is a name and no id; the session that has it is {holder.session}"
        )
    story.end(holder.session)
    assert "is not known to this daemon" in str(story.await_end(NAME).error)


def test_attach_gives_the_living_session_which_keeps_its_own_timeout_and_labels():
    story = Story()
    holder = named(story, timeout=300, labels={"a": "b"})
    other = get_or_create(story, timeout=5, labels={"c": "d"})
    assert other.attach == holder.attach
    assert other.worker == holder.worker
    view = story.look(holder.session)
    assert (view.session_timeout, view.labels) == (300, {"a": "b"})
    assert len(story.sessions()) == 1


def test_attach_opens_a_session_where_none_has_the_name():
    story = Story()
    first = get_or_create(story)
    story.rest()
    assert story.look(first.session).name == NAME
    assert type(story.open(name=NAME).error) is NameTakenError


@pytest.mark.parametrize(
    "end", ["end", "force", "expire", "lose", "leave"], ids=["ended", "killed", "expired", "lost", "of itself"]
)
def test_a_name_is_free_once_its_session_is_over(end: str):
    story = Story()
    holder = named(story, timeout=60)
    match end:
        case "end" | "force":
            story.end(holder.session, force=end == "force")
        case "expire":
            story.wait(60)
            story.leaves(holder.worker)
        case "lose":
            story.exits(holder.worker, status="was killed by SIGSEGV")
        case "leave":
            story.leaves(holder.worker, "max_calls")
    next_one = story.open(name=NAME)
    story.rest()
    assert next_one.session not in (None, holder.session)
    assert story.look(holder.session).name == NAME, "who it was is remembered"
    assert story.look(next_one.session).name == NAME


def test_two_that_race_for_a_name_are_one_session_and_one_refusal():
    story = Story()
    first, second = story.open(name=NAME), story.open(name=NAME)
    assert first.waits
    assert second.waits, "nobody has it yet"
    story.rest()
    assert story.look(first.session).name == NAME
    assert second.error.session_id == first.session
    assert type(second.error) is NameTakenError


def test_two_that_race_to_get_or_create_get_the_same_session():
    story = Story()
    clients = [get_or_create(story) for _ in range(3)]
    story.rest()
    assert {client.attach.session_id for client in clients} == {clients[0].session}
    assert len(story.sessions()) == 1
    assert len([w for w in story.workers.values() if w.session is not None]) == 1


def test_a_worker_that_was_not_needed_in_the_end_goes_to_the_next_in_line():
    story = Story(max_workers=2, warm=0)
    first, second, third = get_or_create(story), get_or_create(story), story.open()
    story.rest()
    assert first.worker == second.worker
    assert {*story.workers} == {first.worker, third.worker}, "no other was made"


def test_attach_by_name_fits_the_app_and_the_version_or_is_refused():
    story = Story()
    holder = named(story)
    assert type(get_or_create(story, "chat").error) is AppMismatchError
    error = get_or_create(story, version="v9").error
    assert (type(error), error.session_id) == (VersionMismatchError, holder.session)
    assert get_or_create(story, version="v1").worker == holder.worker
    assert story.loading("chat") == [], "an app that is not needed is not loaded"


def test_attach_by_name_reaches_a_session_of_an_older_edition():
    """Its code is what it began with, and what is said of the newest edition does not matter."""
    story = Story()
    holder = named(story)
    story.open(revision=2)
    story.rest()
    assert get_or_create(story, revision=2).worker == holder.worker
    assert get_or_create(story, revision=2, version="v1").worker == holder.worker
    assert type(get_or_create(story, revision=2, version="v2").error) is VersionMismatchError
    story.open(revision=3)
    story.does_not_load()
    assert get_or_create(story, revision=3).worker == holder.worker


def test_a_name_belongs_to_sessions_of_all_apps_together():
    story = Story()
    holder = named(story)
    error = story.open("chat", name=NAME).error
    assert (type(error), error.session_id) == (NameTakenError, holder.session)


# --- names, while the holder may be about to expire -------------------------------------------------------------


def test_attach_while_the_holder_is_asked_is_held_and_served_if_it_is_busy():
    story, holder = expiring()
    other = get_or_create(story)
    assert other.waits
    story.busy(holder.worker)
    assert other.worker == holder.worker
    assert story.look(holder.session).status == "active"


@pytest.mark.parametrize("how", ["expires", "is ended", "dies"])
def test_attach_while_the_holder_is_asked_opens_another_if_it_really_goes(how: str):
    story, holder = expiring()
    others = [get_or_create(story) for _ in range(2)]
    assert all(other.waits for other in others)
    if how == "expires":
        story.leaves(holder.worker)
    elif how == "is ended":
        story.end(holder.session)
    else:
        story.exits(holder.worker, status="was killed by SIGSEGV")
    story.rest()
    assert others[0].session not in (None, holder.session)
    assert others[1].attach == others[0].attach
    if how == "expires":
        assert type(story.attach(holder.session).error) is SessionExpiredError


def test_a_new_one_with_the_name_of_one_that_may_be_about_to_expire_is_refused():
    story, holder = expiring()
    assert story.open(name=NAME).error.session_id == holder.session


def test_one_that_is_held_at_an_expiring_session_is_refused_when_the_daemon_stops():
    story, _ = expiring()
    other = get_or_create(story)
    story.stop()
    assert type(other.error) is DaemonUnavailableError
    story.rest()
    assert story.exited


def test_one_that_is_held_and_leaves_is_forgotten():
    story, holder = expiring()
    other = get_or_create(story)
    story.leave(other)
    story.leaves(holder.worker)
    story.rest()
    assert len(story.sessions()) == 0


# --- the worker that is wished for ------------------------------------------------------------------------------


def test_a_free_worker_that_is_wished_for_is_given():
    story = Story(warm=3)
    story.session()
    first, second, third = [w.id for w in story.workers.values() if not w.is_used]
    assert story.open(worker=second).worker == second
    assert story.stateless(worker=first).worker == first
    assert story.open(worker=third).worker == third


def test_one_that_is_given_by_its_id_is_made_up_for_in_a_quiet_moment_as_any(with_refill_pause):
    story = Story(warm=2)
    story.session()
    story.rest()
    story.wait(1)
    story.rest()
    wanted, _ = [w.id for w in story.workers.values() if not w.is_used]
    assert story.open(worker=wanted).worker == wanted
    assert story.unborn() == [], "a fork beside a first call would slow it down"
    story.wait(REFILL_QUIET)
    assert len(story.unborn()) == 1


def test_a_worker_that_served_stateless_calls_is_given_to_another_and_to_no_session():
    story = Story()
    served = story.stateless()
    story.rest()
    story.released(served)
    assert type(story.open(worker=served.worker).error) is WorkerLeasedError
    assert story.stateless(worker=served.worker).worker == served.worker
    assert type(story.stateless(worker=served.worker).error) is WorkerLeasedError


def test_a_worker_that_is_not_free_is_refused_and_nobody_waits_for_it():
    story = Story(warm=0)
    holder = story.session()
    error = story.open(worker=holder.worker).error
    assert (type(error), error.session_id) == (WorkerLeasedError, holder.session)
    story.end(holder.session)
    assert type(story.open(worker=holder.worker).error) is WorkerLeasedError, "it is on its way out"
    assert len(story.workers) == 1


@pytest.mark.parametrize("wish", ["w_99", "", "nobody"])
def test_a_worker_that_there_is_not_is_refused(wish: str):
    story = Story()
    story.session()
    assert type(story.open(worker=wish).error) is InvalidRequestError


def test_a_worker_of_another_app_or_of_an_edition_before_is_refused():
    story = Story()
    story.session()
    (warm,) = [w.id for w in story.workers.values() if not w.is_used]
    assert "has no worker" in str(story.open("chat", worker=warm).error)
    error = story.open(revision=2, worker=warm).error
    assert type(error) is InvalidRequestError
    assert "another has taken over" in str(error)
    assert not story.workers[warm].is_used


def test_a_name_and_a_worker_must_fit():
    story = Story(warm=1)
    holder = named(story)
    (warm,) = [w.id for w in story.workers.values() if not w.is_used]
    assert get_or_create(story, worker=holder.worker).worker == holder.worker
    error = get_or_create(story, worker=warm).error
    assert type(error) is InvalidRequestError
    assert holder.worker in str(error)
    assert not story.workers[warm].is_used


# --- workers that turn out to be dead ---------------------------------------------------------------------------


def warm_ones(story: Story) -> list[str]:
    return [w.id for w in story.workers.values() if w.is_ready and not w.is_used]


def test_a_new_session_goes_to_the_next_worker():
    story = Story(warm=3)
    story.session()
    *alive, second, first = warm_ones(story)
    story.dies_unseen(first)
    story.dies_unseen(second)
    client = story.open(name=NAME, labels={"a": "b"})
    assert client.worker in alive
    assert [story.workers[dead].stop for dead in (first, second)] == ["lost", "lost"], "should one be there after all"
    assert story.look(client.session).labels == {"a": "b"}
    story.exits(first, second, status="was killed by SIGKILL that we did not send, perhaps out of memory")
    assert story.look(client.session).status == "active"
    assert len(story.sessions(over=True)) == 2, "nobody is told of a session that never was"
    assert type(story.open(name=NAME).error) is NameTakenError


def test_a_new_session_waits_for_a_worker_if_there_is_no_other():
    story = Story(warm=1, max_workers=2)
    story.session()
    (warm,) = warm_ones(story)
    story.dies_unseen(warm)
    client = story.open(patience=30)
    assert client.waits
    story.rest()
    assert client.worker != warm


def test_one_that_finds_a_dead_worker_waits_no_longer_than_it_said():
    story = Story(warm=1, max_workers=2)
    story.session()
    (warm,) = warm_ones(story)
    story.dies_unseen(warm)
    client = story.open(patience=1)
    story.wait(1.01)
    assert type(client.error) is PoolExhaustedError


def test_a_stateless_call_goes_to_the_next_worker():
    story = Story(warm=2)
    story.session()
    alive, dead = warm_ones(story)
    story.dies_unseen(dead)
    assert story.stateless().worker == alive
    assert story.workers[dead].stop == "lost"
    story.exits(dead)
    story.rest()


@pytest.mark.parametrize("by_name", [False, True])
def test_who_attaches_to_a_session_whose_worker_is_dead_waits_to_see_it(by_name: bool):
    """By id it is told how the worker died; by name it gets a new session."""
    story = Story()
    holder = named(story)
    story.dies_unseen(holder.worker)
    other = get_or_create(story) if by_name else story.attach(holder.session)
    assert other.waits
    story.exits(holder.worker, status="was killed by SIGSEGV")
    story.rest()
    if by_name:
        assert other.session not in (None, holder.session)
    else:
        assert type(other.error) is WorkerLostError
        assert "was killed by SIGSEGV" in str(other.error)
        assert other.error.end_reason == "worker_lost"


def test_those_who_race_to_get_or_create_on_a_dead_worker_get_one_session_on_the_next():
    story = Story(warm=0, max_workers=4)
    clients = [get_or_create(story) for _ in range(3)]
    story.loads()
    first, *others = story.unborn()
    story.dies_unseen(first)
    story.ready(first)
    story.ready(*others)
    story.rest()
    assert {client.attach.session_id for client in clients} == {clients[0].attach.session_id}
    assert first not in {client.worker for client in clients}


def test_who_attached_to_a_dead_worker_and_left_is_forgotten():
    story = Story()
    holder = story.session()
    story.dies_unseen(holder.worker)
    story.leave(story.attach(holder.session))
    story.exits(holder.worker)
    story.rest()


def test_a_dead_worker_that_is_seen_before_the_failed_hand_over_is():
    story = Story(warm=2)
    holder = story.session()
    request = ev.AttachRequested(story.client().ticket, str(holder.session), None, None, None)
    story.exits(holder.worker, status="was killed by SIGSEGV")
    story.happens(ev.HandOverFailed(holder.worker, request))
    assert type(story.clients[request.ticket].error) is WorkerLostError


# --- lifetimes --------------------------------------------------------------------------------------------------


def limited(lifetime: float = 100.0, timeout: float = 3600, **how: object) -> tuple[Story, Client]:
    story = Story()
    client = story.open(timeout=timeout, **how)
    story.loads(max_lifetime=lifetime)
    story.rest()
    return story, client


def test_a_session_that_is_idle_ends_when_its_lifetime_is_over():
    story, client = limited()
    story.wait(99)
    story.calls(client)
    story.keepalive(client.session)
    story.wait(0.9)
    assert story.workers[client.worker].asked is None
    story.wait(0.2)
    asked = story.workers[client.worker].asked
    assert asked is not None
    assert asked.reason == "max_lifetime", "the app's hook is told what the session records"
    story.rest()
    view = story.look(client.session)
    assert (view.status, view.end_reason) == ("ended", "max_lifetime")


def test_a_window_that_is_over_first_is_the_reason_though_the_lifetime_ends_while_the_worker_is_asked():
    story, client = limited(timeout=99.5)
    story.wait(99.5)
    story.wait(0.5)
    assert story.workers[client.worker].asked is not None
    story.rest()
    assert (story.look(client.session).status, story.look(client.session).end_reason) == ("expired", "idle")


def test_a_session_that_is_busy_outlives_it_until_its_call_is_over():
    """The worker looks after the call: what it says stands."""
    story, client = limited()
    story.wait(50)
    story.begins(client)
    story.wait(500)
    assert story.look(client.session).status == "active"
    assert story.workers[client.worker].asked is None
    story.finishes(client)
    story.leaves(client.worker, "max_lifetime")
    assert story.look(client.session).end_reason == "max_lifetime"


def test_a_session_that_outlived_a_call_and_said_nothing_ends_with_its_window():
    story, client = limited(name=NAME)
    story.begins(client)
    story.wait(200)
    story.finishes(client)
    story.wait(3600.1)
    story.rest()
    view = story.look(client.session)
    assert (view.status, view.end_reason) == ("ended", "max_lifetime")


def test_a_session_that_expires_before_its_lifetime_is_over_expires():
    story = Story()
    client = story.open(timeout=60)
    story.loads(max_lifetime=100)
    story.rest()
    story.wait(60.1)
    story.rest()
    story.wait(60)
    assert (story.look(client.session).status, story.look(client.session).end_reason) == ("expired", "idle")


def test_a_session_that_was_not_idle_when_its_lifetime_was_over_is_asked_again():
    """Part of a call was there, of which nothing came."""
    story, client = limited(name=NAME)
    story.wait(100.1)
    story.busy(client.worker)
    for _ in range(3):
        story.wait(LIFETIME_RECHECK)
        story.busy(client.worker)
        story.keepalive(client.session)
    story.wait(LIFETIME_RECHECK)
    story.rest()
    assert story.look(client.session).end_reason == "max_lifetime"


# --- logs that nobody can ask for -------------------------------------------------------------------------------


def test_the_log_of_each_worker_is_forgotten_once_when_nobody_can_ask_for_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("warmpool.policy.sessions.RECORDS_LIMIT", 2)
    story = Story(warm=1)
    sessions = [story.session() for _ in range(4)]
    stateless = story.stateless()
    story.rest()
    dead = next(w for w in warm_ones(story))
    story.dies_unseen(dead)
    story.open()
    story.exits(dead)
    story.rest()
    assert story.forgotten_logs == [dead], "no session had it"
    story.exits(stateless.worker)
    assert story.forgotten_logs == [dead, stateless.worker]
    for client in sessions:
        story.end(client.session)
        story.rest()
    assert story.forgotten_logs == [dead, stateless.worker, sessions[0].worker, sessions[1].worker]
    assert story.look(sessions[2].session).status == "ended", "so its log is there as well"
