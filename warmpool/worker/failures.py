"""What an app raised, as an error for the caller: its words and its own frames, none of ours."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any, Final

from ..app import CallCancelled
from ..errors import AppBrokenError, AppError, CallCancelledError
from .logs import sendable

_OURS: Final = str(Path(__file__).resolve().parent.parent)
_IMPORT_MACHINERY: Final = "<frozen importlib"
_LONGEST: Final = 16 * 1024
"""Of a traceback, in characters: its end says the most. An error fits into a control frame with it."""


def app_error(function: str, error: BaseException) -> AppError:
    return AppError(f"{function} raised {_summary(error)}", details=_details(error))


def call_cancelled(function: str, error: BaseException) -> CallCancelledError:
    """A call that was stopped. What it raised instead of letting the cancel pass is told as well."""
    if isinstance(error, CallCancelled):
        return CallCancelledError(f"{function} was cancelled")
    return CallCancelledError(f"{function} was cancelled, and raised {_summary(error)}", details=_details(error))


def app_broken(app: str, doing: str, error: BaseException) -> AppBrokenError:
    """`doing`: "its import", "its setup"."""
    return AppBrokenError(f"app {app} is broken: {doing} raised {_summary(error)}", details=_details(error))


def cannot_send(function: str, value: object, error: BaseException) -> AppError:
    """A result that msgpack and pydantic do not carry."""
    return AppError(
        f"{function} returned a {type(value).__qualname__} that cannot be sent: {error}; return plain data, "
        "a pydantic model or a dataclass",
        details={"type": type(error).__name__, "message": str(error), "traceback": ""},
    )


OUTSIDE: Final = "between calls, in a task or a handler of a signal, the app"


def print_failure(doing: str, error: BaseException) -> None:
    """For a hook, whose error has no caller to go to."""
    print(f"{doing} raised {_summary(error)}\n{own_traceback(error)}", file=sys.stderr, flush=True)  # noqa: T201  (the session's log)


def own_traceback(error: BaseException) -> str:
    """Python's rendering of `error` and what led to it, with the app's frames only."""
    rendered = traceback.TracebackException.from_exception(error)
    _strip(rendered, set())
    text = sendable("".join(rendered.format()))
    return text if len(text) <= _LONGEST else "…" + text[-_LONGEST:]


def _strip(rendered: traceback.TracebackException, seen: set[int]) -> None:
    if id(rendered) in seen:
        return
    seen.add(id(rendered))
    rendered.stack[:] = [
        frame
        for frame in rendered.stack
        if not frame.filename.startswith(_OURS) and _IMPORT_MACHINERY not in frame.filename
    ]
    for other in (rendered.__cause__, rendered.__context__, *(rendered.exceptions or ())):
        if other is not None:
            _strip(other, seen)


def _summary(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = sendable(str(error))
    except BaseException:
        text = "(its message cannot be shown)"
    return f"{name}: {text[:500]}" if text else name


def _details(error: BaseException) -> dict[str, Any]:
    name, _, message = _summary(error).partition(": ")
    return {"type": name, "message": message, "traceback": own_traceback(error)}
