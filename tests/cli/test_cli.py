"""The command line, as it is typed: each command in a process of its own, its output read as a user would."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import APPS, MARK, PATIENCE, Daemon, look_again, processes_marked, wait_for_exit

from warmpool import (
    CallCancelledError,
    CallTimeoutError,
    Client,
    DaemonUnavailableError,
    SessionEndedError,
    WorkerLostError,
    cli,
)
from warmpool.cli import daemon as cli_daemon
from warmpool.cli import main
from warmpool.cli.parser import parse
from warmpool.cli.progress import bar
from warmpool.constants import DAEMON_LOG_LIMIT
from warmpool.paths import Places
from warmpool.version import __version__

COUNTER = str(APPS / "counter.py")
PRINTS_ON_IMPORT = str(APPS / "prints_on_import.py")
MODELS = str(APPS / "takes_models.py")
VALUES = str(APPS / "values.py")
TOLD = str(APPS / "told_to_stop.py") + ":Plain"
STREAMS = str(APPS / "streams.py") + ":Plain"
WAITS = str(APPS / "waits.py")
ODD = str(APPS / "odd_results.py")
NOBODY = "sess_nobody_knows_this_one"

HEEDING_CTRL_C = [sys.executable, "-c", """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs these tests in the background may have it ignored
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""]  # fmt: skip

Done = subprocess.CompletedProcess[str]


def command(socket: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "warmpool", *arguments, "--socket", str(socket)]


def environment(**more: str) -> dict[str, str]:
    """As users have it: stdout is buffered."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | more


def warmpool(socket: Path, *arguments: str, **options: Any) -> Done:
    """What is typed, and what comes of it."""
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    return subprocess.run(
        command(socket, *arguments),
        timeout=PATIENCE,
        check=False,
        text=True,
        **{"env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@contextlib.contextmanager
def running(arguments: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes, which does not outlive the block."""
    with subprocess.Popen(
        arguments,
        env=environment(),
        text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def document(done: Done) -> Any:
    """The one JSON document that a command printed, and nothing else."""
    assert (done.returncode, done.stderr) == (0, ""), done

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    assert done.stdout.endswith("\n")
    return json.loads(done.stdout, parse_constant=refuse)


def rows(done: Done) -> list[dict[str, str]]:
    """The lines of a table, by the names of its columns."""
    assert (done.returncode, done.stderr) == (0, ""), done
    head, *lines = done.stdout.splitlines()
    starts = [match.start() for match in re.finditer(r"(?:^|(?<=  ))\S", head)]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    return [{head[a:b].strip(): line[a:b].strip() for a, b in spans} for line in lines]


def fields(done: Done) -> dict[str, str]:
    """The lines of a record: a name, then its value."""
    assert (done.returncode, done.stderr) == (0, ""), done
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in done.stdout.splitlines())


def error_of(done: Done, code: int) -> str:
    """What a command that failed says: on stderr only, and without a traceback of ours."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert "warmpool/" not in done.stderr
    return done.stderr


def wait_until(is_so: Callable[[], bool]) -> None:
    """For what the daemon does in its own time and tells nobody."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        look_again()


def wait_until_busy(client: Client) -> str:
    """The id of the newest session, once it is in a call."""
    wait_until(lambda: any(info.busy for info in client.sessions.list()[:1]))
    return client.sessions.list()[0].id


@pytest.fixture
def type(shared_daemon: Daemon, client: Client) -> Callable[..., Done]:
    """`warmpool` with the module's daemon."""

    def type(*arguments: str, **options: Any) -> Done:
        return warmpool(shared_daemon.socket, *arguments, **options)

    return type


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """As `warmpool`, in this process: for the many ways to be refused, which need no process of their own."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))

    def here(*arguments: str) -> Done:
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = exit.code
        out, err = capsys.readouterr()
        return Done(arguments, code, out, err)

    return here


# --- run ----------------------------------------------------------------------------------------------------------


def test_run_prints_one_document(type: Callable[..., Done], client: Client):
    done = type("run", COUNTER, "add", "--session", "new", "--input", '{"amount": 2}')
    result = document(done)
    assert len(done.stdout.splitlines()) == 1
    assert list(result) == ["session_id", "output", "app", "version", "worker_id"]
    assert result["output"] == {"total": 2}
    assert result["app"] == "counter"
    info = client.sessions.get(result["session_id"])
    assert (info.version, info.worker_id) == (result["version"], result["worker_id"])
    assert info.session_timeout == 60


def test_run_in_a_session(type: Callable[..., Done], client: Client):
    first = document(type("run", COUNTER, "add", "--session", "new", "--session-timeout", "300"))
    second = document(type("run", COUNTER, "add", "--session", first["session_id"], "--input", '{"amount": 5}'))
    assert second["output"] == {"total": 6}
    assert second["session_id"] == first["session_id"]
    by_name = document(type("run", "counter:history", "--session", first["session_id"]))
    assert by_name["output"] == [1, 5]
    in_any_order = document(type("run", "counter", "--session", first["session_id"], "history"))
    assert in_any_order["output"] == [1, 5]
    assert client.sessions.get(first["session_id"]).session_timeout == 300


def test_run_without_a_session(type: Callable[..., Done], client: Client):
    result = document(type("run", COUNTER, "who"))
    assert result["session_id"] is None
    assert result["output"]["session_id"] is None
    assert client.sessions.list() == []


def test_the_input_from_a_file_and_from_stdin(type: Callable[..., Done], directory: Path):
    file = directory / "input.json"
    file.write_text('{"value": "grün"}\n', encoding="utf-8")
    assert document(type("run", VALUES, "echo", "--input", f"@{file}"))["output"] == "grün"
    assert document(type("run", VALUES, "echo", "--input", "-", input='{"value": [1]}'))["output"] == [1]
    assert document(type("run", VALUES, "echo", "--input", "@input.json", cwd=directory))["output"] == "grün"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{amount: 2}", "--input is not JSON"),
        ("", "--input is not JSON"),
        ('{"amount": 2} {}', "--input is not JSON"),
        ("@no/such/file", "cannot read the input"),
        ("@.", "cannot read the input"),
        ("@", "cannot read the input"),
        ("-", "stdin is empty: pipe the input into it, as JSON"),
        ('{"amount": ' + "[" * 100_000, "--input is nested too deeply"),
        ('{"amount": ' + "[" * 5000 + "]" * 5000 + "}", ""),
        ('{"amount": ' + "9" * 5000 + "}", "--input is not JSON"),
        ('{"amount": ' + "9" * 50 + "}", "cannot be sent"),
        ('{"amount": "\\ud800"}', "cannot be sent"),
    ],
    ids=range(12),
)
def test_an_input_that_cannot_be_read(here: Callable[..., Done], shared_daemon: Daemon, text: str, says: str):
    error = error_of(here("run", COUNTER, "add", "--socket", str(shared_daemon.socket), "--input", text), 3)
    assert error.startswith("error: INVALID_REQUEST: ")
    assert says in error
    assert len(error) < 1000


def test_an_input_is_utf_8_whatever_the_locale(directory: Path, shared_daemon: Daemon):
    (directory / "input.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"value": "Zoë"}, ensure_ascii=False).encode())
    typed = command(shared_daemon.socket, "run", str(APPS / "values.py"), "echo", "--input", "@input.json")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(typed, cwd=directory, env=environment, stdout=subprocess.PIPE, check=True, timeout=PATIENCE)
    assert json.loads(done.stdout)["output"] == "Zoë"


def test_an_input_may_be_any_json(type: Callable[..., Done]):
    assert document(type("run", MODELS, "total", "--input", "[1, 2, 3]"))["output"] == 6
    assert document(type("run", COUNTER, "add", "--session", "new", "--input", "null"))["output"]["total"] == 1


def test_an_input_file_that_is_no_text(type: Callable[..., Done], directory: Path):
    (directory / "input.json").write_bytes(b'{"amount": "\xff"}')
    error = error_of(type("run", COUNTER, "add", "--input", "@input.json", cwd=directory), 3)
    assert "input.json is not JSON" in error
    (directory / "input.json").write_text('{"amount": }')
    error = error_of(type("run", COUNTER, "add", "--input", "@input.json", cwd=directory), 3)
    assert "input.json is not JSON" in error
    assert "quotes" not in error, "no shell has spoilt it"


def test_the_function_is_the_default_the_suffix_or_the_argument(type: Callable[..., Done]):
    limited, actions = str(APPS / "limited.py"), str(APPS / "actions.py")
    assert document(type("run", limited))["output"] == "ran"
    assert document(type("run", actions, "--input", '{"action": "double", "value": 4}'))["output"] == 8
    assert document(type("run", f"{actions}:double", "--input", '{"value": 4}'))["output"] == 8
    assert document(type("run", f"{COUNTER}:fail", "add"))["output"]["total"] >= 1
    pinned = document(type("run", f"{limited}@1.0:run"))
    assert (pinned["output"], pinned["version"]) == ("ran", "1.0")


def test_paths_and_modules_are_seen_from_where_the_user_stands(type: Callable[..., Done], directory: Path):
    (directory / "shop").mkdir()
    (directory / "shop" / "__init__.py").touch()
    (directory / "shop" / "till.py").write_text(
        "import os\nfrom warmpool import BaseApp\n"
        "class Till(BaseApp):\n    def run(self) -> str:\n        return os.getcwd()\n"
    )
    new = ("--session", "new")
    for app in ("shop/till.py", "./shop/till.py", "shop.till:Till", "../" + directory.name + "/shop/till.py"):
        assert document(type("run", app, *new, cwd=directory))["output"] == str(directory)
    assert document(type("run", "till.py", *new, cwd=directory / "shop"))["output"] == str(directory / "shop")
    error = error_of(type("run", "till.py", cwd=directory), 3)
    assert "APP_NOT_FOUND: there is no file " in error
    assert f"{directory}/till.py" in error


def test_a_call_without_a_session_works_where_its_caller_stands(type: Callable[..., Done], directory: Path):
    """Also if the process that serves it has served somebody elsewhere."""
    for place in (directory, directory.parent, directory):
        assert document(type("run", COUNTER, "where", cwd=place))["output"]["cwd"] == str(place)


@pytest.mark.parametrize(
    ("function", "output"),
    [("bytes", base64.b64encode(b"\x00\xff").decode()), ("uuid", "00000000-0000-0000-0000-000000000007"), ("set", [3])],
)
def test_values_that_json_does_not_have(type: Callable[..., Done], function: str, output: object):
    given = json.dumps({"kind": function})
    assert document(type("run", VALUES, "give", "--input", given))["output"] == output


def test_numbers_that_json_does_not_have(type: Callable[..., Done]):
    output = document(type("run", ODD, "numbers"))["output"]
    assert len(output) == 4
    assert output[3] == 0.5


def test_keys_that_json_does_not_have(type: Callable[..., Done]):
    output = document(type("run", ODD, "keys"))["output"]
    assert sorted(output.values()) == [1, 2, 3, 4, 5]
    assert output["five"] == 5


@pytest.mark.parametrize("way", [(), ("--stream",)], ids=["call", "stream"])
def test_a_result_is_printed_however_deep_it_is(type: Callable[..., Done], way: tuple[str, ...]):
    """Python cannot read it again without being told to go as deep."""
    done = type("run", ODD, "nested", "--input", '{"depth": 1020}', *way)
    assert (done.returncode, done.stderr) == (0, "")
    assert f'"output": {"[" * 1020}{"]" * 1020}, ' in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_cannot_show_everything(type: Callable[..., Done], encoding: str):
    done = type(
        "run", VALUES, "echo", "--input", '{"value": "gr\\u00fcn \\u2603"}',
        env=environment(PYTHONIOENCODING=encoding),
    )  # fmt: skip
    assert document(done)["output"] == "grün ☃"


# --- errors and exit codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "name", "says"),
    [
        (["run", COUNTER, "nope"], 3, "FUNCTION_NOT_FOUND", "add, fail, history, plain, where, who"),
        (["run", COUNTER, "add", "--input", '{"amount": "many"}'], 3, "INVALID_INPUT", "amount"),
        (["run", COUNTER, "add", "--input", "[1]"], 3, "INVALID_INPUT", "valid dictionary"),
        (["run", "no_such_app"], 3, "APP_NOT_FOUND", "known by name"),
        (["run", "no/such/app.py"], 3, "APP_NOT_FOUND", "there is no file"),
        (["run", str(APPS)], 3, "APP_NOT_FOUND", "without __init__.py"),
        (["run", "a@b@c"], 3, "INVALID_REQUEST", "does not name an app"),
        (["run", "/apps/\udcff.py", "add"], 3, "INVALID_REQUEST", r"'/apps/\udcff.py' cannot be sent"),
        (["run", COUNTER, "--session", ""], 3, "INVALID_REQUEST", "session must be a non-empty string"),
        (["run", COUNTER, "--session", "new", "--session-timeout", "0.5"], 3, "INVALID_REQUEST", "from 1 to 3600"),
        (["run", COUNTER, "--session", "new", "--session-timeout", "nan"], 3, "INVALID_REQUEST", "from 1 to 3600"),
        (["run", COUNTER, "--session-timeout", "5"], 3, "INVALID_REQUEST", 'only with session="new"'),
        (["run", COUNTER, "--session", NOBODY, "--session-timeout", "5"], 3, "INVALID_REQUEST", "only with"),
        (["run", COUNTER, "--open-timeout", "-1"], 3, "INVALID_REQUEST", "open_timeout"),
        (["app", "describe", "no_such_app"], 3, "APP_NOT_FOUND", "known by name"),
        (["app", "describe", f"{COUNTER}@9"], 5, "VERSION_MISMATCH", "or for counter to get the newest"),
        (["run", COUNTER, "fail", "--input", '{"message": "out of luck"}'], 4, "APP_ERROR", "ValueError: out of luck"),
        (["run", str(APPS / "raises_on_import.py")], 4, "APP_BROKEN", "no_such_module_anywhere"),
        (["run", str(APPS / "raises_in_setup.py")], 4, "APP_BROKEN", "no model here"),
        (["app", "describe", str(APPS / "raises_on_import.py")], 4, "APP_BROKEN", "no_such_module_anywhere"),
        (["run", COUNTER, "add", "--session", NOBODY], 5, "SESSION_NOT_FOUND", "session not found"),
        (["session", "get", NOBODY], 5, "SESSION_NOT_FOUND", "session not found"),
        (["session", "keepalive", NOBODY], 5, "SESSION_NOT_FOUND", "session not found"),
        (["session", "end", NOBODY], 5, "SESSION_NOT_FOUND", "session not found"),
        (["run", str(APPS / "misbehaves.py"), "kill_itself", "--session", "new"], 5, "WORKER_LOST", "SIGKILL"),
        (["run", str(APPS / "misbehaves.py"), "kill_itself"], 5, "WORKER_LOST", "died"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors(
    here: Callable[..., Done],
    shared_daemon: Daemon,
    client: Client,
    arguments: list[str],
    code: int,
    name: str,
    says: str,
):
    error = error_of(here(*arguments, "--socket", str(shared_daemon.socket)), code)
    assert error.startswith(f"error: {name}: ")
    assert says in error


def test_an_error_of_the_app_shows_its_own_frames_and_the_session_that_lives_on(
    type: Callable[..., Done], client: Client
):
    error = error_of(type("run", COUNTER, "fail", "--session", "new"), 4)
    (info,) = client.sessions.list()
    assert error.startswith("error: APP_ERROR: ")
    assert "Traceback (most recent call last):" in error
    assert "raise ValueError(message)" in error
    assert error.splitlines()[-1] == f"the session lives on: {info.id}"


def test_a_broken_app_shows_its_authors_frames(type: Callable[..., Done]):
    error = error_of(type("run", str(APPS / "raises_on_import.py"), "--session", "new"), 4)
    assert "raises_on_import.py" in error
    assert "import no_such_module_anywhere" in error


def test_sessions_that_are_over_or_anothers(type: Callable[..., Done], client: Client):
    session = client.session(COUNTER)
    assert "APP_MISMATCH" in error_of(type("run", VALUES, "echo", "--session", session.id), 5)
    assert "VERSION_MISMATCH" in error_of(type("run", f"{COUNTER}@none", "add", "--session", session.id), 5)
    session.end()
    error = error_of(type("run", COUNTER, "add", "--session", session.id), 5)
    assert error.startswith("error: SESSION_ENDED: ")
    assert "session ended" in error.lower()
    assert "SESSION_ENDED" in error_of(type("session", "keepalive", session.id), 5)


def test_no_room(type: Callable[..., Done], client: Client):
    limited = str(APPS / "limited.py")
    with client.session(limited):
        error = error_of(type("run", limited, "--session", "new", "--open-timeout", "0"), 6)
    assert error.startswith("error: POOL_EXHAUSTED: ")


def test_a_session_that_went_with_its_daemon_does_not_live_on(daemon: Daemon):
    typed = ["run", str(APPS / "async_counter.py"), "wait_for_ticks", "--session", "new", "--input"]
    with running(command(daemon.socket, *typed, '{"count": 1000000}')) as process:
        session_id = wait_until_busy(daemon.client)
        os.kill(daemon.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (6, "")
    assert err.startswith(f"error: DAEMON_UNAVAILABLE: the daemon is gone, and session {session_id} with it")
    assert "lives on" not in err


@pytest.mark.parametrize("command", ["get", "keepalive", "labels", "logs", "why", "cancel", "end"])
def test_the_name_of_a_session_is_no_id(type: Callable[..., Done], client: Client, command: str):
    with client.session(COUNTER, name="mine") as session:
        error = error_of(type("session", command, "mine"), 5)
    assert error.endswith(f"session not found: mine is a name and no id; the session that has it is {session.id}\n")


@pytest.mark.parametrize(
    "command", [["serve"], ["serve", "--detach"], ["run", COUNTER, "add"]], ids=["serve", "detached", "run"]
)
def test_a_file_that_is_no_socket_is_not_taken_for_one(free_socket: Path, command: list[str]):
    """And has no log of ours beside it."""
    free_socket.write_text("precious")
    error = error_of(warmpool(free_socket, *command), 3)
    assert f"{free_socket} is there, and is no socket" in error
    assert free_socket.read_text() == "precious"
    assert list(free_socket.parent.iterdir()) == [free_socket]
    free_socket.unlink()


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["session", "list"],
        ["session", "get", NOBODY],
        ["session", "keepalive", NOBODY],
        ["session", "end", NOBODY],
        ["app", "list"],
    ],
    ids=" ".join,
)
def test_no_daemon(here: Callable[..., Done], free_socket: Path, arguments: list[str]):
    error = error_of(here(*arguments, "--socket", str(free_socket)), 6)
    assert error.startswith(f"error: DAEMON_UNAVAILABLE: no daemon listens at {free_socket}")
    assert list(free_socket.parent.iterdir()) == []


@pytest.mark.parametrize("below", ["file/d.sock", "y" * 105, "z" * 300])
@pytest.mark.parametrize("command", ["status", "stop"])
def test_where_no_daemon_can_be_none_is_said_to_be_missing(
    here: Callable[..., Done], directory: Path, command: str, below: str
):
    (directory / "file").touch()
    error = error_of(here(command, "--socket", str(directory / below)), 3)
    assert error.startswith(f"error: INVALID_REQUEST: no daemon can be reached at {directory / below}: ")
    assert error.endswith("; name another --socket\n")
    assert [path.name for path in directory.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["session"],
        ["app"],
        ["run"],
        ["session", "get"],
        ["run", COUNTER, "add", "too", "many"],
        ["run", COUNTER, "--nonsense"],
        ["run", COUNTER, "--session", "new", "--session-timeout", "soon"],
        ["serve", "--max-workers", "few"],
    ],
    ids=" ".join,
)
def test_wrong_usage(here: Callable[..., Done], arguments: list[str]):
    error = error_of(here(*arguments), 2)
    assert error.startswith("usage: warmpool")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", COUNTER, "add", "too", "many"], "run: error: unrecognized arguments: too many"),
        (["run", COUNTER, "add", "--nonsense"], "run: error: unrecognized arguments: --nonsense"),
        (["session", "list", "--all", "none"], "session list: error: unrecognized arguments: none"),
        (["session", "--json", "list"], "session list: error: unrecognized arguments: --json"),
        (["completion", "bash", "zsh"], "completion: error: unrecognized arguments: zsh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_command_does_not_take_is_told_with_its_usage(
    here: Callable[..., Done], arguments: list[str], says: str
):
    error = error_of(here(*arguments), 2)
    assert error.startswith(f"usage: warmpool {says.partition(':')[0]} [-h]")
    assert error.endswith(f"warmpool {says}\n")


@pytest.mark.parametrize(
    ("typed", "in_order"),
    [
        ("run app.py --input {} add", "run --input {} app.py add"),
        ("run --stream app.py --session new add --json", "run --stream --session new --json app.py add"),
        ("run app.py --stream -- add", "run --stream app.py add"),
        ("session labels ID --json a=b", "session labels --json ID a=b"),
        ("session labels ID a=b --json c=d", "session labels --json ID a=b c=d"),
        ("serve one.py --warm 1 two.py --tail three.py", "serve --warm 1 --tail one.py two.py three.py"),
    ],
)
def test_options_stand_where_they_like(typed: str, in_order: str):
    read, expected = vars(parse(typed.split())), vars(parse(in_order.split()))
    for options in (read, expected):
        del options["parser"], options["command"]
    assert read == expected


def test_the_installed_command():
    script = Path(sys.executable).with_name("warmpool")
    done = subprocess.run([script, "session"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert error_of(done, 2).startswith("usage: warmpool session [-h] COMMAND ...\n")


@pytest.mark.parametrize("way", ["", "--stream"])
@pytest.mark.parametrize("session", ["new", "an old one"])
def test_ctrl_c_cancels_the_call(
    type: Callable[..., Done], client: Client, shared_daemon: Daemon, way: str, session: str
):
    session_id = session if session == "new" else client.session(TOLD).id
    typed = command(shared_daemon.socket, "run", TOLD, "spin", "--session", session_id, *way.split())
    with running(HEEDING_CTRL_C + typed[1:]) as process:
        session_id = wait_until_busy(client)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    told = [line for line in err.splitlines() if line != "begun"]
    assert told[0] == "error: CALL_CANCELLED: interrupted; the call was cancelled"
    assert told[1:] == ([f"the session lives on: {session_id}"] if way or session == "new" else [])
    assert out == ""
    assert document(type("run", TOLD, "seen", "--session", session_id))["output"] == [[True], 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_command_cancels_the_call(client: Client, shared_daemon: Daemon, number: signal.Signals):
    """Nobody could see that of a call without a session, or end it."""
    with running(command(shared_daemon.socket, "run", TOLD, "spin", "--stream")) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
    wait_until(lambda: "serving" not in client.status().workers_by_state)


def test_a_time_out(type: Callable[..., Done], client: Client):
    done = type("run", TOLD, "sleep", "--session", "new", "--timeout", "0.1")
    (info,) = client.sessions.list()
    assert error_of(done, 7).splitlines() == [
        "error: CALL_TIMEOUT: no answer within 0.1 s; the call was cancelled",
        f"its session: {info.id}",
    ]
    assert type("run", TOLD, "fine", "--session", info.id, "--timeout", "0").returncode == 3


def events_of(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_stream_is_a_line_for_each_event(type: Callable[..., Done], client: Client):
    done = type("run", STREAMS, "count", "--stream", "--session", "new", "--input", '{"to": 2}')
    assert (done.returncode, done.stderr) == (0, "")
    (info,) = client.sessions.list()
    events = events_of(done)
    assert [(event["type"], event["number"], event["output"]) for event in events] == [
        ("output", 1, 0), ("output", 2, 1), ("done", 3, "counted")
    ]  # fmt: skip
    assert events[-1]["session_id"] == info.id


def test_a_stream_is_live(client: Client, shared_daemon: Daemon):
    typed = command(shared_daemon.socket, "run", STREAMS, "stand", "--stream", "--session", "new")
    with running(typed) as process:
        assert json.loads(process.stdout.readline())["output"] == 1, "while the function goes on"
        client.calls.cancel(wait_until_busy(client))
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 7
    assert json.loads(out)["error"]["code"] == "CALL_CANCELLED"
    assert err.startswith("closed\nerror: CALL_CANCELLED: stand was cancelled\n"), "what it printed comes first"


def test_progress_is_for_people_unless_everything_is_wanted(type: Callable[..., Done]):
    given = ("run", STREAMS, "work", "--stream", "--input", '{"steps": 2, "message": "at it"}')
    done = type(*given)
    assert (done.stderr, [event["type"] for event in events_of(done)]) == ("", ["done"])
    everything = type(*given, "--json")
    assert [event["type"] for event in events_of(everything)] == ["progress", "progress", "done"]
    assert events_of(everything)[0]["message"] == "at it"


def test_progress_is_a_bar_on_a_terminal(shared_daemon: Daemon, client: Client):
    ours, theirs = os.openpty()
    given = ("run", STREAMS, "work", "--stream", "--input", '{"steps": 4, "message": "at\\u001b[31m it"}')
    try:
        done = warmpool(shared_daemon.socket, *given, stderr=theirs)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert [event["type"] for event in events_of(done)] == ["done"]
    *steps, last = shown.split("\r\x1b[K")[1:]
    assert steps[1] == "[############............]  50%  2/4  at[31m it"
    assert len(steps) == 4
    assert last == "", "cleared at the end"


def test_a_bar_says_what_it_knows():
    assert bar(3, None, "") == "3"
    assert bar(3, 0, "x") == "3  x"
    assert bar(9, 3, "") == "[########################] 100%  9/3"
    assert bar(-1, 3, "").startswith("[........................]   0%")


def test_a_bar_bears_any_number():
    """An app may divide as it likes."""
    nan, inf = math.nan, math.inf
    assert [bar(*numbers, "x") for numbers in ((nan, 3), (3, nan), (inf, inf), (nan, None))] == [
        "nan  x", "3  x", "inf  x", "nan  x"
    ]  # fmt: skip
    assert bar(inf, 3, "").startswith("[########################] 100%")
    assert bar(3, inf, "").startswith("[........................]   0%")


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "--json"], ["app", "list"], ["run", COUNTER, "add"]], ids=" ".join
)
def test_a_reader_that_has_left(type: Callable[..., Done], arguments: list[str]):
    readable, writable = os.pipe()
    os.close(readable)
    try:
        done = type(*arguments, stdout=writable)
    finally:
        os.close(writable)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_disk_that_is_full(type: Callable[..., Done]):
    with open("/dev/full", "w") as full:
        done = type("status", stdout=full)
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")


BAD_INPUT = ("run", COUNTER, "add", "--input", '{"amount": "x"}')


@pytest.mark.parametrize(("arguments", "code"), [(BAD_INPUT, 3), (("run", COUNTER, "add"), 0)], ids=["fails", "works"])
@pytest.mark.parametrize("way", ["full", "nobody reads"])
def test_an_error_that_nobody_hears_is_still_one(free_socket: Path, arguments: tuple[str, ...], code: int, way: str):
    """Also when a daemon is started, of which people are told."""
    readable, writable = os.pipe()
    os.close(readable)
    try:
        with open("/dev/full", "w") as full:
            for _ in range(2):
                deaf = full if way == "full" else writable
                assert warmpool(free_socket, *arguments, stderr=deaf).returncode == code
    finally:
        os.close(writable)


def test_a_stdout_that_cannot_be_written_to(type: Callable[..., Done]):
    with open(os.devnull) as unwritable:
        done = type("status", stdout=unwritable)
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: Bad file descriptor\n")


def test_the_version(here: Callable[..., Done]):
    assert here("--version").stdout == f"warmpool {__version__}\n"


# --- session ------------------------------------------------------------------------------------------------------


def test_session_list(type: Callable[..., Done], client: Client):
    assert type("session", "list").stdout == "no sessions\n"
    assert document(type("session", "list", "--json")) == []
    assert type("session", "top").stdout == "no sessions\n"
    with client.session(COUNTER) as old, client.session(COUNTER, session_timeout=300) as new:
        new.call("add")
        shown = rows(type("session", "list"))
        assert [row["ID"] for row in shown] == [new.id, old.id]
        info = new.info()
        assert shown[0] == {
            "ID": new.id,
            "APP": "counter",
            "VERSION": new.version,
            "STATUS": "active",
            "BUSY": "no",
            "CALL COUNT": "1",
            "SESSION TIMEOUT": "300",
            "EXPIRES AT": info.expires_at,
            "PID": str(info.pid),
        }
        listed = document(type("session", "list", "--json"))
        assert [item["id"] for item in listed] == [new.id, old.id]
        assert {**listed[0], "end_value": None} == info, "of which a list does not tell"
    assert rows(type("session", "list", "--all"))[0]["END REASON"] == "client"
    over = document(type("session", "list", "--all", "--json"))
    assert {old.id: "ended", new.id: "ended"}.items() <= {item["id"]: item["status"] for item in over}.items()
    assert type("session", "list").stdout == "no sessions\n"


def test_session_get(type: Callable[..., Done], client: Client):
    with client.session(COUNTER, labels={"project": "demo", "by": "me"}) as session:
        shown = fields(type("session", "get", session.id))
        assert shown["id"] == session.id
        assert shown["status"] == "active"
        assert shown["end_reason"] == "-"
        assert shown["busy"] == "no"
        assert shown["session_timeout"] == "60"
        assert shown["labels"] == "project=demo, by=me"
        assert document(type("session", "get", session.id, "--json")) == session.info()


def test_session_keepalive(type: Callable[..., Done], client: Client):
    with client.session(COUNTER) as session:
        before = session.info().expires_at
        slid = document(type("session", "keepalive", session.id, "--json"))
        assert slid["expires_at"] > before
        assert fields(type("session", "keepalive", session.id))["expires_at"] > slid["expires_at"]
        assert session.info().call_count == 0


def test_session_end(type: Callable[..., Done], client: Client):
    one, two = client.session(COUNTER), client.session(COUNTER)
    pid = one.info().pid
    ended = document(type("session", "end", one.id, "--json"))
    assert (ended["id"], ended["status"], ended["end_reason"]) == (one.id, "ended", "client")
    assert wait_for_exit(pid, 0)
    assert fields(type("session", "end", two.id))["status"] == "ended"
    assert fields(type("session", "end", two.id))["status"] == "ended", "once more is no error"


def test_what_is_said_of_a_session(type: Callable[..., Done], client: Client):
    said = (
        "--name",
        "a/b",
        "--label",
        "project=demo",
        "--label",
        "by=me=you",
        "--description",
        "two words",
        "--tag",
        "x",
    )
    opened = document(type("run", COUNTER, "add", "--session", "new", *said))
    info = client.sessions.get(opened["session_id"])
    assert (info.name, info.description, info.tags) == ("a/b", "two words", ["x"])
    assert info.labels == {"project": "demo", "by": "me=you"}
    taken = error_of(type("run", COUNTER, "add", "--session", "new", "--name", "a/b"), 5)
    assert "NAME_TAKEN" in taken
    assert info.id in taken
    again = document(type("run", COUNTER, "add", "--session", "new", "--name", "a/b", "--if-exists", "attach"))
    assert again["output"] == {"total": 2}
    assert "WORKER_LEASED" in type("run", COUNTER, "add", "--worker", info.worker_id).stderr
    (row,) = rows(type("session", "list"))
    assert (row["NAME"], row["LABELS"]) == ("a/b", "project=demo, by=me=you")


def test_session_list_filters_and_pages(type: Callable[..., Done], client: Client):
    ids = [client.session(COUNTER, labels={"n": str(n)}, name=f"page/{n}").id for n in range(3)]

    def listed(*arguments: str) -> list[str]:
        return [item["id"] for item in document(type("session", "list", "--json", *arguments))]

    assert listed("--label", "n=1") == [ids[1]]
    assert listed("--name-prefix", "page/", "--app", "counter") == ids[::-1]
    assert listed("--app", "other") == []
    page = type("session", "list", "--limit", "2", "--json")
    assert [item["id"] for item in json.loads(page.stdout)] == [ids[2], ids[1]]
    told = re.fullmatch(r"warmpool: 2 of 3; the next page: --cursor (\S+)\n", page.stderr)
    assert told is not None
    assert listed("--cursor", told[1]) == [ids[0]]
    assert "limit" in error_of(type("session", "list", "--limit", "0"), 3)
    client.sessions.end(ids[0])
    assert ids[0] in listed("--status", "ended")


def test_session_labels(type: Callable[..., Done], client: Client):
    with client.session(COUNTER, labels={"a": "b"}) as session:
        assert fields(type("session", "labels", session.id)) == {"a": "b"}
        assert document(type("session", "labels", session.id, "c=d", "--json")) == {"c": "d"}
        assert "label c" in error_of(type("session", "labels", session.id, "c="), 3)
        assert session.get_labels() == {"c": "d"}
        assert type("session", "labels", session.id, "--clear").stdout == ""
        assert session.get_labels() == {}


def test_session_logs(type: Callable[..., Done], client: Client, shared_daemon: Daemon):
    with client.session(TOLD) as session:
        with pytest.raises(CallTimeoutError):
            session.call("sleep", timeout=0.05)
        assert type("session", "logs", session.id).stdout.endswith(" begun\n")
        typed = command(shared_daemon.socket, "session", "logs", "-f", session.id)
        with running(typed) as process:
            assert process.stdout.readline().endswith(" begun\n")
            session.end()
            out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "", "")
    lines = [json.loads(line)["line"] for line in type("session", "logs", session.id, "--json").stdout.splitlines()]
    assert len(lines) == 1


def test_session_why(type: Callable[..., Done], client: Client):
    with client.session(TOLD) as session, pytest.raises(CallTimeoutError):
        session.call("sleep", timeout=0.05)
    done = type("session", "why", session.id)
    assert (done.returncode, done.stderr) == (0, "")
    head, *entries = done.stdout.splitlines()
    assert head == f"{session.id} is ended (client)"
    assert entries[-2] == "the end of its log:"
    assert entries[-1].endswith("begun")
    story = document(type("session", "why", session.id, "--json"))
    assert story == client.sessions.why(session.id)


def test_session_cancel_and_a_forced_end(type: Callable[..., Done], client: Client):
    with client.session(TOLD) as session, ThreadPoolExecutor(1) as pool:
        assert document(type("session", "cancel", session.id, "--json")) == {"call_id": None, "state": "idle"}
        call = pool.submit(session.call, "spin")
        wait_until_busy(client)
        call_id = session.info().call_id
        assert fields(type("session", "cancel", session.id, "--call", str(call_id)))["state"] == "running"
        assert isinstance(call.exception(PATIENCE), CallCancelledError)
        call = pool.submit(session.call, "ignore")
        wait_until_busy(client)
        assert fields(type("session", "end", session.id, "--force"))["status"] == "ended"
        assert isinstance(call.exception(PATIENCE), SessionEndedError)


# --- completion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", "serve run session app status stop completion -h --help --version"),
        ("sess", "session"),
        ("session l", "list labels logs"),
        ("--socket x session l", "list labels logs"),
        ("session list --st", "--status"),
        ("session list --status e", "ended expired"),
        ("session logs --fol", "--follow"),
        ("run app fn --str", "--stream"),
        ("run --if-exists ", "error attach"),
        ("completion ", "bash zsh fish -h --help"),
        ("run session ", ""),
    ],
)
def test_bash_completes_what_the_parsers_know(here: Callable[..., Done], typed: str, offered: str):
    script = here("completion", "bash").stdout
    words = ["warmpool", *typed.split(" ")]
    ask = f'COMP_WORDS=({" ".join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; _warmpool; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stderr == ""
    found = done.stdout.split()
    assert found == offered.split() if offered else "--input" in found


def test_the_other_shells_are_told_the_same(here: Callable[..., Done]):
    zsh = here("completion", "zsh").stdout
    assert "bashcompinit" in zsh
    assert ":1:COMP" not in zsh, "it takes a letter there for a modifier"
    assert zsh.endswith(here("completion", "bash").stdout.partition("\n")[2])
    fish = here("completion", "fish").stdout
    assert (
        "complete -c warmpool -n '__fish_seen_subcommand_from session; and __fish_seen_subcommand_from list' "
        "-l status -x -a 'active ended expired all' -d '(active)'" in fish
    )
    assert fish.count(" -a list ") == 2


# --- app ----------------------------------------------------------------------------------------------------------


def test_app_list(type: Callable[..., Done], client: Client):
    with client.session(COUNTER) as session:
        row = next(row for row in rows(type("app", "list")) if row["NAME"] == "counter")
        assert row["STATE"] == "ready"
        assert row["VERSION"] == session.version
        assert row["SOURCE"] == COUNTER
        assert int(row["WORKERS"]) >= 1
        listed = document(type("app", "list", "--json"))
        counter = next(app for app in listed if app["name"] == "counter")
        assert (counter["state"], counter["version"], counter["source"]) == ("ready", session.version, COUNTER)


def test_app_describe(type: Callable[..., Done]):
    done = type("app", "describe", COUNTER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"counter: {COUNTER}, under {sys.executable}",
        "add(amount: integer = 1)",
        "plain(amount: integer, times: integer = 1, label: string = 'none')",
        "history()",
        "where()",
        "who()",
        "fail(message: string = 'no')",
    ]
    functions = document(type("app", "describe", COUNTER, "--json"))
    assert [function["name"] for function in functions] == ["add", "plain", "history", "where", "who", "fail"]
    assert functions[1]["input_schema"]["required"] == ["amount"]
    described = type("app", "describe", str(APPS / "async_counter.py")).stdout
    assert "note(name: string)\n    Gives way in the middle: others must not come between.\n" in described


def test_any_input_is_described(type: Callable[..., Done], directory: Path):
    (directory / "inputs.py").write_text(
        "from typing import Literal\nfrom pydantic import BaseModel, RootModel\nfrom warmpool import BaseApp\n"
        "class Node(BaseModel):\n    value: int\n    children: list['Node'] = []\n"
        "class Ids(RootModel[list[int]]): pass\n"
        "class Inputs(BaseApp):\n"
        "    def recursive(self, node: Node): pass\n"
        "    def root(self, ids: Ids): pass\n"
        "    def literal(self, size: Literal['s', 'm'], unit: Literal['cm'] = 'cm', node: Node | None = None): pass\n"
    )
    done = type("app", "describe", str(directory / "inputs.py"))
    assert done.stdout.splitlines()[1:] == [
        "recursive(value: integer, children: array = [])",
        "root(array)",
        "literal(size: 's' | 'm', unit: 'cm' = 'cm', node: Node | null = None)",
    ]


def test_an_app_with_an_input_without_a_schema_is_described(type: Callable[..., Done]):
    done = type("app", "describe", ODD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "numbers()\n" in done.stdout
    assert "take(" in done.stdout
    assert document(type("app", "describe", ODD, "--json"))[0]["name"] == "numbers"


# --- status, stop, help -------------------------------------------------------------------------------------------


def test_status(type: Callable[..., Done], client: Client, shared_daemon: Daemon):
    with client.session(COUNTER):
        shown = fields(type("status"))
        assert shown["pid"] == str(shared_daemon.pid)
        assert shown["socket"] == str(shared_daemon.socket)
        assert shown["log"] == str(shared_daemon.log)
        assert shown["sessions"] == "1"
        assert "leased=1" in shown["workers_by_state"]
        told = document(type("status", "--json"))
        assert told["pid"] == shared_daemon.pid
        assert told["sessions"] == 1
    assert document(type("status", "--json"))["sessions"] == 0


def test_stop_and_stop_again(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon()
    daemon.client.session(COUNTER).call("add")
    done = warmpool(daemon.socket, "stop")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert wait_for_exit(daemon.pid, 0), "stop returns when the daemon is gone"
    assert processes_marked(daemon.mark) == []
    assert [path.name for path in daemon.socket.parent.iterdir()] == ["d.sock.log"]
    again = warmpool(daemon.socket, "stop")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == f"no daemon runs at {daemon.socket}\n"


def test_a_daemon_that_is_stuck_holds_nobody_up(
    start_daemon: Callable[..., Daemon], here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cli_daemon, "PATIENCE", 0.2)
    daemon = start_daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        where = ("--socket", str(daemon.socket))
        assert f"pid {daemon.pid}, has not answered for 0.2 s" in error_of(here("status", *where), 6)
        assert f"still runs after 0.2 s; see {daemon.socket}.log, or end it" in error_of(here("stop", *where), 1)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert wait_for_exit(daemon.pid), "it has been told to"


def test_five_who_stop_at_once(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon()
    with contextlib.ExitStack() as stack:
        stopping = [stack.enter_context(running(command(daemon.socket, "stop"))) for _ in range(5)]
        done = [(process.communicate(timeout=PATIENCE), process.returncode) for process in stopping]
    assert {code for _, code in done} == {0}, done
    assert wait_for_exit(daemon.pid, 0)


HELP = {
    "": ["serve", "run", "session", "app", "status", "stop", "exit codes:"],
    "serve": ["--max-workers", "--warm", "--log-json", "--detach", "--idle-exit", "--socket"],
    "run": ["APP", "FUNCTION", "--input", "--session", "--session-timeout", "--socket"],
    "session": ["list", "get", "keepalive", "end"],
    "session list": ["--all", "--json", "--socket"],
    "session get": ["ID", "--json"],
    "session keepalive": ["ID", "--json"],
    "session end": ["ID", "--json", "--force"],
    "session cancel": ["ID", "--json", "--force", "--call"],
    "session labels": ["ID", "KEY=VALUE", "--clear", "--json"],
    "session logs": ["ID", "--follow", "--json"],
    "session why": ["ID", "--json"],
    "session top": ["--interval", "--app"],
    "completion": ["bash", "zsh", "fish"],
    "app": ["list", "describe"],
    "app list": ["--json"],
    "app describe": ["APP", "--json"],
    "status": ["--json"],
    "stop": ["--socket"],
}


@pytest.mark.parametrize("typed", HELP, ids=str)
def test_help(here: Callable[..., Done], typed: str):
    done = here(*typed.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: warmpool {typed}".rstrip())
    for word in HELP[typed]:
        assert word in done.stdout


def test_the_help_tells_every_exit_code(here: Callable[..., Done]):
    told = {int(code) for code in re.findall(r"\b(\d+)  \w", here("--help").stdout)}
    named = {value for name, value in vars(cli).items() if name.isupper() and isinstance(value, int)}
    assert told == named == {0, 1, 2, 3, 4, 5, 6, 7, 130}


HEAVY = ["asyncio", "pydantic", "pydantic_core", "uvloop", "psutil", "polars"]
LOOK = """\
import sys
from warmpool.cli import daemon as cli_daemon
from warmpool.cli import main
try:
    code = main()
except SystemExit as exit:
    code = exit.code
print(*(name for name in {heavy} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--help"],
        ["run", COUNTER, "add", "--session", "new", "--input", '{"amount": 1}'],
        ["session", "list"],
        ["status", "--json"],
        ["app", "describe", COUNTER],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_a_command_does_not_need_is_not_imported(shared_daemon: Daemon, client: Client, arguments: list[str]):
    script = LOOK.format(heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        env={**os.environ, "WARMPOOL_SOCKET": str(shared_daemon.socket)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "\n"), "imported without need"
    assert done.stdout


# --- no daemon runs -----------------------------------------------------------------------------------------------


def test_run_starts_a_daemon_and_says_so(free_socket: Path):
    first = warmpool(free_socket, "run", COUNTER, "add", "--session", "new", "--input", '{"amount": 2}')
    assert first.returncode == 0
    result = json.loads(first.stdout)
    assert result["output"] == {"total": 2}
    assert first.stderr == (
        "warmpool: started a daemon in the background, which leaves after 10 idle minutes; "
        f"log: {free_socket}.log\n"
    )  # fmt: skip
    second = document(warmpool(free_socket, "run", COUNTER, "add", "--session", result["session_id"]))
    assert second["output"] == {"total": 3}


def test_run_says_that_it_has_started_a_daemon_even_if_the_call_fails(free_socket: Path):
    error = error_of(warmpool(free_socket, "run", COUNTER, "nope"), 3)
    assert error.startswith("warmpool: started a daemon")
    assert "error: FUNCTION_NOT_FOUND" in error


def test_describe_says_so_too(free_socket: Path):
    done = warmpool(free_socket, "app", "describe", COUNTER)
    assert done.returncode == 0
    assert "\nadd(" in done.stdout
    assert "started a daemon" in done.stderr


def test_a_daemon_in_the_background_holds_nothing_of_its_starters(free_socket: Path):
    """A lock of the shell that started it, or a pipe that somebody reads to its end."""
    readable, writable = os.pipe()
    done = warmpool(free_socket, "run", COUNTER, "add", "--session", "new", pass_fds=[writable])
    os.close(writable)
    assert done.returncode == 0
    with open(readable) as pipe:
        assert select.select([pipe], [], [], PATIENCE)[0], "somebody has it"
        assert pipe.read() == ""


def test_a_daemon_that_cannot_keep_a_log(free_socket: Path):
    log = free_socket.with_name("d.sock.log")
    log.mkdir()
    error = error_of(warmpool(free_socket, "serve", "--detach"), 3)
    log.rmdir()
    assert error == f"error: INVALID_REQUEST: no log can be kept in {log}: Is a directory\n"


def test_a_daemon_that_cannot_start(free_socket: Path):
    lock = free_socket.with_name("d.sock.lock")
    lock.mkdir()
    done = warmpool(free_socket, "run", COUNTER, "add")
    lock.rmdir()
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("error: DAEMON_UNAVAILABLE: the daemon did not start")
    assert "Is a directory" in done.stderr


def test_stopping_a_daemon_whose_socket_somebody_has_removed(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon()
    daemon.socket.unlink()
    told = error_of(warmpool(daemon.socket, "status"), 6)
    assert f"a daemon, pid {daemon.pid}, runs, but does not listen at {daemon.socket}" in told
    told = error_of(warmpool(daemon.socket, "serve"), 3)
    assert (
        f"a daemon is already running on {daemon.socket} (pid {daemon.pid}); stop it with `kill {daemon.pid}`" in told
    )
    done = warmpool(daemon.socket, "stop")
    assert done.returncode == 1
    assert f"a daemon, pid {daemon.pid}, runs, but nobody listens at {daemon.socket} any more" in done.stderr
    assert f"`kill {daemon.pid}`" in done.stderr
    os.kill(daemon.pid, signal.SIGTERM)
    assert wait_for_exit(daemon.pid)


def test_stopping_the_daemon_does_not_bring_one_back(free_socket: Path):
    """Somebody is in a call while somebody else stops the daemon."""
    assert warmpool(free_socket, "serve", "--detach").returncode == 0
    typed = ["run", str(APPS / "async_counter.py"), "wait_for_ticks", "--session", "new", "--input"]
    with (
        Client(free_socket, autostart=False) as client,
        running(command(free_socket, *typed, '{"count": 1000000}')) as process,
    ):
        wait_until_busy(client)
        assert warmpool(free_socket, "stop").returncode == 0
        out, err = process.communicate(timeout=PATIENCE)
    assert out == ""
    assert process.returncode in (5, 6, 7), err
    assert not free_socket.exists(), err


# --- serve --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(socket: Path, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A daemon in the foreground, from its first line to its end, which must be clean. `log` has its lines then."""
    with running(command(socket, "serve", *arguments), **options) as process:
        process.log = [process.stderr.readline()]
        assert "listening on" in process.log[0], process.log[0] + process.stderr.read()
        try:
            yield process
        finally:
            process.terminate()
            out, err = process.communicate(timeout=PATIENCE)
        process.log += err.splitlines(keepends=True)
        assert (process.returncode, out) == (0, "")
    assert list(socket.parent.glob("d.sock*")) == []


def test_the_log_of_a_daemon_before_is_not_taken_for_that_of_one_in_the_foreground(free_socket: Path):
    assert warmpool(free_socket, "serve", "--detach").returncode == 0
    log = Path(document(warmpool(free_socket, "status", "--json"))["log"])
    assert warmpool(free_socket, "stop").returncode == 0
    before = log.read_text()
    with running(command(free_socket, "serve")) as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert document(warmpool(free_socket, "status", "--json"))["log"] is None
        assert Places.of(free_socket).log_in_words() == "what it wrote to its stderr"
        assert warmpool(free_socket, "stop").returncode == 0
        assert process.wait(PATIENCE) == 0
    assert not log.exists()
    old = log.with_name(f"{log.name}.old")
    assert old.read_text() == before
    old.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_daemon_in_the_foreground(free_socket: Path, number: signal.Signals):
    with serving(free_socket) as daemon:
        first = re.fullmatch(r"\d\d:\d\d:\d\d listening on (\S+), pid (\d+); .*\n", daemon.log[0])
        assert first.groups() == (str(free_socket), str(daemon.pid))
        session_id = document(warmpool(free_socket, "run", COUNTER, "add", "--session", "new"))["session_id"]
        assert sorted(path.name for path in free_socket.parent.iterdir()) == ["d.sock", "d.sock.lock"]
        daemon.send_signal(number)
        assert wait_for_exit(daemon.pid, 5)
    assert f"{session_id} ended (daemon_stopped) after 1 calls" in "".join(daemon.log)
    assert daemon.log[-1].endswith(" stopped\n")
    assert processes_marked(os.environ[MARK]) == []


LOSES_ITS_STARTER = """\
import os, signal, sys
from warmpool.cli import serve
from warmpool.launch import is_gone
from warmpool.paths import Places

def run(ready):
    print("pid", os.getpid(), flush=True)
    starter = os.getppid()
    os.kill(starter, signal.SIGKILL)
    is_gone(starter)
    ready()

serve._detach(Places.of(sys.argv[1]), str, run)
"""


def test_a_daemon_whose_starter_died_leaves_and_says_why(free_socket: Path):
    subprocess.run([sys.executable, "-c", LOSES_ITS_STARTER, str(free_socket)], check=False, timeout=PATIENCE)
    log = free_socket.with_name("d.sock.log")
    while not (told := re.match(r"pid (\d+)\n", log.read_text())):
        look_again()
    assert wait_for_exit(int(told[1]))
    assert "whoever started this daemon did not wait for it: it leaves" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_a_daemon_that_has_just_made_its_files_leaves_none(free_socket: Path, number: signal.Signals):
    with running(command(free_socket, "serve")) as daemon:
        while not free_socket.exists():
            look_again()
        daemon.send_signal(number)
        assert (daemon.wait(PATIENCE), daemon.communicate()[1].endswith(" stopped\n")) == (0, True)
    assert list(free_socket.parent.iterdir()) == []


DEAF = """\
import os, signal, sys
for number in map(int, sys.argv[1].split(",")):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_daemon_in_the_background_of_a_script_heeds_what_it_should(free_socket: Path):
    """Its shell has it ignore SIGINT, and nohup SIGHUP: so does the daemon. SIGTERM is for it in any case, and how its
    children die is told to it though its starter does not want to know that of its own.
    """
    ignored = ",".join(str(int(n)) for n in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM))
    with running([sys.executable, "-c", DEAF, ignored, *command(free_socket, "serve")]) as process:
        assert "listening on" in process.stderr.readline()
        with Client(free_socket, autostart=False) as client:
            session = client.session(COUNTER)
            for number in (signal.SIGINT, signal.SIGHUP):
                process.send_signal(number)
                assert session.call("add")["total"] >= 1
                assert client.status().sessions == 1
            os.kill(session.info().pid, signal.SIGKILL)
            with pytest.raises(WorkerLostError, match="SIGKILL"):
                session.call("add")
        process.terminate()
        assert wait_for_exit(process.pid, 5)
        log = process.communicate(timeout=PATIENCE)[1]
    assert log.endswith(" stopped\n")
    assert processes_marked(os.environ[MARK]) == []


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_a_stream_that_is_closed_costs_no_more_than_its_words(shared_daemon: Daemon, closed: str):
    typed = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(shared_daemon.socket, "status", "--json")]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("closed", CLOSED)
def test_a_daemon_without_streams_gives_their_numbers_to_no_other_file(free_socket: Path, closed: str):
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command(free_socket, "serve", "--detach")],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with Client(free_socket, autostart=False) as client:
        assert client.session(COUNTER).call("add") == {"total": 1}
        assert free_socket.with_name("d.sock.lock").read_text() == str(client.status().pid)


@pytest.mark.parametrize("closed", CLOSED)
def test_a_daemon_in_the_foreground_without_streams(free_socket: Path, closed: str):
    typed = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(free_socket, "serve")]
    with running(typed) as process:
        with Client(free_socket, autostart=False) as client:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    facts = client.status()
                    break
                except DaemonUnavailableError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
            assert client.session(COUNTER).call("add") == {"total": 1}
            streams = [os.readlink(f"/proc/{facts.pid}/fd/{fd}") for fd in range(3)]
            assert all(name == os.devnull or name.startswith("pipe:") for name in streams)
            assert free_socket.with_name("d.sock.lock").read_text() == str(facts.pid)
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_log_lines_as_json(free_socket: Path):
    begun = time.time()
    with serving(free_socket, "--log-json") as daemon:
        session_id = document(warmpool(free_socket, "run", COUNTER, "add", "--session", "new"))["session_id"]
        assert warmpool(free_socket, "session", "end", session_id).returncode == 0
    lines = [json.loads(line) for line in daemon.log]
    assert all(begun <= line["time"] <= time.time() for line in lines)
    assert f"{session_id} ended (client) after 1 calls" in [line["message"] for line in lines]


def test_a_daemon_that_is_refused_writes_to_the_log_of_the_one_that_runs_as_that_does(free_socket: Path):
    serve = ("serve", "--detach", "--log-json")
    assert warmpool(free_socket, *serve).returncode == 0
    assert "INVALID_REQUEST: a daemon is already running on" in warmpool(free_socket, *serve).stderr
    *_, last = [json.loads(line) for line in free_socket.with_name("d.sock.log").read_text().splitlines()]
    assert last["message"].startswith("not started: INVALID_REQUEST: a daemon is already running on")


PRINTED_ON_IMPORT = ["by print", "by print to stderr", "by os.write", "by a child", "without an end"]


@pytest.mark.parametrize("alone", [False, True], ids=["forked", "not forked"])
def test_what_an_app_prints_on_import_is_in_the_log_line_by_line(
    free_socket: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
):
    """If it cannot be forked, once from its template and once from its worker."""
    if alone:
        monkeypatch.setenv("ONCE_ALONE", "1")
    with serving(free_socket, "--log-json", "--warm", "0") as daemon:
        assert document(warmpool(free_socket, "run", PRINTS_ON_IMPORT))["output"] == 1
    messages = [json.loads(line)["message"] for line in daemon.log]
    printed = [text.removeprefix("[prints_on_import] ") for text in messages if text.startswith("[")]
    assert sorted(printed) == sorted(PRINTED_ON_IMPORT * (2 if alone else 1))


@pytest.mark.parametrize("way", ["full", "nobody reads"])
def test_an_app_that_prints_on_import_where_nobody_reads_the_log(free_socket: Path, way: str):
    readable, writable = os.pipe()
    try:
        with running(command(free_socket, "serve"), stderr=writable) as process:
            assert b"listening on" in os.read(readable, 4096)
            if way == "full":
                os.set_blocking(writable, False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(writable, bytes(4096))
                os.set_blocking(writable, True)
            else:
                os.close(readable)
            assert document(warmpool(free_socket, "run", PRINTS_ON_IMPORT))["output"] == 1
            process.terminate()
            assert process.wait(PATIENCE) == 0
    finally:
        os.close(writable)
        if way == "full":
            os.close(readable)


def test_a_long_log_of_daemons_before_is_begun_anew_by_the_one_that_runs(free_socket: Path):
    log, old = (free_socket.with_name(name) for name in ("d.sock.log", "d.sock.log.old"))
    with open(log, "wb") as file:
        file.truncate(DAEMON_LOG_LIMIT + 1)
    assert warmpool(free_socket, "run", COUNTER, "add").returncode == 0
    assert warmpool(free_socket, "serve", "--detach").returncode == 3, "it runs"
    assert warmpool(free_socket, "stop").returncode == 0
    assert old.stat().st_size > DAEMON_LOG_LIMIT
    assert log.read_text().splitlines()[-1].endswith(" stopped")
    old.unlink()


@pytest.fixture
def apps(directory: Path) -> Path:
    """A directory of apps: a file, a package, one that is broken, and files that are none."""
    path = directory / "apps"
    (path / "shop").mkdir(parents=True)
    text = "from warmpool import BaseApp\nclass App(BaseApp):\n    def run(self) -> str:\n        return __name__\n"
    (path / "simple.py").write_text(text)
    (path / "shop" / "__init__.py").write_text(text)
    (path / "broken.py").write_text("import no_such_module_anywhere\n" + text)
    (path / "helper.py").write_text("ANSWER = 42\n")
    (path / "_hidden.py").write_text(text)
    (path / "README.md").write_text("BaseApp\n")
    (path / "data").mkdir()
    return path


def wait_until_warm(socket: Path, *names: str) -> list[str]:
    """The names of the apps that the daemon knows, once these have a worker each."""
    with Client(socket, autostart=False) as client:

        def warm() -> set[str]:
            return {app.name for app in client.apps.list() if app.state == "ready" and app.workers}

        wait_until(lambda: warm() >= set(names))
        return [app.name for app in client.apps.list()]


def test_serve_a_directory(free_socket: Path, apps: Path):
    with serving(free_socket, str(apps)) as daemon:
        assert wait_until_warm(free_socket, "simple", "shop") == ["broken", "shop", "simple"]
        assert document(warmpool(free_socket, "run", "simple"))["output"] == "simple"
        assert document(warmpool(free_socket, "run", "shop"))["output"] == "shop"
        assert "no_such_module_anywhere" in error_of(warmpool(free_socket, "run", "broken"), 4)
        listed = {app["name"]: app for app in document(warmpool(free_socket, "app", "list", "--json"))}
        assert listed["broken"]["state"] == "broken"
        assert listed["simple"]["source"] == str(apps / "simple.py")
        (apps / "later.py").write_text((apps / "simple.py").read_text())
        assert document(warmpool(free_socket, "run", "later"))["output"] == "later"
    assert "no_such_module_anywhere" in "".join(daemon.log)


def test_serve_two_directories_with_an_app_of_one_name(free_socket: Path, apps: Path):
    other = apps.with_name("others") / "simple.py"
    other.parent.mkdir()
    other.write_text((apps / "simple.py").read_text())
    assert warmpool(free_socket, "serve", "--detach", str(apps), str(other.parent)).returncode == 0
    assert wait_until_warm(free_socket, "simple", str(other)) == [str(other), "broken", "shop", "simple"]
    listed = {row["NAME"]: row["SOURCE"] for row in rows(warmpool(free_socket, "app", "list"))}
    assert (listed["simple"], listed[str(other)]) == (str(apps / "simple.py"), str(other))
    log = Path(f"{free_socket}.log").read_text()
    assert log.count(f"simple is the name of {apps / 'simple.py'}; name {other} by its path\n") == 1


def test_a_name_that_is_no_text_is_no_apps(free_socket: Path, apps: Path):
    odd = os.fsencode(apps) + b"/odd\xff.py"
    with open(odd, "wb") as file:
        file.write(Path(COUNTER).read_bytes())
    assert "odd\\udcff.py' cannot be an app" in error_of(
        warmpool(free_socket, "serve", "--detach", os.fsdecode(odd)), 3
    )
    assert warmpool(free_socket, "serve", "--detach", str(apps)).returncode == 0
    assert [row["NAME"] for row in rows(warmpool(free_socket, "app", "list"))] == ["broken", "shop", "simple"]


def test_serve_files_as_they_are_seen_from_here(free_socket: Path, apps: Path):
    with serving(free_socket, "simple.py", "shop", cwd=apps):
        assert wait_until_warm(free_socket, "simple", "shop") == ["shop", "simple"]
        assert document(warmpool(free_socket, "run", "simple"))["output"] == "simple"


def test_a_detached_daemon_serves_files_as_they_are_seen_from_here(free_socket: Path, apps: Path):
    done = warmpool(free_socket, "serve", "--detach", "simple.py", cwd=apps)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert wait_until_warm(free_socket, "simple") == ["simple"]


def test_serve_keeps_as_many_warm_as_it_is_told(free_socket: Path, apps: Path):
    with serving(free_socket, str(apps / "simple.py"), "--warm", "3"), Client(free_socket, autostart=False) as client:
        wait_until(lambda: client.status().workers_by_state == {"warm": 3})
        assert client.apps.list()[0].workers == 3


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["foreground", "detached"])
@pytest.mark.parametrize("app", ["no/such/path", "no_such_file.py"])
def test_serve_what_is_no_app(free_socket: Path, app: str, detach: list[str]):
    error = error_of(warmpool(free_socket, "serve", app, *detach, cwd=free_socket.parent), 3)
    assert error.startswith("error: APP_NOT_FOUND: there is no file ")
    assert {path.name for path in free_socket.parent.iterdir()} <= {"d.sock.log"}


@pytest.mark.parametrize(
    ("option", "value", "bounds"),
    [
        ("--max-workers", "0", "from 1 to 100000"),
        ("--warm", "-1", "from 0 to 10000"),
        ("--min-free-mb", "-1", "from 0 to 1073741824"),
        ("--open-timeout", "nan", "from 0 to 3600"),
        ("--call-frame-limit", "10", "from 1024 to 2147483647"),
        ("--call-memory-limit", "-1", "from 0 to 2147483647"),
        ("--log-cap-mb", "0", "from 1 to 1048576"),
        ("--idle-exit", "-0.5", "from 0 to 2592000"),
    ],
)
def test_a_setting_out_of_bounds_is_told_as_it_was_typed(
    here: Callable[..., Done], free_socket: Path, option: str, value: str, bounds: str
):
    error = error_of(here("serve", option, value, "--socket", str(free_socket)), 3)
    assert error == f"error: INVALID_REQUEST: {option} must be a number {bounds}, not {value}\n"
    assert list(free_socket.parent.iterdir()) == []


@pytest.mark.parametrize("below", ["file/d.sock", "file/sub/d.sock", "y" * 105, "z" * 254, "z" * 300])
def test_serve_where_no_socket_can_be(directory: Path, below: str):
    (directory / "file").touch()
    error = error_of(warmpool(directory / below, "serve"), 3)
    assert error.startswith("error: INVALID_REQUEST: ")
    assert [path.name for path in directory.iterdir()] == ["file"]


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["foreground", "detached"])
def test_a_second_daemon_is_refused(type: Callable[..., Done], shared_daemon: Daemon, detach: list[str]):
    before = document(type("status", "--json"))["uptime"]
    error = error_of(type("serve", *detach), 3)
    assert f"a daemon is already running on {shared_daemon.socket} (pid {shared_daemon.pid})" in error
    assert document(type("status", "--json"))["uptime"] >= before


RACE = """\
import sys
import warmpool.daemon.main
from warmpool.cli import daemon as cli_daemon
from warmpool.cli import main
sys.stdout.write("here\\n")
sys.stdout.flush()
sys.stdin.read()
sys.exit(main())
"""


def test_of_twenty_daemons_one_wins(free_socket: Path):
    script = [sys.executable, "-P", "-c", RACE, "serve", "--socket", str(free_socket)]
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(running(script, stdin=subprocess.PIPE)) for _ in range(20)]
        living = {stack.enter_context(open(os.pidfd_open(racer.pid))): racer for racer in racers}
        for racer in racers:
            assert racer.stdout.readline() == "here\n"
        for racer in racers:
            racer.stdin.close()
        losers = []
        while len(living) > 1:
            gone, _, _ = select.select(list(living), [], [], PATIENCE)
            assert gone, "more than one runs"
            losers += map(living.pop, gone)
        (winner,) = living.values()
        assert "listening on" in winner.stderr.readline()
        assert document(warmpool(free_socket, "status", "--json"))["pid"] == winner.pid
        for loser in losers:
            assert (loser.wait(), loser.stdout.read()) == (3, "")
            # It may have looked in the moment before the winner wrote its name.
            says = rf"a daemon is already running on {free_socket} \(pid ({winner.pid}|not known yet)\)"
            assert re.match(f"error: INVALID_REQUEST: {says}", loser.stderr.read())
        winner.terminate()
        assert wait_for_exit(winner.pid, 5)
        assert winner.wait() == 0
        assert list(free_socket.parent.iterdir()) == []


# --- done when ----------------------------------------------------------------------------------------------------


def test_the_story_that_was_promised(free_socket: Path):
    """As a new user would: state is kept, a window slides and ends, what is told is true, and nothing remains."""

    def run(*arguments: str) -> dict[str, Any]:
        return document(warmpool(free_socket, "run", COUNTER, "add", *arguments))

    assert warmpool(free_socket, "serve", "--detach").returncode == 0
    first = run("--session", "new", "--input", '{"amount": 2}')
    assert run("--session", first["session_id"], "--input", '{"amount": 3}')["output"] == {"total": 5}

    short = run("--session", "new", "--session-timeout", "2")["session_id"]
    worker = document(warmpool(free_socket, "session", "get", short, "--json"))["pid"]
    assert not wait_for_exit(worker, 0.8)
    assert run("--session", short)["output"] == {"total": 2}, "after about a second"
    called = time.monotonic()
    assert not wait_for_exit(worker, 0.5)
    listed = rows(warmpool(free_socket, "session", "list"))
    assert [(row["ID"], row["STATUS"], row["CALL COUNT"]) for row in listed] == [
        (short, "active", "2"),
        (first["session_id"], "active", "2"),
    ]
    assert document(warmpool(free_socket, "status", "--json"))["sessions"] == 2

    assert wait_for_exit(worker)
    assert time.monotonic() - called > 1.5, "two seconds from a call that ended some moments before"
    error = error_of(warmpool(free_socket, "run", COUNTER, "add", "--session", short), 5)
    assert error.startswith("error: SESSION_EXPIRED: ")
    assert "session expired" in error.lower()
    assert [row["ID"] for row in rows(warmpool(free_socket, "session", "list"))] == [first["session_id"]]
    over = {row["ID"]: row for row in rows(warmpool(free_socket, "session", "list", "--all"))}
    assert (over[short]["STATUS"], over[short]["END REASON"]) == ("expired", "idle")
    assert document(warmpool(free_socket, "status", "--json"))["sessions"] == 1
    assert run("--session", first["session_id"])["output"] == {"total": 6}

    assert warmpool(free_socket, "stop").returncode == 0
    assert processes_marked(os.environ[MARK]) == []
    assert [path.name for path in free_socket.parent.iterdir()] == ["d.sock.log"]
