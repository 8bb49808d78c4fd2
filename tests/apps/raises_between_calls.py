"""A handler of a signal raises while no call runs."""

import signal

from warmpool import BaseApp


class Plain(BaseApp):
    def arm(self) -> None:
        signal.signal(signal.SIGALRM, lambda *_: 1 / 0)

    def fine(self) -> str:
        return "fine"


class Async(BaseApp):
    async def arm(self) -> None:
        signal.signal(signal.SIGALRM, lambda *_: 1 / 0)

    async def fine(self) -> str:
        return "fine"
