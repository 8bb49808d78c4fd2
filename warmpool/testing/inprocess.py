"""`CounterApp.test_client()`: a session on an app in this very process, for unit tests and for a debugger.

No daemon, no worker, no socket. A call goes through the worker's own `Caller`, and through the wire's own frames: it is
packed, unpacked, validated, run, serialised, packed and unpacked again, so what a real session refuses is refused here,
with the same error. What the app raised is the error's `__cause__`, with all its frames, for `pdb` to stop at.

What it does not have is what a process of one's own gives: isolation, cancels, a window that ends, a time-out for code
that does not wait in a loop; and, with the blocking client of an async app, a loop that runs between calls. What is
meant for whoever runs the test (Ctrl-C, pytest's outcomes, the end of its task) passes through the app as it is.
(Refused: a mock of the session. It would agree with its author and not with the worker.)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from ..app import BaseApp
from ..client.core import finish
from ..client.requests import call_timeout
from ..errors import InvalidRequestError
from ..worker.hooks import awaited, run_hook
from .life import Hook, Life

A = TypeVar("A", bound=BaseApp)


class _AnyClient(Generic[A]):
    """What can be seen of a session, awaited or not."""

    _life: Life[A]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._life.name} {self._life.end_reason or 'open'}>"

    @property
    def app(self) -> A:
        return self._life.app

    @property
    def id(self) -> str:
        return self._life.id

    @property
    def end_reason(self) -> str | None:
        return self._life.end_reason

    @property
    def progress(self) -> list[tuple[float, float | None, str]]:
        """All that the app has reported by `self.context.progress`, as (done, total, message)."""
        return self._life.host.progressed


class AppClient(_AnyClient[A]):
    """A session on an app in this process; use it as `with CounterApp.test_client() as client`.

    `client.call` is a session's. `client.app` is the instance: a unit test may look into it.
    """

    def __init__(self, app_class: type[A], labels: Mapping[str, str] | None = None) -> None:
        self._life = Life(app_class, labels or {})
        self._runner: asyncio.Runner | None = None
        self._turns = threading.Lock()

    def __enter__(self) -> Self:
        life = self._life
        if life.is_async:
            with suppress(RuntimeError):
                asyncio.get_running_loop()
                raise InvalidRequestError("an event loop runs here already: use `async with`, and await the calls")
            self._runner = asyncio.Runner()
        try:
            finish(life.begin(self._step))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            self._close()

    def call(
        self,
        function: Any = None,
        input: Any = None,
        /,
        *,
        timeout: float | None = None,
        timeout_seconds: float | None = None,
        **fields: Any,
    ) -> Any:
        """Calls a function and gives its output, or raises its error, as a session's `call` does. But a plain function
        runs to its end, whatever its `timeout`.
        """
        patience = call_timeout(timeout, timeout_seconds)
        life, me = self._life, threading.get_ident()
        life.refuse_nested(me)
        with self._turns, life.turn(me):
            if life.host.ends:  # by a thread of the app's, since the last call
                self.end("app")
            call = life.call(function, input, fields)
            if self._runner is None:
                reply = life.caller.answer(call, life.writer)
            else:
                reply = self._runner.run(life.within(patience, life.answer(call)))
            if life.host.ends:
                self.end("app")
            return life.result(reply)

    def end(self, reason: str = "client") -> None:
        """Ends the session: runs its hooks. What these raise goes to stderr, as a worker's goes to its log."""
        finish(self._life.end(reason, self._step))

    async def _step(self, hook: Hook, *arguments: Any) -> None:
        """Blocks, in the loop of the calls if they have one."""
        if self._runner is not None:
            self._runner.run(_awaited(hook, *arguments))
        elif hook is not None:
            run_hook(hook, *arguments)

    def _close(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self._life.close()

    # --- in a loop that runs already --------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncAppClient[A]:
        await self._life.begin(_awaited)
        return AsyncAppClient(self._life)

    async def __aexit__(self, *_: object) -> None:
        try:
            await AsyncAppClient(self._life).end()
        finally:
            self._life.close()


class AsyncAppClient(_AnyClient[A]):
    """The same for an async test: `async with CounterApp.test_client() as client`, and `await client.call(…)`."""

    def __init__(self, life: Life[A]) -> None:
        self._life = life
        self._turns = asyncio.Lock()

    async def call(
        self,
        function: Any = None,
        input: Any = None,
        /,
        *,
        timeout: float | None = None,
        timeout_seconds: float | None = None,
        **fields: Any,
    ) -> Any:
        """As `AppClient.call`, awaited."""
        patience = call_timeout(timeout, timeout_seconds)
        return await self._life.within(patience, self._call(function, input, fields))

    async def _call(self, function: Any, input: Any, fields: Mapping[str, Any]) -> Any:
        life, me = self._life, asyncio.current_task()
        life.refuse_nested(me)
        async with self._turns:
            with life.turn(me):
                if life.host.ends:
                    await self.end("app")
                reply = await life.answer(life.call(function, input, fields))
                if life.host.ends:
                    await self.end("app")
                return life.result(reply)

    async def end(self, reason: str = "client") -> None:
        """As `AppClient.end`, awaited."""
        await self._life.end(reason, _awaited)


async def _awaited(hook: Hook, *arguments: Any) -> None:
    if hook is not None:
        await awaited(hook, *arguments)
