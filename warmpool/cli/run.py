"""`warmpool run`: one call. stdout carries exactly one JSON document, with `session_id` at its top level; with
`--stream` one for each event, a line each, as they come.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import warnings
from typing import Any, NoReturn

from ..client.sync import Client, Stream
from ..errors import CallCancelledError, InvalidRequestError
from . import code_of
from .output import print_json, say, tell, tell_if_started
from .progress import Bar

_PASSED_ON = (
    *("function", "session", "session_timeout", "open_timeout", "timeout", "stream"),
    *("name", "if_exists", "description", "labels", "tags", "workers"),
)


def run(options: argparse.Namespace) -> int:
    warnings.showwarning = _to_stderr
    given = {"app": options.app, "input": read_input(options.input)}
    given |= {name: value for name in _PASSED_ON if (value := getattr(options, name)) is not None}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under `nohup`
            signal.signal(number, _interrupt)
    result = None
    with Client(options.socket) as client:
        try:
            if options.stream:
                _show(client.stream(given), everything=options.json)
            else:
                result = client.run(given)
        except KeyboardInterrupt as interrupt:
            say(f"error: {CallCancelledError.code}: interrupted; the call was cancelled")
            for note in getattr(interrupt, "__notes__", ()):
                say(note)
            return code_of(interrupt)
        finally:
            tell_if_started(client)
    if result is not None:
        print_json(result)
    return 0


def _show(stream: Stream, *, everything: bool) -> None:
    """Items and the end on stdout; progress and log lines, which are for people, on stderr unless `everything` is
    wanted on stdout.
    """
    with stream, Bar(sys.stderr) as bar:
        try:
            for event in stream:
                if not everything and event.type == "progress":
                    bar.show(event.done, event.total, event.message)
                elif not everything and event.type == "log":
                    bar.clear()
                    say(event.message)
                else:
                    bar.clear()
                    last = {"session_id": stream.session_id} if event.type in ("done", "error") else {}
                    print_json({**event, **last})
        except KeyboardInterrupt as interrupt:
            if stream.has_begun and stream.session_id is not None:
                interrupt.add_note(f"the session lives on: {stream.session_id}")
            raise


def read_input(text: str | None) -> Any:
    """The JSON behind `--input`, or None. Raises INVALID_REQUEST that says where it goes wrong."""
    if text is None:
        return None
    source, given = "--input", text.encode("utf-8", "surrogateescape")
    try:
        if text == "-":
            source, given = "stdin", sys.stdin.buffer.read()
            if not given.strip():
                raise InvalidRequestError("stdin is empty: pipe the input into it, as JSON")
        elif text.startswith("@"):
            source = text[1:]
            with open(source, "rb") as file:
                given = file.read()
        return json.loads(given)  # in any UTF, whatever the locale says
    except OSError as error:
        raise InvalidRequestError(f"cannot read the input: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError(f"{source} is nested too deeply") from error
    except ValueError as error:
        hint = "; in a shell, put it in single quotes" if source == "--input" else ""
        raise InvalidRequestError(f"{source} is not JSON: {error}{hint}") from error


def _interrupt(number: int, _: object) -> NoReturn:
    """As Ctrl-C does. Or else the call would go on, and of one without a session nobody would know."""
    raise KeyboardInterrupt(number)


def _to_stderr(message: Warning | str, *_: Any, **__: Any) -> None:
    tell(str(message).rstrip())
