"""Apps that call the session that they are in, by a client of their own."""

import asyncio
import os
import threading
from concurrent.futures import Future

from warmpool import AsyncClient, BaseApp, Client


class Plain(BaseApp):
    def call(self) -> object:
        with Client() as client:
            return client.run(session=self.context.session_id, function="fine").output

    def stream(self) -> object:
        with Client() as client:
            return list(client.stream(session=self.context.session_id, function="fine"))

    def call_later(self) -> None:
        self.answer: Future[object] = Future()
        threading.Thread(target=lambda: self.answer.set_result(self.call())).start()

    def later(self) -> object:
        return self.answer.result() if self.answer.done() else None

    def call_from_a_child(self) -> int:
        child = os.fork()
        if child == 0:
            try:
                os._exit(self.call() != "fine")
            finally:
                os._exit(1)
        return child

    def status_of(self, child: int) -> int | None:
        pid, status = os.waitpid(child, os.WNOHANG)
        return status if pid else None

    def fine(self) -> str:
        return "fine"


class Async(BaseApp):
    async def call(self) -> object:
        async with AsyncClient() as client:
            return (await client.run(session=self.context.session_id, function="fine")).output

    async def stream(self) -> object:
        async with AsyncClient() as client:
            return [event async for event in client.stream(session=self.context.session_id, function="fine")]

    def call_later(self) -> None:
        self.task = asyncio.ensure_future(self.call())

    async def later(self) -> object:
        return self.task.result() if self.task.done() else None

    async def fine(self) -> str:
        return "fine"
