"""Loads 500 MB in its template. Each session reads all of it."""

from typing import ClassVar

from warmpool import BaseApp

SIZE = 500_000_000
PAGE = 4096


class Preloads(BaseApp):
    block: ClassVar[bytes]

    @classmethod
    def preload(cls) -> None:
        cls.block = b"\x01" * SIZE

    def read(self) -> int:
        return sum(self.block[::PAGE])
