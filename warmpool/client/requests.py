"""The pure half of every client: what a user may ask, checked and put into messages, and what comes back.

The forms are those that users of hosted session services know: a `run` with a dict of parameters, sessions by
`"new"` or id, calls by name. A parameter that only a hosted service has a use for is taken and has no effect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..errors import InvalidRequestError
from ..settings import check_number, check_session_timeout, shorten
from ..wire.messages import PROTOCOL_VERSION, Open, Opened
from ..wire.references import absolute, parse

NEW: Final = "new"

_KNOWN: Final = ("app", "function", "input", "session", "session_timeout", "open_timeout", "labels")
_WITHOUT_EFFECT: Final = frozenset({"infra", "webhook", "run_at", "metadata", "wait"})


class Data(dict[str, Any]):
    """A dict that also answers attributes: `info.status` is `info["status"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r} here; there are {', '.join(map(str, self))}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *map(str, self)]


def shown(value: Any) -> Any:
    """A value for the user: a dict also answers attributes."""
    return Data(value) if type(value) is dict else value


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A checked `run`. `app` is a reference without a function, its path absolute."""

    app: str | None
    function: str | None
    input: Any
    session: str | None
    session_timeout: float | None = None
    open_timeout: float | None = None
    labels: Mapping[str, str] | None = None

    def hello(self, cwd: str) -> Open:
        return Open(
            PROTOCOL_VERSION,
            self.app,
            self.session,
            cwd,
            self.session_timeout,
            self.open_timeout,
            dict(self.labels or {}),
        )


def run_request(params: Mapping[str, Any], overrides: Mapping[str, Any], cwd: str) -> RunRequest:
    """Checks what was given to `run`; keywords override the dict. Raises INVALID_REQUEST and sends nothing."""
    if not isinstance(params, Mapping):
        raise InvalidRequestError(f"run takes a dict of parameters, not {type(params).__name__}")
    given = {**params, **overrides}
    unknown = [name for name in given if name not in _KNOWN and name not in _WITHOUT_EFFECT]
    if unknown:
        raise InvalidRequestError(f"run does not take {', '.join(map(repr, unknown))}; it takes {', '.join(_KNOWN)}")
    app = given.get("app")
    session = _text_or_none("session", given.get("session"))
    function = _text_or_none("function", given.get("function"))
    timeout = given.get("session_timeout")
    patience = given.get("open_timeout")
    if app is None and (session is None or session == NEW):
        raise InvalidRequestError('run needs "app", unless "session" is the id of one')
    if timeout is not None and session != NEW:
        raise InvalidRequestError('session_timeout goes only with session="new": a session keeps its own')
    reference, named = (None, None) if app is None else app_reference(app, cwd)
    return RunRequest(
        app=reference,
        function=named if function is None else function,
        input=given.get("input"),
        session=session,
        session_timeout=None if timeout is None else check_session_timeout(timeout),
        open_timeout=None if patience is None else check_number("open_timeout", patience, 0, 3600),
        labels=_labels(given.get("labels")),
    )


def app_reference(app: object, cwd: str) -> tuple[str, str | None]:
    """A reference fit for the wire, and the function that it names."""
    if isinstance(app, type):
        return _reference_of(app), None
    if not isinstance(app, str):
        raise InvalidRequestError(f"app must be a text, not {type(app).__name__}")
    reference = parse(app)
    return absolute(reference, cwd).without_function(), reference.function


def _reference_of(app: type) -> str:
    """A class by its file and its name in it: it is imported there, never pickled."""
    file = getattr(sys.modules.get(app.__module__), "__file__", None)
    name = app.__qualname__
    if not file:
        raise InvalidRequestError(f"{name} was not defined in a file: write it to one, which the worker can import")
    if "<locals>" in name or not name[0].isupper():
        raise InvalidRequestError(
            f"{name} cannot be imported by its name: define it outside of functions, and begin its name with a capital"
        )
    return f"{os.path.abspath(file)}:{name}"


def call_arguments(function: object, input: object, fields: Mapping[str, Any]) -> tuple[str | None, object]:
    """Function and input of `call("add", {...})`, `call("add", amount=1)`, and `call({...})` for the default one."""
    if function is not None and not isinstance(function, str):
        if input is not None:
            raise InvalidRequestError("call takes the name of a function first, then its input")
        function, input = None, function
    if fields:
        if input is not None:
            raise InvalidRequestError("call takes the input as one value or as keywords, not both")
        input = fields
    return function, input


def run_result(opened: Opened, output: object) -> Data:
    """What `run` gives back."""
    return Data(
        session_id=opened.session_id,
        output=shown(output),
        app=opened.app,
        version=opened.version,
        worker_id=opened.worker_id,
    )


def _text_or_none(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise InvalidRequestError(f"{name} must be a text, not {shorten(value)}")


def _labels(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    raise InvalidRequestError("labels must be a dict of texts by texts")
