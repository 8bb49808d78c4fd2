"""Prints, as an app under development does."""

import time

from warmpool import BaseApp


class Chatter(BaseApp):
    def chat(self, lines: int, pause: float) -> None:
        for number in range(lines):
            print(f"line {number}: the quick brown fox jumps over the lazy dog, and then over it once more")
            time.sleep(pause)
