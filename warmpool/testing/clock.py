"""The lease time of a daemon that was started for tests, in a test's hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Request = Callable[..., Any]


class Clock:
    """`client.clock`: windows, pauses and idle times of the daemon and all its workers are measured by it.

    `time.time()` inside an app stays real, and so does patience with processes: a start, a stop, a line for a worker.
    """

    def __init__(self, request: Request) -> None:
        self._request = request

    def __repr__(self) -> str:
        return "<Clock>"

    def now(self) -> float:
        """Unix time by this clock: what `expires_at` and the like in a session's info are told in."""
        return float(self._request("testing.now")["now"])

    def advance(self, seconds: float) -> float:
        """Moves time on. All that falls due on the way happens in its order, and when this returns it has: workers
        that had to go are gone, and what is asked next sees it so. Gives the new `now`.
        """
        return float(self._request("testing.advance", seconds=seconds)["now"])

    def freeze(self) -> float:
        """Stops it: from now on it moves by `advance` alone, to the millisecond. Gives the `now` at which it stands."""
        return float(self._request("testing.freeze")["now"])

    def thaw(self) -> float:
        """Lets it go on from where it stands. No matter if it never stood."""
        return float(self._request("testing.thaw")["now"])

    @contextmanager
    def frozen(self) -> Iterator[float]:
        """Stands still inside of the block; and after it, if it did before."""
        answer = self._request("testing.freeze")
        try:
            yield float(answer["now"])
        finally:
            if not answer["stood"]:
                self.thaw()
