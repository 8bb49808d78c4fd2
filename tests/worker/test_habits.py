"""What an app may do to its process, which its session survives."""

from __future__ import annotations

import base64
import py_compile
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from support import APPS, PATIENCE, look_again

from warmpool import AppError, CallTimeoutError, Client, InvalidInputError
from warmpool.wire.process_messages import Load
from warmpool.worker.loading import AppImporter

PLAIN, ASYNC = (str(APPS / "odd_habits.py") + f":{name}" for name in ("Plain", "Async"))
HABITS = str(APPS / "habits_of_classes.py")
CALLS_ITSELF = str(APPS / "calls_itself.py")
SHORT = 0.2


class Strict(BaseModel):
    """As the app has one."""

    model_config = ConfigDict(strict=True, ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes
    at: PurePosixPath


plain_and_async = pytest.mark.parametrize("app", [PLAIN, ASYNC], ids=["plain", "async"])


@plain_and_async
def test_what_is_overridden_is_no_function(client: Client, app: str):
    with client.session(app) as session:
        assert session.call("load", frame=[1, 2]) == 3


@plain_and_async
def test_a_model_in_the_body_of_an_app_may_be_named_in_text(client: Client, app: str):
    with client.session(app) as session:
        assert session.call("nested", value=5) == 5
        with pytest.raises(AppError, match="never"):
            session.call("never")


@plain_and_async
def test_what_setup_puts_into_context_variables_is_there_for_every_client(client: Client, app: str):
    with client.session(app) as session, client.sessions.attach(session.id) as other:
        assert session.call("third") == other.call("third") == "0.33333"


@plain_and_async
def test_an_app_may_do_without_the_garbage_collector(client: Client, app: str):
    assert client.run(app=app, function="collects").output is False


@plain_and_async
def test_a_client_that_the_import_has_made_is_each_workers_own(client: Client, app: str):
    with client.session(app) as one, client.session(app) as other:
        assert one.call("asks") == other.call("asks") == 2


def test_a_strict_model_keeps_its_bytes(client: Client):
    given = Strict(data=b"\xff\x00abcd", at=PurePosixPath("/a/b"))
    with client.session(PLAIN) as session:
        assert session.call("kept", given) == [given.data, "/a/b", "UTC"]
        text = base64.b64encode(given.data).decode()
        assert session.call("kept", {"data": text, "at": "/a/b"})[0] == given.data


def test_a_strict_model_blames_what_is_wrong_and_nothing_else(client: Client):
    with client.session(PLAIN) as session, pytest.raises(InvalidInputError) as refused:
        session.call("due", day=date(2026, 1, 2), tags={"a"}, pair=(1, 2), amount="3")
    assert [error["loc"] for error in refused.value.errors] == [["amount"]]
    deep: list[object] = []
    for _ in range(230):
        deep = [deep]
    with client.session(PLAIN) as session, pytest.raises(InvalidInputError) as refused:
        session.call("due", day="x", tags=deep, pair=(1, 2), amount="3")
    assert ["amount"] in [error["loc"] for error in refused.value.errors]


@plain_and_async
def test_who_has_no_descriptor_left_answers_all_the_same(client: Client, app: str):
    with client.session(app) as session:
        assert session.call("takes_all_descriptors", timeout=PATIENCE) > 0
        assert session.call("third") == "0.33333"
        assert session.call("gives_them_back") == 0


@pytest.mark.parametrize("how", ["task", "callback"])
def test_a_cancel_falls_into_whatever_runs_in_the_loop_of_a_plain_function(client: Client, how: str):
    with client.session(PLAIN) as session:
        with pytest.raises(CallTimeoutError):
            session.call("child", how=how, timeout=SHORT)
        assert session.call("third") == "0.33333"


@pytest.mark.parametrize("how", ["awaited", "gathered"])
def test_a_cancel_in_a_loop_of_the_apps_own_is_over_with_its_call(client: Client, how: str):
    with client.session(PLAIN) as session:
        with pytest.raises(CallTimeoutError):
            session.call("own_loop", how=how, timeout=SHORT)
        assert session.call("own_loop", how="quick") == 7


@pytest.mark.parametrize("does", ["fails", "cancels"])
@pytest.mark.parametrize(("app", "function"), [(PLAIN, "child"), (ASYNC, "waits")], ids=["plain", "async"])
def test_a_hook_of_a_cancel_may_do_what_it_likes(client: Client, app: str, function: str, does: str):
    with client.session(app) as session:
        session.call("on_the_next_cancel", does=does)
        with pytest.raises(CallTimeoutError):
            session.call(function, {"how": "task"} if app == PLAIN else {}, timeout=SHORT)
        assert session.call("third") == "0.33333"
        logged = "".join(client.sessions.logs(session.id))
        assert ("oops" in logged) == (does == "fails")


def test_a_module_of_which_there_is_bytecode_alone_is_imported(client: Client, directory: Path):
    source = directory / "secret.py"
    source.write_text("ANSWER = 42\n")
    py_compile.compile(str(source), cfile=str(directory / "secret.pyc"))
    source.unlink()
    app = directory / "app.py"
    app.write_text(
        "from warmpool import BaseApp\nimport secret\n"
        "class App(BaseApp):\n    def answer(self) -> int:\n        return secret.ANSWER\n"
    )
    assert client.run(app=str(app), function="answer").output == 42


def test_large_files_beside_an_app_do_not_stay_in_memory(client: Client, directory: Path):
    (directory / "data.bin").write_bytes(bytes(64_000_000))
    app = directory / "app.py"
    app.write_text(
        "import pkgutil, sys\nfrom warmpool import BaseApp\n"
        "class App(BaseApp):\n    def read(self) -> int:\n"
        "        return len(sys.modules[__name__].__loader__.get_data(__file__[:-6] + 'data.bin'))\n"
    )
    with client.session(app) as session:
        assert session.call("read") == 64_000_000
        assert client.sessions.get(session.id, memory=True).private_bytes < 32_000_000


def test_the_library_of_python_below_an_app_is_not_its_own(directory: Path, monkeypatch: pytest.MonkeyPatch):
    """As of `/app.py` in a virtual environment: the directory of the app has all of Python in it."""
    load = Load("app", str(directory), "app", str(directory / "app.py"), None, 1024, 1, 64, primed=False)
    importer: Any = AppImporter(load, lambda _: None)
    monkeypatch.setattr(sys, "base_prefix", str(directory / "python"))
    for name in ("python/lib", "helpers"):
        (directory / name).mkdir(parents=True)
    assert importer._finder(str(directory / "helpers"))
    with pytest.raises(ImportError):
        importer._finder(str(directory / "python/lib"))


calls_itself = pytest.mark.parametrize("kind", ["Plain", "Async"])


@calls_itself
@pytest.mark.parametrize("function", ["call", "call_by_name", "call_by_a_handle", "map", "stream"])
def test_a_call_of_the_session_that_it_is_in_is_refused(client: Client, kind: str, function: str):
    with client.session(f"{CALLS_ITSELF}:{kind}", name=f"{kind}/{function}") as session:
        with pytest.raises(AppError, match="would wait for itself"):
            session.call(function, timeout=PATIENCE)
        assert session.call("fine") == "fine"


@calls_itself
def test_what_is_no_call_may_be_asked_of_the_session_that_one_is_in(client: Client, kind: str):
    with client.session(f"{CALLS_ITSELF}:{kind}") as session:
        assert session.call("set_label", timeout=PATIENCE) == {"set": "from within"}


@calls_itself
def test_what_goes_on_beside_a_call_may_call_its_session(client: Client, kind: str):
    with client.session(f"{CALLS_ITSELF}:{kind}") as session:
        session.call("call_later")
        assert until(lambda: session.call("later")) == "fine"


def test_a_child_of_an_app_may_call_the_session_of_its_parent(client: Client):
    with client.session(f"{CALLS_ITSELF}:Plain") as session:
        child = session.call("call_from_a_child")
        assert until(lambda: session.call("status_of", child=child)) == 0


def until(look: Callable[[], Any]) -> Any:
    """What it gives when that is something."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) is None:
        assert time.monotonic() < deadline
        look_again()
    return found


def test_an_app_can_be_copied_and_its_copies_are_outside_of_the_worker(client: Client):
    with client.session(f"{HABITS}:Copied") as session:
        assert session.call("in_a_pool") == [3, 6]
        assert session.call("snapshot") == {"factor": 3, "session": session.id, "cancelled": False}
        assert session.info().status == "active"


@pytest.mark.parametrize("kind", ["Dynamic", "AsyncDynamic"])
def test_a_hook_that_cannot_be_looked_up_costs_no_session(client: Client, kind: str, fifo: Path):
    session = client.session(f"{HABITS}:{kind}")
    with pytest.raises(CallTimeoutError):
        session.call("wait", fifo=fifo, timeout=SHORT)
    assert session.call("look_up") == 7
    session.end()
    log = "".join(session.logs())
    assert "on_cancel raised KeyError: 'on_cancel'" in log
    assert "on_end raised KeyError: 'on_end'" in log
    assert "unloaded" in log


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("computed", "serialising the output of computed raised KeyError: 'rate'"),
        ("serialised", "ZeroDivisionError"),
        ("awaited", "ZeroDivisionError"),
    ],
)
def test_what_the_serializer_of_a_result_raises_is_told_as_the_apps(client: Client, function: str, words: str):
    with client.session(f"{HABITS}:Reports") as session, pytest.raises(AppError, match=words) as raised:
        session.call(function)
    assert "habits_of_classes.py" in raised.value.traceback


def test_a_result_that_cannot_be_sent_has_no_traceback(client: Client):
    with client.session(f"{HABITS}:Reports") as session, pytest.raises(AppError, match="cannot be sent") as raised:
        session.call("opaque")
    assert not raised.value.traceback
