"""Threads of an app's that never stop to tell of their progress, also when nobody follows any more."""

import sys
import threading
from collections.abc import Iterator

from warmpool import BaseApp


class TalksOn(BaseApp):
    def setup(self) -> None:
        self.failures: list[str] = []

    def start_talking(self) -> None:
        sys.setswitchinterval(1e-6)
        for _ in range(2):
            threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        while True:
            try:
                self.context.progress(1)
            except BaseException as error:
                self.failures.append(repr(error))

    def count(self, to: int) -> Iterator[int]:
        yield from range(to)

    def failed(self) -> list[str]:
        return self.failures
