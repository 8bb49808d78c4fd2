"""The async twin: `async with warmpool.embedded(apps=[…]) as client`, and every power of a test awaited."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from ..client.aio import AsyncClient
from ..client.aio_calls import AsyncCallLink
from ..client.aio_core import AsyncCore
from ..client.requests import Data, app_reference
from ..client.sessions import AsyncSession
from ..paths import working_directory
from .watched_core import WatchedCore

Request = Callable[..., Awaitable[Any]]


class AsyncClock:
    """As `Clock`, awaited."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __repr__(self) -> str:
        return "<AsyncClock>"

    async def now(self) -> float:
        """As `Clock.now`, awaited."""
        return float((await self._request("testing.now"))["now"])

    async def advance(self, seconds: float) -> float:
        """As `Clock.advance`, awaited."""
        return float((await self._request("testing.advance", seconds=seconds))["now"])

    async def freeze(self) -> float:
        """As `Clock.freeze`, awaited."""
        return float((await self._request("testing.freeze"))["now"])

    async def thaw(self) -> float:
        """As `Clock.thaw`, awaited."""
        return float((await self._request("testing.thaw"))["now"])

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[float]:
        """As `Clock.frozen`."""
        answer = await self._request("testing.freeze")
        try:
            yield float(answer["now"])
        finally:
            if not answer["stood"]:
                await self.thaw()


class _WatchedAsyncCore(WatchedCore[AsyncCallLink], AsyncCore):
    pass


class AsyncTestingClient(AsyncClient):
    """As `TestingClient`, awaited."""

    _core_kind = _WatchedAsyncCore
    _core: _WatchedAsyncCore
    __test__ = False

    def __init__(self, socket: str | os.PathLike[str]) -> None:
        super().__init__(socket, autostart=False)
        self.clock = AsyncClock(self.request)

    async def kill_worker(self, session: AsyncSession | str) -> Data:
        """As `TestingClient.kill_worker`, awaited."""
        return Data(await self.request("testing.kill_worker", session_id=_id_of(session)))

    async def expire_now(self, session: AsyncSession | str) -> Data:
        """As `TestingClient.expire_now`, awaited."""
        return Data(await self.request("testing.expire_now", session_id=_id_of(session)))

    async def hang_next_call(self, session: AsyncSession | str) -> None:
        """As `TestingClient.hang_next_call`, awaited."""
        await self.request("testing.hang_next_call", session_id=_id_of(session))

    async def lose_template(self, app: str | type) -> None:
        """As `TestingClient.lose_template`, awaited."""
        cwd = working_directory()
        await self.request("testing.lose_template", app=app_reference(app, cwd)[0], cwd=cwd)

    @asynccontextmanager
    async def fill_pool(self) -> AsyncIterator[None]:
        """As `TestingClient.fill_pool`."""
        was_full = (await self.request("testing.fill_pool"))["was_full"]
        try:
            yield
        finally:
            if not was_full:
                await self.request("testing.free_pool")


def _id_of(session: AsyncSession | str) -> str:
    return session if isinstance(session, str) else session.id
