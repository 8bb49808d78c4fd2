"""Behaves, with async functions and something in the background."""

import asyncio

from warmpool import BaseApp


class AsyncCounter(BaseApp):
    async def setup(self):
        self.total = 0
        self.ticks = 0
        self.order: list[str] = []
        self.background = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self):
        while True:
            await asyncio.sleep(0.01)
            self.ticks += 1

    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    async def wait_for_ticks(self, count: int) -> int:
        target = self.ticks + count
        while self.ticks < target:
            await asyncio.sleep(0.005)
        return self.ticks

    async def note(self, name: str) -> list[str]:
        """Gives way in the middle: others must not come between."""
        self.order.append(f"{name} begins")
        await asyncio.sleep(0.01)
        self.order.append(f"{name} ends")
        return self.order

    def plain(self, value: int) -> int:
        return value + 1

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("missing")
