"""Forks where no call runs, and its child comes back to who asked."""

import asyncio
import os
from typing import ClassVar

from warmpool import BaseApp


def forked() -> int:
    """The child's pid, in the parent; the child raises."""
    if child := os.fork():
        return child
    raise ValueError("of the child")


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Forks(BaseApp):
    known: ClassVar[int]

    def status(self) -> int:
        return self.known

    def who(self) -> int:
        return os.getpid()

    def status_of(self, pid: int) -> int:
        return status_of(pid)


class InInit(Forks):
    def __init__(self) -> None:
        self.known = status_of(forked())


class InSetup(Forks):
    def setup(self) -> None:
        self.known = status_of(forked())


class InAsyncSetup(Forks):
    async def setup(self) -> None:
        self.known = status_of(forked())

    async def wait(self) -> None:
        await asyncio.sleep(0)


class InPreload(Forks):
    @classmethod
    def preload(cls) -> None:
        cls.known = status_of(forked())


class OnEnd(Forks):
    def on_end(self, reason: str) -> None:
        print(f"status {status_of(forked())}")


class OnEndAsync(Forks):
    async def on_end(self, reason: str) -> None:
        print(f"status {status_of(forked())}")

    async def wait(self) -> None:
        await asyncio.sleep(0)


class InTask(Forks):
    async def start(self) -> int:
        """The child's pid."""
        self.child = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.fork())
        return await self.child

    async def fork(self) -> None:
        self.child.set_result(forked())


class Awaits(Forks):
    async def start(self) -> int:
        """The child's pid."""
        if child := os.fork():
            return child
        await asyncio.sleep(0)
        return -1
