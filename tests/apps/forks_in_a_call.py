"""Forks as the textbook does, and its child comes to the end of the function, too."""

import os
import sys
from collections.abc import Iterator

from warmpool import BaseApp


def forked(how: str) -> int:
    """The child's exit status, in the parent; the child returns -1 or raises."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how == "exits":
        sys.exit(7)
    if how == "exits with words":
        sys.exit("no more")
    if how == "raises":
        raise ValueError("of the child")
    return -1


class Plain(BaseApp):
    def fork(self, how: str) -> int:
        return forked(how)

    def items(self) -> Iterator[int]:
        yield 1
        yield forked("returns")

    def who(self) -> int:
        return os.getpid()


class Async(BaseApp):
    async def fork(self, how: str) -> int:
        return forked(how)

    async def who(self) -> int:
        return os.getpid()
