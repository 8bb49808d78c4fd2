"""What can be typed. Commands are imported when they are run, so that help and `run` start fast."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final, TypeAlias

from ..version import __version__

_EXIT_CODES = """\
exit codes:
  0  done                       4  the app raised, or is broken
  1  a bug in warmpool, or      5  the session is over, lost or not found, or its
     stdout cannot be written      name, app or version is another one
  2  wrong usage                6  no daemon, or no room in it
  3  the request is wrong       7  the call was cancelled, or took too long
                              130  interrupted

The daemon is found by --socket, else $WARMPOOL_SOCKET, else in the user's runtime directory."""


def parse(typed: Sequence[str]) -> argparse.Namespace:
    """What is `typed`: a command, then its options and words in any order. At an option argparse takes words that may
    be left out for left out, and has those over that follow; then the options are read first, which costs more.
    """
    options, left = make_parser(typed).parse_known_args(typed)
    if not left:
        return options
    command: argparse.ArgumentParser = options.parser
    _, *path = command.prog.split()
    if list(typed[: len(path)]) != path:  # an option in front of its command
        command.error(f"unrecognized arguments: {' '.join(left)}")
    return command.parse_intermixed_args(typed[len(path) :])


def make_parser(typed: Sequence[str] = ()) -> argparse.ArgumentParser:
    """For what is `typed`: if that begins with a command, the parser knows no other one, since to make them all takes
    longer than a call.
    """
    parser = _Parser(prog="warmpool", description="Stateful sessions on warm worker processes.", epilog=_EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"warmpool {__version__}")
    commands: _Commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", prog=parser.prog, parser_class=_Parser
    )
    for name in typed[:1] if typed and typed[0] in _COMMANDS else _COMMANDS:
        _COMMANDS[name](commands)
    return parser


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Formatter)
        self.set_defaults(parser=self)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width())


@cache
def _width() -> int:
    """Of help. (argparse asks `shutil`, for every option, and that takes a tenth of a command to import.)"""
    try:
        columns = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(sys.stdout.fileno()).columns
    except (ValueError, OSError):
        columns = 80
    return columns - 2


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(commands: _Commands, name: str, help: str, function: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    parser.set_defaults(command=_later(function))
    return parser


def _later(function: str) -> Callable[[argparse.Namespace], int | None]:
    module, _, name = function.partition(":")

    def command(options: argparse.Namespace) -> int | None:
        run: Callable[[argparse.Namespace], int | None] = getattr(import_module(f".{module}", __package__), name)
        gc.freeze()
        gc.enable()
        return run(options)

    return command


_ONE_DOCUMENT = "one JSON document on stdout"


def _json(parser: argparse.ArgumentParser, help: str = _ONE_DOCUMENT) -> None:
    parser.add_argument("--json", action="store_true", help=help)


def _add_serve(commands: _Commands) -> None:
    serve = _add(commands, "serve", "run the daemon", "serve:serve")
    serve.add_argument("apps", nargs="*", metavar="APP", help="files or packages of apps, or directories of these")
    serve.add_argument("--max-workers", type=int, metavar="N", help="live workers of all apps at most (256)")
    serve.add_argument("--warm", type=int, metavar="N", help="workers kept warm for each app in use (1)")
    serve.add_argument("--min-free-mb", type=int, metavar="MB", help="fork no worker with less memory free (256)")
    serve.add_argument("--open-timeout", type=float, metavar="S", help="seconds an open waits for a worker (30)")
    serve.add_argument("--start-timeout", type=float, metavar="S", help="seconds an import, or a setup, may take (300)")
    serve.add_argument("--call-frame-limit", type=int, metavar="BYTES", help="largest message over a socket (16 MiB)")
    serve.add_argument("--call-memory-limit", type=int, metavar="BYTES", help="largest in shared memory (1 GiB)")
    serve.add_argument("--idle-exit", type=float, metavar="S", help="exit after so many idle seconds (never)")
    serve.add_argument(
        "--app-idle-timeout", type=float, metavar="S", help="unload apps idle for so long, but not APPS (600)"
    )
    serve.add_argument("--detach", action="store_true", help="run in the background, with a log file")
    serve.add_argument("--log-cap-mb", type=int, metavar="MB", help="largest size of a session's log (10)")
    serve.add_argument("--tail", action="store_true", help="copy what apps print to the daemon's log")
    serve.add_argument("--log-json", action="store_true", help="write the log as JSON lines")


def _add_run(commands: _Commands) -> None:
    run = _add(commands, "run", "call a function of an app", "run:run")
    run.add_argument("app", metavar="APP", help="a name, name@version, path.py or package.module:Class")
    run.add_argument("function", nargs="?", metavar="FUNCTION", help="the app's default function, `run`, if omitted")
    run.add_argument("--input", metavar="JSON", help="the input; @FILE reads a file, - stdin")
    run.add_argument("--session", metavar="new|ID", help="a new session, or an open one (default: none)")
    run.add_argument("--session-timeout", type=float, metavar="S", help="sliding window of a new session (60)")
    run.add_argument("--open-timeout", type=float, metavar="S", help="seconds to wait for a worker (30)")
    run.add_argument("--timeout", type=float, metavar="S", help="cancel the call after so many seconds")
    run.add_argument("--stream", action="store_true", default=None, help="print a line per event, as it arrives")
    run.add_argument("--name", help="of a new session; unique among open ones")
    run.add_argument("--if-exists", choices=("error", "attach"), help="if an open session has that name (error)")
    _labels(run, "of a new session")
    run.add_argument("--description", metavar="TEXT", help="of a new session")
    run.add_argument("--tag", dest="tags", action="append", metavar="TEXT", help="of a new session; repeatable")
    run.add_argument("--worker", dest="workers", action="append", metavar="ID", help="use this worker and no other")
    _json(run, "with --stream: progress and log lines on stdout too")


def _add_session(commands: _Commands) -> None:
    session = commands.add_parser("session", help="list, inspect, keep alive and end sessions")
    actions = session.add_subparsers(title="commands", required=True, metavar="COMMAND", prog=session.prog)
    shown = _add(actions, "list", "list open sessions, newest first", "sessions:list_sessions")
    _filters(shown)
    shown.add_argument("--cursor", metavar="TEXT", help="the next page, as told by the last one")
    _json(shown)
    live = _add(actions, "top", "show the list, live", "sessions:top")
    _filters(live)
    live.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds between two looks (1)")
    found = {name: _of_one_session(actions, name, help) for name, help in _OF_ONE_SESSION.items()}
    found["get"].add_argument("--memory", action="store_true", help="also measure the worker's memory")
    found["end"].add_argument("--force", action="store_true", help="kill a running call")
    found["cancel"].add_argument("--call", type=int, metavar="ID", help="this call instead of the running one")
    found["cancel"].add_argument("--force", action="store_true", help="end the session if it does not stop at once")
    found["labels"].add_argument(
        "label", nargs="*", default=(), type=_label, metavar="KEY=VALUE", help="replace its labels by these"
    )
    found["labels"].add_argument("--clear", action="store_true", help="remove all")
    found["logs"].add_argument("-f", "--follow", action="store_true", help="until the session is over")


_OF_ONE_SESSION = {
    "get": "show everything about a session",
    "keepalive": "slide a session's window",
    "labels": "show a session's labels, or replace them",
    "logs": "show what a session printed and logged, each line with its call's number",
    "why": "show a session's history",
    "cancel": "cancel a session's call",
    "end": "end a session",
}


def _of_one_session(actions: _Commands, name: str, help: str) -> argparse.ArgumentParser:
    action = _add(actions, name, help, f"sessions:{name}")
    action.add_argument("id", metavar="ID")
    _json(action, "a JSON document for each line" if name == "logs" else _ONE_DOCUMENT)
    return action


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--app", metavar="APP", help="only of this app")
    status = parser.add_mutually_exclusive_group()
    status.add_argument("--status", choices=("active", "ended", "expired", "all"), help="(active)")
    status.add_argument("--all", dest="status", action="store_const", const="all", help="also those that are over")
    _labels(parser, "only with this label")
    parser.add_argument("--name-prefix", metavar="TEXT", help="only with a name that begins so")
    parser.add_argument("--limit", type=int, metavar="N", help="maximum number of sessions (100)")


def _labels(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument(
        "--label", dest="labels", action=_AddLabel, type=_label, metavar="KEY=VALUE", help=f"{help}; repeatable"
    )


class _AddLabel(argparse.Action):
    def __call__(self, _: object, options: argparse.Namespace, value: Any, __: object = None) -> None:
        setattr(options, self.dest, {**(getattr(options, self.dest) or {}), **dict([value])})


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"a label is KEY=VALUE, not {text!r}")
    return key, value


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"from 0.1 to 3600, not {text}")
    return seconds


def _add_status(commands: _Commands) -> None:
    _json(_add(commands, "status", "show the daemon's status", "daemon:status"))


def _add_stop(commands: _Commands) -> None:
    _add(commands, "stop", "stop the daemon and all of its sessions", "daemon:stop")


def _add_completion(commands: _Commands) -> None:
    script = commands.add_parser("completion", help="print a shell completion script")
    script.add_argument("shell", choices=("bash", "zsh", "fish"))
    script.set_defaults(command=_later("completion:completion"))


def _add_app(commands: _Commands) -> None:
    app = commands.add_parser("app", help="list and describe apps")
    actions = app.add_subparsers(title="commands", required=True, metavar="COMMAND", prog=app.prog)
    _json(_add(actions, "list", "list the apps the daemon knows by name", "apps:list_apps"))
    describe = _add(actions, "describe", "show an app's functions with their schemas", "apps:describe")
    describe.add_argument("app", metavar="APP")
    _json(describe)


_COMMANDS: Final[dict[str, Callable[[_Commands], None]]] = {
    "serve": _add_serve,
    "run": _add_run,
    "session": _add_session,
    "app": _add_app,
    "status": _add_status,
    "stop": _add_stop,
    "completion": _add_completion,
}
