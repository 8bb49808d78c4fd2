"""What an app may rely on, on real processes."""

from __future__ import annotations

import os
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from support import APPS, Client, Daemon, is_asleep, look_again, wait_for_exit, wait_until_said

from warmpool import (
    AppBrokenError,
    AppBrokenWarning,
    AppError,
    AppNotFoundError,
    FunctionNotFoundError,
    InvalidInputError,
    WorkerLostError,
)
from warmpool.daemon.catalog import Catalog
from warmpool.wire.references import parse

COUNTER = str(APPS / "counter.py")
MISBEHAVES = str(APPS / "misbehaves.py")


def test_functions_take_models_and_plain_parameters(client: Client):
    with client.session(COUNTER) as session:
        assert session.call("add", {"amount": 2}) == {"total": 2}
        assert session.call("plain", amount=2, times=3, label="x") == [6, "x"]
        assert session.call("plain", {"amount": 2}) == [2, "none"]


def test_an_input_that_does_not_fit_is_refused_as_data(client: Client):
    with client.session(COUNTER) as session:
        with pytest.raises(InvalidInputError, match="amount") as raised:
            session.call("add", amount="many")
        assert raised.value.errors[0]["loc"] == ["amount"]
        assert raised.value.errors[0]["type"] == "int_parsing"
        assert raised.value.session_id == session.id
        for wrong in ([1], "x", 5):
            with pytest.raises(InvalidInputError):
                session.call("add", wrong)
        with pytest.raises(InvalidInputError, match="nonsense"):
            session.call("plain", amount=1, nonsense=2)
        assert session.call("add") == {"total": 1}


def test_an_unknown_function_is_answered_with_those_there_are(client: Client):
    with client.session(COUNTER) as session:
        for name in ("nope", "__init__", "seen", "setup", "_private"):
            with pytest.raises(FunctionNotFoundError) as raised:
                session.call(name)
            assert raised.value.functions == ["add", "fail", "history", "plain", "where", "who"]
        with pytest.raises(FunctionNotFoundError, match="`run`"):
            session.call({"amount": 1})


def test_the_action_of_the_input_chooses_where_there_is_no_run(client: Client):
    with client.session(str(APPS / "actions.py")) as session:
        assert session.call({"action": "double", "value": 4}) == 8
        assert session.call({"action": "tell", "value": 4}) == ["tell", 4]
        with pytest.raises(FunctionNotFoundError, match="nope"):
            session.call({"action": "nope"})


def test_an_error_of_the_app_comes_with_its_own_frames(client: Client):
    with client.session(COUNTER) as session:
        with pytest.raises(AppError, match="ValueError: out of luck") as raised:
            session.call("fail", message="out of luck")
        error = raised.value
        assert (error.remote_type, error.remote_message) == ("ValueError", "out of luck")
        assert "counter.py" in error.traceback
        assert "raise ValueError(message)" in error.traceback
        assert "warmpool/worker" not in error.traceback
        assert session.call("add") == {"total": 1}, "the session lives on"


@pytest.mark.parametrize(("function", "kind"), [("exit_loudly", "SystemExit"), ("interrupt", "KeyboardInterrupt")])
def test_not_even_exit_ends_the_worker(client: Client, function: str, kind: str):
    with client.session(MISBEHAVES) as session:
        with pytest.raises(AppError) as raised:
            session.call(function)
        assert raised.value.remote_type == kind
        assert session.call("fine") == "fine"


def test_an_app_is_imported_and_set_up_in_the_root_wherever_the_daemon_was_started(daemon: Daemon, directory: Path):
    app = directory / "where.py"
    app.write_text(
        "import os\nfrom warmpool import BaseApp\nAT_IMPORT = os.getcwd()\n"
        "class Where(BaseApp):\n"
        "    def setup(self):\n"
        "        self.at_setup = os.getcwd()\n"
        "    def get(self) -> list[str]:\n"
        "        return [AT_IMPORT, self.at_setup, os.getcwd()]\n"
    )
    with daemon.client.session(app) as session:
        assert session.call("get") == ["/", "/", os.getcwd()]


def test_an_app_that_opens_its_own_files_as_seen_from_elsewhere_is_told_how_to(client: Client, directory: Path):
    (directory / "reads.py").write_text('from warmpool import BaseApp\nopen("data.txt")\nclass Reads(BaseApp): ...\n')
    with pytest.raises(
        AppBrokenError, match="an app is imported and set up in /, so locate its own files by `__file__`"
    ):
        client.session(str(directory / "reads.py"))


def test_stdin_is_empty(client: Client):
    with client.session(MISBEHAVES) as session, pytest.raises(AppError, match="EOFError"):
        session.call("read_stdin")


def test_logger_and_context_are_there(client: Client):
    with client.session(COUNTER, labels={"project": "demo"}) as session:
        assert session.call("who") == {
            "session_id": session.id,
            "app": "counter",
            "version": session.version,
            "worker_id": session.worker_id,
            "labels": {"project": "demo"},
            "logger": "warmpool.app.Counter",
        }


@pytest.mark.parametrize("kind", ["Plain", "Async", "Late", "OfTheClass", "Method"])
def test_an_app_may_have_another_use_for_the_name_of_its_context(client: Client, kind: str):
    app = str(APPS / "own_context.py") + f":{kind}"
    assert client.run(app=app, function="say", input={"text": "one"}).output == ["begin", "one"]
    with client.session(app) as session, client.session(app) as other:
        assert session.call("say", text="one") == ["begin", "one"]
        with pytest.raises(AppError, match="as asked") as raised:
            session.call("fail")
        assert raised.value.session_id == session.id
        assert other.call("say", text="two") == ["begin", "two"]
        assert session.info().call_count == 2
        assert session.end().end_value == ["client", ["begin", "one"]]


def test_hooks_run_once_each_where_they_should(client: Client, directory: Path):
    file = directory / "hooks"
    session = client.session(str(APPS / "hooks.py"))
    one = session.call("begin", file=str(file))
    with client.session(str(APPS / "hooks.py")) as another:
        two = another.call("begin", file=os.devnull)
    assert one["preload"] == two["preload"] not in (one["pid"], two["pid"]), "preload runs in the template"
    assert one["setup"] == one["pid"]
    assert two["setup"] == two["pid"]
    assert one["loads"] == 1
    session.end()
    assert file.read_text() == "on_end client\nunload\n"


def test_hooks_run_when_a_session_expires(client: Client, directory: Path):
    file = directory / "hooks"
    session = client.session(str(APPS / "hooks.py"), session_timeout=1)
    session.call("begin", file=str(file))
    assert wait_for_exit(session.info().pid)
    assert file.read_text() == "on_end idle\nunload\n"


def test_hooks_run_when_the_daemon_stops(daemon: Daemon, directory: Path):
    file = directory / "hooks"
    daemon.client.session(str(APPS / "hooks.py")).call("begin", file=str(file))
    daemon.stop()
    assert file.read_text() == "on_end daemon_stopped\nunload\n"


def test_a_hook_that_hangs_is_cut_short(client: Client, directory: Path):
    file = directory / "hooks"
    session = client.session(str(APPS / "hangs_in_on_end.py"))
    session.call("begin", file=str(file))
    assert session.end().end_reason == "client"
    assert file.read_text() == "unloaded"


@pytest.mark.parametrize(
    ("app", "words", "frame"),
    [
        ("raises_in_setup", "its setup raised RuntimeError: no model here", "raises_in_setup.py"),
        ("async_init", r"its setup raised TypeError: __init__\(\) should return None, not 'coroutine'", ""),
        ("odd_version", "reading its options raised ValueError: OddVersion.version must be a string", ""),
        ("raises_on_import", "no_such_module_anywhere", "raises_on_import.py"),
        ("wrong_signature", "TypeError: WrongSignature.run cannot be called from afar: NameError: .*NoSuchType", ""),
        ("exits_in_setup", "exited with status 9 while it was set up; it wrote last:\n  .* no database", ""),
    ],
)
def test_a_broken_app_reaches_its_caller(client: Client, app: str, words: str, frame: str):
    with pytest.raises(AppBrokenError, match=words) as raised:
        client.session(str(APPS / f"{app}.py"))
    assert frame in raised.value.traceback
    assert "warmpool/worker" not in raised.value.traceback
    assert client.sessions.list() == []
    assert {known.name: known.state for known in client.apps.list()}[app] == "broken"


def test_a_file_without_an_app_and_one_with_two(client: Client, directory: Path):
    """What is wrong is said once, and with no class of ours: nothing of the user's has raised."""
    path = directory / "several.py"
    path.write_text("x = 1\n")
    with pytest.raises(AppBrokenError) as raised:
        client.session(str(path))
    assert raised.value.message == f"app several is broken: {path} has no subclass of warmpool.BaseApp"
    assert raised.value.traceback == ""
    path.write_text(
        "from warmpool import BaseApp\n"
        "class Base(BaseApp):\n    def run(self) -> str:\n        return type(self).__name__\n"
        "class One(Base): pass\nclass Two(Base): pass\n"
    )
    for named, words in (
        ("", f"{path} has 2 apps, One, Two: name one, as in {path}:One"),
        (":Three", "several has no subclass of warmpool.BaseApp that is called Three"),
    ):
        with pytest.raises(AppBrokenError) as raised:
            client.session(f"{path}{named}")
        assert (raised.value.message, raised.value.traceback) == (f"app several{named} is broken: {words}", "")
    with client.session(f"{path}:Two") as session:
        assert session.call() == "Two"
    with pytest.raises(AppNotFoundError):
        client.session(str(directory / "nowhere.py"))


def test_packages_import_relatively_and_helpers_do_not_meet(client: Client, directory: Path):
    for name in ("left", "right"):
        package = directory / name
        package.mkdir()
        (package / "__init__.py").write_text("from .inference import App\n")
        (package / "helpers.py").write_text(f"NAME = {name!r}\n")
        (package / "inference.py").write_text(
            "from warmpool import BaseApp\nfrom .helpers import NAME\n"
            "class App(BaseApp):\n    def run(self) -> list[str]:\n        return [NAME, __name__]\n"
        )
    with client.session(str(directory / "left")) as left, client.session(str(directory / "right")) as right:
        assert left.call() == ["left", "left.inference"]
        assert right.call() == ["right", "right.inference"]
        assert (left.app, right.app) == ("left", "right")


BASE = """\
import abc
from warmpool import BaseApp
class Base(BaseApp{more}):
    def run(self) -> str:
        return self.word()
    {decorator}
    def word(self) -> str:
        return "of the base"
"""
CHILD = """\
from {base} import Base
class Child(Base):
    def word(self) -> str:
        return "of the child"
"""


@pytest.mark.parametrize(
    ("is_abstract", "init", "name", "expected"),
    [
        (False, "", "", "of the child"),
        (True, "from .base import Base\n", "", "of the child"),
        (False, "from .base import Base\n", "", "of the base"),
        (False, "from .base import Base\n", ":Child", "of the child"),
    ],
)
def test_the_app_of_a_package_may_derive_from_a_base_in_it(
    client: Client, directory: Path, is_abstract: bool, init: str, name: str, expected: str
):
    """What `__init__` has is the app; or else what is in the package."""
    package = directory / "shop"
    package.mkdir()
    more, decorator = (", abc.ABC", "@abc.abstractmethod") if is_abstract else ("", "")
    (package / "__init__.py").write_text(init)
    (package / "base.py").write_text(BASE.format(more=more, decorator=decorator))
    (package / "child.py").write_text(CHILD.format(base=".base"))
    (package / "test_child.py").write_text("from .child import Child\nclass Fake(Child): pass\n")
    assert client.run(app=f"{package}{name}").output == expected


def test_a_base_that_is_abstract_is_no_app(client: Client, directory: Path):
    base = directory / "base.py"
    base.write_text(BASE.format(more=", abc.ABC", decorator="@abc.abstractmethod"))
    with pytest.raises(AppBrokenError, match="has no app but what is abstract: Base"):
        client.run(app=str(base))


def test_what_is_no_file_is_no_module_of_a_package(client: Client, directory: Path):
    """A lock of an editor's, and a pipe, which would have its reader wait."""
    package = directory / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text(
        CHILD.replace("from {base} import Base", "from warmpool import BaseApp as Base").replace("def word", "def run")
    )
    (package / ".#app.py").symlink_to("somebody@somewhere.12345")
    os.mkfifo(package / "pipe.py")
    assert client.run(app=str(package)).output == "of the child"


def test_two_files_with_helpers_of_the_same_name(client: Client, directory: Path):
    for name in ("left", "right"):
        folder = directory / name
        folder.mkdir()
        (folder / "helpers.py").write_text(f"NAME = {name!r}\n")
        (folder / "app.py").write_text(
            "import helpers\nfrom warmpool import BaseApp\n"
            "class App(BaseApp):\n    def run(self) -> str:\n        return helpers.NAME\n"
        )
    for name in ("left", "right", "left"):
        assert client.run(app=str(directory / name / "app.py")).output == name


def test_an_app_may_be_called_like_a_library(client: Client, directory: Path):
    for name in ("json", "numpy", "torch", "warmpool"):
        (directory / f"{name}.py").write_text(
            "from warmpool import BaseApp\nclass App(BaseApp):\n    def run(self) -> int:\n        return 1\n"
        )
        assert client.run(app=str(directory / f"{name}.py")).output == 1


def test_a_link_to_a_file_finds_what_lies_beside_the_file(client: Client, directory: Path):
    """As Python has it for a script. The app is known by the link's name."""
    (directory / "project").mkdir()
    (directory / "project" / "helpers.py").write_text("NAME = 'beside the file'\n")
    (directory / "project" / "app.py").write_text(
        "import helpers\nfrom warmpool import BaseApp\n"
        "class App(BaseApp):\n    def run(self) -> str:\n        return helpers.NAME\n"
    )
    link = directory / "tool.py"
    link.symlink_to("project/app.py")
    result = client.run(app=str(link))
    assert (result.output, result.app) == ("beside the file", "tool")
    (directory / "project" / "helpers.py").write_text("NAME = 'edited'\n")
    assert client.run(app=str(link)).output == "edited"


def test_a_module_and_its_class(client: Client, directory: Path, monkeypatch: pytest.MonkeyPatch):
    package = directory / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('not to be imported by the daemon')\n")
    (package / "__init__.py").write_text("")
    (package / "till.py").write_text(
        "from warmpool import BaseApp\nclass Till(BaseApp):\n    def run(self) -> str:\n        return __name__\n"
    )
    monkeypatch.chdir(directory)
    assert client.run(app="shop.till:Till").output == "shop.till"
    assert client.run(app="shop.till:Till:run").output == "shop.till"
    with pytest.raises(AppNotFoundError):
        client.run(app="shop.nothing:Till")


def test_a_module_in_packages_without_init(client: Client, directory: Path, monkeypatch: pytest.MonkeyPatch):
    (directory / "space" / "inner").mkdir(parents=True)
    (directory / "space" / "inner" / "till.py").write_text(
        "from warmpool import BaseApp\nclass Till(BaseApp):\n    def run(self) -> str:\n        return __name__\n"
    )
    monkeypatch.chdir(directory)
    assert client.run(app="space.inner.till:Till").output == "space.inner.till"
    for nowhere in ("space.inner.nothing", "space.nothing.till", "space.inner.till.os"):
        with pytest.raises(AppNotFoundError):
            client.run(app=f"{nowhere}:Till")


def test_a_module_in_a_package_that_lies_in_several_directories(directory: Path, monkeypatch: pytest.MonkeyPatch):
    for place, name in (("here", "near"), ("there", "far")):
        (directory / place / "space" / "inner").mkdir(parents=True)
        (directory / place / "space" / "inner" / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(directory / "there")
    for name in ("near", "far"):
        module = f"space.inner.{name}"
        assert Catalog().resolve(parse(f"{module}:App"), str(directory / "here")).module == module


def test_a_module_is_the_one_that_is_seen_from_where_its_caller_stands(
    client: Client, directory: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whichever project has used the name first, and whoever has used that file by its path."""
    text = "from warmpool import BaseApp\nclass Cart(BaseApp):\n    def run(self) -> str:\n        return __file__\n"
    for name in ("one", "other"):
        (directory / name).mkdir()
        (directory / name / "cart.py").write_text(text)
    (directory / "neither").mkdir()
    for name in ("one", "other", "one"):
        monkeypatch.chdir(directory / name)
        assert client.run(app="cart:Cart").output == str(directory / name / "cart.py")
    monkeypatch.chdir(directory / "neither")
    with pytest.raises(AppNotFoundError):
        client.run(app="cart:Cart")
    assert client.run(app="../one/cart.py:Cart").output == client.run(app="cart:Cart").output
    monkeypatch.chdir(directory / "other")
    assert client.run(app="cart:Cart").output == str(directory / "other" / "cart.py")


def test_a_name_that_was_served_means_the_same_from_everywhere(directory: Path):
    for name in ("one", "other"):
        (directory / name).mkdir()
        (directory / name / "cart.py").write_text("")
    catalog = Catalog()
    catalog.serve([f"{directory}/one/cart.py:Cart"])
    assert catalog.resolve(parse("cart:Cart"), f"{directory}/other").file == f"{directory}/one/cart.py"


def test_a_served_file_that_becomes_a_package_is_one_app_all_along(directory: Path):
    text = "from warmpool import BaseApp\nclass Cart(BaseApp): ..."
    (directory / "cart.py").write_text(text)
    catalog, log = Catalog(), list[str]()
    catalog.log_to(log.append)
    catalog.serve([str(directory)])
    (directory / "cart.py").unlink()
    (directory / "cart").mkdir()
    (directory / "cart" / "__init__.py").write_text(text)
    for _ in range(2):
        assert [(name, entry.place) for name, entry in catalog.entries()] == [("cart", f"{directory}/cart")]
        assert catalog.resolve(parse("cart"), "/").place == f"{directory}/cart"
    assert log == []


def test_a_module_that_was_found_is_not_looked_for_again(directory: Path):
    """That takes longer than all else that is done for an open."""
    (directory / "cart.py").write_text("")
    catalog = Catalog()
    found = catalog.resolve(parse("cart:Cart"), str(directory))
    (directory / "cart.py").unlink()
    assert catalog.resolve(parse("cart:Cart"), str(directory)) is found
    assert catalog.by_key(found.key) is found
    assert ("cart:Cart", found) in catalog.entries()


def test_a_module_that_is_deleted_says_so(client: Client, directory: Path, monkeypatch: pytest.MonkeyPatch):
    (directory / "leaves.py").write_text(
        "from warmpool import BaseApp\nclass App(BaseApp):\n    def run(self): return 1\n"
    )
    monkeypatch.chdir(directory)
    assert client.run(app="leaves:App").output == 1
    (directory / "leaves.py").unlink()
    with pytest.warns(AppBrokenWarning, match="No module named 'leaves'"):
        assert client.run(app="leaves:App").output == 1


def test_an_app_with_threads_gets_processes_of_its_own(client: Client):
    with (
        client.session(str(APPS / "starts_a_thread.py")) as one,
        client.session(str(APPS / "starts_a_thread.py")) as two,
    ):
        first, second = one.call("where"), two.call("where")
        assert first["threads"] == second["threads"] == 2
        assert first["pid"] == one.info().pid
        assert second["pid"] == two.info().pid
        assert first["pid"] != second["pid"]
        assert one.call("draw") != two.call("draw")


@pytest.mark.parametrize("kind", ["Plain", "Async"])
@pytest.mark.parametrize(
    ("how", "status"),
    [("returns", 0), ("exits", 7), ("exits with words", 1), ("raises", 1)],
    ids=lambda value: str(value),
)
def test_a_process_that_is_forked_in_a_call_does_not_answer_it(client: Client, kind: str, how: str, status: int):
    """It ends with the function, as if it had been forked by a program that is over then."""
    with client.session(f"{APPS}/forks_in_a_call.py:{kind}") as session:
        assert session.call("fork", how=how) == status
        assert session.call("who") == session.info().pid
        assert not session.info().busy
        if how == "raises":
            assert any("ValueError: of the child" in line for line in client.sessions.logs(session.id))


def test_locks_are_renewed_in_a_fork_of_the_apps(client: Client):
    """Though a worker's own birth leaves that out; what others do at a fork is done at both."""
    with client.session(f"{APPS}/forks_beside_a_thread.py") as session:
        assert session.call("births") == 2  # of the process in the middle, and its own
        assert session.call("native_id") == session.info().pid
        assert session.call("log_in_a_child") == 3


def test_a_process_that_is_forked_in_a_generator_goes_on_with_no_item(client: Client):
    with client.session(f"{APPS}/forks_in_a_call.py:Plain") as session, session.stream("items") as events:
        assert [event.output for event in events if event.type == "output"] == [1, 0]


@pytest.mark.parametrize("kind", ["InInit", "InSetup", "InAsyncSetup", "InPreload"])
def test_a_process_that_is_forked_before_there_is_a_session_becomes_no_worker(client: Client, kind: str):
    with client.session(f"{APPS}/forks_between_calls.py:{kind}") as session:
        assert session.call("status") == 1
        assert session.call("who") == session.info().pid


@pytest.mark.parametrize("kind", ["OnEnd", "OnEndAsync"])
def test_a_process_that_is_forked_at_the_end_of_a_session_goes_first(client: Client, kind: str):
    with client.session(f"{APPS}/forks_between_calls.py:{kind}") as session:
        assert session.call("who") == session.info().pid
    wait_until_said(client, session.id, "status 1")
    assert any("ValueError: of the child" in line for line in client.sessions.logs(session.id))


@pytest.mark.parametrize("kind", ["InTask", "Awaits"])
def test_a_process_that_is_forked_in_an_event_loop_goes_on_with_none(client: Client, kind: str):
    with client.session(f"{APPS}/forks_between_calls.py:{kind}") as session:
        child = session.call("start")
        assert session.call("status_of", pid=child) == 0
        assert session.call("who") == session.info().pid


@pytest.mark.parametrize("kind", ["Plain", "Async"])
def test_a_handler_that_raises_while_no_call_runs_ends_no_session(client: Client, kind: str):
    with client.session(f"{APPS}/raises_between_calls.py:{kind}") as session:
        pid, lines = session.info().pid, session.logs(follow=True)
        for _ in range(2):
            session.call("arm")
            while not is_asleep(pid):
                look_again()
            os.kill(pid, signal.SIGALRM)
            next(line for line in lines if re.search(r"[#-]\d* ZeroDivisionError: division by zero$", line))
            assert session.call("fine") == "fine"


def test_the_daemons_log_tells_how_a_call_without_a_session_died(daemon: Daemon):
    with pytest.raises(WorkerLostError, match=f"what it wrote last, see {daemon.socket}.log"):
        daemon.client.run(app=MISBEHAVES, function="say_and_exit")
    while "wrote last" not in (text := daemon.text_of_log()):
        daemon.client.status()
    assert re.search(
        r"app misbehaves: w_\d+, in a call without a session, exited with status 3; it wrote last:\n", text
    )
    assert re.search(r"\n  \S+ #1 my last words\n", text)


def test_a_worker_that_becomes_another_program_is_lost(client: Client):
    with client.session(MISBEHAVES) as session, pytest.raises(WorkerLostError):
        session.call("become_another")


def test_a_client_in_an_app_finds_the_daemon_that_it_is_of(client: Client, directory: Path):
    (directory / "asks.py").write_text(
        "from warmpool import BaseApp, Client\n"
        "class Asks(BaseApp):\n"
        "    def run(self) -> int:\n"
        "        with Client(autostart=False) as client:\n"
        "            return client.status().pid\n"
    )
    assert client.run(app=str(directory / "asks.py")).output == client.status().pid


def test_an_app_that_wants_a_session_of_itself_while_it_is_imported_is_told_at_once(client: Client, directory: Path):
    (directory / "script.py").write_text(
        "from warmpool import BaseApp, Client\n"
        "class Script(BaseApp):\n"
        "    def run(self): pass\n"
        "with Client() as client:\n"
        "    client.run(app=Script)\n"
    )
    with pytest.raises(AppBrokenError, match="while it is imported") as raised:
        client.session(str(directory / "script.py"))
    assert "client.run(app=Script)" in raised.value.traceback


def test_a_name_that_nobody_claimed_leads_to_its_latest_use(client: Client, directory: Path):
    for place in ("one", "other", "one"):
        (directory / place).mkdir(exist_ok=True)
        path = directory / place / "latest.py"
        path.write_text(f"from warmpool import BaseApp\nclass App(BaseApp):\n    def run(self): return {place!r}\n")
        assert client.run(app=str(path)).output == client.run(app="latest").output == place


def test_of_two_served_apps_with_one_name_the_first_has_it(directory: Path):
    """Whatever is used or found later."""
    paths = [directory / place / "twin.py" for place in ("one", "other")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("from warmpool import BaseApp\nclass App(BaseApp):\n    def run(self): return 1\n")
    catalog = Catalog()
    catalog.serve([str(paths[0]), str(paths[1].parent)])
    for _ in range(2):
        assert catalog.resolve(parse("twin"), "/").file == str(paths[0])
        assert catalog.resolve(parse(str(paths[1])), "/").file == str(paths[1])
        catalog.entries()


def test_of_two_served_apps_with_one_name_the_other_is_known_by_its_path(directory: Path):
    """And stays so when the first is gone."""
    paths = [directory / place / "twin.py" for place in ("one", "other")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("from warmpool import BaseApp\nclass App(BaseApp):\n    def run(self): return 1\n")
    catalog = Catalog()
    first, other = catalog.serve([str(path.parent) for path in paths])
    said: list[str] = []
    catalog.log_to(said.append)
    assert said == [f"twin is the name of {paths[0]}; name {paths[1]} by its path"]
    for _ in range(2):
        assert catalog.entries() == [(str(paths[1]), other), ("twin", first)]
        assert catalog.resolve(parse("twin"), "/") is first
        assert catalog.resolve(parse(str(paths[1])), "/") is other
        paths[0].unlink(missing_ok=True)
    assert len(said) == 1


def test_a_file_that_becomes_a_package_keeps_its_name(directory: Path, start_daemon: Any):
    apps = directory / "apps"
    apps.mkdir()
    text = "from warmpool import BaseApp\nclass Grows(BaseApp):\n    def get(self) -> int:\n        return {}\n"
    (apps / "grows.py").write_text(text.format(1))
    daemon = start_daemon(str(apps))
    with daemon.client.session("grows") as old:
        assert old.call("get") == 1
        (apps / "grows.py").unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert daemon.client.session("grows").call("get") == 1, "there is no other of that name"
        (apps / "grows").mkdir()
        (apps / "grows" / "__init__.py").write_text(text.format(2))
        with daemon.client.session("grows") as new:
            assert (old.call("get"), new.call("get")) == (1, 2)


@pytest.mark.parametrize("version", ["def version(self): return '1'", "version = '1.0 beta/2'", "version = '@1'"])
def test_a_version_that_cannot_be_asked_for_is_refused(client: Client, directory: Path, version: str):
    (directory / "odd.py").write_text(
        f"from warmpool import BaseApp\nclass Odd(BaseApp):\n    {version}\n    def run(self): return 1\n"
    )
    with pytest.raises(AppBrokenError, match="Odd.version must be a string without"):
        client.run(app=str(directory / "odd.py"))


def test_a_timer_of_the_import_ends_nothing(client: Client):
    """Its handler is not the workers'. It would end the template too, which handles signals no more."""
    for _ in range(2):
        assert client.run(app=str(APPS / "sets_an_alarm_on_import.py")).output == [0.0, 0.0]


def test_an_abstract_model_can_be_what_a_function_returns(client: Client, directory: Path):
    (directory / "shapes.py").write_text(
        "from abc import ABC, abstractmethod\n"
        "from pydantic import BaseModel\n"
        "from warmpool import BaseApp\n"
        "class Shape(BaseModel, ABC):\n"
        "    side: float\n"
        "    @abstractmethod\n"
        "    def area(self) -> float: ...\n"
        "class Square(Shape):\n"
        "    def area(self) -> float:\n"
        "        return self.side ** 2\n"
        "class Shapes(BaseApp):\n"
        "    def run(self, side: float) -> Shape:\n"
        "        return Square(side=side)\n"
    )
    assert client.run(app=str(directory / "shapes.py"), input={"side": 2}).output == {"side": 2.0}


def test_multiprocessing_asyncio_and_threads_work_in_a_worker(client: Client):
    with client.session(MISBEHAVES) as session:
        assert session.call("use_multiprocessing") == [1, 2, 3]
        assert session.call("run_asyncio") == "ran"
        assert session.call("start_thread") == 2
        assert session.call("fine") == "fine"


def test_no_two_sessions_draw_the_same_numbers(client: Client):
    drawn = set()
    for _ in range(4):
        with client.session(MISBEHAVES) as session:
            drawn.add(session.call("drawn"))
    assert len(drawn) == 4


def test_an_async_app_lives_on_between_calls(client: Client):
    with client.session(str(APPS / "async_counter.py")) as session:
        assert session.call("add", amount=2) == 2
        before = session.call("wait_for_ticks", count=1)
        assert session.call("wait_for_ticks", count=2) > before
        assert session.call("plain", value=1) == 2
        with pytest.raises(AppError, match="KeyError"):
            session.call("fail")
        assert session.call("add", amount=1) == 3


def test_a_worker_has_no_descriptors_but_its_own(daemon: Daemon):
    with daemon.client.session(COUNTER) as session:
        session.call("add")
        targets = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{session.info().pid}/fd")]
    kinds = sorted(target.partition(":")[0] for target in targets)
    files = ["/dev/null", "anon_inode", "/memfd", "pipe", "pipe", "socket", "socket"]
    assert kinds == sorted(files)


def test_an_async_worker_has_one_loop(client: Client, directory: Path):
    """A quarter of a megabyte each: what the rehearsal had is gone."""
    (directory / "loops.py").write_text(
        "import gc, uvloop\n"
        "from warmpool import BaseApp\n"
        "class Loops(BaseApp):\n"
        "    async def run(self) -> int:\n"
        "        return sum(isinstance(thing, uvloop.Loop) for thing in gc.get_objects())\n"
    )
    assert client.run(app=str(directory / "loops.py")).output == 1
