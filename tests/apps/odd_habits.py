"""What some apps do to the process that is theirs, in two kinds of worker."""

from __future__ import annotations

import asyncio
import decimal
import gc
import os
import resource
import sys
from datetime import date
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from warmpool import BaseApp, Client

if TYPE_CHECKING:
    from somewhere import Frame

gc.disable()
client = Client()


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes
    at: PurePosixPath


class Due(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date
    tags: set[str]
    pair: tuple[int, int]
    amount: int


class Writer:
    """As it is put in the place of `sys.stderr`: not all of a file."""

    def write(self, text: str) -> None:
        pass


class Habits:
    def load(self, frame: Frame) -> int:
        return 0


class Common(Habits):
    class Inner(BaseModel):
        value: int = 1

    max_private_bytes = 1 << 40

    def setup(self):
        decimal.getcontext().prec = 5
        self.files: list[int] = []
        self.does: str | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def load(self, frame: list[int]) -> int:
        return sum(frame)

    def nested(self, inner: Inner) -> int:
        return inner.value

    def never(self) -> NoReturn:
        raise ValueError("never")

    def third(self) -> str:
        return str(decimal.Decimal(1) / 3)

    def collects(self) -> bool:
        return gc.isenabled()

    def asks(self) -> int:
        return len(client.sessions.list())

    def due(self, value: Due) -> int:
        return value.amount

    def kept(self, value: Strict) -> list[Any]:
        return [value.data, value.at, ZoneInfo("UTC")]

    def takes_all_descriptors(self) -> int:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            while True:
                self.files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return len(self.files)

    def gives_them_back(self) -> int:
        while self.files:
            os.close(self.files.pop())
        return 0

    def on_the_next_cancel(self, does: str) -> None:
        self.does = does
        if does == "fails":
            sys.stderr = Writer()

    def cancel_all(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


class Plain(Common, BaseApp):
    def on_cancel(self) -> None:
        if self.does == "fails":
            raise ValueError("oops")

    def child(self, how: str) -> None:
        """Code of `asyncio.run` that nobody awaits while it runs."""

        def busy() -> None:
            while True:
                pass

        async def works() -> None:
            busy()

        async def main() -> None:
            if how == "task":
                task = asyncio.create_task(works())
                await asyncio.sleep(60)
                await task
            else:
                asyncio.get_running_loop().call_soon(busy)
                await asyncio.sleep(60)

        asyncio.run(main())

    def own_loop(self, how: str) -> int:
        """In one loop for all calls."""
        if self.loop is None:
            self.loop = asyncio.new_event_loop()

        async def busy() -> None:
            while True:
                pass

        async def main() -> int:
            if how == "awaited":
                await asyncio.create_task(busy())
            elif how == "gathered":
                await asyncio.gather(busy())
            return 7

        return self.loop.run_until_complete(main())


class Async(Common, BaseApp):
    async def on_cancel(self) -> None:
        if self.does == "fails":
            raise ValueError("oops")
        if self.does == "cancels":
            self.cancel_all()
            await asyncio.sleep(0)

    async def waits(self) -> None:
        await asyncio.sleep(60)
