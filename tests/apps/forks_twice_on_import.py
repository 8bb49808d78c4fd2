"""The import leaves a process that nobody waits for, and that exits at once."""

import os

from warmpool import BaseApp

readable, writable = os.pipe()
child = os.fork()
if child == 0:
    if os.fork() == 0:
        os.read(readable, 1)  # until the one in the middle is gone
    os._exit(0)
os.waitpid(child, 0)
os.write(writable, b"x")


class ForksTwiceOnImport(BaseApp):
    def run(self) -> str:
        return "ran"
