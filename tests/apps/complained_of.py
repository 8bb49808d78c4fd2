"""What users of other services complain of, as an app that would show it."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from warmpool import BaseApp


class ComplainedOf(BaseApp):
    preloaded_in = 0

    @classmethod
    def preload(cls):
        cls.preloaded_in = os.getpid()

    def setup(self):
        self.calls = 0

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def wait_for(self, path: str) -> str:
        """Until somebody opens the fifo for writing."""
        self.calls += 1
        return Path(path).read_text()

    def swallow_exceptions(self) -> None:
        while True:
            try:
                time.sleep(3600)
            except Exception:
                self.calls += 100

    def flood(self) -> Iterator[str]:
        yield from itertools.repeat("x" * 1000)

    def step_by_step(self, path: str) -> Iterator[str]:
        with Path(path).open() as fifo:
            yield from fifo

    def preloaded(self) -> tuple[int, int]:
        return self.preloaded_in, os.getpid()

    def on_end(self, reason: str) -> str:
        return f"told: {reason}"
