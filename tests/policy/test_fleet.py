"""Templates and workers: started when they are wanted, shared in the order of arrival, replaced after an edit, given
back when nobody needs them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy.story import NOTHING, PLENTY, Client, Story, kinds

from warmpool.constants import BACKOFF_FIRST, BACKOFF_LIMIT, MEMORY_RECHECK, REFILL_QUIET, SPARE_IDLE, STOP_GRACE
from warmpool.errors import AppBrokenError, PoolExhaustedError, VersionMismatchError
from warmpool.policy import effects as fx
from warmpool.policy import events as ev

# --- the first open ---------------------------------------------------------------------------------------------


def test_the_first_open_starts_a_template_then_a_worker_and_is_handed_over():
    story = Story()
    client = story.open("counter")
    assert story.pool() == "<Pool p_1 loading [workers: 0, 0 starting, 0 warm, 0 spare | waiting: 1]>"
    assert story.loading("counter") == ["p_1"]

    story.loads()
    assert story.pool() == "<Pool p_1 ready [workers: 2, 2 starting, 0 warm, 0 spare | waiting: 1]>"
    assert client.waits

    story.ready("w_2")
    assert story.pool() == "<Pool p_1 ready [workers: 2, 1 starting, 0 warm, 0 spare | waiting: 0]>"
    assert client.worker == "w_2"
    assert client.attach == (client.session, "/home", {}, 0, story.now)

    story.ready("w_3")
    assert story.pool() == "<Pool p_1 ready [workers: 2, 0 starting, 1 warm, 0 spare | waiting: 0]>"


def test_the_next_open_gets_the_warm_worker_at_once_and_another_is_made():
    story = Story()
    first, second = story.session(), story.open()
    assert second.worker != first.worker
    assert story.pool() == "<Pool p_1 ready [workers: 3, 1 starting, 0 warm, 0 spare | waiting: 0]>"
    assert story.starts == ["/apps/counter.py"]


def test_opens_while_the_app_loads_share_its_template():
    story = Story()
    clients = [story.open() for _ in range(3)]
    assert story.starts == ["/apps/counter.py"]
    story.loads()
    assert len(story.unborn()) == 4
    story.rest()
    assert len({client.worker for client in clients}) == 3


def test_apps_have_templates_of_their_own():
    story = Story()
    counter, chat = story.open("counter"), story.open("chat")
    assert story.starts == ["/apps/counter.py", "/apps/chat.py"]
    story.rest()
    assert counter.worker in story.of_app("counter")
    assert chat.worker in story.of_app("chat")


@pytest.mark.parametrize("warm", [0, 1, 3])
def test_as_many_workers_are_kept_warm_as_the_app_wants(warm):
    story = Story(warm=2)
    story.open()
    story.loads(warm=warm)
    story.rest()
    assert story.pool() == f"<Pool p_1 ready [workers: {1 + warm}, 0 starting, {warm} warm, 0 spare | waiting: 0]>"


def test_the_youngest_warm_worker_is_given_out_first():
    story = Story(warm=3)
    story.session()
    assert [story.open().worker for _ in range(3)] == ["w_5", "w_4", "w_3"]


def test_an_app_that_does_not_say_how_many_gets_the_daemons_number():
    story = Story(warm=2)
    story.session()
    assert "2 warm" in story.pool()


def test_a_worker_whose_opener_has_left_stays_as_a_warm_one_or_goes():
    story = Story()
    client = story.open()
    story.loads()
    story.leave(client)
    story.ready()
    assert story.pool() == "<Pool p_1 ready [workers: 2, 0 starting, 1 warm, 0 spare | waiting: 0]>"
    assert len(story.told_to_stop()) == 1


def test_a_warm_worker_that_dies_is_replaced_each_time_a_little_later():
    """One that does so by itself would be replaced for ever, as fast as the machine can."""
    story = Story()
    story.session(timeout=3600)
    for delay in (0.5, 1, 2, 4, 8, 16, 30, 30):
        (warm,) = [w.id for w in story.workers.values() if not w.is_used]
        story.exits(warm, status="was killed by SIGKILL")
        assert f"idle worker {warm} was killed by SIGKILL; the next is made in {delay:g} s" in story.logs[-1]
        story.wait(delay - 0.01)
        assert "0 starting, 0 warm" in story.pool()
        story.wait(0.01)
        story.ready()
    story.session(timeout=3600)
    story.wait(REFILL_QUIET)
    story.ready()
    story.exits(*[w.id for w in story.workers.values() if not w.is_used], status="was killed by SIGKILL")
    assert "the next is made in 0.5 s" in story.logs[-1]


def test_who_asks_does_not_wait_for_the_pause_of_a_worker_that_died_idle():
    story = Story()
    story.session()
    story.exits(*[w.id for w in story.workers.values() if not w.is_used])
    assert story.unborn() == []
    story.open()
    assert len(story.unborn()) == 1


# --- limits -----------------------------------------------------------------------------------------------------


def test_at_the_daemons_limit_opens_wait_and_are_served_in_the_order_of_arrival_over_all_apps():
    story = Story(max_workers=2, warm=0)
    first, second = story.session("counter"), story.session("chat")
    waiting = [story.open(app) for app in ("counter", "chat", "chat", "counter")]
    story.rest()
    assert [client.waits for client in waiting] == [True] * 4
    for client in [first, second, *waiting[:2]]:
        story.end(client.session)
        story.rest()
    assert all(client.worker for client in waiting)
    served = [effect for client in waiting for effect in client.heard]
    births = [int(effect.worker.removeprefix("w_")) for effect in served]
    assert births == sorted(births), "one who came later was served first"


def test_the_limit_is_never_exceeded_by_warm_workers():
    story = Story(max_workers=2, warm=2)
    story.session()
    assert len(story.workers) == 2


def test_at_the_limit_an_idle_worker_of_another_app_makes_room():
    story = Story(max_workers=2)
    story.session("counter")
    assert len(story.workers) == 2
    client = story.open("chat")
    story.loads()
    (idle,) = story.told_to_stop()
    assert idle in story.of_app("counter")
    assert client.waits
    story.exits()
    story.ready()
    assert client.worker in story.of_app("chat")


def test_no_more_idle_workers_go_than_are_needed():
    story = Story(max_workers=4)
    story.session("counter")
    story.session("chat")
    assert len(story.workers) == 4
    client = story.open("poll")
    story.loads()
    assert len(story.told_to_stop()) == 1
    story.happens(ev.ConnectionClosed(99))
    story.wait(1)
    assert len(story.told_to_stop()) == 1, "to look again changes nothing"
    story.exits()
    story.ready()
    assert client.worker


def test_room_is_made_each_time_that_it_is_needed():
    story = Story(max_workers=3, warm=2)
    story.session("counter")
    for app in ("chat", "poll"):
        client = story.open(app)
        story.loads(warm=0)
        assert len(story.told_to_stop()) == 1
        story.rest()
        assert client.worker


def test_sessions_are_never_evicted():
    story = Story(max_workers=2, warm=0)
    holders = [story.session("counter"), story.session("counter")]
    client = story.open("chat", patience=5)
    story.rest()
    story.wait(10)
    assert type(client.error) is PoolExhaustedError
    assert all(story.is_alive(holder) for holder in holders)


def test_one_who_waits_for_his_own_apps_limit_does_not_hold_up_others():
    story = Story(max_workers=4, warm=0)
    story.open("counter")
    story.loads(max_workers=1)
    story.rest()
    late_counter, chat = story.open("counter"), story.open("chat")
    story.rest()
    assert late_counter.waits
    assert chat.worker


def test_an_apps_own_limit_holds_over_its_editions():
    story = Story(warm=0)
    old = story.open("counter", 1)
    story.loads(max_workers=1)
    story.rest()
    new = story.open("counter", 2)
    story.loads(max_workers=1)
    story.rest()
    assert new.waits
    assert len(story.of_app("counter")) == 1
    story.end(old.session)
    story.rest()
    assert new.worker in story.of_app("counter")
    assert len(story.of_app("counter")) == 1


def test_at_the_apps_own_limit_its_own_idle_worker_makes_room_for_a_session():
    story = Story(warm=0)
    client = story.stateless()
    story.loads(max_workers=1)
    story.rest()
    spare = story.released(client)
    waiting = story.open()
    assert story.told_to_stop() == [spare]
    story.rest()
    assert waiting.worker != spare


def test_idle_workers_of_other_apps_are_left_alone_when_the_limit_is_the_apps_own():
    story = Story()
    story.session("chat")
    story.open("counter")
    story.loads(warm=0, max_workers=1)
    story.rest()
    waiting = story.open("counter")
    story.rest()
    assert waiting.waits
    assert "1 warm" in story.pool("chat")


def test_a_worker_of_another_app_that_goes_makes_no_room_under_the_apps_own_limit():
    """One that hangs in its hook must not keep the app's own idle worker from making room."""
    story = Story(warm=0)
    other = story.session("chat")
    client = story.stateless("counter")
    story.loads(max_workers=1)
    story.rest()
    spare = story.released(client)
    story.end(other.session)
    story.open("counter")
    assert spare in story.told_to_stop()


def test_when_room_comes_it_goes_to_waiters_before_warm_targets():
    story = Story(max_workers=2, warm=1)
    first = story.session("counter")
    second = story.session("chat")
    waiting = [story.open("poll"), story.open("counter")]
    story.rest()
    assert [client.waits for client in waiting] == [True, True]
    story.end(first.session)
    story.end(second.session)
    story.rest()
    assert [bool(client.worker) for client in waiting] == [True, True]


# --- memory -----------------------------------------------------------------------------------------------------


def test_no_worker_is_forked_while_memory_is_short_and_it_is_looked_at_again_after_a_second():
    story = Story()
    client = story.open()
    story.free_memory = NOTHING
    story.loads()
    assert story.workers == {}
    story.wait(5.5)
    assert client.waits
    story.free_memory = PLENTY
    effects = story.wait(MEMORY_RECHECK)
    assert "Fork" in kinds(effects)
    story.rest()
    assert client.worker


def test_memory_is_not_looked_at_while_nobody_wants_a_worker():
    story = Story(warm=0)
    story.session(timeout=3600)
    story.free_memory = NOTHING
    story.open()
    story.wait(31)
    deadline = story.broker.next_deadline()
    assert deadline is not None
    assert deadline > story.now + MEMORY_RECHECK


def test_warm_workers_serve_while_memory_is_short():
    story = Story()
    story.session()
    story.free_memory = NOTHING
    assert story.open().worker
    assert "0 starting, 0 warm" in story.pool()


def test_who_waits_while_memory_is_short_is_told_so_in_the_end():
    story = Story()
    story.free_memory = NOTHING
    client = story.open(patience=10)
    story.loads()
    story.wait(11)
    assert type(client.error) is PoolExhaustedError
    assert "memory" in client.error.message


# --- no room for a process --------------------------------------------------------------------------------------


def test_a_fork_that_the_machine_has_no_room_for_is_tried_again_after_a_second():
    story = Story(warm=0)
    client = story.open()
    story.loads()
    for _ in range(5):
        (worker,) = story.unborn()
        story.refuse_fork(worker)
        assert story.workers == {}, "it is not tried again at once"
        assert client.waits, "and nobody is to blame"
        story.wait(MEMORY_RECHECK)
    story.rest()
    assert client.worker
    assert "is broken" not in "".join(story.logs)
    assert len([line for line in story.logs if "no worker could be made" in line]) == 1


def test_an_app_that_the_machine_has_no_room_for_is_tried_again_after_a_second_and_not_called_broken():
    story = Story(warm=0)
    client, curious = story.open(), story.describe()
    for turn in range(3):
        story.has_no_room_to_load()
        assert story.loading() == [], "it is not tried again at once"
        story.open()
        assert story.loading() == [], "nor by the next who comes"
        assert type(curious.error) is PoolExhaustedError
        assert "counter cannot be started for now, ask again: no process is to be had" in curious.error.message
        assert type(story.describe().error) is PoolExhaustedError
        story.wait(MEMORY_RECHECK)
        assert client.waits, turn
    story.rest()
    assert client.worker
    assert "is broken" not in "".join(story.logs)
    assert len([line for line in story.logs if "cannot be started" in line]) == 1


def test_an_edit_that_there_is_no_room_for_is_not_called_broken():
    story = Story(warm=0)
    story.session()
    client = story.open(revision=2, patience=0.5)
    story.has_no_room_to_load()
    story.wait(0.6)
    assert type(client.error) is PoolExhaustedError
    assert "no process is to be had" in client.error.message
    later = story.open(revision=2)
    story.wait(MEMORY_RECHECK)
    story.rest()
    (told,) = later.heard
    assert (told.opened.version, told.opened.notice) == ("v2", None)


def test_while_there_is_no_room_for_an_edit_the_version_before_gives_what_it_has():
    story = Story(warm=3)
    story.session()
    story.rest()
    clients = [story.open(revision=2), story.open(revision=2, version="v2")]
    story.has_no_room_to_load()
    clients.append(story.open(revision=2))
    story.rest()
    told = [(c.heard[0].opened.version, c.heard[0].opened.notice) if c.heard else None for c in clients]
    notice = "the last edit of app counter cannot be loaded for now, version v1 serves: no process is to be had"
    assert told == [("v1", notice), None, ("v1", notice)]
    story.wait(MEMORY_RECHECK)
    story.rest()
    assert clients[1].heard[0].opened.version == "v2"


def test_an_app_that_is_served_is_loaded_when_there_is_room():
    story = Story()
    story.warm_up()
    for _ in range(2):
        story.has_no_room_to_load()
        story.wait(MEMORY_RECHECK)
    story.rest()
    assert "1 warm" in story.pool()


def test_who_waits_while_there_is_no_room_is_told_so_in_the_end():
    story = Story(warm=0)
    client = story.open(patience=0.5)
    story.loads()
    story.refuse_fork(*story.unborn(), why="the daemon is out of file descriptors")
    story.wait(0.6)
    assert type(client.error) is PoolExhaustedError
    assert "out of file descriptors" in client.error.message


def test_a_worker_that_was_asked_for_before_says_nothing_of_the_room_that_there_is():
    story = Story(warm=0)
    story.open()
    client = story.open(patience=0.5)
    story.loads()
    first, second = story.unborn()
    story.refuse_fork(second, why="the daemon is out of file descriptors")
    story.ready(first)
    story.wait(0.6)
    assert "out of file descriptors" in client.error.message


def test_who_waits_since_the_daemon_is_full_is_not_told_of_the_room_that_there_was_not_before():
    story = Story(warm=0, max_workers=2)
    client = story.open(app="counter", patience=5)
    story.loads()
    story.refuse_fork(*story.unborn(), why="the daemon is out of file descriptors")
    for _ in range(2):
        story.session("chat")
    story.wait(5.1)
    assert "2 of 2 workers are in use" in client.error.message


def test_an_app_that_is_refused_a_fork_holds_no_other_up():
    story = Story(warm=0)
    story.open(app="counter")
    story.loads()
    story.refuse_fork(*story.unborn())
    other = story.open(app="chat")
    story.loads()
    story.ready()
    assert other.worker


# --- who waits too long -----------------------------------------------------------------------------------------


def test_an_open_waits_as_long_as_it_wants_to_and_is_told_why_it_waited():
    story = Story(max_workers=1, warm=0)
    story.session("counter", timeout=600)
    client = story.open("counter", patience=30)
    story.wait(29.9)
    assert client.waits
    story.wait(0.2)
    assert type(client.error) is PoolExhaustedError
    assert "no worker of app counter was free within 30 s" in client.error.message
    assert "1 of 1 workers are in use" in client.error.message
    assert "open_timeout" in client.error.message


def test_an_open_that_waits_for_an_import_is_told_so():
    story = Story()
    client = story.open(patience=3)
    story.wait(4)
    assert "still being imported" in client.error.message


def test_an_open_that_waits_for_its_apps_own_limit_is_told_so():
    story = Story(max_workers=100, warm=0)
    story.open()
    story.loads(max_workers=1)
    story.rest()
    client = story.open(patience=3)
    story.wait(4)
    assert type(client.error) is PoolExhaustedError
    assert "of 100 workers" not in client.error.message, "it is the app's limit that was reached, not the daemon's"


def test_an_open_that_waits_for_a_setup_is_told_so():
    story = Story(max_workers=100, warm=0)
    client = story.open(patience=3)
    story.loads()
    story.wait(4)
    assert type(client.error) is PoolExhaustedError
    assert "of 100 workers" not in client.error.message, "it was not for want of room"


def test_an_open_that_will_not_wait_is_served_if_a_worker_is_ready_and_refused_if_not():
    story = Story(max_workers=2)
    story.session()
    assert story.open(patience=0).worker
    late = story.open(patience=0)
    story.wait(0.01)
    assert type(late.error) is PoolExhaustedError


def test_one_who_has_left_the_line_is_passed_over():
    story = Story(max_workers=1, warm=0)
    holder = story.session()
    gone, waits = story.open(), story.open()
    story.leave(gone)
    story.end(holder.session)
    story.rest()
    assert waits.worker
    story.wait(100)
    assert gone.heard == []


def test_one_who_was_refused_is_passed_over():
    story = Story(max_workers=1, warm=0)
    holder = story.session(timeout=600)
    impatient, patient = story.open(patience=1), story.open(patience=60)
    story.wait(2)
    assert type(impatient.error) is PoolExhaustedError
    story.end(holder.session)
    story.rest()
    assert patient.worker


# --- broken apps ------------------------------------------------------------------------------------------------


def test_who_waits_for_an_app_that_cannot_be_imported_gets_its_error():
    story = Story()
    clients = [story.open(), story.open()]
    story.does_not_load(text="no module named nump")
    for client in clients:
        assert type(client.error) is AppBrokenError
        assert client.error.remote_message == "no module named nump"
        assert "app.py, line 1" in client.error.traceback
    assert story.templates == {}
    assert any("no module named nump" in line for line in story.logs)


def test_a_broken_app_is_not_tried_again_before_its_pause_is_over():
    story = Story()
    story.open()
    story.does_not_load()
    story.wait(BACKOFF_FIRST - 0.01)
    assert type(story.open().error) is AppBrokenError
    assert len(story.starts) == 1
    story.wait(0.02)
    client = story.open()
    assert len(story.starts) == 2
    story.rest()
    assert client.worker


def test_the_pause_doubles_up_to_its_limit():
    story = Story()
    story.open()
    for tries, pause in enumerate([0.5, 1, 2, 4, 8, 16, 30, 30, 30], start=1):
        story.does_not_load()
        story.wait(pause - 0.001)
        story.open()
        assert len(story.starts) == tries
        story.wait(0.002)
        story.open()
        assert len(story.starts) == tries + 1
    assert (BACKOFF_FIRST, BACKOFF_LIMIT) == (0.5, 30)


def test_calls_without_a_session_are_served_during_the_pause_too_by_a_worker_that_is_free():
    story = Story(warm=1)
    story.warm_up()
    story.loads(warm=1)
    story.ready()
    first = story.stateless()
    story.setup_fails()
    story.rest()
    story.released(first)
    assert type(story.open().error) is AppBrokenError
    assert story.stateless().worker == first.worker


def test_an_edit_ends_the_pause():
    story = Story()
    for _ in range(4):
        story.open("counter", 1)
        story.does_not_load()
        story.wait(30)
    story.open("counter", 2)
    assert len(story.starts) == 5
    story.does_not_load()
    story.wait(BACKOFF_FIRST + 0.01)
    story.open("counter", 2)
    assert len(story.starts) == 6, "the pause of an edition begins anew"


def test_once_it_has_worked_the_pause_begins_anew():
    story = Story(app_idle_timeout=5)
    for _ in range(4):
        story.open()
        story.does_not_load()
        story.wait(30)
    holder = story.session()
    story.end(holder.session)
    story.rest()
    story.wait(20)
    story.rest()
    assert story.templates == {}, "the app has been given back"
    story.open()
    story.does_not_load()
    story.wait(BACKOFF_FIRST + 0.01)
    story.open()
    assert len(story.loading()) == 1


def test_a_template_that_dies_while_it_imports_is_a_broken_app():
    story = Story()
    client = story.open()
    story.template_dies()
    assert type(client.error) is AppBrokenError
    assert "its template was killed by SIGSEGV while it imported or preloaded the app" in client.error.message


def test_an_import_that_never_ends_is_a_broken_app():
    story = Story(start_timeout=100)
    client = story.open(patience=200)
    story.wait(99.9)
    assert client.waits
    story.wait(0.2)
    assert type(client.error) is AppBrokenError
    assert "longer than 100 s" in client.error.message
    assert story.templates == {}


def test_a_setup_that_fails_is_a_broken_app():
    story = Story()
    clients = [story.open(), story.open()]
    story.loads()
    worker = story.setup_fails(story.unborn()[0], text="no model file")
    for client in clients:
        assert type(client.error) is AppBrokenError
        assert client.error.remote_message == "no model file"
    assert worker in story.told_to_stop()
    assert story.templates == {}, "an edition that never worked is given up"
    assert type(story.open().error) is AppBrokenError
    story.ready()
    story.exits()
    assert story.workers == {}


def test_a_setup_that_dies_is_a_broken_app():
    story = Story(warm=0)
    client = story.open()
    story.loads()
    (worker,) = story.unborn()
    story.forked(worker)
    story.exits(worker, status="was killed by SIGSEGV")
    assert type(client.error) is AppBrokenError
    assert "its worker was killed by SIGSEGV while it was set up" in client.error.message


def test_a_setup_that_never_ends_is_a_broken_app_and_its_worker_is_killed():
    story = Story(warm=0, start_timeout=100)
    client = story.open(patience=200)
    story.loads()
    (worker,) = story.unborn()
    story.forked(worker)
    story.wait(99.9)
    assert client.waits
    story.wait(0.2)
    assert type(client.error) is AppBrokenError
    assert story.workers[worker].killed


def test_one_try_of_an_edition_is_one_failure_however_many_workers_fail():
    story = Story(warm=4)
    story.open()
    story.loads()
    for worker in story.unborn():
        story.setup_fails(worker)
    story.exits()
    story.wait(BACKOFF_FIRST + 0.01)
    story.open()
    assert len(story.starts) == 2, "the pause after the first try is the first pause"


def test_workers_of_a_sound_edition_that_fail_together_are_one_failure():
    story = Story(warm=4)
    story.session()
    story.exits(*[w.id for w in story.workers.values() if not w.is_used], status="was killed by SIGKILL")
    for worker in story.unborn():
        story.exits(story.setup_fails(worker))
    assert story.unborn() == []
    story.wait(BACKOFF_FIRST + 0.01)
    story.open()
    assert len(story.unborn()) == 5


def test_a_worker_that_was_never_born_is_nobodys_failure():
    story = Story(warm=0)
    client = story.open()
    story.loads()
    (worker,) = story.unborn()
    story.exits(worker, status="was never born: its template died")
    assert client.waits
    story.rest()
    assert client.worker


@pytest.mark.parametrize("is_seen_first", [False, True])
def test_workers_that_die_with_their_template_before_they_are_born_are_one_failure_of_it(is_seen_first: bool):
    story = Story(warm=0)
    clients = [story.open() for _ in range(5)]
    story.loads()
    asked_for = story.unborn()
    assert len(asked_for) == 5
    if is_seen_first:
        story.template_dies()
    for worker in asked_for:
        story.exits(worker, status="was never born: its template died")
    if not is_seen_first:
        again = story.unborn()
        story.template_dies()
        story.exits(*again, status="was never born: its template died")
    assert [client.error for client in clients if client.heard] == []
    story.rest()
    assert all(client.worker for client in clients)


def test_an_app_of_which_no_attempt_makes_a_worker_is_broken():
    story = Story(warm=0)
    clients = [story.open() for _ in range(5)]
    for _ in range(3):
        story.loads()
        story.template_dies()
        for worker in story.unborn():
            story.exits(worker, status="was never born: its template died")
    assert {client.error.code for client in clients} == {"APP_BROKEN"}
    assert story.loading() == []


@pytest.mark.parametrize("threads", [(), ("Thread-1",)], ids=["forked", "each in a process of its own"])
def test_what_a_dead_template_has_not_made_is_known_before_another_is_tried(threads):
    """Or each of them could be the death of one more. Of those that are not made by a template nothing can be learnt."""
    story = Story(warm=1)
    client = story.open()
    story.loads(threads=threads)
    first, second = story.unborn()
    story.template_dies()
    story.exits(first, status="was never born: its template died")
    assert bool(story.loading()) is bool(threads)
    story.exits(second, status="was never born: its template died")
    assert client.waits
    assert len(story.loading()) == 1


def test_a_template_that_loads_again_is_no_proof_that_the_setup_works():
    story = Story(warm=0)
    story.session()
    story.open()
    (worker,) = story.unborn()
    story.forked(worker)
    story.template_dies()
    story.setup_fails(worker)
    story.loads()
    story.exits()
    assert type(story.open().error) is AppBrokenError
    assert story.unborn() == []


def test_an_edition_that_has_worked_stays_when_a_later_setup_fails():
    story = Story()
    holder = story.session()
    story.end(holder.session)
    story.rest()
    assert story.open().worker
    story.setup_fails()
    assert len(story.loaded()) == 1
    assert type(story.open().error) is AppBrokenError
    story.exits()
    story.wait(BACKOFF_FIRST + 0.01)
    client = story.open()
    story.rest()
    assert client.worker


# --- edits ------------------------------------------------------------------------------------------------------


def test_an_edit_takes_over_at_its_first_ready_worker():
    story = Story()
    old = story.session("counter", 1)
    (warm_old,) = [w.id for w in story.workers.values() if not w.is_used]
    new = story.open("counter", 2)
    assert new.waits, "the newest files are what a new session gets"
    story.loads()
    assert story.told_to_stop() == [], "the edition before is kept until this one is proven"
    assert story.pool() == "<Pool p_1 ready [workers: 2, 0 starting, 1 warm, 0 spare | waiting: 0]>"
    story.ready(story.unborn()[0])
    assert story.workers[new.worker].pool == "p_4"
    assert story.told_to_stop() == [warm_old]
    assert story.loaded() == ["p_4"]
    story.rest()
    assert story.is_alive(old), "living sessions keep their version"
    assert story.look(old.session).version == "v1"
    assert story.look(new.session).version == "v2"
    assert any("version v2 serves now, v1 before" in line for line in story.logs)


def test_a_session_goes_on_with_the_old_version_until_it_ends():
    story = Story()
    old = story.session("counter", 1, timeout=60)
    story.session("counter", 2, timeout=600)
    story.calls(old)
    story.wait(59)
    again = story.attach(old.session)
    assert again.worker == old.worker
    story.end(old.session)
    story.rest()
    assert story.look(old.session).version == "v1"
    assert len(story.broker.fleet.editions.pools) == 1, "the old edition is forgotten with its last worker"


def test_a_broken_edit_leaves_the_version_before_serving_with_a_notice():
    story = Story()
    story.session("counter", 1)
    client = story.open("counter", 2)
    story.does_not_load(text="bad indent")
    story.rest()
    assert story.workers[client.worker].pool == "p_1"
    assert client.notice is not None
    assert "the last edit of app counter is broken, version v1 serves" in client.notice
    assert "bad indent" in client.notice
    assert "app.py, line 1" in client.notice


def test_while_the_edit_is_broken_each_open_is_served_by_the_version_before_with_a_notice():
    story = Story()
    story.session("counter", 1)
    story.open("counter", 2)
    story.does_not_load(text="bad indent")
    client = story.open("counter", 2)
    story.rest()
    assert story.workers[client.worker].pool == "p_1"
    assert "bad indent" in str(client.notice)
    assert len(story.starts) == 2


def test_the_pause_of_a_broken_edit_is_not_ended_by_a_worker_of_the_version_before():
    story = Story()
    story.session("counter", 1)
    for _ in range(5):
        story.open("counter", 2)
        for pool in story.loading():
            story.does_not_load(pool)
        story.ready()
    assert len(story.starts) == 2, "one for each edition: the broken one is in its pause"


def test_an_edit_whose_setup_fails_leaves_the_version_before_serving():
    story = Story()
    story.session("counter", 1)
    client = story.open("counter", 2)
    story.loads()
    story.setup_fails(story.unborn()[0])
    story.rest()
    assert story.workers[client.worker].pool == "p_1"
    assert "no model file" in str(client.notice)


def test_the_edit_after_a_broken_one_takes_over_and_clears_the_notice():
    story = Story()
    story.session("counter", 1)
    story.open("counter", 2)
    story.does_not_load()
    client = story.open("counter", 3)
    story.rest()
    assert client.notice is None
    assert story.look(client.session).version == "v3"


def test_who_waits_for_the_version_before_with_a_notice_and_gets_the_next_edit_after_all_has_none():
    story = Story(max_workers=2, warm=0)
    holders = [story.session("counter", 1, timeout=600) for _ in range(2)]
    client = story.open("counter", 2, patience=60)
    story.does_not_load()
    story.open("counter", 3, patience=60)
    story.loads()
    for holder in holders:
        story.end(holder.session)
    story.exits()
    _, of_the_edit = story.unborn()
    story.ready(of_the_edit)
    story.rest()
    assert story.look(client.session).version == "v3"
    assert client.notice is None


def test_who_waits_for_an_edit_that_is_edited_again_gets_the_newest():
    story = Story()
    first, second = story.open("counter", 1), story.open("counter", 2)
    assert story.starts == ["/apps/counter.py"] * 2
    assert len(story.templates) == 1, "the template of the edition that nobody wants is stopped"
    story.rest()
    assert story.look(first.session).version == "v2"
    assert story.look(second.session).version == "v2"


def test_who_waits_for_the_version_before_moves_on_with_the_edit_in_the_order_of_arrival():
    story = Story(max_workers=1, warm=0)
    holder = story.session("counter", 1, timeout=600)
    old = story.open("counter", 1, patience=60)
    new = story.open("counter", 2, patience=60)
    story.rest()
    assert old.waits
    assert new.waits
    story.end(holder.session)
    story.exits()
    story.ready()
    assert old.worker, "it came first"
    assert new.waits


def test_the_first_worker_of_an_edit_is_for_whoever_came_first():
    story = Story(max_workers=2, warm=0)
    holders = [story.session("counter", 1, timeout=600) for _ in range(2)]
    old = story.open("counter", 1, patience=60)
    new = story.open("counter", 2, patience=60)
    story.loads()
    for holder in holders:
        story.end(holder.session)
    story.exits()
    _, of_the_edit = story.unborn()
    story.ready(of_the_edit)
    assert old.worker == of_the_edit
    assert new.waits


def test_who_waits_for_the_version_before_waits_for_the_edit_when_its_template_dies():
    story = Story(max_workers=1, warm=0)
    holder = story.session("counter", 1, timeout=600)
    old = story.open("counter", 1, patience=60)
    story.open("counter", 2, patience=60)
    story.template_dies("p_1")
    story.loads()
    story.end(holder.session)
    story.rest()
    assert old.worker, "the edit is sound"
    assert story.look(old.session).version == "v2"


def test_who_waits_is_served_by_the_edit_though_the_templates_of_both_versions_died():
    story = Story(max_workers=1)
    holder = story.session("counter", 1, timeout=600)
    client = story.open("counter", 1, patience=60)
    story.warm_up("counter", 2)
    edit = story.loads()
    story.template_dies(edit)
    story.template_dies("p_1")
    story.end(holder.session)
    story.rest()
    assert client.worker


def test_who_waits_moves_on_to_an_edit_whose_template_died_before_it_took_over():
    story = Story(max_workers=3, warm=0)
    holders = [story.session("counter", 1, timeout=600) for _ in range(3)]
    old = [story.open("counter", 1, patience=60) for _ in range(2)]
    new = story.open("counter", 2, patience=60)
    edit = story.loads()
    for holder in holders:
        story.end(holder.session)
    story.exits()
    story.leave(new)
    (worker,) = [w for w in story.unborn() if story.workers[w].pool == edit]
    story.forked(worker)
    story.template_dies(edit)
    story.ready(worker)
    assert old[0].worker == worker
    story.rest()
    assert old[1].worker


def test_the_version_before_is_not_loaded_from_the_files_of_a_broken_edit():
    story = Story(max_workers=1, warm=0)
    story.session("counter", 1, timeout=600)
    client = story.open("counter", 2, patience=60)
    story.does_not_load()
    assert client.waits
    story.template_dies("p_1")
    assert story.loading() == []
    assert type(client.error) is AppBrokenError


def test_a_broken_edit_gives_its_waiters_back_in_the_order_of_arrival():
    story = Story(max_workers=1, warm=0)
    holder = story.session("counter", 1, timeout=600)
    first = story.open("counter", 1, patience=60)
    second = story.open("counter", 2, patience=60)
    story.does_not_load()
    third = story.open("counter", 2, patience=60)
    served = []
    for client in (holder, first, second):
        story.end(client.session)
        story.rest()
        served.append([c.waits for c in (first, second, third)])
    assert served == [[False, True, True], [False, False, True], [False, False, False]]


def test_a_worker_of_a_version_that_was_edited_meanwhile_goes_when_it_is_ready():
    story = Story()
    story.open("counter", 1)
    story.loads()
    early, late = story.unborn()
    story.ready(early)
    story.open("counter", 2)
    story.loads()
    story.ready(*[w for w in story.unborn() if w != late])
    story.ready(late)
    assert late in story.told_to_stop()


def test_a_failure_of_an_edition_that_is_out_of_use_says_nothing_about_the_newest():
    story = Story(warm=0)
    story.open("counter", 1)
    story.loads()
    (slow,) = story.unborn()
    story.open("counter", 2)
    story.does_not_load()
    story.setup_fails(slow)
    client = story.open("counter", 2)
    assert story.loading() == [], "the broken edit is in its pause"
    assert type(client.error) is AppBrokenError


def test_after_a_broken_edit_and_the_loss_of_the_old_template_the_files_are_not_imported_at_each_open():
    """What served before cannot be loaded again: its files are the broken ones."""
    story = Story(warm=0)
    story.session("counter", 1)
    story.template_dies(app="counter")
    tries = 0
    for _ in range(20):
        client = story.open("counter", 2)
        while story.loading():
            tries += 1
            story.does_not_load(story.loading()[0])
        assert type(client.error) is AppBrokenError
    assert tries <= 2


def test_two_broken_editions_have_a_pause_each():
    """Say, a library has been removed that both need."""
    story = Story(warm=0)
    story.session("counter", 1)
    forks = 0
    for _ in range(10):
        client = story.open("counter", 2)
        while story.loading():
            story.does_not_load()
        while story.unborn():
            forks += 1
            story.exits(story.setup_fails(story.unborn()[0]))
        assert type(client.error) is AppBrokenError
    assert len(story.starts) <= 3
    assert forks <= 2


def test_no_more_of_a_broken_edits_waiters_go_back_than_the_version_before_can_serve():
    story = Story()
    story.session("counter", 1)
    story.template_dies(app="counter")
    first, second = story.open("counter", 2), story.open("counter", 2)
    story.does_not_load()
    story.rest()
    assert first.notice is not None
    assert type(second.error) is AppBrokenError, "there was one warm worker, and nothing to make another of"


def test_a_template_that_cannot_be_made_again_is_not_tried_within_its_pause_while_workers_are_warm():
    story = Story(warm=2)
    story.session()
    story.template_dies()
    assert story.open().worker
    story.does_not_load()
    assert story.open().worker, "there is one left"
    assert story.loading() == []


# --- versions that are asked for --------------------------------------------------------------------------------


def test_an_open_that_names_the_version_there_is_gets_it():
    story = Story()
    client = story.session(version="v1")
    assert story.open(version="v1").worker
    assert story.look(client.session).version == "v1"


def test_an_open_that_names_another_version_is_told_which_there_is():
    story = Story()
    early = story.open(version="v9")
    story.loads()
    late = story.open(version="v9")
    for client in (early, late):
        assert type(client.error) is VersionMismatchError
        assert client.error.details == {"version": "v1", "wanted": "v9"}
        assert "counter@v1" in client.error.message


def test_who_waits_for_a_named_version_does_not_get_the_one_before_when_the_edit_is_broken():
    story = Story()
    story.session("counter", 1)
    client = story.open("counter", 2, version="v2")
    story.does_not_load()
    story.rest()
    assert client.error.code in ("VERSION_MISMATCH", "APP_BROKEN")


def test_who_waits_for_a_named_version_does_not_get_the_next_when_an_edit_takes_over():
    story = Story(max_workers=2, warm=0)
    holders = [story.session("counter", 1, timeout=600) for _ in range(2)]
    pinned = story.open("counter", 1, version="v1", patience=60)
    story.open("counter", 2, patience=60)
    story.loads()
    for holder in holders:
        story.end(holder.session)
    story.exits()
    slow, quick = story.unborn()
    story.ready(quick)
    story.ready(slow)
    story.rest()
    assert type(pinned.error) is VersionMismatchError


# --- a template dies --------------------------------------------------------------------------------------------


def test_sessions_go_on_when_their_template_dies_and_the_next_open_starts_it_again():
    story = Story()
    holder = story.session()
    story.template_dies()
    assert story.is_alive(holder)
    assert story.attach(holder.session).worker == holder.worker
    assert len(story.starts) == 1, "nobody needs it now"
    assert story.open().worker, "the warm worker is as good as before"
    assert len(story.starts) == 2
    story.rest()
    assert "1 warm" in story.pool()


def test_a_template_that_dies_while_somebody_waits_is_started_again():
    story = Story(warm=0)
    client = story.open()
    story.loads()
    (worker,) = story.unborn()
    story.template_dies()
    story.exits(worker, status="was never born: its template died")
    assert len(story.loading()) == 1
    story.rest()
    assert client.worker


def test_a_template_that_dies_before_its_first_worker_with_nobody_waiting_is_started_by_the_next_open():
    story = Story(warm=0)
    client = story.open()
    story.loads()
    (worker,) = story.unborn()
    story.leave(client)
    story.template_dies()
    story.exits(worker, status="was never born: its template died")
    client = story.open()
    story.rest()
    assert client.worker


# --- stateless calls --------------------------------------------------------------------------------------------


def test_a_stateless_worker_that_was_released_serves_the_next_stateless_client():
    story = Story()
    first = story.stateless()
    story.rest()
    assert first.attach.session_id is None
    worker = story.released(first)
    assert "1 spare" in story.pool()
    second = story.stateless()
    assert second.worker == worker
    assert "0 spare" in story.pool()


def test_two_stateless_clients_at_once_have_workers_of_their_own():
    story = Story()
    first, second = story.stateless(), story.stateless()
    story.rest()
    assert first.worker != second.worker


def test_a_session_never_gets_a_worker_that_has_served_stateless_calls():
    story = Story()
    first = story.stateless()
    story.rest()
    used = story.released(first)
    clients = [story.open() for _ in range(3)]
    story.rest()
    assert used not in {client.worker for client in clients}


def test_a_stateless_call_never_gets_the_worker_of_a_session():
    story = Story(max_workers=1, warm=0)
    holder = story.session()
    client = story.stateless()
    story.rest()
    assert client.waits
    story.end(holder.session)
    story.rest()
    assert client.worker != holder.worker


def test_a_spare_worker_is_let_go_after_a_while():
    story = Story(warm=0)
    client = story.stateless()
    story.rest()
    worker = story.released(client)
    story.wait(SPARE_IDLE - 0.1)
    assert story.told_to_stop() == []
    story.wait(0.2)
    assert story.told_to_stop() == [worker]


def test_a_spare_worker_that_is_used_again_is_not_let_go():
    story = Story(warm=0)
    client = story.stateless()
    story.rest()
    for _ in range(5):
        story.released(client)
        story.wait(SPARE_IDLE - 1)
        client = story.stateless()
        assert client.worker
        story.wait(5)
    assert story.told_to_stop() == []


def test_a_stateless_client_is_not_disturbed_by_an_edit_and_its_worker_goes_after_it():
    story = Story()
    client = story.stateless("counter", 1)
    story.rest()
    story.session("counter", 2)
    assert story.is_alive(client)
    worker = story.released(client)
    assert worker in story.told_to_stop()


def test_a_spare_worker_of_the_version_before_goes_at_the_edit():
    story = Story(warm=0)
    client = story.stateless("counter", 1)
    story.rest()
    spare = story.released(client)
    story.open("counter", 2)
    story.loads()
    story.ready()
    assert story.told_to_stop() == [spare]


# --- idle apps --------------------------------------------------------------------------------------------------


def test_an_app_that_nobody_uses_is_given_back_and_loaded_again_when_it_is_used():
    story = Story(app_idle_timeout=600)
    holder = story.session(timeout=10)
    story.wait(10)
    story.rest()
    assert story.loaded("counter") == ["p_1"]
    story.wait(650)
    story.rest()
    assert story.templates == {}
    assert story.workers == {}
    assert story.look(holder.session).status == "expired"
    again = story.session()
    assert again.worker
    assert len(story.starts) == 2


def test_an_app_with_a_session_is_not_idle():
    story = Story(app_idle_timeout=60)
    holder = story.session(timeout=3600)
    story.wait(3000)
    assert len(story.loaded()) == 1
    assert story.is_alive(holder)


def test_an_app_that_somebody_waits_for_is_not_idle():
    story = Story(app_idle_timeout=60, start_timeout=1000)
    client = story.open(patience=500)
    story.wait(400)
    assert client.waits
    story.rest()
    assert client.worker


def test_an_app_that_was_named_to_serve_stays_loaded():
    story = Story(app_idle_timeout=60)
    story.warm_up("counter")
    story.rest()
    assert "1 warm" in story.pool()
    story.wait(10_000)
    story.rest()
    assert "1 warm" in story.pool()
    assert story.open().worker


def test_an_app_that_is_named_to_serve_after_its_first_use_stays_loaded():
    story = Story(app_idle_timeout=60)
    holder = story.session(timeout=5)
    story.warm_up("counter")
    story.wait(5)
    story.rest()
    story.wait(1000)
    assert len(story.loaded()) == 1
    assert story.look(holder.session).status == "expired"


def test_a_broken_app_that_was_named_to_serve_says_so_in_the_log_only():
    story = Story()
    story.warm_up("counter")
    story.does_not_load(text="bad syntax")
    story.warm_up("counter")
    assert any("bad syntax" in line for line in story.logs)
    assert story.starts == ["/apps/counter.py"]


def test_an_app_whose_only_use_is_its_stateless_workers_is_given_back_without_disturbing_them():
    story = Story(app_idle_timeout=60)
    client = story.stateless()
    story.rest()
    story.wait(200)
    assert story.is_alive(client)
    story.released(client)
    story.wait(SPARE_IDLE + 100)
    story.rest()
    assert story.workers == {}
    assert story.templates == {}


# --- telling the functions --------------------------------------------------------------------------------------


def test_functions_are_asked_of_the_template_when_it_has_loaded():
    story = Story()
    early, other = story.describe(), story.describe(version="v9")
    assert early.waits
    pool = story.loads()
    assert early.described_by == pool
    assert type(other.error) is VersionMismatchError
    assert story.describe().described_by == pool
    assert story.describe(version="v1").described_by == pool
    assert type(story.describe(version="v9").error) is VersionMismatchError


def test_functions_of_an_app_that_does_not_load_are_refused():
    story = Story()
    early = story.describe()
    story.does_not_load(text="bad syntax")
    for client in (early, story.describe()):
        assert type(client.error) is AppBrokenError
        assert client.error.remote_message == "bad syntax"


def test_functions_of_an_edit_are_those_of_its_newest_files():
    story = Story()
    first, second = story.describe("counter", 1), story.describe("counter", 2)
    pool = story.loads()
    assert first.described_by == second.described_by == pool


def test_functions_of_an_app_whose_template_died_are_told_by_the_next_one():
    story = Story()
    story.session()
    story.template_dies()
    client = story.describe()
    story.loads()
    assert client.described_by == "p_1"


def test_functions_of_a_broken_edit_are_refused_when_the_version_before_has_lost_its_template():
    story = Story()
    story.session("counter", 1)
    story.template_dies(app="counter")
    early = story.describe("counter", 2)
    story.does_not_load()
    for client in (early, story.describe("counter", 2)):
        assert type(client.error) is AppBrokenError


def test_functions_of_an_app_whose_template_cannot_be_made_again_are_refused_in_its_pause():
    story = Story(warm=2)
    story.session()
    story.template_dies()
    story.open()
    story.does_not_load()
    assert type(story.describe().error) is AppBrokenError


def test_functions_of_a_candidate_whose_template_died_are_told_by_the_next_one():
    story = Story(warm=1)
    story.describe()
    story.loads()
    story.template_dies()
    client = story.describe()
    story.rest()
    assert client.described_by


def test_who_asks_for_functions_while_the_template_is_made_again_is_answered_though_an_edit_takes_over():
    story = Story()
    story.session("counter", 1)
    story.open("counter", 2)
    story.loads()
    story.template_dies("p_1")
    client = story.describe("counter", 1)
    story.ready()
    story.rest()
    assert not client.waits


def test_who_asks_for_functions_keeps_the_app_from_being_given_back():
    story = Story(app_idle_timeout=30, start_timeout=300)
    client = story.describe()
    story.wait(60)
    story.rest()
    assert client.described_by


def test_who_asked_for_functions_and_left_is_not_answered():
    story = Story()
    client = story.describe()
    story.leave(client)
    story.loads()
    assert client.heard == []


# --- what comes late, twice, or together ------------------------------------------------------------------------


LATE = [
    ev.WorkerLoaded("w_2", "v2", ev.AppEdition("/apps/counter.py", "counter", 2)),
    ev.WorkerForked("w_2", 5),
    ev.WorkerReady("w_2"),
    ev.WorkerFailed("w_2", {"code": "APP_BROKEN", "message": "x", "details": {}}),
    ev.WorkerBusy("w_2"),
    ev.WorkerLeaving("w_2"),
    ev.WorkerReleased("w_2"),
    ev.WorkerExited("w_2", "exited with status 0"),
    ev.TemplateLoaded("p_1", "v1", None, None),
    ev.TemplateFailed("p_1", {"code": "APP_BROKEN", "message": "x", "details": {}}),
    ev.TemplateExited("p_1", "exited with status 0"),
]


@pytest.mark.parametrize("event", LATE, ids=lambda e: type(e).__name__)
def test_what_is_said_of_the_dead_changes_nothing(event):
    story = Story()
    holder = story.session("counter", 1)
    assert holder.worker == "w_2"
    story.end(holder.session)
    story.rest()
    story.session("counter", 2)
    assert "p_1" not in story.broker.fleet.editions.pools
    before = repr(story.broker), story.broker.next_deadline()
    assert story.happens(event) == []
    assert (repr(story.broker), story.broker.next_deadline()) == before


@pytest.mark.parametrize("event", LATE[-3:], ids=lambda e: type(e).__name__)
def test_what_is_said_of_the_template_of_a_retired_edition_changes_nothing(event):
    story = Story()
    story.session("counter", 1)
    story.session("counter", 2)
    before = repr(story.broker)
    assert story.happens(event) == []
    assert repr(story.broker) == before


@pytest.mark.parametrize("state", ["warm", "leased", "serving", "spare", "stopping"])
@pytest.mark.parametrize(
    "event", [e for e in LATE[:7] if type(e) is not ev.WorkerForked], ids=lambda e: type(e).__name__
)
def test_what_does_not_fit_the_state_of_a_worker_changes_nothing(state, event):
    story = Story()
    client = story.open(stateless=state in ("serving", "spare"))
    story.rest()
    worker = client.worker
    if state == "warm":
        (worker,) = [w.id for w in story.workers.values() if not w.is_used]
    elif state == "spare":
        story.released(client)
    elif state == "stopping":
        story.end(client.session)
    assert story.state(worker) == state
    goes = type(event) is ev.WorkerLeaving and state != "stopping"
    fits = goes or (type(event), state) == (ev.WorkerReleased, "serving")
    if not fits:
        before = repr(story.broker)
        assert story.happens(replace(event, worker=worker)) == []
        assert repr(story.broker) == before


def test_a_worker_of_a_retired_edition_may_die_at_any_time():
    story = Story()
    old = story.session("counter", 1)
    story.session("counter", 2)
    story.exits(old.worker, status="was killed by SIGKILL")
    assert story.look(old.session).end_reason == "worker_lost"
    assert [pool.id for pool in story.broker.fleet.editions.pools.values()] == story.loaded()


def test_a_worker_that_does_not_go_is_killed():
    story = Story(max_workers=2)
    story.session("counter")
    story.open("chat")
    story.loads()
    (idle,) = story.told_to_stop()
    story.wait(STOP_GRACE - 0.1)
    assert not story.workers[idle].killed
    story.wait(0.2)
    assert story.workers[idle].killed


@pytest.mark.parametrize("state", ["warm", "serving", "spare"])
def test_a_worker_that_leaves_of_its_own_accord_and_does_not_go_is_killed(state: str):
    story = Story()
    client = story.open(stateless=True)
    story.rest()
    worker = client.worker
    if state == "spare":
        story.released(client)
    elif state == "warm":
        (worker,) = [w.id for w in story.workers.values() if not w.is_used]
    story.leaves(worker, "app")
    assert story.state(worker) == "stopping"
    story.wait(STOP_GRACE - 0.1)
    assert not story.workers[worker].killed
    story.wait(0.2)
    assert story.workers[worker].killed


def test_a_warm_worker_that_leaves_is_given_to_nobody_and_not_replaced_at_once():
    story = Story(warm=1)
    story.session("counter")
    story.rest()
    (leaving,) = [w.id for w in story.workers.values() if not w.is_used]
    effects = story.happens(ev.WorkerLeaving(leaving, "app"))
    assert [effect for effect in effects if isinstance(effect, fx.Fork)] == []
    again = f"the next is made in {BACKOFF_FIRST:g} s, or when it is needed"
    assert fx.Log(f"app counter: idle worker {leaving} leaves (app); {again}") in effects
    assert story.session("counter").worker != leaving


@pytest.mark.parametrize("stall", [True, False], ids=["stalled", "awake"])
def test_an_open_and_the_import_that_it_waits_for_may_be_overdue_together(stall):
    story = Story(start_timeout=30)
    client = story.open(patience=30)
    (story.stall if stall else story.wait)(31)
    assert client.error.code in ("POOL_EXHAUSTED", "APP_BROKEN")


@pytest.mark.parametrize("stall", [True, False], ids=["stalled", "awake"])
def test_an_open_and_the_setup_that_it_waits_for_may_be_overdue_together(stall):
    story = Story(start_timeout=30)
    client = story.open(patience=30)
    story.loads()
    (story.stall if stall else story.wait)(31)
    assert client.error.code in ("POOL_EXHAUSTED", "APP_BROKEN")


@pytest.mark.parametrize("is_born", [False, True])
def test_a_template_that_makes_no_worker_in_time_is_replaced_and_setup_is_not_blamed_for_it(is_born: bool):
    story = Story(warm=0, start_timeout=30)
    story.session()
    (pool,) = story.loaded()
    client = story.open(patience=300)
    (worker,) = story.unborn()
    if is_born:
        story.forked(worker)
    story.wait(31)
    assert client.error.code == "APP_BROKEN"
    assert ("`setup`" in str(client.error)) == is_born
    assert ("no worker was made of it within 30 s" in str(client.error)) != is_born
    assert (pool in story.templates) == is_born
    story.wait(BACKOFF_FIRST)
    again = story.open()
    if not is_born:
        story.loads()
    story.rest()
    assert again.worker


def test_that_an_app_cannot_be_forked_is_told():
    story = Story()
    story.open()
    (pool,) = story.loading()
    story.templates[pool] = True
    effects = story.happens(ev.TemplateLoaded(pool, "v1", None, None, threads=("a", "b")))
    why = "its import has left threads running (a, b)"
    assert fx.Log(f"app counter cannot be forked, {why}: each session imports it anew") in effects


def imports_for_itself() -> tuple[Story, Client, str]:
    """Somebody waits for a worker of the first edition, of which there is a session already; and that worker."""
    story = Story(warm=0)
    story.session()
    client = story.open()
    (worker,) = story.unborn()
    return story, client, worker


def test_a_worker_that_finds_an_edit_is_killed_and_who_waits_gets_one_of_the_new_edition():
    story, client, worker = imports_for_itself()
    story.imports(worker, "v2", revision=2)
    assert story.workers[worker].killed
    assert story.unborn() == [worker], "another one would find the same"
    story.loads(version="v2")
    story.rest()
    assert (story.look(client.session).version, client.notice) == ("v2", None)


def test_so_it_is_where_nobody_has_had_a_worker_yet():
    story = Story(warm=0)
    client = story.open()
    story.loads(version="v1")
    (worker,) = story.unborn()
    story.imports(worker, "v2", revision=2)
    story.loads(version="v2")
    story.rest()
    assert story.look(client.session).version == "v2"
    assert story.loaded() == [story.workers[client.worker].pool]


def test_an_edit_that_a_worker_finds_may_be_known_to_be_broken():
    story, client, worker = imports_for_itself()
    other = story.open(revision=2)
    story.does_not_load()
    workers = story.unborn()
    for found in workers:
        story.imports(found, "v2", revision=2)
    assert "bad syntax" in str(client.error)
    assert "bad syntax" in str(other.error)
    assert story.told_to_stop() == story.unborn() == workers == [worker, "w_5"]


@pytest.mark.parametrize(("version", "revision"), [("v1", 2), ("v2", 1)], ids=["read before it", "by chance"])
def test_a_worker_that_finds_no_edit_goes_on(version: str, revision: int):
    story, client, worker = imports_for_itself()
    story.imports(worker, version, revision=revision)
    story.rest()
    assert client.worker == worker


def test_an_app_that_writes_its_own_files_is_served_all_the_same():
    """Each import finds another version, of files that have changed: once is an edit, and twice is the app."""
    story, client, worker = imports_for_itself()
    story.imports(worker, "v2", revision=2)
    story.loads(version="v3")
    (second,) = [found for found in story.unborn() if found != worker]
    story.imports(second, "v4", revision=3)
    assert not story.workers[second].killed
    story.rest()
    assert client.worker == second


def test_an_import_may_be_overdue_when_its_app_is_given_back():
    story = Story(start_timeout=30, app_idle_timeout=30)
    story.leave(story.open())
    story.stall(31)
    assert story.templates == {}


def test_an_edition_that_nobody_has_set_up_takes_over_from_none():
    """Where no worker is kept warm, its import says little: until its first worker is set up the one before serves."""
    story = Story(warm=0)
    story.session()
    patient = story.open(revision=2, patience=1)
    story.wait(2)
    assert patient.error
    story.loads()
    again = story.open(revision=2)
    story.setup_fails()
    story.rest()
    assert again.notice is not None
    assert "no model file" in again.notice


def test_an_import_may_be_overdue_when_the_daemon_leaves():
    story = Story(start_timeout=30, idle_exit=30)
    story.leave(story.open())
    story.stall(31)
    assert not story.exited, "an import is use, until it is overdue"
    story.stall(31)
    assert story.exited


def test_a_day_without_a_wake_up_is_survived():
    story = Story(start_timeout=30)
    holders = [story.session("counter"), story.session("chat")]
    story.stateless("counter")
    story.open("broken")
    story.open("counter", 2, patience=3600)
    story.stall(24 * 3600.0)
    story.rest()
    assert [story.look(holder.session).status for holder in holders] == ["expired", "expired"]


# --- what it tells of itself ------------------------------------------------------------------------------------


def test_a_fleet_tells_its_state_in_a_line():
    story = Story(max_workers=9)
    story.session()
    pool = "<Pool p_1 ready [workers: 2, 0 starting, 1 warm, 0 spare | waiting: 0]>"
    assert repr(story.broker.fleet) == f"<Fleet 2/9 workers: [{pool}]>"
    (app,) = story.broker.fleet.editions.apps.values()
    assert repr(app) == f"<App counter current={pool} candidate=None failure=False>"


def test_effects_come_in_the_order_in_which_they_must_be_performed():
    story = Story(warm=0)
    holder = story.session("counter", 1)
    story.open("counter", 2)
    assert kinds(story.wait(0)) == []
    pool = story.loading()[0]
    story.templates[pool] = True
    effects = story.happens(ev.TemplateLoaded(pool, "v2", None, None))
    assert kinds(effects) == ["Fork"]
    (worker,) = story.unborn()
    story.forked(worker)
    story.workers[worker].is_ready = True
    effects = story.happens(ev.WorkerReady(worker))
    assert kinds(effects) == ["StopTemplate", "HandOver"]
    assert effects[1] == fx.StopTemplate("p_1")
    assert story.is_alive(holder)


def test_warm_workers_are_made_up_for_in_a_quiet_moment_but_not_later_than_a_burst(with_refill_pause):
    story = Story(warm=40)
    story.session()
    story.rest()
    story.wait(1)
    story.rest()
    for _ in range(9):
        story.open()
        assert story.unborn() == [], "a fork beside a first call would slow it down"
        story.wait(0.004)
    story.wait(0.006)
    assert len(story.unborn()) == 9, "nobody has come for 5 ms"
    story.rest()
    for _ in range(14):
        story.open()
        story.wait(0.004)
    assert story.unborn(), "and for 50 ms at most"
