"""Takes its time to set up, and counts how often it has."""

import asyncio
import os
import threading

from warmpool import BaseApp


class Costly(BaseApp):
    def setup(self):
        self.table = list(range(1000))
        self.set_up_by = os.getpid()

    def change(self, index: int, value: int) -> list[int]:
        self.table[index] = value
        return self.table[:3]

    def who(self) -> dict[str, object]:
        context = self.context
        return {
            "set_up_by": self.set_up_by,
            "pid": os.getpid(),
            "worker": context.worker_id,
            "session": context.session_id,
        }


class CostlyAsync(Costly):
    async def setup(self):
        await asyncio.sleep(0)
        super().setup()

    async def later(self, value: int) -> int:
        await asyncio.sleep(0)
        return value + len(self.table)


class Later:
    """An awaitable that is no coroutine."""

    def __init__(self, work):
        self.work = work

    def __await__(self):
        return self.work.__await__()


class CostlyAwaitable(Costly):
    """Has no async functions, and a `setup` of which only its result tells that it is async."""

    def setup(self):
        return Later(self._set_up())

    async def _set_up(self):
        await asyncio.sleep(0)
        super().setup()


class LeavesATask(BaseApp):
    async def setup(self):
        self.task = asyncio.create_task(asyncio.sleep(60))

    async def done(self) -> bool:
        return self.task.done()


class StartsAThread(BaseApp):
    def setup(self):
        self.pid = os.getpid()
        self.thread = threading.Thread(target=threading.Event().wait, daemon=True)
        self.thread.start()

    def alive(self) -> bool:
        return self.thread.is_alive() and self.pid == os.getpid()


class Fails(BaseApp):
    def setup(self):
        raise ValueError("no table today")

    def never(self) -> int:
        return 1
