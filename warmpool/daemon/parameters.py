"""What clients may say, checked: the parameters of control requests, and the wishes of an Open.

What is wrong is refused by its name with the bounds that it breaks, and nothing has changed by then.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from types import MethodType
from typing import Any, Final, cast

from ..checks import check_open_timeout, check_session_timeout, shorten
from ..constants import (
    DESCRIPTION_MAX,
    LABEL_KEY_MAX,
    LABEL_VALUE_MAX,
    LABELS_MAX,
    NAME_MAX,
    SESSION_TIMEOUT_DEFAULT,
    TAGS_MAX,
)
from ..errors import InvalidRequestError
from ..wire.messages import NEW, OF_A_NEW_SESSION, Open
from ..wire.shapes import kinds_of

TESTING: Final = "testing."
"""How the names begin of what only a daemon that was started for tests does."""
Handler = Callable[..., None]
"""A method that does what is asked. It is given the ticket, and by their names the parameters: its signature says which
there are, of which types.
"""

_WORDS: Final = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", list: "a list"}


def arguments(method: str, handler: Handler, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of a request, if they are what its handler takes. Raises INVALID_REQUEST for one that is missing,
    that nobody knows, or of another type; an empty string is none.
    """
    known = _known(cast("MethodType", handler).__func__)
    if unknown := [name for name in params if name not in known]:
        names = [name[:60] if isinstance(name, str) else shorten(name) for name in unknown]
        raise InvalidRequestError(f"{method} does not take {', '.join(names)}")
    for name, (kinds, is_required) in known.items():
        words = _WORDS.get(kinds[0], "a dict")
        if name not in params:
            if is_required:
                raise InvalidRequestError(f"{method} needs {name}, {words}")
        elif type(value := params[name]) not in kinds or value == "":
            raise InvalidRequestError(f"{name} of {method} must be {words}, not {shorten(value)}")
    return params


@cache
def _known(handler: Callable[..., None]) -> dict[str, tuple[tuple[type, ...], bool]]:
    """By the names of its parameters, the types that each may have, and whether it must be there."""
    _self, _ticket, *parameters = inspect.signature(handler).parameters.values()
    return {one.name: (kinds_of(one.annotation), one.default is one.empty) for one in parameters}


def not_for_tests(method: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"this daemon does not do {method}: its time and its processes are not a test's to move. Use "
        "warmpool.embedded(), or the fixture `warmpool` without --warmpool-socket"
    )


def waits_for_itself(app: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"app {app} wants a session of itself while it is imported, and would wait for its own end: "
        'put that under `if __name__ == "__main__":`'
    )


def check_directory(path: str) -> str:
    """A client's working directory: an absolute path, whether it is there or not."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequestError(f"cwd must be an absolute path, not {shorten(path)}")
    return path


def check_place(wish: Open) -> None:
    """What goes only with a new session is out of place without one; and who attaches cannot choose the worker."""
    if wish.session == NEW:
        return
    for name in OF_A_NEW_SESSION if wish.session is None else (*OF_A_NEW_SESSION, "worker"):
        if getattr(wish, name) != Open._field_defaults[name]:
            raise InvalidRequestError(f'{name} goes only with session="new"')


def check_timeouts(wish: Open, open_timeout: float) -> tuple[float, float]:
    """The window of the session, and how long to wait for it, in seconds."""
    window, patience = wish.session_timeout, wish.open_timeout
    return (
        SESSION_TIMEOUT_DEFAULT if window is None else check_session_timeout(window),
        open_timeout if patience is None else check_open_timeout(patience),
    )


def check_labels(labels: object) -> dict[str, str]:
    """At most 64 strings by strings, none of them empty. Raises INVALID_REQUEST."""
    if not isinstance(labels, dict):
        raise InvalidRequestError(f"labels must be at most {LABELS_MAX} strings by strings, not {shorten(labels)}")
    if len(labels) > LABELS_MAX:
        raise InvalidRequestError(f"a session has at most {LABELS_MAX} labels, not {len(labels)}")
    for key, value in labels.items():
        _check_text("a label's key", key, LABEL_KEY_MAX)
        _check_text(f"label {key}", value, LABEL_VALUE_MAX)
    return labels


def check_strings(name: str, value: list[Any]) -> list[str]:
    if not all(isinstance(item, str) and item for item in value):
        raise InvalidRequestError(f"{name} must be a list of strings, none of them empty")
    return value


def check_name(name: str | None) -> str | None:
    """A session's name: 1 to 128 characters, printable, without white space."""
    if name is not None:
        _check_text("name", name, NAME_MAX)
        if not name.isprintable() or any(map(str.isspace, name)):
            raise InvalidRequestError(f"name must be printable and without white space, not {shorten(name)}")
    return name


def check_description(text: str | None) -> str | None:
    return text if text is None or text == "" else _check_text("description", text, DESCRIPTION_MAX)


def check_tags(tags: list[Any]) -> tuple[str, ...]:
    if len(tags) > TAGS_MAX:
        raise InvalidRequestError(f"a session has at most {TAGS_MAX} tags, not {len(tags)}")
    return tuple(_check_text("a tag", tag, LABEL_VALUE_MAX) for tag in tags)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise InvalidRequestError(f"{name} must be one of {', '.join(choices)}, not {shorten(value)}")
    return value


def check_if_exists(value: str, name: str | None) -> str:
    check_choice("if_exists", value, ("error", "attach"))
    if value == "attach" and name is None:
        raise InvalidRequestError('if_exists="attach" needs a name to look for')
    return value


def _check_text(what: str, value: object, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise InvalidRequestError(f"{what} must be a string of 1 to {longest} characters, not {shorten(value)}")
    return value
