"""The lease board: what each worker is doing, in memory that the daemon, all workers and their clients share.

Mapped memory without a name, so that nobody can remove it; a header, then one row of eight 64-bit integers a worker.
The worker writes its row as part of each call, plain stores and no system call; the daemon reads it when it must know.
So a sliding window costs a call nothing, a call count is exact at once, and a worker that is stuck is still seen to be
busy.

Only the worker writes its row, but for CANCELLED, which is the daemon's, BELL, which is its client's, `clear`, which
the daemon calls while no worker has it, and a clock that a test has stopped (`daemon/movable_board.py`). A reader can
see a row between two stores: `USED_NS` is stored first, so a call that has just begun may show its new time with its
old count, never the other way round. (Refused: messages about activity. They cost a call a system call, and a stuck
worker sends none.)

The header holds the offset of lease time to the machine's monotonic clock, in nanoseconds: what moves it
moves the time of the daemon and of all workers at once.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Final, Self

from .activity import Activity

COLUMNS: Final = 8
HEADER: Final = COLUMNS
OFFSET_NS: Final = 0
"""In the header: lease time minus CLOCK_MONOTONIC."""

USED_NS: Final = 0
"""Lease time at which the last call began or ended; 0 before the first."""
STARTED: Final = 1
"""Calls begun. Differs from FINISHED while a call runs."""
FINISHED: Final = 2
CALL_ID: Final = 3
"""Id of the call that runs, or ran last."""
CANCELLED: Final = 4
"""Id of the call that is to stop. The daemon's to write, so that a call can see it while its process is blocked."""
BELL: Final = 5
"""Id of a call that has been sent, written by its client right after: a worker that waits awake looks here, which takes
no system call. It is a hint, which a client may leave out.
"""

_CELL = 8


class Board:
    """The mapping. `cells` is the flat view that the hot path stores into: `cells[row_start + COLUMN]`."""

    fd: int | None = None
    """Of one that was made here: what to pass to whoever is to map it too."""

    def __init__(self, fd: int) -> None:
        """Maps the memory behind `fd`, which the caller still owns and may close."""
        self._map = mmap.mmap(fd, 0)
        self.cells: memoryview[int] = memoryview(self._map).cast("q")
        self.rows = len(self.cells) // COLUMNS - 1

    @classmethod
    def create(cls, rows: int) -> Self:
        """A new board, all zero. Raises OSError if there is no room for it."""
        fd = os.memfd_create("warmpool-board", os.MFD_CLOEXEC)
        try:
            # All of it now: a page for which there is no room when it is first touched is a SIGBUS.
            os.posix_fallocate(fd, 0, (rows + 1) * COLUMNS * _CELL)
            board = cls(fd)
        except BaseException:
            os.close(fd)
            raise
        board.fd = fd
        return board

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
        self.cells.release()
        self._map.close()

    @staticmethod
    def start_of(row: int) -> int:
        """Index in `cells` of the first column of `row`."""
        return HEADER + row * COLUMNS

    def clear(self, row: int) -> None:
        start = self.start_of(row)
        for column in range(COLUMNS):
            self.cells[start + column] = 0

    def read(self, row: int) -> Activity:
        start = self.start_of(row)
        finished = self.cells[start + FINISHED]
        started = self.cells[start + STARTED]
        return Activity(self.cells[start + USED_NS] / 1e9, started, finished, self.cells[start + CALL_ID])

    def cancel(self, row: int, call_id: int) -> None:
        """Shows the worker which call is to stop. Call ids are unique, so it can mean no other."""
        self.cells[self.start_of(row) + CANCELLED] = call_id

    def now(self) -> float:
        """Lease time in seconds."""
        return (time.monotonic_ns() + self.cells[OFFSET_NS]) / 1e9
