"""Sessions that end by themselves, plain and async."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from warmpool import BaseApp


def values() -> dict[str, Any]:
    deep: list[Any] = []
    for _ in range(1020):
        deep = [deep]
    return {
        "data": {"calls": 2},
        "none": None,
        "large": "x" * 100_000,
        "odd": object(),
        "deep": deep,
        "lazy": (number for number in range(3)),
    }


class Plain(BaseApp):
    def setup(self):
        self.ended_by: Any = "nobody"

    def fine(self, value: int = 1) -> int:
        return value

    def end(self, size: int = 1) -> str:
        self.context.end_session()
        return "x" * size

    def end_later(self) -> str:
        """By a thread, which dies with the session."""
        threading.Timer(0.01, self.context.end_session).start()
        return "x"

    def wait(self, fifo: Path) -> str:
        return fifo.read_text()

    def grow(self, megabytes: int) -> int:
        self.held = bytearray(megabytes * 2**20)
        return megabytes

    def end_with(self, kind: str) -> None:
        self.value = values()[kind]
        self.context.end_session()

    def count(self, to: int):
        self.context.end_session()
        yield from range(to)

    def on_end(self, reason: str) -> Any:
        print(f"ended: {reason}", flush=True)
        return getattr(self, "value", None)


class Async(BaseApp):
    async def fine(self, value: int = 1) -> int:
        return value

    async def end(self, size: int = 1) -> str:
        self.context.end_session()
        await asyncio.sleep(0.01)
        return "x" * size

    def end_at_once(self) -> str:
        self.context.end_session()
        return "x"

    async def end_later(self) -> str:
        self.later = asyncio.get_running_loop().call_later(0.01, self.context.end_session)
        return "x"

    async def wait(self, fifo: str) -> str:
        print("begun", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, self._read, fifo)
        return "waited"

    def _read(self, fifo: str) -> str:
        with open(fifo) as file:
            return file.read()

    async def end_with(self, kind: str) -> None:
        self.value = values()[kind]
        self.context.end_session()

    async def count(self, to: int):
        self.context.end_session()
        for number in range(to):
            yield number

    async def on_end(self, reason: str) -> Any:
        await asyncio.sleep(0)
        print(f"ended: {reason}", flush=True)
        return getattr(self, "value", None)


class EndsInSetup(Plain):
    def setup(self):
        self.context.end_session()


class EndsInAsyncSetup(Async):
    async def setup(self):
        self.context.end_session()
        await asyncio.sleep(0.01)


class ThreeCalls(Plain):
    max_calls = 3


class ThreeAsyncCalls(Async):
    max_calls = 3


class Small(Plain):
    max_private_bytes = 100 * 2**20


class ShortLived(Plain):
    max_lifetime = 60


class Grace(Plain):
    warm = 2
    max_workers = 3
    cancel_grace = 0
    max_lifetime = 0.5
