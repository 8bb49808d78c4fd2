"""`CounterApp.test_client()`: a session on an app in this very process, for unit tests and for a debugger.

No daemon, no worker, no socket. A call goes through the worker's own `Caller`, and through the wire's own frames: it is
packed, unpacked, validated, run, serialised, packed and unpacked again, so what a real session refuses is refused here,
with the same error. What the app raised is the error's `__cause__`, with all its frames, for `pdb` to stop at.

What it does not have is what a process of one's own gives: isolation, time-outs, cancels, a window that ends. And what
is meant for whoever runs the test (Ctrl-C, pytest's outcomes, the end of its task) passes through the app as it is.
(Refused: a mock of the session. It would agree with its author and not with the worker.)
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ..app import BaseApp, CallCancelled
from ..board import Board
from ..client.connections import cannot_send
from ..client.requests import call_arguments
from ..errors import AppBrokenError, InvalidRequestError, SessionEndedError, WarmpoolError, from_wire
from ..options import Settings
from ..packets import pair
from ..signatures import functions_of
from ..wire.frames import HEADER_SIZE, decode
from ..wire.large import Enclosed, Frame, InputWriter, MessageWriter
from ..wire.messages import Call, Stream, call_from_wire
from ..worker.caller import Caller
from ..worker.cancelling import Inbox
from ..worker.failures import app_broken, print_failure
from ..worker.runner import any_async, constructed

_LIMIT: Final = Settings().call_memory_limit

_TOLD: Final = (Exception, SystemExit, CallCancelled)
"""What a session tells as an error of the app's, and a test that is stopped is not stopped by."""

_preloaded: weakref.WeakSet[type[BaseApp]] = weakref.WeakSet()


class _Caller(Caller):
    """Remembers what the app raised, of which the frame has only the words."""

    cause: BaseException | None = None

    def refuse(self, call_id: int, error: WarmpoolError, writer: MessageWriter) -> Frame:
        self.cause = sys.exception()
        assert self.cause is not None, "it comes where anything was caught"
        _let_pass(self.cause)
        return super().refuse(call_id, error, writer)


class _Host:
    """What the app's context asks of its worker."""

    def __init__(self) -> None:
        self.ends = False
        self.progressed: list[tuple[float, float | None, str]] = []

    def cancel_requested(self) -> bool:
        return False

    def progress(self, done: float, total: float | None, message: str) -> None:
        self.progressed.append((done, total, message))

    def end_session(self) -> None:
        self.ends = True


class _Life:
    """One session on one instance, but for how it waits for what is async."""

    def __init__(self, app_class: type[BaseApp], labels: Mapping[str, str]) -> None:
        self.app_class = app_class
        self.functions = functions_of(app_class)
        self.is_async = any_async(self.functions)
        self.id = f"sess_{secrets.token_urlsafe(15)}"
        self.end_reason: str | None = None
        self._first_id = 1 << 61  # as wide as a client's, whose frames may be no larger than ours
        self.host = _Host()
        self.name = _name_of(app_class)
        self.writer = MessageWriter(_LIMIT)
        self._caller_now: object = None
        self._labels = dict(labels)
        self._resources = ExitStack()
        self.caller: _Caller
        """Once it has been constructed."""

    def construct(self) -> None:
        app = constructed(self.app_class, self.name, _version_of(self.app_class), "w_test", self.host)
        ours, _ = map(self._resources.enter_context, pair())
        board = self._resources.enter_context(closing(Board.scratch()))
        self.caller = _Caller(app, self.functions, board, 0, self.name, Inbox(ours, lambda _: False))

    def lease(self) -> None:
        context = self.caller.app.context
        context.session_id, context.labels = self.id, self._labels

    def hook(self, name: str) -> Callable[..., Any] | None:
        hook: Callable[..., Any] | None = getattr(self.caller.app, name, None)
        return hook

    def broken(self, doing: str, error: BaseException) -> AppBrokenError:
        _let_pass(error)
        return app_broken(self.name, doing, error)

    def hook_failed(self, name: str, error: BaseException) -> None:
        _let_pass(error)
        print_failure(f"{self.name}: {name}", error)

    def refuse_nested(self, me: object) -> None:
        """Before `me`, a thread or a task, waits for its turn: calls of one session run one at a time."""
        if me == self._caller_now:
            raise InvalidRequestError(
                "a call of this session runs here, and calls run one at a time: one from inside it would wait for it"
            )

    @contextmanager
    def turn(self, me: object) -> Iterator[None]:
        """Whose turn it is."""
        self._caller_now = me
        try:
            yield
        finally:
            self._caller_now = None

    def call(self, function: Any, input: Any, fields: Mapping[str, Any]) -> Call:
        """The call as a worker would read it. Raises what a client raises for what it cannot send."""
        if not hasattr(self, "caller"):
            raise InvalidRequestError("the session has not begun: use it as `with App.test_client() as client`")
        if self.end_reason is not None:
            raise SessionEndedError(
                f"session ended: {self.id} was ended ({self.end_reason}); open a new one",
                session_id=self.id,
                details={"end_reason": self.end_reason},
            )
        name, value = call_arguments(function, input, fields)
        try:
            frame = InputWriter(_LIMIT).frame(("Call", self._first_id + self.caller.calls, name, value))
        except (TypeError, ValueError, OverflowError) as error:
            raise cannot_send(error) from None
        call = call_from_wire(memoryview(frame)[HEADER_SIZE:])
        assert not isinstance(call, Stream)
        self.caller.cause = None
        return call

    async def answer(self, call: Call) -> Frame:
        """As the worker's event loop does it, with nobody to cancel it."""
        caller, writer = self.caller, self.writer
        try:
            caller.begin(call.id)
            function, arguments = caller.decode(call)
        except BaseException as error:
            reply = caller.refuse(call.id, caller.undecoded(call, error), writer)
        else:
            try:
                value = caller.run(call.id, function.method, caller.app, *arguments)
                if function.is_async:
                    value = await value
                reply = caller.reply(call.id, function, value, writer)
            except BaseException as error:
                reply = caller.refuse(call.id, caller.raised(function.name, error), writer)
        caller.end()
        return reply

    def result(self, reply: Frame) -> Any:
        assert not isinstance(reply, Enclosed), "its writer has no memory to pass"
        frame = reply if isinstance(reply, bytes) else b"".join(reply)
        kind, _, payload = decode(memoryview(frame)[HEADER_SIZE:])
        if kind == "Result":
            return payload
        raise from_wire(payload) from self.caller.cause

    def close(self) -> None:
        self._resources.close()


class AppClient:
    """A session on an app in this process; use it as `with CounterApp.test_client() as client`.

    `client.call` is a session's. `client.app` is the instance: a unit test may look into it.
    """

    def __init__(self, app_class: type[BaseApp], labels: Mapping[str, str] | None = None) -> None:
        self._life = _Life(app_class, labels or {})
        self._runner: asyncio.Runner | None = None
        self._turns = threading.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._life.name} {self._life.end_reason or 'open'}>"

    @property
    def app(self) -> BaseApp:
        return self._life.caller.app

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

    def __enter__(self) -> Self:
        life = self._life
        if life.is_async:
            with suppress(RuntimeError):
                asyncio.get_running_loop()
                raise InvalidRequestError("an event loop runs here already: use `async with`, and await the calls")
            self._runner = asyncio.Runner()
        doing = "preload"
        try:
            if life.app_class not in _preloaded:
                self._run(getattr(life.app_class, "preload", None))
                _preloaded.add(life.app_class)
            doing = "its setup"
            life.construct()
            self._run(life.hook("setup"))
        except BaseException as error:
            self._close()
            raise life.broken(doing, error) from error
        life.lease()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end()
        finally:
            self._close()

    def call(self, function: Any = None, input: Any = None, /, **fields: Any) -> Any:
        """Calls a function and gives its output, or raises its error, as a session's `call` does."""
        life, me = self._life, threading.get_ident()
        life.refuse_nested(me)
        with self._turns, life.turn(me):
            if life.host.ends:  # by a thread of the app's, since the last call
                self.end("app")
            call = life.call(function, input, fields)
            runner = self._runner
            reply = life.caller.answer(call, life.writer) if runner is None else runner.run(life.answer(call))
            if life.host.ends:
                self.end("app")
            return life.result(reply)

    def end(self, reason: str = "client") -> None:
        """Ends the session: runs its hooks. What these raise goes to stderr, as a worker's goes to its log."""
        if self._life.end_reason is not None:
            return
        self._life.end_reason = reason
        for name, arguments in (("on_end", (reason,)), ("unload", ())):
            try:
                self._run(self._life.hook(name), *arguments)
            except BaseException as error:
                self._life.hook_failed(name, error)

    def _run(self, hook: Callable[..., Any] | None, *arguments: Any) -> None:
        if hook is None:
            return
        if self._runner is not None:
            self._runner.run(_awaited(hook, *arguments))
        elif inspect.iscoroutine(result := hook(*arguments)):
            asyncio.run(result)

    def _close(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self._life.close()

    # --- in a loop that runs already --------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncAppClient:
        client = AsyncAppClient(self._life)
        await client._begin()
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await AsyncAppClient(self._life).end()
        finally:
            self._life.close()


class AsyncAppClient:
    """The same for an async test: `async with CounterApp.test_client() as client`, and `await client.call(…)`."""

    def __init__(self, life: _Life) -> None:
        self._life = life
        self._turns = asyncio.Lock()

    @property
    def app(self) -> BaseApp:
        return self._life.caller.app

    @property
    def id(self) -> str:
        return self._life.id

    async def call(self, function: Any = None, input: Any = None, /, **fields: Any) -> Any:
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
        if self._life.end_reason is not None:
            return
        self._life.end_reason = reason
        for name, arguments in (("on_end", (reason,)), ("unload", ())):
            try:
                await _awaited(self._life.hook(name), *arguments)
            except BaseException as error:
                self._life.hook_failed(name, error)

    async def _begin(self) -> None:
        life = self._life
        doing = "preload"
        try:
            if life.app_class not in _preloaded:
                await _awaited(getattr(life.app_class, "preload", None))
                _preloaded.add(life.app_class)
            doing = "its setup"
            life.construct()
            await _awaited(life.hook("setup"))
        except BaseException as error:
            life.close()
            raise life.broken(doing, error) from error
        life.lease()


def _let_pass(error: BaseException) -> None:
    """Raises what is not the app's, though it fell there: it is for whoever runs the test."""
    is_theirs = _is_cancelled() if isinstance(error, asyncio.CancelledError) else not isinstance(error, _TOLD)
    if is_theirs:
        raise error


def _is_cancelled() -> bool:
    """Whether the task that runs is to stop. If not, a CancelledError is the app's: what it awaited was cancelled."""
    with suppress(RuntimeError):  # no loop runs
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return False


async def _awaited(hook: Callable[..., Any] | None, *arguments: Any) -> None:
    result = None if hook is None else hook(*arguments)
    if inspect.isawaitable(result):
        await result


def _name_of(app_class: type[BaseApp]) -> str:
    """As a daemon would name it: by its file and its own name."""
    file = getattr(sys.modules.get(app_class.__module__), "__file__", None)
    return f"{Path(file).stem}:{app_class.__qualname__}" if file else app_class.__qualname__


def _version_of(app_class: type[BaseApp]) -> str:
    file = getattr(sys.modules.get(app_class.__module__), "__file__", None)
    return app_class.version or (hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8] if file else "")
