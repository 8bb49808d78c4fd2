"""What can be typed. Commands are imported when they are run, so that help and `run` start fast."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import TypeAlias

_EXIT_CODES = """\
exit codes:
  0  done                       4  the app raised, or is broken
  1  a bug in warmpool          5  the session is over, lost or not there
  2  wrong usage                6  no daemon, or no room in it
  3  the request is wrong     130  interrupted

The daemon is found by --socket, else $WARMPOOL_SOCKET, else in the user's runtime directory."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="warmpool",
        description="Stateful sessions on warm worker processes.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_run(commands)
    _add_session(commands)
    _add_app(commands)
    status = _add(commands, "status", "how the daemon fares", "daemon:status")
    _json(status)
    _add(commands, "stop", "stop the daemon and all of its sessions", "daemon:stop")
    return parser


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
        return run(options)

    return command


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_serve(commands: _Commands) -> None:
    serve = _add(commands, "serve", "run the daemon", "serve:serve")
    serve.add_argument("apps", nargs="*", metavar="APP", help="files or packages of apps, or directories of these")
    serve.add_argument("--max-workers", type=int, metavar="N", help="live workers of all apps (256)")
    serve.add_argument("--warm", type=int, metavar="N", help="workers kept ready for each app that is used (1)")
    serve.add_argument("--min-free-mb", type=int, metavar="MB", help="no new worker below this free memory (256)")
    serve.add_argument("--open-timeout", type=float, metavar="S", help="how long an open waits in line (30)")
    serve.add_argument("--call-frame-limit", type=int, metavar="BYTES", help="largest call or result (16 MiB)")
    serve.add_argument("--idle-exit", type=float, metavar="S", help="leave after so long without sessions (never)")
    serve.add_argument("--detach", action="store_true", help="run in the background, with a log file")
    serve.add_argument("--log-cap-mb", type=int, metavar="MB", help="how much of a session's log is kept (10)")
    serve.add_argument("--tail", action="store_true", help="show what the apps print, line by line, in the log")
    serve.add_argument("--log-json", action="store_true", help="log lines as JSON")


def _add_run(commands: _Commands) -> None:
    run = _add(commands, "run", "call a function of an app", "run:run")
    run.add_argument("app", metavar="APP", help="a name, name@version, path.py or package.module:Class")
    run.add_argument("function", nargs="?", metavar="FUNCTION", help="the app's default one if left out")
    run.add_argument("--input", metavar="JSON", help="an object; @FILE to read it from a file, - from stdin")
    run.add_argument("--session", metavar="new|ID", help="in a new session, or in this one; left out: in none")
    run.add_argument("--session-timeout", type=float, metavar="S", help="a new session's sliding window (60)")
    run.add_argument("--open-timeout", type=float, metavar="S", help="how long to wait for a free worker (30)")
    _json(run)


def _add_session(commands: _Commands) -> None:
    session = commands.add_parser("session", help="list, look at, keep alive and end sessions")
    actions = session.add_subparsers(title="commands", required=True, metavar="COMMAND")
    shown = _add(actions, "list", "the open sessions, newest first", "sessions:list_sessions")
    shown.add_argument("--all", action="store_true", help="also those that are over")
    _json(shown)
    for name, help in (
        ("get", "all about a session"),
        ("keepalive", "slide a session's window"),
        ("end", "end a session"),
    ):
        action = _add(actions, name, help, f"sessions:{name}")
        action.add_argument("id", metavar="ID")
        _json(action)


def _add_app(commands: _Commands) -> None:
    app = commands.add_parser("app", help="list and describe apps")
    actions = app.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _json(_add(actions, "list", "the apps that the daemon knows by name", "apps:list_apps"))
    describe = _add(actions, "describe", "an app's functions with their schemas", "apps:describe")
    describe.add_argument("app", metavar="APP")
    _json(describe)
