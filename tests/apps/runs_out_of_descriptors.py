"""Opens files until it may open no more."""

import os
import resource

from warmpool import BaseApp


def run_out() -> list[int]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    opened: list[int] = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return opened


class Plain(BaseApp):
    def run_out(self) -> int:
        self.opened = run_out()
        return len(self.opened)

    def relent(self) -> str:
        os.close(self.opened.pop())
        return "one is free"

    def fine(self) -> str:
        return "fine"


class Async(Plain):
    async def fine(self) -> str:
        return "fine"
