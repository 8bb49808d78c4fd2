"""Functions that give one thing after another, plain and async."""

import asyncio
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from warmpool import BaseApp

kept = sys.stdout
"""As a library keeps it that is imported early."""


class Item(BaseModel):
    number: int
    day: date = date(2026, 1, 2)


def decorated(method: Any) -> Any:
    @wraps(method)
    def wrapper(*arguments: Any) -> Any:
        return method(*arguments)

    return wrapper


class Base(BaseApp):
    def setup(self):
        self.said: list[str] = []

    def _end(self, word: str):
        self.said.append(word)
        print(word, flush=True)


class Plain(Base):
    def talk(self) -> str:
        print("one", 1)
        print("two\nlines")
        print("to stderr", file=sys.stderr)
        kept.write("kept\n")
        self.logger.info("an %s", "info")
        self.logger.debug("not told")
        logging.getLogger("library").warning("of a library")
        try:
            raise ValueError("oops \ud800")
        except ValueError:
            self.logger.exception("failed")
        os.write(1, b"past the streams\n")
        print("no end", end="")
        return "talked"

    def talk_much(self, lines: int) -> str:
        for line in range(lines):
            print(line, "x" * 100)
        return "talked"

    def talk_at_length(self) -> None:
        print("x" * 100_000)

    def talk_for_ever(self) -> None:
        try:
            while True:
                self.logger.info("x" * 1000)
        finally:
            print("closed", flush=True)

    def heard(self) -> list[str]:
        return self.said

    def fine(self, value: int = 1) -> int:
        return value

    def count(self, to: int) -> Generator[int, None, str]:
        yield from range(to)
        return "counted"

    def models(self, to: int) -> Iterator[Item]:
        for number in range(to):
            yield Item(number=number)

    def unannotated(self, to: int):
        for number in range(to):
            yield {"day": date(2026, 1, 2), "number": number}

    def iterator(self, to: int) -> Iterator[int]:
        return map(abs, range(to))

    @decorated
    def wrapped(self, to: int) -> Iterator[int]:
        yield from range(to)

    def raise_the_end_of_others(self) -> Iterator[int]:
        yield 1
        raise StopAsyncIteration

    def fail(self, after: int) -> Iterator[int]:
        try:
            yield from range(after)
            raise ValueError("enough")
        finally:
            self._end("closed")

    def give(self, size: int) -> Iterator[bytes]:
        try:
            yield b"x" * size
        finally:
            self._end("closed")

    def give_what_cannot_be_sent(self) -> Iterator[Any]:
        try:
            yield 1
            yield object()
        finally:
            self._end("closed")

    def forever(self, size: int = 1) -> Iterator[str]:
        made = 0
        try:
            for made in itertools.count(1):  # noqa: B007
                yield "x" * size
        except BaseException as error:
            self.said.append(type(error).__name__)
            raise
        finally:
            self._end(f"closed after {made}")

    def stand(self) -> Iterator[int]:
        try:
            yield 1
            time.sleep(3600)
        except BaseException as error:
            self.said.append(type(error).__name__)
            raise
        finally:
            self._end("closed")

    def go_on(self) -> Iterator[int]:
        """Swallows its cancel."""
        try:
            yield from itertools.count()
        except BaseException as error:
            yield -1
            self._end(type(error).__name__)
            yield -2

    def work(self, steps: int, message: str = "") -> str:
        for step in range(steps):
            self.context.progress(step + 1, steps, message)
        return "worked"

    def work_on(self, fifo: str) -> str:
        self.context.progress(1)
        with open(fifo) as file:
            file.read()
        self.context.progress(2)
        self._end("worked")
        return "worked"

    def work_forever(self) -> None:
        try:
            for step in itertools.count():
                self.context.progress(step)
        finally:
            self._end("closed")

    def work_in_threads(self, steps: int) -> int:
        threads = [threading.Thread(target=self.work, args=(steps,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for step in range(steps):
            self.context.progress(step)
        for thread in threads:
            thread.join()
        return len(threads)

    def tell_nonsense(self, what: str) -> None:
        self.context.progress(
            **{
                "text": {"done": "much"},
                "none": {"done": None},
                "message": {"done": 1, "message": 2},
                "huge": {"done": 10**30},
            }[what]
        )  # type: ignore[arg-type]


class Async(Base):
    plain_talk = Plain.talk
    plain_talk_for_ever = Plain.talk_for_ever

    async def talk(self) -> str:
        await asyncio.sleep(0)
        return Plain.talk(self)  # type: ignore[arg-type]

    async def heard(self) -> list[str]:
        return self.said

    async def fine(self, value: int = 1) -> int:
        return value

    async def count(self, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    async def models(self, to: int) -> AsyncIterator[Item]:
        for number in range(to):
            await asyncio.sleep(0)
            yield Item(number=number)

    async def unannotated(self, to: int):
        for number in range(to):
            yield {"day": date(2026, 1, 2), "number": number}

    @decorated
    def wrapped(self, to: int) -> AsyncIterator[int]:
        return self.count(to)

    def raise_the_end_of_others(self) -> Iterator[int]:
        yield 1
        raise StopAsyncIteration

    def plain_count(self, to: int) -> Generator[int, None, str]:
        yield from range(to)
        return "counted"

    async def fail(self, after: int) -> AsyncIterator[int]:
        try:
            for number in range(after):
                yield number
            raise ValueError("enough")
        finally:
            self._end("closed")

    async def give(self, size: int) -> AsyncIterator[bytes]:
        try:
            yield b"x" * size
        finally:
            self._end("closed")

    async def give_what_cannot_be_sent(self) -> AsyncIterator[Any]:
        try:
            yield 1
            yield object()
        finally:
            self._end("closed")

    async def forever(self, size: int = 1) -> AsyncIterator[str]:
        made = 0
        try:
            for made in itertools.count(1):  # noqa: B007
                yield "x" * size
        except BaseException as error:
            self.said.append(type(error).__name__)
            raise
        finally:
            self._end(f"closed after {made}")

    plain_forever = Plain.forever

    async def stand(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(3600)
        except BaseException as error:
            self.said.append(type(error).__name__)
            raise
        finally:
            self._end("closed")

    async def go_on(self) -> AsyncIterator[int]:
        """Swallows its cancel."""
        try:
            for number in itertools.count():
                yield number
        except BaseException as error:
            yield -1
            await asyncio.sleep(0.01)
            self._end(type(error).__name__)
            yield -2

    async def work(self, steps: int, message: str = "") -> str:
        for step in range(steps):
            self.context.progress(step + 1, steps, message)
        return "worked"

    async def work_on(self, fifo: str) -> str:
        self.context.progress(1)
        await asyncio.get_running_loop().run_in_executor(None, Path(fifo).read_text)
        self.context.progress(2)
        self._end("worked")
        return "worked"

    async def leave_at_work(self) -> None:
        """Until `work_beside` is called."""
        self.called = asyncio.Event()
        self.left = asyncio.create_task(self._work_when_called())

    async def _work_when_called(self) -> None:
        await self.called.wait()
        self.context.progress(1, 1, "of another call")

    async def work_beside(self) -> str:
        self.called.set()
        await self.left
        return await self.work(1)

    plain_work_forever = Plain.work_forever
    plain_work = Plain.work
