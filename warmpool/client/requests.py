"""The half of every client that knows no connection: what a user may ask, checked and put into messages, and what comes
back.

The forms are those that users of hosted session services know: a `run` with a dict of parameters, sessions by
`"new"` or id, calls by name. A parameter that only a hosted service has a use for is taken and has no effect. Kinds
of values are checked here, and time-outs, so that no daemon is started for a wrong one; the bounds of what the daemon
keeps, as names and labels, are its own to check.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypedDict

from ..checks import check_number, check_open_timeout, check_session_timeout, check_whole, shorten
from ..errors import InvalidRequestError
from ..wire.messages import NEW, OF_A_NEW_SESSION, Open, Opened
from ..wire.references import absolute, parse

TIMEOUT_MIN: Final = 0.001
TIMEOUT_MAX: Final = 7 * 86_400.0
"""Of a call, in seconds: long enough for anything that somebody waits for."""

WINDOW_MAX: Final = 4096
"""Calls of one `map` that may be under way: they wait in the worker's buffers."""


class SessionOptions(TypedDict, total=False):
    """What may be said of a new session."""

    session_timeout: float | None
    """Its sliding window in seconds, 1 to 3600."""
    open_timeout: float | None
    """Seconds to wait in line for a worker."""
    labels: Mapping[str, str] | None
    name: str | None
    """One living session at most has it."""
    if_exists: Literal["error", "attach"] | None
    """What to do if a living session has the name: an error, which is the default, or attach to it."""
    description: str | None
    tags: Sequence[str] | None
    workers: Sequence[str] | None
    """The id of the worker that is wanted, as a list of one."""


_OF_AN_OPEN: Final = (*OF_A_NEW_SESSION, "open_timeout", "workers")
_OF_A_CALL: Final = ("function", "input", "timeout", "timeout_seconds", "stream")
_WITHOUT_EFFECT: Final = frozenset({"infra", "metadata", "wait"})


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


class RunRequest(NamedTuple):
    """A checked `run`, or opening of a session."""

    app: str | None = None
    """A reference without a function, its path absolute."""
    cwd: str = "/"
    """Where whoever asks stands."""
    function: str | None = None
    input: Any = None
    session: str | None = None
    session_timeout: float | None = None
    open_timeout: float | None = None
    labels: Mapping[str, str] | None = None
    name: str | None = None
    if_exists: str | None = None
    description: str | None = None
    tags: Sequence[str] | None = None
    worker: str | None = None
    timeout: float | None = None
    stream: bool = False

    def open(self, number: int) -> Open:
        """The message that asks for it, as request `number`."""
        return Open(
            number,
            self.app,
            self.session,
            self.cwd,
            session_timeout=self.session_timeout,
            open_timeout=self.open_timeout,
            labels=dict(self.labels or {}),
            name=self.name,
            if_exists=self.if_exists or "error",
            description=self.description,
            tags=list(self.tags or ()),
            worker=self.worker,
        )


def run_request(params: Mapping[str, Any], overrides: Mapping[str, Any], cwd: str) -> RunRequest:
    """Checks what was given to `run`; keywords override the dict. Raises INVALID_REQUEST and sends nothing."""
    if not isinstance(params, Mapping):
        raise InvalidRequestError(f"run takes a dict of parameters, not {type(params).__name__}")
    given = {**params, **overrides}
    _refuse_unknown("run", given, ("app", "session", *_OF_A_CALL, *_OF_AN_OPEN))
    app = given.get("app")
    session = text_or_none("session", given.get("session"))
    function = text_or_none("function", given.get("function"))
    if app is None and session in (None, NEW):
        raise InvalidRequestError('run needs "app", unless "session" is the id of one')
    for name in OF_A_NEW_SESSION:
        if session != NEW and given.get(name) is not None:
            raise InvalidRequestError(f'{name} goes only with session="new"')
    reference, named = (None, None) if app is None else app_reference(app, cwd)
    return RunRequest(
        app=reference,
        cwd=cwd,
        function=named if function is None else function,
        input=given.get("input"),
        session=session,
        timeout=call_timeout(given.get("timeout"), given.get("timeout_seconds")),
        stream=_yes_or_no("stream", given.get("stream")),
        **_open_fields(given),
    )


def session_request(app: str | os.PathLike[str] | type, options: Mapping[str, Any], cwd: str) -> RunRequest:
    """Checks what was given to open a session. Raises INVALID_REQUEST and sends nothing."""
    _refuse_unknown("session", options, _OF_AN_OPEN)
    reference, function = app_reference(app, cwd)
    if function is not None:
        raise InvalidRequestError(
            f"a session is of an app, not of one function: open {shorten(reference)}, and call {function} in it"
        )
    return RunRequest(reference, cwd, session=NEW, **_open_fields(options))


def _refuse_unknown(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known and name not in _WITHOUT_EFFECT]
    if unknown:
        raise InvalidRequestError(f"{where} does not take {', '.join(map(repr, unknown))}; it takes {', '.join(known)}")


def _open_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    window, patience = given.get("session_timeout"), given.get("open_timeout")
    name, if_exists = text_or_none("name", given.get("name")), given.get("if_exists")
    if if_exists not in (None, "error", "attach"):
        raise InvalidRequestError(f'if_exists must be "error" or "attach", not {shorten(if_exists)}')
    if if_exists == "attach" and name is None:
        raise InvalidRequestError('if_exists="attach" needs a name')
    workers = _texts("workers", given.get("workers"))
    if workers is not None and len(workers) != 1:
        raise InvalidRequestError(f"workers must be a list of one id, not of {len(workers)}")
    return {
        "session_timeout": None if window is None else check_session_timeout(window),
        "open_timeout": None if patience is None else check_open_timeout(patience),
        "labels": labels_or_none(given.get("labels")),
        "name": name,
        "if_exists": if_exists,
        "description": text_or_none("description", given.get("description")),
        "tags": _texts("tags", given.get("tags")),
        "worker": workers[0] if workers else None,
    }


def app_reference(app: object, cwd: str) -> tuple[str, str | None]:
    """A reference fit for the wire, and the function that it names."""
    if isinstance(app, type):
        return _reference_of(app), None
    if isinstance(app, os.PathLike):
        app = os.path.join(cwd, os.fspath(app))
    if not isinstance(app, str):
        raise InvalidRequestError(f"app must be a name, a path or the app's class, not a {type(app).__name__}")
    return _reference(app, cwd) if "~" in app else _known_reference(app, cwd)


def _reference(app: str, cwd: str) -> tuple[str, str | None]:
    reference = parse(app)
    return absolute(reference, cwd).without_function(), reference.function


_known_reference = lru_cache(maxsize=128)(_reference)


_BASE: Final = ("warmpool.app", "BaseApp")
"""By its name: a client imports nothing of apps."""


def _reference_of(app: type) -> str:
    """A class by its file and its name in it: it is imported there, never pickled."""
    if _BASE not in [(kind.__module__, kind.__name__) for kind in app.__mro__[1:]]:
        raise InvalidRequestError(f"{app.__module__}.{app.__qualname__} is no app: it does not derive from BaseApp")
    file = getattr(sys.modules.get(app.__module__), "__file__", None)
    name = app.__qualname__
    if not file or not os.path.isfile(file):
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
        if function is None and isinstance(fields.get("function"), str) and fields.keys() <= {"function", "input"}:
            raise InvalidRequestError(
                f"the name of the function comes first: ({fields['function']!r}, …), and not function=…; "
                "an input with a field of that name goes as a dict"
            )
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


def text_or_none(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise InvalidRequestError(f"{name} must be a non-empty string, not {shorten(value)}")


def call_named(opened: Opened, call_id: int) -> dict[str, Any]:
    """What `calls.cancel` is to be told of a call on a connection. One without a session is known by its worker."""
    whose = {"worker_id": opened.worker_id} if opened.session_id is None else {"session_id": opened.session_id}
    return {**whose, "call_id": call_id}


def check_session_id(params: Mapping[str, Any]) -> None:
    """A control request about a session names it by its id. Raises INVALID_REQUEST for a Session, say."""
    given = params.get("session_id", "")
    if not isinstance(given, str):
        raise InvalidRequestError(f"session_id must be a string, as session.id is, not a {type(given).__name__}")


def labels_or_none(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        return dict(value)
    raise InvalidRequestError("labels must be a dict of strings by strings")


def _texts(name: str, value: object) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    raise InvalidRequestError(f"{name} must be a list of strings, not {shorten(value)}")


def _yes_or_no(name: str, value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequestError(f"{name} must be true or false, not {shorten(value)}")


def call_timeout(timeout: object, timeout_seconds: object = None) -> float | None:
    """A call's time-out in seconds; the second is another name for it."""
    if timeout_seconds is not None:
        if timeout is not None:
            raise InvalidRequestError("timeout and timeout_seconds are the same: give one")
        timeout = timeout_seconds
    return None if timeout is None else check_number("timeout", timeout, TIMEOUT_MIN, TIMEOUT_MAX)


def map_window(window: object) -> int:
    """How many calls of one `map` may be under way."""
    return check_whole("window", window, 1, WINDOW_MAX)


def function_name(function: object) -> str | None:
    if function is None or isinstance(function, str):
        return function
    raise InvalidRequestError(f"function must be the name of one, not {shorten(function)}")


class Page(list[Data]):
    """Sessions, newest first: one page of them. `total`: how many there are on all pages. `cursor`: asks for the next
    page, or None after the last.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(map(Data, answer["sessions"]))
        self.total: int = answer["total"]
        self.cursor: str | None = answer["cursor"]
