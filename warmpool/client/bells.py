"""How a client tells a worker that waits awake of a call that it has sent: a store on the daemon's board, which is no
system call for either.

The board comes with the first connection to a worker that a control link is given. A bell is a hint: one that nobody
hears, of a daemon that is gone or of one that had no descriptor left, does no harm.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from contextlib import suppress
from typing import Final, TypeAlias

from ..board import BELL, COLUMNS, HEADER, Board

Bell: TypeAlias = tuple[MutableSequence[int] | memoryview, int]
"""That of one worker: the cells of the board, and which of them is to have the id of the call."""

UNHEARD: Final[Bell] = [0], 0
_FIRST: Final = HEADER + BELL


def ring(bell: Bell, call_id: int) -> None:
    """(A function: in a frame that an error remembers, what it has in hand would keep the board.)"""
    cells, place = bell
    cells[place] = call_id


class Bells:
    """Of all workers of the daemon that a client was connected with last."""

    def __init__(self) -> None:
        self._board: Board | None = None

    def __repr__(self) -> str:
        return f"<Bells {'unheard' if self._board is None else self._board.rows}>"

    def hang(self, fd: int) -> None:
        """Maps the board behind `fd`, which stays the caller's."""
        self._board = None
        with suppress(OSError):  # no memory, or no descriptor
            self._board = Board(fd)

    def of(self, row: int) -> Bell:
        """That of the worker with this row of the board."""
        board = self._board
        if board is None or row >= board.rows:  # one of a daemon before, perhaps
            return UNHEARD
        return board.cells, _FIRST + row * COLUMNS

    def close(self) -> None:
        """Lets go of the board. (Not `Board.close`: another thread may be about to ring.)"""
        self._board = None
