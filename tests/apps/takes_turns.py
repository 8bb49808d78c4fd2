"""Writes down in which order its calls began. A call of `wait` lasts until the test opens the FIFO."""

from pathlib import Path

from warmpool import BaseApp


class TakesTurns(BaseApp):
    def __init__(self):
        self.order: list[str] = []

    def wait(self, fifo: Path, name: str) -> list[str]:
        self.order.append(name)
        fifo.read_text()
        return self.order

    def note(self, name: str) -> list[str]:
        self.order.append(name)
        return self.order
