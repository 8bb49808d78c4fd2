"""What a worker is doing, as its row of the board tells it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Activity(NamedTuple):
    """One row, as the daemon reads it. `used` is in seconds of lease time."""

    used: float
    started: int
    finished: int
    call_id: int = 0

    @property
    def busy(self) -> bool:
        return self.started != self.finished


IDLE: Final = Activity(0.0, 0, 0)
