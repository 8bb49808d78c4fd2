"""A call that is to stop: each step of the ladder, by virtual time, and what must not be touched by it."""

from __future__ import annotations

import pytest
from policy.story import Client, Process, Story, kinds

from warmpool.constants import CANCEL_GRACE, DUMP_TIME, QUICK_CANCEL, STOP_GRACE, TERM_GRACE
from warmpool.errors import SessionEndedError, SessionExpiredError, SessionNotFoundError, WarmpoolError
from warmpool.policy import effects as fx
from warmpool.policy import events as ev

TICK = 0.001
STEPS = ("dumped", "terminated", "killed")


def running(story: Story | None = None, **how: object) -> tuple[Story, Client, int]:
    """A session in the middle of a call."""
    story = story or Story()
    client = story.session(**how)
    return story, client, story.begins(client)


def worker_of(story: Story, client: Client) -> Process:
    return story.workers[client.worker]


def steps(story: Story, client: Client) -> list[str]:
    """What has been done to the worker beyond asking."""
    return [step for step in STEPS if getattr(worker_of(story, client), step)]


# --- what is asked for ------------------------------------------------------------------------------------------


def test_the_call_that_runs_is_told_to_stop_and_who_asked_is_told_at_once():
    story, client, call_id = running()
    asking = story.cancel(client.session)
    assert asking.report == {"call_id": call_id, "state": "running"}
    assert worker_of(story, client).cancelled == [call_id]
    assert steps(story, client) == []


def test_the_call_that_runs_may_be_named():
    story, client, call_id = running()
    assert story.cancel(client.session, call_id).report == {"call_id": call_id, "state": "running"}
    assert worker_of(story, client).cancelled == [call_id]


def test_calls_that_have_stopped_leave_nothing_behind():
    story, client, _ = running(timeout=3600)
    sizes = set()
    for _ in range(20):
        story.cancel(client.session)
        story.finishes(client)
        sizes.add(len(story.broker._cancels._ladders))
        story.begins(client)
    assert sizes == {1}
    story.exits(client.worker)
    assert story.broker._cancels._ladders == {}


def test_where_none_runs_there_is_nothing_to_stop():
    story = Story()
    client = story.session()
    assert story.cancel(client.session).report == {"call_id": None, "state": "idle"}
    story.calls(client)
    assert story.cancel(client.session).report == {"call_id": None, "state": "idle"}
    assert worker_of(story, client).cancelled == []
    assert kinds(story.wait(59)) == []


def test_one_that_does_not_run_may_wait_in_the_worker_which_is_told_and_nothing_more():
    story, client, call_id = running()
    for force in (False, True):
        asking = story.cancel(client.session, call_id + 7, force=force)
        assert asking.report == {"call_id": call_id + 7, "state": "waiting"}
    assert worker_of(story, client).cancelled == [call_id + 7] * 2
    story.wait(3600)
    assert steps(story, client) == [], "no ladder for a call that does not run"


@pytest.mark.parametrize("how", ["ended", "expired", "going", "unknown"])
def test_a_session_that_is_over_has_no_calls(how: str):
    story = Story()
    client = story.session(timeout=60)
    errors: dict[str, type[WarmpoolError]] = {
        "ended": SessionEndedError, "expired": SessionExpiredError,
        "going": SessionEndedError, "unknown": SessionNotFoundError,
    }  # fmt: skip
    if how == "expired":
        story.wait(60)
    elif how != "unknown":
        story.end(client.session)
    if how != "going":
        story.rest()
    session = "sess_nobody" if how == "unknown" else client.session
    assert type(story.cancel(session).error) is errors[how]


# --- the ladder -------------------------------------------------------------------------------------------------


def test_a_call_that_does_not_stop_shows_its_stack_is_terminated_and_killed():
    story, client, _ = running()
    story.cancel(client.session)
    for seconds, done in (
        (CANCEL_GRACE - 0.01, []),
        (0.02, ["dumped"]),
        (DUMP_TIME - 0.03, ["dumped"]),
        (0.03, ["dumped", "terminated"]),
        (TERM_GRACE - 0.03, ["dumped", "terminated"]),
        (0.03, ["dumped", "terminated", "killed"]),
    ):
        story.wait(seconds)
        assert steps(story, client) == done
    story.exits(client.worker, status="was killed by SIGKILL after it did not stop in time")
    view = story.look(client.session)
    assert (view.status, view.end_reason) == ("ended", "unresponsive")


def test_the_session_is_over_when_its_worker_is_terminated_and_says_why():
    story, client, _ = running()
    story.cancel(client.session)
    story.wait(CANCEL_GRACE + DUMP_TIME + TICK)
    assert worker_of(story, client).stop == "unresponsive"
    error = story.attach(client.session).error
    assert (type(error), error.end_reason) == (SessionEndedError, "unresponsive")
    story.exits(client.worker, status="was killed by SIGTERM after it did not stop in time")
    story.wait(60)
    assert story.look(client.session).end_reason == "unresponsive"


@pytest.mark.parametrize("moment", [0.0, CANCEL_GRACE - 0.01, CANCEL_GRACE + DUMP_TIME - 0.01])
def test_a_call_that_stops_in_time_ends_it(moment: float):
    story, client, _ = running(timeout=3600)
    story.cancel(client.session)
    story.wait(moment)
    done = steps(story, client)
    story.finishes(client)
    story.wait(60)
    assert steps(story, client) == done
    assert story.look(client.session).status == "active"
    assert repr(story.broker._cancels) == "<Cancels {}>", "nothing is kept of it"


def test_the_next_call_is_not_touched_by_the_cancel_of_the_one_before():
    story, client, first = running(timeout=3600)
    story.cancel(client.session)
    story.wait(1)
    story.finishes(client)
    second = story.begins(client)
    story.wait(3600)
    assert steps(story, client) == []
    assert story.cancel(client.session, first).report["state"] == "waiting"
    story.wait(3600)
    assert steps(story, client) == []
    assert worker_of(story, client).cancelled == [first, first]
    assert story.cancel(client.session).report["call_id"] == second


def test_the_next_call_has_a_ladder_of_its_own():
    story, client, _ = running(timeout=3600)
    story.cancel(client.session)
    story.wait(1)
    story.finishes(client)
    story.begins(client)
    story.cancel(client.session)
    story.wait(CANCEL_GRACE - 0.01)
    assert steps(story, client) == []
    story.wait(0.02)
    assert steps(story, client) == ["dumped"]


def test_an_app_says_for_itself_how_long_a_call_may_take_to_stop():
    story = Story()
    client = story.open()
    story.loads(cancel_grace=0.2)
    story.rest()
    story.begins(client)
    story.cancel(client.session)
    story.wait(0.2 - TICK)
    assert steps(story, client) == []
    story.wait(2 * TICK)
    assert steps(story, client) == ["dumped"]


def test_force_gives_no_time():
    story, client, call_id = running()
    assert story.cancel(client.session, force=True).report == {"call_id": call_id, "state": "running"}
    story.wait(TICK)
    assert steps(story, client) == ["dumped"]
    story.wait(DUMP_TIME + TICK)
    assert steps(story, client) == ["dumped", "terminated"]


def test_to_ask_once_more_gives_no_more_time():
    story, client, _ = running()
    for _ in range(9):
        story.cancel(client.session)
        story.wait(1)
    story.cancel(client.session)
    story.wait(CANCEL_GRACE - 9 + TICK)
    assert steps(story, client) == ["dumped"]


@pytest.mark.parametrize("moment", [1.0, CANCEL_GRACE + TICK])
def test_force_hurries_a_ladder_that_has_begun_and_does_not_begin_it_again(moment: float):
    story, client, _ = running()
    story.cancel(client.session)
    story.wait(moment)
    story.cancel(client.session, force=True)
    story.wait(DUMP_TIME + 2 * TICK)
    assert steps(story, client) == ["dumped", "terminated"]


def test_a_worker_that_dies_on_the_ladder_leaves_nothing_of_it():
    story, client, _ = running()
    story.cancel(client.session)
    story.exits(client.worker, status="was killed by SIGSEGV")
    assert story.look(client.session).end_reason == "worker_lost"
    story.wait(60)
    assert repr(story.broker._cancels) == "<Cancels {}>"


def test_the_ladders_of_two_sessions_are_their_own():
    story, one, _ = running(timeout=3600)
    other = story.session(timeout=3600)
    story.begins(other)
    story.cancel(one.session)
    story.wait(5)
    story.cancel(other.session)
    story.finishes(other)
    story.wait(CANCEL_GRACE)
    assert steps(story, one) == list(STEPS)
    assert steps(story, other) == []


# --- to end a session in the middle of a call -------------------------------------------------------------------


def test_to_end_a_session_cancels_its_call_and_waits_for_it_before_it_is_killed():
    story, client, call_id = running()
    ending = story.end(client.session)
    worker = worker_of(story, client)
    assert worker.cancelled == [call_id]
    assert worker.stop == "client"
    story.wait(STOP_GRACE + 1)
    assert steps(story, client) == [], "an idle one would have been killed by now"
    story.finishes(client)
    story.wait(CANCEL_GRACE)
    story.exits(client.worker)
    assert ending.view.end_reason == "client"


def test_who_is_to_end_is_told_before_its_call_is_cancelled_so_that_no_other_begins():
    story, client, _ = running()
    effects = story.happens(ev.EndRequested((99, 1), str(client.session)))
    assert [type(one) for one in effects if isinstance(one, fx.Tell | fx.Cancel)] == [fx.Tell, fx.Cancel]


def test_to_end_a_session_whose_call_does_not_stop_kills_it_and_the_reason_stands():
    story, client, _ = running()
    ending = story.end(client.session)
    story.wait(CANCEL_GRACE + DUMP_TIME + TERM_GRACE + 3 * TICK)
    assert steps(story, client) == ["dumped", "terminated", "killed"]
    story.exits(client.worker)
    assert (ending.view.status, ending.view.end_reason) == ("ended", "client")


def test_one_that_stops_its_call_and_then_hangs_in_its_hooks_is_killed_all_the_same():
    story, client, _ = running()
    story.end(client.session)
    story.wait(1)
    story.finishes(client)
    story.wait(CANCEL_GRACE + STOP_GRACE)
    assert steps(story, client) == ["killed"]


@pytest.mark.parametrize("busy", [False, True])
def test_to_end_by_force_kills_at_once(busy: bool):
    story = Story()
    client = story.session()
    if busy:
        story.begins(client)
    ending = story.end(client.session, force=True)
    assert steps(story, client) == ["killed"]
    assert worker_of(story, client).cancelled == []
    assert ending.waits, "it is answered when the worker is gone"
    story.exits(client.worker)
    assert ending.view.end_reason == "client"


def test_force_comes_through_while_an_end_without_it_waits_for_a_call():
    story, client, _ = running()
    patient = story.end(client.session)
    story.wait(1)
    hurried = story.end(client.session, force=True)
    assert steps(story, client) == ["killed"]
    story.exits(client.worker)
    assert patient.view == hurried.view


def test_a_daemon_that_stops_gives_a_call_little_time():
    story, client, call_id = running()
    story.stop()
    assert worker_of(story, client).cancelled == [call_id]
    story.wait(QUICK_CANCEL + TICK)
    assert steps(story, client) == ["dumped"]
    story.wait(DUMP_TIME + TERM_GRACE + 2 * TICK)
    assert steps(story, client) == list(STEPS)
    assert not story.exited
    story.exits()
    assert story.exited


def test_a_daemon_that_stops_hurries_a_call_that_was_cancelled_patiently():
    story, client, _ = running()
    story.cancel(client.session)
    story.wait(1)
    story.stop()
    story.wait(QUICK_CANCEL + TICK)
    assert steps(story, client) == ["dumped"]


# --- calls without a session ----------------------------------------------------------------------------------------


def test_one_without_a_session_is_known_by_its_worker_and_taken_up_the_same_ladder():
    story = Story()
    client = story.stateless()
    story.rest()
    call_id = story.begins(client)
    assert story.cancel_stateless(client.worker, call_id).report == {"call_id": call_id, "state": "running"}
    assert worker_of(story, client).cancelled == [call_id]
    for seconds, done in (
        (CANCEL_GRACE - TICK, []),
        (2 * TICK, ["dumped"]),
        (DUMP_TIME, ["dumped", "terminated"]),
        (TERM_GRACE, ["dumped", "terminated", "killed"]),
    ):
        story.wait(seconds)
        assert steps(story, client) == done
    assert worker_of(story, client).stop == "unresponsive"
    story.exits(client.worker, status="was killed by SIGKILL after it did not stop in time")
    assert story.cancel_stateless(client.worker, call_id).report == {"call_id": call_id, "state": "idle"}


def test_a_daemon_that_stops_cancels_it_too():
    story = Story()
    client = story.stateless()
    story.rest()
    call_id = story.begins(client)
    story.stop()
    assert worker_of(story, client).cancelled == [call_id]
    story.wait(QUICK_CANCEL + TICK)
    assert steps(story, client) == ["dumped"]


def test_one_that_does_not_stop_is_told_of_in_the_log_with_what_it_wrote():
    story = Story()
    client = story.stateless()
    story.rest()
    story.cancel_stateless(client.worker, story.begins(client))
    story.wait(CANCEL_GRACE + DUMP_TIME + 2 * TICK)
    story.exits(client.worker, status="was killed by SIGTERM", last_lines=("File hog.py",))
    whose = f"app counter: {client.worker}, in a call without a session,"
    assert story.logs[-2:] == [
        f"{whose} did not stop: SIGTERM, and SIGKILL 1 s later",
        f"{whose} was killed by SIGTERM; it wrote last:\n  File hog.py",
    ]


def test_a_worker_that_leaves_of_its_own_accord_is_no_news():
    story = Story()
    client = story.stateless()
    story.rest()
    before = list(story.logs)
    story.leaves(client.worker, "max_calls")
    story.exits(client.worker)
    assert story.logs == before


def test_one_that_stops_leaves_its_worker_to_the_next_client():
    story = Story()
    client = story.stateless()
    story.rest()
    call_id = story.begins(client)
    story.cancel_stateless(client.worker, call_id)
    story.finishes(client)
    story.released(client)
    other = story.stateless()
    assert other.worker == client.worker
    second = story.begins(other)
    assert story.cancel_stateless(other.worker, call_id).report == {"call_id": call_id, "state": "waiting"}
    story.wait(3600)
    assert steps(story, other) == [], f"call {second} is another's"
