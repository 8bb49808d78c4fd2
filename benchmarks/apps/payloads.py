"""Takes bytes and gives bytes."""

from warmpool import BaseApp


class Payloads(BaseApp):
    def setup(self) -> None:
        self.kept = b""

    def keep(self, size: int) -> None:
        self.kept = b"\x5a" * size

    def take(self, data: bytes) -> int:
        return len(data)

    def give(self) -> bytes:
        return self.kept
