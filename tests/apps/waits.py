"""A call that ends when the test says so: it waits for a writer of a FIFO."""

from pathlib import Path

from warmpool import BaseApp


class Waits(BaseApp):
    def wait(self, fifo: Path, answer: str) -> str:
        fifo.read_text()
        return answer

    def echo(self, value: object = None) -> object:
        return value
