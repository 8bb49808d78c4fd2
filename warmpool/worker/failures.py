"""What an app raised, as an error for the caller: its words and its own frames, none of ours.

To ask an exception anything is to run the app's code, or Python's on what the app has made, and each may raise again.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import Any, Final

import pydantic

from ..app import CallCancelled
from ..errors import AppBrokenError, AppError, CallCancelledError
from ..launch import PACKAGE
from ..wire.values import advice
from .loading import AppLoadError
from .logs import sendable

_OURS: Final = f"{PACKAGE}{os.sep}"
_PACKERS: Final = (_OURS, f"{os.path.dirname(pydantic.__file__)}{os.sep}", "msgpack/")
"""Compiled code, as msgpack's, has frames as well, of a file by a name that is not a path."""
_IMPORT_MACHINERY: Final = "<frozen importlib"
_LONGEST: Final = 16 * 1024
"""Of a traceback, in characters: its end says the most. An error fits into a control frame with it."""
_MOST_WORDS: Final = 500


def app_error(function: str, error: BaseException) -> AppError:
    return AppError(f"{function} raised {_summary(error)}", details=_details(error))


def call_cancelled(function: str, error: BaseException) -> CallCancelledError:
    """A call that was stopped. What it raised instead of letting the cancel pass is told as well."""
    if isinstance(error, CallCancelled):
        return CallCancelledError(f"{function} was cancelled")
    return CallCancelledError(f"{function} was cancelled, and raised {_summary(error)}", details=_details(error))


def app_broken(app: str, doing: str, error: BaseException) -> AppBrokenError:
    """`doing`: "its import", "its setup". What is no app has raised nothing: that is said in our words, once."""
    if isinstance(error, AppLoadError):
        return AppBrokenError(f"app {app} is broken: {words_of(error)}", details={"message": words_of(error)})
    hint = ""
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str) and not os.path.isabs(error.filename):
        hint = "; an app is imported and set up in /, so locate its own files by `__file__`"
    return AppBrokenError(f"app {app} is broken: {doing} raised {_summary(error)}{hint}", details=_details(error))


def cannot_send(function: str, value: object, error: BaseException) -> AppError:
    """A result that msgpack and pydantic do not carry; or whose own serializer has raised something."""
    if _is_the_apps(error):
        return app_error(f"serialising the output of {function}", error)
    return AppError(
        f"{function} returned a {name_of(value)} that cannot be sent: {words_of(error)}; {advice(error, 'return')}",
        details={"type": name_of(error), "message": words_of(error), "traceback": ""},
    )


def _is_the_apps(error: BaseException | None) -> bool:
    """Whether this, or what has led to it, was raised in code that is neither ours nor of what packs for us."""
    while error is not None:
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
        if files and not files[-1].startswith(_PACKERS):
            return True
        error = error.__cause__
    return False


_STDERR: Final = 2
OUTSIDE: Final = "between calls, in a task or a handler of a signal, the app"


def print_failure(doing: str, error: BaseException) -> None:
    """For a hook, whose error has no caller to go to."""
    text = f"{doing} raised {_summary(error)}\n{own_traceback(error)}"
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201  (the session's log)
    except BaseException:  # the app has put something else in its place, or closed it
        with suppress(OSError):
            os.write(_STDERR, f"{text}\n".encode("utf-8", "replace"))


def own_traceback(error: BaseException) -> str:
    """Python's rendering of `error` and what led to it, with the app's frames only."""
    try:
        rendered = traceback.TracebackException.from_exception(error)
        _strip(rendered)
        text = sendable("".join(rendered.format()))
    except BaseException as failure:
        return f"(its traceback cannot be shown: {name_of(failure)})\n"
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"


def _strip(rendered: traceback.TracebackException) -> None:
    seen, rest = set(), [rendered]
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [
            frame
            for frame in one.stack
            if not frame.filename.startswith(_OURS) and _IMPORT_MACHINERY not in frame.filename
        ]
        rest += [other for other in (one.__cause__, one.__context__, *(one.exceptions or ())) if other is not None]


def name_of(thing: object) -> str:
    try:
        return sendable(str(type(thing).__name__))
    except BaseException:
        return "thing without a name"


def words_of(error: BaseException) -> str:
    try:
        text = sendable(str(error))
    except BaseException:
        return "(its message cannot be shown)"
    return text if len(text) <= _MOST_WORDS else text[:_MOST_WORDS] + "…"


def _summary(error: BaseException) -> str:
    name, words = name_of(error), words_of(error)
    return f"{name}: {words}" if words else name


def _details(error: BaseException) -> dict[str, Any]:
    return {"type": name_of(error), "message": words_of(error), "traceback": own_traceback(error)}
