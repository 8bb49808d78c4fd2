"""The async client: on any asyncio loop, the one in which it is first used.

    async with AsyncClient() as client, client.session("counter", session_timeout=300) as session:
        await session.call("add", amount=2)

It has the names of the blocking client, to be awaited. Calls that are gathered on one session run one after another in
their order. Cancelling a task that awaits a call cancels the call.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from ..paths import Places, working_directory
from .aio_core import AsyncCore
from .requests import Data, SessionOptions, run_request, session_request
from .sessions import AsyncApps, AsyncCalls, AsyncSession, AsyncSessions
from .streams import AsyncStream, stream_of

A = TypeVar("A")


class AsyncClient:
    """The way to a daemon, for the loop in which it is first used."""

    _core_kind = AsyncCore

    def __init__(self, socket: str | os.PathLike[str] | None = None, *, autostart: bool = True) -> None:
        """As `Client`."""
        self._core = self._core_kind(socket, autostart=autostart)
        self.sessions = AsyncSessions(self._core)
        self.calls = AsyncCalls(self._core)
        self.apps = AsyncApps(self._core)

    def __repr__(self) -> str:
        return f"<AsyncClient {self.places.socket} {self._core.broken or 'open'}>"

    @property
    def places(self) -> Places:
        """As `Client.places`."""
        return self._core.places

    @property
    def started_daemon(self) -> bool:
        """As `Client.started_daemon`."""
        return self._core.started_daemon

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Sessions live on until they are ended or expire."""
        self._core.close()

    @overload
    async def run(
        self, params: Mapping[str, Any] = ..., /, *, stream: Literal[True], **overrides: Any
    ) -> AsyncStream: ...
    @overload
    async def run(self, params: Mapping[str, Any] = ..., /, **overrides: Any) -> Data: ...
    async def run(self, params: Mapping[str, Any] = {}, /, **overrides: Any) -> Data | AsyncStream:
        """As `Client.run`, awaited."""
        request = run_request(params, overrides, working_directory())
        if request.stream:
            return await stream_of(self._core, request).begin()
        return await self._core.run(request)

    def stream(self, params: Mapping[str, Any] = {}, /, **overrides: Any) -> AsyncStream:
        """As `Client.stream`; `async with` begins it."""
        return stream_of(self._core, run_request(params, overrides, working_directory()))

    def session(self, app: str | os.PathLike[str] | type, **options: Unpack[SessionOptions]) -> AsyncSession:
        """As `Client.session`. It is opened when it is awaited or entered."""
        return AsyncSession(self._core, session_request(app, options, working_directory()))

    @asynccontextmanager
    async def proxy(self, app: type[A], **options: Unpack[SessionOptions]) -> AsyncIterator[A]:
        """As `Client.proxy`, entered by `async with`."""
        async with self.session(app, **options) as session:
            yield session.proxy(app)

    async def request(self, method: str, **params: Any) -> Any:
        """As `Client.request`, awaited."""
        return await self._core.request(method, **params)

    async def status(self) -> Data:
        """As `Client.status`, awaited."""
        return Data(await self._core.request("daemon.status"))

    async def stop(self) -> int:
        """As `Client.stop`, awaited."""
        return await self._core.stop_daemon()
