"""The steps of an async client: each waits on its loop."""

from __future__ import annotations

import asyncio
import os
import socket as sockets
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Final

from ..errors import InvalidRequestError, WarmpoolError
from .aio_calls import AsyncCallLink
from .aio_links import AsyncControlLink, wrong_loop
from .connections import HangupError, OverdueError, connect, payload_of
from .core import Core
from .requests import RunRequest

CANCEL_PATIENCE: Final = 1.0
"""Seconds that a cancelled task waits for the daemon to take note."""


class AsyncCore(Core[AsyncCallLink]):
    def __init__(self, socket: str | os.PathLike[str] | None, *, autostart: bool) -> None:
        super().__init__(socket, autostart=autostart)
        self._control: AsyncControlLink | None = None
        self._control_turns = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def disown(self) -> None:
        super().disown()
        if self._control is not None:
            self._control.disown()

    def close(self) -> None:
        super().close()
        if self._control is not None:
            self._control.close()

    def check(self) -> None:
        """Before anything waits for a lock of one loop's. A loop that has ended can be followed by another."""
        super().check()
        running = asyncio._get_running_loop()
        with self._lock:
            if running in (None, self._loop):
                return
            if self._loop is not None and self._loop.is_running():
                raise wrong_loop()
            self._loop, self._control_turns = running, asyncio.Lock()

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
        except OverdueError as overdue:
            raise await self.give_up(link, timeout, overdue) from None
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

    def me(self) -> object:
        return asyncio.current_task() if asyncio._get_running_loop() is not None else None

    def has_gone(self, who: object) -> bool:
        return isinstance(who, asyncio.Task) and who.done()

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
        if asyncio._get_running_loop() is None:
            raise InvalidRequestError(
                "an AsyncClient works on asyncio's loops, and none runs here: under anyio take its asyncio backend"
            )
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
