"""A worker's life in this process, for `inprocess`: one session on one instance, and what becomes of its calls."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from ..app import AppContext, BaseApp, CallCancelled
from ..board import Board
from ..client.connections import UNSENDABLE, cannot_send, no_answer
from ..client.requests import call_arguments
from ..errors import InvalidRequestError, SessionEndedError, WarmpoolError, from_wire
from ..packets import pair
from ..settings import Settings
from ..signatures import functions_of
from ..wire.frames import HEADER_SIZE, decode
from ..wire.large import Enclosed, Frame, InputWriter, MessageWriter
from ..wire.messages import Call, Stream, call_from_wire
from ..worker.caller import Caller
from ..worker.cancelling import Inbox
from ..worker.failures import app_broken, print_failure
from ..worker.loading import checked_version
from ..worker.options import options_of
from ..worker.runner import any_async, constructed

A = TypeVar("A", bound=BaseApp)
T = TypeVar("T")

Hook = Callable[..., Any] | None
Step = Callable[..., Awaitable[None]]
"""Runs a hook, if there is one, with the arguments that follow it, and waits for it if it is async."""

_LIMIT: Final = Settings().call_memory_limit

_preloaded: weakref.WeakSet[type[BaseApp]] = weakref.WeakSet()

_TOLD: Final = (Exception, SystemExit, CallCancelled)
"""What a session tells as an error of the app's, and a test that is stopped is not stopped by."""


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


class Life(Generic[A]):
    """All of it but for how it waits for what is async."""

    def __init__(self, app_class: type[A], labels: Mapping[str, str]) -> None:
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
        self.app: A
        self.caller: _Caller
        """Once it has been constructed, both."""

    async def begin(self, step: Step) -> None:
        """All that comes before the first call. Raises APP_BROKEN."""
        doing = "preload"  # in the words of a template
        try:
            preload = getattr(self.app_class, "preload", None)
            if preload is not None and self.app_class not in _preloaded:
                await step(preload)
                _preloaded.add(self.app_class)
            doing = "reading its options"
            version = _version_of(self.app_class)
            options_of(self.app_class)
            doing = "its setup"
            self._construct(version)
            await step(self._hook("setup"))
        except BaseException as error:
            self.close()
            _let_pass(error)
            raise app_broken(self.name, doing, error) from error
        self._context.session_id, self._context.labels = self.id, self._labels

    def _construct(self, version: str) -> None:
        self._context = AppContext(self.name, version, "w_test")
        self._context._host = self.host
        self.app = constructed(self.app_class, self._context)
        ours, _ = map(self._resources.enter_context, pair())
        board = self._resources.enter_context(closing(Board.create(1)))
        self.caller = _Caller(self.app, self.functions, board, 0, self._context, Inbox(ours, lambda _: False))

    async def end(self, reason: str, step: Step) -> None:
        """Ends the session, once. What its hooks raise goes to stderr, as a worker's goes to its log."""
        if self.end_reason is not None:
            return
        self.end_reason = reason
        for name, arguments in (("on_end", (reason,)), ("unload", ())):
            try:
                await step(self._hook(name), *arguments)
            except BaseException as error:
                _let_pass(error)
                print_failure(f"{self.name}: {name}", error)

    def _hook(self, name: str) -> Hook:
        hook: Hook = getattr(self.app, name, None)
        return hook

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
        except UNSENDABLE as error:
            raise cannot_send(error, self.id) from None
        call = call_from_wire(memoryview(frame)[HEADER_SIZE:])
        assert not isinstance(call, Stream)
        self.caller.cause = None
        return call

    async def within(self, patience: float | None, work: Awaitable[T]) -> T:
        """What comes of `work` in time. What comes of it later, error or not, is dropped, as a client does."""
        clock = asyncio.timeout(patience)
        try:
            async with clock:
                result = await work
        except Exception:
            if not clock.expired():
                raise
        if clock.expired():
            raise no_answer(patience, self.id)
        return result

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


def _name_of(app_class: type[BaseApp]) -> str:
    """As a daemon would name it: by its file and its own name."""
    file = getattr(sys.modules.get(app_class.__module__), "__file__", None)
    return f"{Path(file).stem}:{app_class.__qualname__}" if file else app_class.__qualname__


def _version_of(app_class: type[BaseApp]) -> str:
    if app_class.version:
        return checked_version(app_class)
    file = getattr(sys.modules.get(app_class.__module__), "__file__", None)
    with suppress(OSError):  # a script may come from stdin
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8] if file else ""
    return ""
