"""How much memory the machine has to spare."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import psutil

READ_EVERY: Final = 0.1


class FreeMemory:
    """The machine's available bytes. They are asked for before each fork, and there may be hundreds: read anew at most
    every READ_EVERY seconds.
    """

    def __init__(self) -> None:
        self._available = 0
        self._read_at = -READ_EVERY

    def __call__(self) -> int:
        now = time.monotonic()
        if now >= self._read_at + READ_EVERY:
            self._read_at = now
            with suppress(OSError):  # without a descriptor to look with, it is what it was
                self._available = psutil.virtual_memory().available
        return self._available
