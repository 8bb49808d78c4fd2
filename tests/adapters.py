"""One face for both clients: what is async is waited for on a loop of the test's own, so that a test is written once."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import uvloop

from warmpool import AsyncClient, AsyncSession, AsyncStream, Client

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
uvloop.new_event_loop().close()  # the first one leaves a pipe of the process's
CLIENTS = ["sync", *LOOPS]


@contextmanager
def open_client(kind: str, socket: Path, *, autostart: bool = False) -> Iterator[Any]:
    """A `Client`, or an `AsyncClient` that looks like one."""
    if kind == "sync":
        with Client(socket, autostart=autostart) as client:
            yield client
        return
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:

        async def make() -> AsyncClient:
            return AsyncClient(socket, autostart=autostart)

        face = Face(runner.run(make()), runner)
        with face:
            yield face


class Face:
    """An async object; what its methods give is waited for."""

    def __init__(self, thing: Any, runner: asyncio.Runner) -> None:
        self.thing = thing
        self.runner = runner

    def __repr__(self) -> str:
        return repr(self.thing)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.thing, name)
        if not callable(value):
            return self._shown(value)

        def method(*arguments: Any, **keywords: Any) -> Any:
            async def call() -> Any:  # inside the loop, as a user would
                return value(*arguments, **keywords)

            return self._shown(self.runner.run(call()))

        return method

    def _shown(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return self._shown(self.runner.run(value))
        if isinstance(value, AsyncSession):
            return Face(self.runner.run(_wait_for(value)), self.runner)
        if isinstance(value, AsyncStream):
            return Face(self.runner.run(value.begin()), self.runner)
        if inspect.isasyncgen(value) or type(value).__module__.startswith("warmpool.client.sessions"):
            return Face(value, self.runner)
        return value

    def __enter__(self) -> Self:
        self.runner.run(self.thing.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self.runner.run(self.thing.__aexit__(*error))

    def __iter__(self) -> Face:
        return self

    def __next__(self) -> Any:
        async def step() -> Any:
            return await self.thing.__anext__()

        try:
            return self.runner.run(step())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        closing = self.thing.aclose() if inspect.isasyncgen(self.thing) else self.thing.close()

        async def close() -> None:
            await closing

        self.runner.run(close())


async def _wait_for(thing: Any) -> Any:
    return await thing


def gathered(client: Any, work: list[Callable[[], Coroutine[Any, Any, Any]]]) -> list[Any]:
    """The results of coroutines that run at once on an async client's loop."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*(one() for one in work))

    return list(client.runner.run(gather()))
