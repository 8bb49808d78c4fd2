"""Still runs a call while its last hook runs."""

import asyncio

from warmpool import BaseApp


class EndsSlowly(BaseApp):
    async def setup(self):
        self.ending = asyncio.Event()
        self.done = asyncio.Event()

    async def wait_for_the_end(self) -> str:
        await self.ending.wait()
        self.done.set()
        return "too late"

    async def on_end(self, reason: str):
        self.ending.set()
        await self.done.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
