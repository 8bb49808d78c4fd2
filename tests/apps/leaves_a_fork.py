"""Forks without exec: the child has a copy of all that the worker has open."""

import os
import signal

from warmpool import BaseApp


class LeavesAFork(BaseApp):
    def leave(self) -> int:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGURG, signal.SIG_IGN)
            while True:
                signal.pause()
        return child

    def fine(self) -> str:
        return "fine"
