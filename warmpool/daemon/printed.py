"""What a process prints, as it comes: our end of the pipe that it prints to, and the lines for whoever follows.

One read at a time, between everything else that the daemon does: who prints without end waits for its own pipe, and
holds up nobody else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

READ_SIZE: Final = 64 * 1024
"""As much as a pipe holds."""
LINE_MAX: Final = 8 * 1024
"""Longer ones are cut for whoever follows."""
LAST_READS: Final = 16
"""Of what a dead process has left. One of its own may still be writing to it."""


class Pipe:
    """Read until all who can write to it are gone, or until it is closed."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, taken: Callable[[bytes], None], ended: Callable[[], None]
    ) -> None:
        """Of the end that is read, which is its from now on. Told what is read, and, once, that there is no more."""
        self._loop, self._fd, self._taken, self._ended = loop, fd, taken, ended
        self._is_open = True
        os.set_blocking(fd, False)
        loop.add_reader(fd, self.read)

    def __repr__(self) -> str:
        return f"<Pipe fd={self._fd} {'open' if self._is_open else 'closed'}>"

    def drain(self) -> None:
        """Takes what a dead process has left."""
        for _ in range(LAST_READS):
            if not self.read():
                break
        self.close()

    def read(self) -> bool:
        """Takes what is there. False: nothing is."""
        try:
            data = os.read(self._fd, READ_SIZE) if self._is_open else b""
        except BlockingIOError:
            return False
        if data:
            self._taken(data)
        else:
            self.close()
        return bool(data)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._ended()


class Lines:
    """Bytes, told line by line."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = b""
        """Of a line that is not whole yet."""

    def add(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_MAX:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._tell(line.decode(errors="replace"))

    def end(self) -> None:
        """Tells what there is of the last."""
        if self._rest:
            self.add(b"\n")
