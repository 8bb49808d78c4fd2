"""Writes down which hooks ran, in a file that the first call names."""

import os
from pathlib import Path

from warmpool import BaseApp

LOADED: list[int] = []


class Hooks(BaseApp):
    @classmethod
    def preload(cls):
        LOADED.append(os.getpid())
        cls.preloaded_by = os.getpid()

    def setup(self):
        self.set_up_by = os.getpid()
        self.file: Path | None = None

    def begin(self, file: str) -> dict[str, int]:
        self.file = Path(file)
        return {"preload": self.preloaded_by, "setup": self.set_up_by, "loads": len(LOADED), "pid": os.getpid()}

    def on_end(self, reason: str):
        self._write(f"on_end {reason}\n")

    def unload(self):
        self._write("unload\n")

    def _write(self, line: str):
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(line)
