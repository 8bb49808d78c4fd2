"""The steps of a blocking client: each waits in the kernel, and never suspends."""

from __future__ import annotations

import os
import time
from _thread import RLock, _local
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Final, TypeVar

from ..errors import WarmpoolError
from .connections import HangupError, connect
from .core import Core, finish
from .requests import RunRequest, call_named
from .sync_calls import CallLink
from .sync_links import ControlLink

T = TypeVar("T")

IDLE_CONTROL_LINKS: Final = 4
"""Connections for control that are kept for the next request."""

INTERRUPT_PATIENCE: Final = 1.0
"""Seconds that a Ctrl-C waits for the daemon to take note of it."""


class _Threads(_local):
    """Each has a mark of its own, and keeps it: its number may be given to the next one."""

    def __init__(self) -> None:
        self.mark = object()


_threads: Final = _Threads()


class SyncCore(Core[CallLink]):
    def __init__(self, socket: str | os.PathLike[str] | None, *, autostart: bool) -> None:
        super().__init__(socket, autostart=autostart)
        self._idle: list[ControlLink] = []
        self._in_use: set[ControlLink] = set()

    def disown(self) -> None:
        super().disown()
        for link in (*self._idle, *self._in_use):
            link.disown()

    def close(self) -> None:
        super().close()
        with self._lock:
            idle, self._idle = self._idle, []
        for link in (*idle, *self._in_use):
            link.close()

    async def open(self, request: RunRequest, *, start: bool) -> CallLink:
        return CallLink(*self._asked(lambda control: control.open(request), start=start))

    async def ask(self, method: str, params: dict[str, Any], *, start: bool) -> Any:
        return self._asked(lambda control: control.request(method, params), start=start)

    def _asked(self, ask: Callable[[ControlLink], T], *, start: bool) -> T:
        """Asks over a connection that nobody else uses meanwhile: some requests are held until something happens."""
        self.check()
        with self._lock:
            link = self._idle.pop() if self._idle else None
        if link is None:
            link = ControlLink(self.dial(start=start), self.bells)
        self._in_use.add(link)
        try:
            self.check()  # it may have been closed meanwhile
            return ask(link)
        except HangupError:
            with self._lock:
                self._idle.clear()  # of the same daemon
            raise
        except WarmpoolError:
            raise
        except BaseException:
            link.close()  # interrupted between a question and its answer, perhaps
            raise
        finally:
            self._in_use.discard(link)
            with self._lock:
                if link.broken is None and self.broken is None and len(self._idle) < IDLE_CONTROL_LINKS:
                    self._idle.append(link)
                else:
                    link.close()

    async def call(self, link: CallLink, function: str | None, input: Any, timeout: float | None) -> Any:
        try:
            if timeout is None:
                return link.call(function, input)
            give_up = partial(self.give_up, link, timeout)
            return link.call_within(function, input, timeout, lambda overdue: finish(give_up(overdue)))
        except BaseException:
            self.tell_interrupted(link)
            raise

    async def next_parts(self, link: CallLink, call_id: int, deadline: float | None) -> list[Any]:
        try:
            return link.next_parts(call_id, deadline)
        except BaseException:
            self.tell_interrupted(link)
            raise

    async def settle(self, link: CallLink, call_id: int) -> None:
        link.settle(call_id)

    def now(self) -> float:
        return time.monotonic()

    @staticmethod
    def me() -> object:
        return _threads.mark

    def has_gone(self, who: object) -> bool:
        return False

    def turns(self) -> AbstractAsyncContextManager[Any]:
        return _Turns()

    async def outlast_daemon(self) -> None:
        from .autostart import outlast

        outlast(self.places)

    async def interrupted(self, link: CallLink) -> None:
        link.interrupt()
        self.tell_interrupted(link)

    def tell_interrupted(self, link: CallLink) -> None:
        """Cancels what an interruption has left open, if that is what has happened: as well as it goes."""
        calls, link.left_open = link.left_open, []
        if not calls or self.broken is not None:
            return
        with suppress(WarmpoolError, HangupError, OSError):
            control = ControlLink(connect(self.places, INTERRUPT_PATIENCE), self.bells)
            try:
                for call_id in calls:
                    control.request("calls.cancel", call_named(link.opened, call_id))
            finally:
                control.close()


class _Turns:
    """A lock among threads, in the form that coroutines take."""

    def __init__(self) -> None:
        self._lock = RLock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


def drive(work: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Runs an async generator over steps that block, as a generator."""
    try:
        while True:
            try:
                value = finish(work.__anext__())
            except StopAsyncIteration:
                return
            yield value
    finally:
        finish(work.aclose())
