"""An async client's connection to a worker. Any number of calls may be under way on it; the worker answers them in
their order. A call makes one future and no task.

While a lone call is under way its loop is kept awake for a moment: it goes round without sleeping, and does whatever
else there is to do. A core that falls asleep takes longer to wake up than a short call takes.
"""

from __future__ import annotations

import asyncio
import socket
from _thread import _count as threads  # besides the main one
from collections import deque
from time import monotonic
from typing import Any, Final, Protocol

from ..errors import WarmpoolError
from ..wire.calls import CallState, OpenCalls
from ..wire.frames import PADDING
from ..wire.messages import Opened
from .aio_links import AsyncLink
from .bells import UNHEARD, Bell, ring
from .connections import (
    SPIN_BACKOFF,
    UNSENDABLE,
    OverdueError,
    cannot_send,
    cannot_use,
    first_call_id,
    for_calls,
)

INBOX_LIMIT: Final = 64 * 1024
"""Bytes of events that are kept for a slow reader; from then on nothing is read until they are taken."""
AWAKE: Final = 100e-6
"""Seconds that a loop is kept awake for an answer."""
AT_ONCE: Final = 2
"""Rounds after which an answer is there of a worker that shares our core. It would only keep us waiting, awake."""


class Waiter(Protocol):
    """Who waits for what comes for a call: a future, or an EventQueue."""

    def done(self) -> bool: ...
    def set_result(self, result: list[Any], /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class EventQueue:
    """What comes for a call that may be told more than one thing."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes that have come since it was empty."""
        self._parts: deque[list[Any]] = deque()
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def done(self) -> bool:
        return False

    def set_result(self, parts: list[Any], /) -> None:
        self._parts.append(parts)
        self._wake()

    def set_exception(self, error: BaseException, /) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, link: AsyncCallLink, deadline: float | None) -> list[Any]:
        """The next thing, oldest first. Raises what broke the link after the last; TimeoutError at the deadline on
        the loop's clock.
        """
        if deadline is not None and link.loop.time() >= deadline:  # also for who is told more than he can read
            raise TimeoutError
        while not self._parts:
            self.size = 0
            link.wake_up()
            if not self._parts:
                if self._error is not None:
                    raise self._error
                self._waiter = link.loop.create_future()
                async with asyncio.timeout_at(deadline):
                    await self._waiter
        return self._parts.popleft()


class AsyncCallLink(AsyncLink):
    """A connection to a worker."""

    def __init__(self, connection: socket.socket, opened: Opened, bell: Bell) -> None:
        self.opened = opened
        self._bell = bell
        self._calls = OpenCalls(first_call_id())
        self._queues: dict[int, EventQueue] = {}
        self._settling: dict[int, asyncio.Future[None]] = {}
        self._seized = False
        self._rounds = 0
        """Those that the loop went while it was kept awake for the last call."""
        self._backoff = self._next_backoff = 0
        """As of a blocking client's link: calls to come before the loop is kept awake for one."""
        reader, self._messages = for_calls(connection, opened)
        super().__init__(connection, reader)

    # --- one call ---------------------------------------------------------------------------------------------

    def start(self, function: str | None, input: object) -> tuple[int, asyncio.Future[list[Any]]]:
        """Sends a call: its id, and the future of its answer's parts. Raises INVALID_REQUEST and HangupError."""
        self.check()
        call_id = self._calls.start()
        try:
            self._send(self._messages.message(("Call", call_id, function, input)))
        except BaseException as error:
            raise self._unsent_call(call_id, error) from None
        loop = self.loop
        if self._backoff:
            self._backoff -= 1
        elif not self._waiting and not threads():
            if self._rounds > AT_ONCE:
                ring(self._bell, call_id)
            self._rounds = 0
            loop.call_soon(self._stay_awake, call_id, monotonic() + AWAKE)
        future = self._waiting[call_id] = loop.create_future()
        return call_id, future

    def _stay_awake(self, call_id: int, until: float) -> None:
        """The loop calls it in each round, until the call is answered or it has taken too long."""
        if call_id in self._waiting:
            self._rounds += 1
            if monotonic() < until:  # a loop's own clock may count milliseconds
                self.loop.call_soon(self._stay_awake, call_id, until)
            else:
                self._backoff, self._next_backoff = self._next_backoff, SPIN_BACKOFF

    def overdue(self, call_id: int) -> None:
        """Its time is up: who waits for it gets OverdueError."""
        waiter = self._waiting.get(call_id)
        if waiter is not None and not waiter.done():
            self.abandon(call_id)
            waiter.set_exception(OverdueError(call_id))

    async def settle(self, call_id: int) -> None:
        """Waits until an abandoned call has been answered. Raises HangupError."""
        if self.broken is not None:
            raise cannot_use(self.broken)
        if call_id in self._calls:
            future = self._settling[call_id] = self.loop.create_future()
            await future

    # --- several at once, or one with events --------------------------------------------------------------------

    def seize(self) -> bool:
        """Takes the link for oneself alone, if nobody uses it; until `release`."""
        if self.broken is not None or self._seized or self._calls:
            return False
        self._seized = True
        return True

    def release(self) -> None:
        self._seized = False

    def begin(self, kind: str, function: str | None, input: object) -> int:
        """A new call's id; it leaves with the next `flush`. `kind` is "Call" or "Stream". Raises INVALID_REQUEST."""
        self.check()
        call_id = self._calls.start(CallState.STREAMING if kind == "Stream" else CallState.WAITING)
        try:
            self._outbox.put(self._messages.message((kind, call_id, function, input)))
        except BaseException as error:
            raise self._unsent_call(call_id, error) from None
        self._waiting[call_id] = self._queues[call_id] = EventQueue()
        return call_id

    def has_enough(self) -> bool:
        """Whether so much waits to be sent that it should be sent before there is more."""
        return self._outbox.size >= PADDING

    def flush(self, deadline: float | None = None) -> None:
        """Sends what has begun, now and as the socket takes it. Raises HangupError."""
        self._send(b"")

    async def next_parts(self, call_id: int, deadline: float | None = None) -> list[Any]:
        """What comes next for a call: an Event, a Result or a Failure. Raises HangupError; and OverdueError at the
        deadline on the loop's clock.
        """
        try:
            parts = await self._queues[call_id].take(self, deadline)
        except TimeoutError:
            self.abandon(call_id)
            raise OverdueError(call_id) from None
        if parts[0] != "Event":
            del self._queues[call_id]
            self.wake_up()  # nobody will take more of it
        return parts

    def under_way(self) -> list[int]:
        """The calls that somebody waits for."""
        return self._calls.awaited()

    def abandon(self, call_id: int) -> bool:
        """Nobody waits for this call any more. False if its answer has come."""
        self._waiting.pop(call_id, None)
        self._queues.pop(call_id, None)
        was_open = self._calls.abandon(call_id)
        self.wake_up()
        return was_open

    # --- what comes -------------------------------------------------------------------------------------------

    def wake_up(self) -> None:
        """Reads on after a pause: what is in the buffer first."""
        if self._is_paused and self.broken is None:
            self._resume()
            try:
                while not self._is_paused and (frame := self._reader.next_frame()) is not None:
                    self._handle(frame)
            except WarmpoolError as error:
                self._break(str(error), error)

    def _handle(self, frame: memoryview) -> None:
        parts = self._calls.answer(frame)
        if parts is None:
            self._settle_answered()
            return
        waiter = self._waiting.pop(parts[1]) if len(parts) == 3 else self._waiting[parts[1]]
        if not waiter.done():
            waiter.set_result(parts)
        if type(waiter) is EventQueue:
            waiter.size += len(frame)
            if waiter.size >= INBOX_LIMIT:
                self._pause()

    def _settle_answered(self) -> None:
        for call_id in [call_id for call_id in self._settling if call_id not in self._calls]:
            future = self._settling.pop(call_id)
            if not future.done():
                future.set_result(None)

    def _break(self, why: str, error: Exception) -> None:
        super()._break(why, error)
        self._bell = UNHEARD

    def _fail_all(self, error: Exception) -> None:
        waiters: list[Waiter | asyncio.Future[None]] = [*self._waiting.values(), *self._settling.values()]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _unsent_call(self, call_id: int, error: BaseException) -> BaseException:
        """What to raise for a call that did not leave."""
        self._calls.forget(call_id)
        return cannot_send(error, self.opened.session_id) if isinstance(error, UNSENDABLE) else error
