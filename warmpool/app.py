"""For authors of apps: `BaseApp`, its inputs and outputs, and the context of a session.

    from warmpool import BaseApp, BaseAppInput

    class AddInput(BaseAppInput):
        amount: int = 1

    class Counter(BaseApp):
        def setup(self):
            self.total = 0

        def add(self, input: AddInput) -> dict[str, int]:
            self.total += input.amount
            return {"total": self.total}

Each public method whose parameters all have an annotation or a default is a function of the app; a generator, plain or
async, is one that streams.
Hooks, all optional, plain or `async def`: `preload` (a classmethod, once in the template, shared by all sessions),
`setup` (once per worker, before any call), `on_cancel()` (after a call was cancelled and has stopped, 2 s at
most), `on_end(reason)` (2 s at most; what it returns is kept with the session), `unload` (last of all).
"""

from __future__ import annotations

import copy
import logging
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self, get_origin

from pydantic import BaseModel

from .constants import CANCEL_GRACE

if TYPE_CHECKING:
    from .testing.inprocess import AppClient


class BaseAppInput(BaseModel):
    """A function's input. Any pydantic model serves; this one says what it is for."""


class BaseAppOutput(BaseModel):
    """A function's output. Any pydantic model, and any plain value, serves as well."""


class CallCancelled(BaseException):
    """Raised in a plain function whose call is cancelled, wherever it is. Clean up and let it pass: the session lives
    on. (A BaseException, lest `except Exception` swallows it.) In an async function it is asyncio's CancelledError.
    """


class Host(Protocol):
    """What a context asks of the worker that it is in."""

    def cancel_requested(self) -> bool: ...

    def progress(self, done: float, total: float | None, message: str) -> None: ...

    def end_session(self) -> None: ...


@dataclass(slots=True)
class AppContext:
    """What an app may know of its session, as `self.context`, and may say of it. `session_id` is None until a session
    has the worker (so in `setup`), and in stateless calls. Outside of a worker nobody listens, and nothing happens.
    """

    app: str = ""
    version: str = ""
    worker_id: str = ""
    session_id: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    _host: Host | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """A copy, as of an app that is pickled for another process, is outside of the worker."""
        return None, {name: None if name == "_host" else getattr(self, name) for name in self.__slots__}

    @property
    def cancel_requested(self) -> bool:
        """Whether the call that runs is to stop. True at once, also where nothing can be raised."""
        return self._host is not None and self._host.cancel_requested()

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Reports how far the call is to whoever streams it; without such a reader, does nothing."""
        done, total = _plain_number(done), None if total is None else _plain_number(total)
        if not isinstance(message, str):
            raise TypeError(f"a progress message is a string, not {type(message).__name__}")
        if self._host is not None:
            self._host.progress(done, total, message)

    def end_session(self) -> None:
        """Ends the session, after the call that runs, if there is one: its reply is sent first. From any thread."""
        if self._host is not None:
            self._host.end_session()


def _plain_number(value: Any) -> float:
    """Also of one of numpy's."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"progress is told in numbers, not {type(value).__name__}")
    return int(value) if isinstance(value, Integral) else float(value)


_COPIED: Final = (list, dict, set, bytearray, deque, BaseModel)


class BaseApp:
    """Base of all apps. Needs no `super().__init__()`.

    When each hook runs, `help(warmpool.app)` tells. Class variables say how the app is to be run: `version`, the name
    of this code; `warm` and `max_workers`, how many are ready, and how many there are; `cancel_grace`, the seconds that
    a cancelled call may take to stop; `max_calls`, `max_lifetime` (seconds), `max_private_bytes`: when a session ends.

    A list, dict, set or model that is a default in the class body is copied for each instance. What `preload` puts
    on the class is not: it is there to be shared.
    """

    version: ClassVar[str] = ""
    """Names this code. Left empty, it is the first 8 hex digits of the SHA-256 of the source files that its import
    reads."""
    warm: ClassVar[int | None] = None
    """Workers kept ready for new sessions. None: what the daemon was told, which is 1 if it was told nothing."""
    max_workers: ClassVar[int | None] = None
    """Live workers of this app at most. None: as many as the daemon has."""
    cancel_grace: ClassVar[float] = CANCEL_GRACE
    """Seconds that a cancelled call may take to stop before its process is killed."""
    max_calls: ClassVar[int | None] = None
    """A session ends after so many calls. This limit and the next are looked at after each call, once its reply is
    sent."""
    max_private_bytes: ClassVar[int | None] = None
    """Bytes. A session ends when its process has more memory than this that it shares with no other."""
    max_lifetime: ClassVar[float | None] = None
    """A session ends so many seconds after it began; if it is in a call, at the end of that."""

    logger: logging.Logger = logging.getLogger("warmpool.app.BaseApp")
    context: AppContext
    """There before `__init__` runs. An app that has another use for the name loses sight of this, and nothing else."""

    _mutable_defaults: ClassVar[dict[str, Any]] = {}
    __test__: ClassVar[bool] = False  # no test case, should its name begin with Test

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "logger" not in vars(cls):
            cls.logger = logging.getLogger(f"warmpool.app.{cls.__name__}")
        defaults: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if base is not BaseApp:
                defaults |= {name: value for name, value in vars(base).items() if not _is_shared(base, name)}
        cls._mutable_defaults = {name: value for name, value in defaults.items() if isinstance(value, _COPIED)}

    def __new__(cls, *_: Any, **__: Any) -> BaseApp:  # noqa: PYI034  (Self breaks plain __init__)
        app = super().__new__(cls)
        if not hasattr(cls, "context"):  # which would be the app's own
            app.context = AppContext()
        for name, default in cls._mutable_defaults.items():
            if getattr(cls, name, None) is default:
                setattr(app, name, _copied(cls, name, default))
        return app

    @classmethod
    def test_client(cls, labels: Mapping[str, str] | None = None) -> AppClient[Self]:
        """A session on this app in this process, without a daemon: `with CounterApp.test_client() as client`, then
        `client.call("add", amount=2)`. For unit tests and debuggers.
        """
        from .testing.inprocess import AppClient

        return AppClient(cls, labels)


def _copied(kind: type, name: str, default: Any) -> Any:
    try:
        return copy.deepcopy(default)
    except Exception as error:
        raise TypeError(
            f"{kind.__qualname__}.{name} cannot be copied for an instance: {error}; make it in setup, or annotate it "
            "as ClassVar, and all instances share it"
        ) from error


def _is_shared(kind: type, name: str) -> bool:
    """Names of Python's and ours, and what is annotated to belong to the class."""
    annotation = vars(kind).get("__annotations__", {}).get(name)
    return name.startswith("__") or name == "_mutable_defaults" or _is_class_variable(annotation)


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return re.match(r"(\w+\.)*ClassVar\b", annotation) is not None
    return get_origin(annotation) is ClassVar or annotation is ClassVar
