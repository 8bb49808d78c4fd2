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

    def call_by_name(self) -> object:
        with Client() as client:
            name = client.sessions.get(self.context.session_id).name
            return client.session(f"{__file__}:Plain", name=name, if_exists="attach").call("fine")

    def call_by_a_handle(self) -> object:
        with Client() as client:
            return client.sessions.attach(self.context.session_id).call("fine")

    def map(self) -> object:
        with Client() as client:
            return list(client.sessions.attach(self.context.session_id).map("fine", [{}]))

    def set_label(self) -> object:
        with Client() as client, client.sessions.attach(self.context.session_id) as session:
            session.set_labels({"set": "from within"})
            return session.get_labels()

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

    async def call_by_name(self) -> object:
        async with AsyncClient() as client:
            name = (await client.sessions.get(self.context.session_id)).name
            session = await client.session(f"{__file__}:Async", name=name, if_exists="attach")
            return await session.call("fine")

    async def call_by_a_handle(self) -> object:
        async with AsyncClient() as client:
            return await (await client.sessions.attach(self.context.session_id)).call("fine")

    async def map(self) -> object:
        async with AsyncClient() as client:
            session = await client.sessions.attach(self.context.session_id)
            return [output async for output in session.map("fine", [{}])]

    async def set_label(self) -> object:
        async with AsyncClient() as client, client.sessions.attach(self.context.session_id) as session:
            await session.set_labels({"set": "from within"})
            return await session.get_labels()

    async def stream(self) -> object:
        async with AsyncClient() as client:
            return [event async for event in client.stream(session=self.context.session_id, function="fine")]

    async def call_later(self) -> None:
        self.task = asyncio.create_task(self.call())
        await asyncio.sleep(0)  # it has begun while this call runs

    async def later(self) -> object:
        return self.task.result() if self.task.done() else None

    async def fine(self) -> str:
        return "fine"
