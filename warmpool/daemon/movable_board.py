"""The lease time of a daemon that tests control: it can be stopped, moved on, and let go again.

Workers go on to write monotonic time plus the board's offset, as ever, and know nothing of a clock that stands. What
they write while it does is later than it should be, by the real time that has passed: so the daemon reads no time
later than its own, and before each move it sets those rows to the moment that is being left. A worker pays nothing
for that a test may come.
"""

from __future__ import annotations

import math
import time

from ..activity import Activity
from ..board import OFFSET_NS, USED_NS, Board


class MovableBoard(Board):
    """The daemon's own mapping; workers map it as an ordinary board."""

    _stands_at: float | None = None

    @property
    def stands(self) -> bool:
        return self._stands_at is not None

    def now(self) -> float:
        return super().now() if self._stands_at is None else self._stands_at

    def lead(self) -> float:
        """Real time minus lease time, in seconds."""
        return time.monotonic() - self.now()

    def read(self, row: int) -> Activity:
        activity = super().read(row)
        return activity._replace(used=min(activity.used, self.now()))

    def stop(self) -> None:
        self._stands_at = self.now()

    def move_to(self, moment: float) -> None:
        """Jumps to `moment`, and stands there."""
        assert self._stands_at is not None
        assert moment >= self._stands_at
        self._settle_rows(math.ceil(self._stands_at * 1e9))
        self._stands_at = moment
        self.cells[OFFSET_NS] = math.ceil(moment * 1e9) - time.monotonic_ns()

    def go_on(self) -> None:
        """Time passes again, from where it stands."""
        if self._stands_at is not None:
            self.move_to(self._stands_at)
            self._stands_at = None

    def _settle_rows(self, now_ns: int) -> None:
        for row in range(self.rows):
            used = self.start_of(row) + USED_NS
            if self.cells[used] > now_ns:  # noqa: PLR1730  (the worker may be writing: no store without need)
                self.cells[used] = now_ns
