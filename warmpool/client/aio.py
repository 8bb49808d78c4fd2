"""The async client: on any asyncio loop, the one in which it is first used.

    async with AsyncClient() as client, client.session("counter", session_timeout=300) as session:
        await session.call("add", amount=2)

It has the names of the blocking client, to be awaited. Calls that are gathered on one session run one after another in
their order. Cancelling a task that awaits a call cancels the call.
"""

from __future__ import annotations

import asyncio
import os
import socket as sockets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Literal, Self, TypeVar, Unpack, overload

from ..errors import WarmpoolError
from ..paths import Places, working_directory
from .aio_calls import AsyncCallLink
from .aio_links import AsyncControlLink
from .connections import HangupError, connect, payload_of
from .core import Core
from .requests import Data, RunRequest, SessionOptions, run_request, session_request
from .sessions import AsyncApps, AsyncCalls, AsyncSession, AsyncSessions
from .streams import AsyncStream

CANCEL_PATIENCE: Final = 1.0
"""Seconds that a cancelled task waits for the daemon to take note."""

A = TypeVar("A")


class AsyncClient:
    """The way to a daemon, for the loop in which it is first used."""

    def __init__(self, socket: str | os.PathLike[str] | None = None, *, autostart: bool = True) -> None:
        """As `Client`."""
        self._core = self._new_core(socket, autostart=autostart)
        self.sessions = AsyncSessions(self._core)
        self.calls = AsyncCalls(self._core)
        self.apps = AsyncApps(self._core)

    @staticmethod
    def _new_core(socket: str | os.PathLike[str] | None, *, autostart: bool) -> AsyncCore:
        return AsyncCore(socket, autostart=autostart)

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
            return await self.stream(params, **overrides).begin()
        return await self._core.run(request)

    def stream(self, params: Mapping[str, Any] = {}, /, **overrides: Any) -> AsyncStream:
        """As `Client.stream`."""
        request = run_request(params, overrides, working_directory())
        return AsyncStream(self._core, request, *self._core.run_stream(request))

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


class AsyncCore(Core[AsyncCallLink]):
    """The steps of an async client."""

    def __init__(self, socket: str | os.PathLike[str] | None, *, autostart: bool) -> None:
        super().__init__(socket, autostart=autostart)
        self._control: AsyncControlLink | None = None
        self._control_turns = asyncio.Lock()

    def disown(self) -> None:
        super().disown()
        if self._control is not None:
            self._control.disown()

    def close(self) -> None:
        super().close()
        if self._control is not None:
            self._control.close()

    async def open(self, request: RunRequest, *, start: bool) -> AsyncCallLink:
        control = await self._control_link(start=start)
        return AsyncCallLink(*await control.open(request))

    async def ask(self, method: str, params: dict[str, Any], *, start: bool) -> Any:
        return await (await self._control_link(start=start)).request(method, params)

    async def _control_link(self, *, start: bool) -> AsyncControlLink:
        self.check()
        if self._control is None or self._control.broken is not None:
            async with self._control_turns:
                if self._control is None or self._control.broken is not None:
                    self._control = AsyncControlLink(await self._dial(start=start), self.bells)
        return self._control

    async def call(
        self,
        link: AsyncCallLink,
        function: str | None,
        input: Any,
        timeout: float | None,
    ) -> Any:
        call_id, future = link.start(function, input)
        timer = None if timeout is None else link.loop.call_later(timeout, link.overdue, call_id)
        try:
            return payload_of(await future)
        except asyncio.CancelledError:
            await self._tell_cancelled(link, call_id)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            del future  # its error knows this frame, and so what was to be sent

    async def next_parts(self, link: AsyncCallLink, call_id: int, deadline: float | None) -> list[Any]:
        try:
            return await link.next_parts(call_id, deadline)
        except asyncio.CancelledError:
            link.close()  # first: of a map nothing begins then that waits behind this call
            await self._tell_cancelled(link, call_id)
            raise

    async def settle(self, link: AsyncCallLink, call_id: int) -> None:
        await link.settle(call_id)

    async def outlast_daemon(self) -> None:
        from .autostart import outlast

        await asyncio.get_running_loop().run_in_executor(None, outlast, self.places)

    async def interrupted(self, link: AsyncCallLink) -> None:
        if link.broken is None:
            calls = link.under_way()
            link.close()
            for call_id in calls:
                await self._tell_cancelled(link, call_id)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    me = staticmethod(asyncio.current_task)

    def turns(self) -> AbstractAsyncContextManager[Any]:
        return asyncio.Lock()

    async def _tell_cancelled(self, link: AsyncCallLink, call_id: int) -> None:
        """Nobody waits for the call any more."""
        if not link.abandon(call_id) or self.broken is not None:
            return
        with suppress(WarmpoolError, HangupError, TimeoutError):
            async with asyncio.timeout(CANCEL_PATIENCE):
                await self.stop_call(link.opened, call_id)

    async def _dial(self, *, start: bool) -> sockets.socket:
        """A fresh connection: at once where that goes, else from a thread, which may wait."""
        self.check()
        self._was_used = True
        try:
            return connect(self.places, 0)
        except (BlockingIOError, WarmpoolError):
            dialling = asyncio.get_running_loop().run_in_executor(None, partial(self.dial, start=start))
        try:
            return await asyncio.shield(dialling)
        except asyncio.CancelledError:
            dialling.add_done_callback(_close_unwanted)
            raise


def _close_unwanted(dialling: asyncio.Future[sockets.socket]) -> None:
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().close()
