"""What the reader of a stream is told: pure. The worker's events, and a last one that tells how it ended.

Each is a `Data` with `type`, `number` (1, 2, 3, …) and `time` (Unix time), and by its type:

output     output                        an item that the function yielded
progress   done, total, message
log        level, logger, message        a record of the app's logger, or a line that it printed
done       output                        the last one: what the function returned
error      error                         the last one: `{"code", "message", …}`; the exception is raised after it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ProtocolError, WarmpoolError
from ..errors import from_wire as error_from_wire
from .requests import Data, shown


class Events:
    """The events of one stream."""

    def __init__(self) -> None:
        self.is_over = False
        self.output: Any = None
        """After the end: what the function returned."""
        self._number = 0
        self._error: WarmpoolError | None = None

    def __repr__(self) -> str:
        return f"<Events {self._number} {'over' if self.is_over else 'open'}>"

    def take(self, parts: list[Any], now: float) -> Data:
        """The event that an Event, a Result or a Failure is. Raises PROTOCOL_ERROR on one of no known kind."""
        if parts[0] == "Failure":
            return self.fail(error_from_wire(parts[2]), now)
        if parts[0] == "Result":
            self.is_over = True
            self.output = shown(parts[2])
            return self._event("done", self._number + 1, now, output=self.output)
        _, _, number, time, kind, data = parts
        if kind == "output":
            return self._event("output", number, time, output=shown(data))
        if kind in ("progress", "log") and isinstance(data, Mapping):
            return self._event(kind, number, time, **data)
        raise ProtocolError(f"a stream has no event {kind!r}")

    def fail(self, error: WarmpoolError, now: float) -> Data:
        """The event of an error. The stream is over."""
        self.is_over = True
        self._error = error
        return self._event("error", self._number + 1, now, error=Data(error.to_wire()))

    def take_error(self) -> WarmpoolError | None:
        """What is to be raised after the last event, once."""
        error, self._error = self._error, None
        return error

    def _event(self, type: str, number: int, time: float, **fields: Any) -> Data:
        self._number = number
        return Data(type=type, number=number, time=time, **fields)
