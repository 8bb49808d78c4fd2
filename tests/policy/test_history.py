"""What is kept of a session's history, however long it is; and what the broker writes into it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from policy.story import Client, Story

from warmpool.constants import MIB
from warmpool.policy import events as ev
from warmpool.policy.history import FIRST_KEPT, LAST_KEPT, Entry, History

texts = st.lists(st.sampled_from(["slid", "attached", "labels", "cancel"]), max_size=400)


def told(texts: list[str]) -> History:
    history = History()
    for at, text in enumerate(texts):
        history.add(float(at), text)
    return history


def runs(texts: list[str]) -> list[Entry]:
    """What repeats without anything in between is one entry, with the time of the last."""
    entries: list[Entry] = []
    for at, text in enumerate(texts):
        if entries and entries[-1].text == text:
            entries[-1] = Entry(float(at), text, entries[-1].times + 1)
        else:
            entries.append(Entry(float(at), text))
    return entries


@given(texts)
def test_the_first_and_the_last_are_kept_and_a_gap_says_how_many_are_not(texts: list[str]):
    entries, all_of_it = told(texts).entries(), runs(texts)
    lost = len(all_of_it) - FIRST_KEPT - LAST_KEPT
    if lost <= 0:
        assert entries == all_of_it
    else:
        assert entries[:FIRST_KEPT] == all_of_it[:FIRST_KEPT]
        assert entries[-LAST_KEPT:] == all_of_it[-LAST_KEPT:]
        (gap,) = entries[FIRST_KEPT:-LAST_KEPT]
        assert gap.text == f"({lost} entries are not kept)"
    times = [entry.at for entry in entries]
    assert times == sorted(times)


def test_a_history_that_nothing_has_happened_in_is_empty():
    assert History().entries() == []
    assert repr(told(["a", "b"])) == "<History 2 entries>"


# --- what is written --------------------------------------------------------------------------------------------


def history(story: Story, client: Client) -> list[str]:
    """The texts, with the number of times behind those that were more than one."""
    session = story.broker.leases.known(str(client.session), story.now)
    return [text if times == 1 else f"{text} x{times}" for _, text, times in session.history.entries()]


def since_opened(story: Story, client: Client) -> list[str]:
    texts = history(story, client)
    return texts[1 + next(index for index, text in enumerate(texts) if text.startswith("opened by")) :]


def test_it_tells_who_opened_it_and_what_for_it_had_to_wait():
    story = Story(max_workers=1)
    first = story.session()
    waiting = story.open()
    story.wait(3)
    story.end(first.session)
    story.exits()
    story.wait(1)
    story.rest()
    assert history(story, waiting) == [
        "waited: 1 of 1 workers are in use (--max-workers)",
        "waited: the worker is still being set up",
        f"opened by pid 0 in /home after 4.000 s in line; {waiting.worker} serves it",
    ]


def test_where_the_app_itself_has_room_for_no_more_that_is_what_it_says():
    """Also while the daemon has as many workers as it may have: one of those could go."""
    story = Story(max_workers=2, warm=1)
    story.open("one")
    story.loads(max_workers=1)
    story.ready()
    story.session("other")
    waiting = story.open("one", patience=1)
    story.wait(2)
    assert "the app has its 1 workers (its `max_workers`), all in use" in waiting.error.message


def test_one_that_waited_for_nothing_does_not_say_so():
    story = Story()
    story.session()
    client = story.session()
    assert history(story, client) == [f"opened by pid 0 in /home; {client.worker} serves it"]


def test_each_cause_that_slid_its_window_is_told_once_with_a_count():
    story = Story()
    client = story.session(timeout=60)
    for _ in range(3):
        story.keepalive(client.session)
        story.wait(20)
    for _ in range(2):
        story.calls(client)
        story.wait(59)
    story.keepalive(client.session)
    assert since_opened(story, client) == ["slid by a keepalive x3", "slid by calls x2", "slid by a keepalive"]


def test_it_tells_who_came_what_changed_and_how_it_ended():
    story = Story()
    client = story.session(name="mine")
    story.calls(client)
    story.attach(client.session)
    story.open(name="mine", if_exists="attach")
    story.set_labels(client.session, {"a": "b"})
    story.end(client.session)
    story.happens(ev.WorkerExited(client.worker, "exited with status 0", 40 * MIB))
    assert since_opened(story, client) == [
        "attached to by its id",
        "attached to by its name, by pid 0",
        "labels set",
        "ended: client",
        f"{client.worker} exited with status 0; at most 40.0 MiB of memory; 1 calls",
    ]


def test_it_tells_that_a_call_came_when_it_was_about_to_expire_and_that_it_expired():
    story = Story()
    client = story.session(timeout=60)
    story.wait(60)
    story.begins(client)
    story.busy(client.worker)
    story.finishes(client)
    story.wait(60)
    story.leaves(client.worker)
    assert since_opened(story, client) == ["not expired: a call came first", "expired: idle"]


def test_one_whose_worker_was_killed_ends_with_the_signal():
    story = Story()
    client = story.session()
    story.exits(client.worker, status="was killed by SIGKILL that we did not send, perhaps out of memory")
    assert since_opened(story, client) == [
        f"{client.worker} was killed by SIGKILL that we did not send, perhaps out of memory; 0 calls"
    ]


def test_however_often_it_is_slid_and_looked_at_it_takes_no_more_room():
    story = Story()
    client = story.session(timeout=1)
    for _ in range(500):
        story.keepalive(client.session)
        story.calls(client)
        story.wait(1)
        story.look(client.session)
    assert len(history(story, client)) == FIRST_KEPT + 1 + LAST_KEPT
