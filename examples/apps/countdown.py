"""Takes its time, and tells how far it is: for streams, time-outs and cancels."""

import time
from collections.abc import Generator

from warmpool import BaseApp


class Countdown(BaseApp):
    def count(self, start: int = 3, pause: float = 0.2) -> Generator[int, None, str]:
        """Yields each number; returns the last word."""
        try:
            for number in range(start, 0, -1):
                self.context.progress(start - number, start, f"{number} to go")
                yield number
                time.sleep(pause)
            self.logger.info("all clear")
            return "lift-off"
        finally:
            print("the clock stands still")

    def on_cancel(self) -> None:
        self.logger.info("scrubbed")
