"""Takes as much memory as it is told."""

from warmpool import BaseApp


class TakesMemory(BaseApp):
    def setup(self):
        self.taken: list[bytearray] = []

    def take(self, megabytes: int) -> None:
        self.taken.append(bytearray(b"x") * (megabytes * 1024 * 1024))
