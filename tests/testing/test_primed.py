"""Primed sessions: set up once, and each a copy of its own."""

from __future__ import annotations

import pytest
from support import APPS

from warmpool import AppBrokenError, TestingClient, primed

COSTLY = str(APPS / "costly_setup.py")
HABITS = str(APPS / "habits_of_classes.py")


@pytest.mark.parametrize("app", [f"{COSTLY}:{name}" for name in ("Costly", "CostlyAsync", "CostlyAwaitable")])
def test_setup_runs_once_and_each_session_has_its_copy(client: TestingClient, app: str):
    sessions = [client.session(primed(app)) for _ in range(4)]
    told = [session.call("who") for session in sessions]
    assert len({who["set_up_by"] for who in told}) == 1
    assert len({who["pid"] for who in told}) == 4
    assert not {who["pid"] for who in told} & {who["set_up_by"] for who in told}
    assert [(who["worker"], who["session"]) for who in told] == [(s.worker_id, s.id) for s in sessions]
    assert sessions[0].call("change", index=0, value=-1) == [-1, 1, 2]
    assert [session.call("change", index=1, value=7) for session in sessions[1:]] == [[0, 7, 2]] * 3


def test_an_async_app_goes_on_in_a_loop_of_its_own(client: TestingClient):
    with client.session(primed(f"{COSTLY}:CostlyAsync")) as session:
        assert session.call("later", value=1) == 1001


@pytest.mark.parametrize("app", [f"{COSTLY}:Costly", f"{COSTLY}:CostlyAwaitable"])
def test_primed_and_other_sessions_of_an_app_live_side_by_side(client: TestingClient, app: str):
    with client.session(primed(app)) as copy, client.session(app) as own:
        who = own.call("who")
        assert who["set_up_by"] == who["pid"]
        assert copy.call("who")["set_up_by"] != copy.call("who")["pid"]
        assert (copy.app, copy.version) == (own.app, own.version)
        assert client.run(app=app, session=copy.id, function="who").output["pid"] == copy.call("who")["pid"]
        assert client.run(app=primed(app), session=own.id, function="who").output["pid"] == who["pid"]


def test_a_lost_template_is_set_up_again(client: TestingClient):
    app = f"{COSTLY}:Costly"
    with client.session(primed(app)) as first:
        client.lose_template(app)
        for _ in range(3):
            with client.session(primed(app)) as session:
                who = session.call("who")
        assert who["set_up_by"] != first.call("who")["set_up_by"]


def test_an_edit_is_set_up_anew(client: TestingClient, tmp_path):
    file = tmp_path / "edited.py"
    text = "from warmpool import BaseApp\n\nclass Edited(BaseApp):\n    def setup(self):\n        self.word = {word!r}\n\n    def say(self) -> str:\n        return self.word\n"
    file.write_text(text.format(word="before"))
    with client.session(primed(str(file))) as before:
        file.write_text(text.format(word="and after"))
        with client.session(primed(str(file))) as after:
            assert (before.call("say"), after.call("say")) == ("before", "and after")


def test_a_setup_that_fails_is_the_apps_fault(client: TestingClient):
    with pytest.raises(AppBrokenError, match="its setup raised ValueError: no table today"):
        client.session(primed(f"{COSTLY}:Fails"))


def test_tasks_cannot_be_copied(client: TestingClient):
    with pytest.raises(AppBrokenError, match="leaves 1 tasks running"):
        client.session(primed(f"{COSTLY}:LeavesATask"))


def test_threads_cannot_be_copied_so_each_session_is_set_up(client: TestingClient):
    with (
        client.session(primed(f"{COSTLY}:StartsAThread")) as one,
        client.session(primed(f"{COSTLY}:StartsAThread")) as two,
    ):
        assert one.call("alive")
        assert two.call("alive")


def test_how_it_is_named():
    assert primed("counter") == primed("counter#primed") == "counter#primed"
    assert primed("counter@1.0") == "counter@1.0#primed"


@pytest.mark.parametrize("app", [f"{HABITS}:Basket", f"{HABITS}:AsyncBasket"])
def test_an_app_that_is_empty_is_one_all_the_same(client: TestingClient, app: str):
    with client.session(primed(app)) as session:
        assert [session.call("add", item=item) for item in (5, 6)] == [1, 2]
