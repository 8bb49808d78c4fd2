"""What a control connection may ask, and how the daemon's facts are shown to it.

Each method checks its parameters and becomes an event for the broker, or is answered at once from what is known.
Nothing here changes when a request is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ..errors import InvalidRequestError
from ..policy.sessions import SessionView
from ..settings import shorten

Params = Mapping[str, Any]


class Parameters:
    """The parameters of one request, taken out one by one; `done` refuses what is left."""

    def __init__(self, method: str, params: Params) -> None:
        self._method = method
        self._left = dict(params)

    def text(self, name: str) -> str:
        value = self._left.pop(name, None)
        if not isinstance(value, str) or not value:
            raise InvalidRequestError(f"{self._method} needs {name}, a text, not {shorten(value)}")
        return value

    def flag(self, name: str) -> bool:
        value = self._left.pop(name, False)
        if not isinstance(value, bool):
            raise InvalidRequestError(f"{name} of {self._method} must be true or false, not {shorten(value)}")
        return value

    def done(self) -> None:
        if self._left:
            names = [name[:60] if isinstance(name, str) else shorten(name) for name in self._left]
            raise InvalidRequestError(f"{self._method} does not take {', '.join(names)}")


def check_directory(path: str) -> str:
    """A client's working directory: an absolute path, whether it is there or not."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequestError(f"cwd must be an absolute path, not {shorten(path)}")
    return path


def present(view: SessionView, wall_time: Callable[[float], float]) -> dict[str, Any]:
    """A session as clients see it: times as ISO 8601 in UTC. `wall_time` turns lease time into Unix time."""

    def shown(moment: float | None) -> str | None:
        if moment is None:
            return None
        return datetime.fromtimestamp(wall_time(moment), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    fields = view._asdict()
    for name in ("created_at", "expires_at", "last_call_at", "ended_at"):
        fields[name] = shown(fields[name])
    return fields
