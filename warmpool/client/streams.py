"""Streams and maps, over either kind of core: many answers on one connection, which they have for themselves.

A stream that is closed before its end closes its connection: by that the worker knows, and closes the generator. The
session lives on, and its next call connects again.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, Self

from ..errors import InvalidRequestError, WarmpoolError
from ..wire.messages import Opened
from .connections import HangupError, OverdueError, payload_of
from .core import AnyCallLink, Core, L
from .events import Events
from .requests import Data, RunRequest

GATHERING: Final = 0.005
"""Seconds that a `map` takes inputs from a slow source before it sends those that it has."""


class Served(ABC):
    """Something that a worker serves: a session, or a stream; and what is known of both."""

    @property
    @abstractmethod
    def opened(self) -> Opened:
        """As it was told. Raises INVALID_REQUEST before it is."""

    @property
    def app(self) -> str:
        return self.opened.app

    @property
    def version(self) -> str:
        return self.opened.version

    @property
    def worker_id(self) -> str:
        return self.opened.worker_id


class AsyncStream(Served):
    """The events of one call, as they come: an iterator, and a context manager that closes it.

    After the last event, `error`, the exception is raised. Closing it early stops the function.
    """

    def __init__(
        self,
        core: Core[Any],
        call: RunRequest,
        borrow: Callable[[], Awaitable[Any]],
        give_back: Callable[[Any], object],
    ) -> None:
        """Begins when it is first used, on a link that it has for itself from `borrow` to `give_back`."""
        self._core = core
        self._call = call
        self._call_id = 0
        self._borrow = borrow
        self._give_back = give_back
        self._opened: Opened | None = None
        self._deadline: float | None = None
        self._events = Events()
        self._link: AnyCallLink | None = None
        self._maker = self._reader = core.me()
        """Threads or tasks: who made it, or has begun it if no task has; and who has read last."""
        self._is_reading = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._call.function} {self._events!r}>"

    @property
    def has_begun(self) -> bool:
        """Whether it is known who serves it."""
        return self._opened is not None

    @property
    def opened(self) -> Opened:
        """Who serves it: `session_id`, `app`, `version` and `worker_id`."""
        if self._opened is None:
            raise InvalidRequestError("the stream has not begun")
        return self._opened

    @property
    def session_id(self) -> str | None:
        return self.opened.session_id

    @property
    def output(self) -> Any:
        """What the function returned; None before the end."""
        return self._events.output

    async def begin(self) -> Self:
        """Begins, if it has not."""
        if self._opened is not None or self._events.is_over:
            return self
        self._link = link = await self._borrow()
        self._opened, self._reader = link.opened, self._core.me()
        self._maker = self._maker or self._reader
        self._core.readers.add(self)
        if self._call.timeout is not None:
            self._deadline = self._core.now() + self._call.timeout
        try:
            self._call_id = link.begin("Stream", self._call.function, self._call.input)
            link.flush(self._deadline)
        except HangupError:
            self._finish()
            raise await self._core.explain(link.opened.session_id) from None
        except BaseException as error:
            if not isinstance(error, WarmpoolError):  # or else it did not leave
                await self._cancel()
            self._finish()
            raise
        return self

    def __aiter__(self) -> Self:
        return self

    def is_read_by(self, reader: object, session_id: str) -> bool:
        """Whether this thread or task reads it, and it is of this session and not over. Whoever has read last does; or,
        if that was a task that is done (as of `asyncio.wait_for`, before Python 3.12), who made it.
        """
        link = self._link
        if link is None or link.opened.session_id != session_id:
            return False
        return reader == (self._maker if self._core.has_gone(self._reader) else self._reader)

    async def __anext__(self) -> Data:
        if self._is_reading:  # nothing is called from here to the next line, so no other thread runs in between
            raise InvalidRequestError("the stream is being read already: one thread or task reads it at a time")
        self._is_reading = True
        self._reader = self._core.me()
        try:
            link = self._link
            if link is None:
                if not self._events.is_over:
                    await self.begin()
                link = self._link
                if link is None:
                    raise self._events.take_error() or StopAsyncIteration
            event = await self._next(link)
        except BaseException as error:
            if not isinstance(error, WarmpoolError | StopAsyncIteration | GeneratorExit):
                await self._cancel()
            self.close_now()
            raise
        finally:
            self._is_reading = False
        if self._events.is_over:
            self._finish()
        return event

    async def _next(self, link: AnyCallLink) -> Data:
        try:
            parts = await self._core.next_parts(link, self._call_id, self._deadline)
        except HangupError:
            if self._events.is_over:
                raise StopAsyncIteration from None  # closed meanwhile, by another task or thread
            return self._events.fail(await self._core.explain(link.opened.session_id), time.time())
        except OverdueError as overdue:
            error = await self._core.give_up(link, self._call.timeout, overdue)
            return self._events.fail(error, time.time())
        return self._events.take(parts, time.time())

    async def __aenter__(self) -> Self:
        return await self.begin()

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self.leave(error)

    async def leave(self, error: BaseException | None) -> None:
        """Closes it at the end of a block. An interruption of the block (a Ctrl-C, the cancel of its task) cancels what
        it was for; who closes the generator that the block is in has no need of more.
        """
        if not isinstance(error, Exception | GeneratorExit | None):
            await self._cancel()
        self.close_now()

    async def _cancel(self) -> None:
        """After an interruption: the function is cancelled, whatever kind it is of."""
        try:
            if self._link is not None:
                await self._core.interrupted(self._link)
        finally:
            self.close_now()

    async def close(self) -> None:
        """Nothing more is wanted: a generator is closed, its `finally` runs."""
        self.close_now()

    def close_now(self) -> None:
        self._events.is_over = True
        if self._link is not None:
            self._link.close()
            self._finish()

    def __del__(self) -> None:
        if getattr(self, "_link", None) is not None:  # nor is it there if `__init__` was interrupted
            self.close_now()

    def _finish(self) -> None:
        self._events.is_over = True
        link, self._link = self._link, None
        if link is not None:
            self._core.readers.discard(self)
            self._give_back(link)


def stream_of(core: Core[L], request: RunRequest) -> AsyncStream:
    """The stream of a `run`. Its link is kept for its session."""

    async def borrow() -> L:
        core.readers.refuse(request.session)
        link = await core.open_link(request)
        link.seize()
        return link

    def give_back(link: L) -> None:
        link.release()
        session_id = link.opened.session_id
        if session_id is None:
            link.close()
        elif link.broken is None:
            core.kept.keep(session_id, link, request.app)

    return AsyncStream(core, request, borrow, give_back)


async def map_over(
    core: Core[L],
    borrow: Callable[[], Awaitable[L]],
    give_back: Callable[[L], object],
    function: str | None,
    inputs: Iterable[Any],
    window: int,
) -> AsyncGenerator[Any, None]:
    """The outputs of a call for each input, in order, with up to `window` calls under way. The first error by position
    is raised; what was sent after it is abandoned, and no more is sent.
    """
    link = await borrow()
    source, more = iter(inputs), True
    under_way: deque[int | Exception] = deque()
    try:
        while more or under_way:
            if more and len(under_way) <= window // 2 and not (under_way and link.has_enough()):
                more = _send_some(link, function, source, under_way, window, core.now)
            if under_way:
                head = under_way.popleft()
                if not isinstance(head, int):
                    try:
                        raise head
                    finally:
                        del head  # it knows this frame, and so what was to be sent
                if core.readers.begun:
                    core.readers.refuse(link.opened.session_id)
                yield payload_of(await core.next_parts(link, head, None))
    except HangupError:
        raise await core.explain(link.opened.session_id) from None
    except (Exception, GeneratorExit):
        raise  # of a call, of `inputs`, or there is no need of more
    except BaseException:
        await core.interrupted(link)
        raise
    finally:
        for call in under_way:
            if isinstance(call, int):
                link.abandon(call)
        give_back(link)


def _send_some(
    link: L,
    function: str | None,
    source: Iterator[Any],
    under_way: deque[int | Exception],
    window: int,
    now: Callable[[], float],
) -> bool:
    """Fills the window, in one send. False if that was the last: at the end of the source, at an input that cannot be
    had or sent, or when the worker has gone. What the matter is, the calls that have not left say at their turn.
    """
    latest = now() + GATHERING
    more = True
    while more and len(under_way) < window:
        try:
            under_way.append(link.begin("Call", function, next(source)))
        except StopIteration:
            more = False
        except Exception as error:
            under_way.append(error)
            more = False
        if now() > latest or link.has_enough():
            break
    try:
        link.flush()
    except HangupError:
        more = False
    return more
