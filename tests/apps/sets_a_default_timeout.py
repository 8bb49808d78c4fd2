"""Its sockets are to be quick; ours are none of them."""

import asyncio
import socket
import time

from warmpool import BaseApp

socket.setdefaulttimeout(0.05)


class Plain(BaseApp):
    def wait(self, seconds: float) -> float | None:
        time.sleep(seconds)
        return socket.getdefaulttimeout()


class Async(BaseApp):
    async def wait(self, seconds: float) -> float | None:
        await asyncio.sleep(seconds)
        return socket.getdefaulttimeout()
