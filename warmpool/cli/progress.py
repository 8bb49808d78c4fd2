"""A bar on a terminal that shows how far a call is. Anywhere else it shows nothing."""

from __future__ import annotations

from math import isnan
from typing import Final, Self, TextIO

WIDTH: Final = 24
_TO_LINE_START_AND_CLEAR: Final = "\r\x1b[K"


class Bar:
    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._is_shown = False
        self._works = terminal.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, done: float, total: float | None, message: str) -> None:
        """In place of what it showed before."""
        if self._works:
            import shutil

            width = shutil.get_terminal_size().columns - 1
            self._terminal.write(_TO_LINE_START_AND_CLEAR + bar(done, total, message)[:width])
            self._terminal.flush()
            self._is_shown = True

    def clear(self) -> None:
        if self._is_shown:
            self._terminal.write(_TO_LINE_START_AND_CLEAR)
            self._terminal.flush()
            self._is_shown = False


def bar(done: float, total: float | None, message: str) -> str:
    """One line: a bar if there is a share to show, the count, and the message without what a terminal obeys."""
    words = "".join(letter for letter in message if letter.isprintable())
    if not total or isnan(done / total):
        return f"{done:g}  {words}".rstrip()
    share = min(max(done / total, 0.0), 1.0)
    full = round(share * WIDTH)
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {share:4.0%}  {done:g}/{total:g}  {words}".rstrip()
