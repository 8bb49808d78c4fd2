"""What a client does, told once: opening, calling, reconnecting, asking what became of a session.

Everything here is `async def` over a few steps (`open`, `call`, …) that a kind of client does in its own way: one
waits for them on its loop, the other's block and never suspend, so that `finish` can run a coroutine as a function.
The async classes of `sessions` and `streams` are written over this too, and serve both; those of `sync` are their
faces for blocking code. Refused: generating one client's source from the other's, and writing all of it twice.

When the connection to a worker breaks, the daemon is asked what became of the session, and its answer is the error: so
an expired session is never mistaken for a lost one.
"""

from __future__ import annotations

import errno
import os
import weakref
from _thread import RLock
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ..errors import (
    AppBrokenWarning,
    DaemonUnavailableError,
    InvalidRequestError,
    SessionError,
    WarmpoolError,
    WorkerLostError,
)
from ..paths import Places
from ..wire.messages import NEW, Opened
from .bells import Bells
from .connections import FORKED, HangupError, OverdueError, connect, no_answer
from .kept_links import KeptLinks
from .notices import warn
from .readers import Readers
from .requests import Data, RunRequest, call_named, check_session_id, run_result

T = TypeVar("T")


class AnyCallLink(Protocol):
    """A connection to a worker, of either kind."""

    opened: Opened
    broken: str | None

    def close(self) -> None: ...
    def disown(self) -> None: ...
    def seize(self) -> bool: ...
    def release(self) -> None: ...
    def begin(self, kind: str, function: str | None, input: object) -> int: ...
    def has_enough(self) -> bool: ...
    def flush(self, deadline: float | None = None) -> None: ...
    def abandon(self, call_id: int) -> object: ...


L = TypeVar("L", bound=AnyCallLink)


_cores: weakref.WeakSet[Core[Any]] = weakref.WeakSet()


def _disown() -> None:
    for core in _cores:
        core.disown()


os.register_at_fork(after_in_child=_disown)


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine over steps that block: it has no reason to suspend."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a step of a blocking client has suspended")


def _own_doing() -> DaemonUnavailableError:
    return DaemonUnavailableError("this client has stopped its daemon: make a new one")


class Core(ABC, Generic[L]):
    """One client's way to the daemon, and its connections."""

    def __init__(self, socket: str | os.PathLike[str] | None, *, autostart: bool) -> None:
        self.places = Places.of(socket)
        self.started_daemon = False
        self.broken: str | None = None
        self._autostart, self._has_stopped, self._was_used = autostart, False, False
        self._lock = RLock()  # the handler of a signal may come for it while it is held
        self.kept = KeptLinks[L]()
        self._opened: weakref.WeakSet[L] = weakref.WeakSet()
        self.readers = Readers(self.me)
        self.bells = Bells()
        _cores.add(self)

    def disown(self) -> None:
        """In a child, after a fork: this and all its links are the parent's, and broken here. One that has not been
        used is as good as new: an app has made it at its import, perhaps, and each worker has its own.
        """
        self._lock, self.kept = RLock(), KeptLinks()
        if not self._was_used:
            return
        self.broken = FORKED
        for link in self._opened:
            link.disown()

    def close(self) -> None:
        with self._lock:
            self.broken = self.broken or "closed"
            self.kept.let_all_go()
            self.bells.close()
            links = list(self._opened)
        for link in links:
            link.close()

    # --- the steps --------------------------------------------------------------------------------------------

    @abstractmethod
    async def open(self, request: RunRequest, *, start: bool) -> L:
        """A connection to a worker. `start`: a daemon is started for it if none runs. Raises the daemon's refusal, and
        HangupError.
        """

    @abstractmethod
    async def ask(self, method: str, params: dict[str, Any], *, start: bool) -> Any:
        """One control request. Raises the daemon's refusal, and HangupError."""

    @abstractmethod
    async def call(self, link: L, function: str | None, input: Any, timeout: float | None) -> Any:
        """One call's output. Whoever stops waiting cancels it. Raises its error, CALL_TIMEOUT and HangupError."""

    @abstractmethod
    async def next_parts(self, link: L, call_id: int, deadline: float | None) -> list[Any]:
        """What comes next for a call that has begun. Raises HangupError and OverdueError."""

    @abstractmethod
    async def settle(self, link: L, call_id: int) -> None:
        """Returns when a call that was given up has been answered. Raises HangupError."""

    @abstractmethod
    async def outlast_daemon(self) -> None:
        """Waits until the daemon, which has said that it leaves, is gone."""

    @abstractmethod
    async def interrupted(self, link: L) -> None:
        """An exception has fallen anywhere while the link was in hand, a Ctrl-C or the end of a task: closes it, unless
        the step in which it fell has seen to that, and cancels what was under way.
        """

    @abstractmethod
    def now(self) -> float:
        """On the clock of deadlines."""

    @abstractmethod
    def me(self) -> object:
        """Who asks: what stands for the thread, or the task."""

    @abstractmethod
    def has_gone(self, who: object) -> bool:
        """Whether it is known that this thread or task does nothing more."""

    @abstractmethod
    def turns(self) -> AbstractAsyncContextManager[Any]:
        """A lock for one handle's reconnecting."""

    # --- the daemon -------------------------------------------------------------------------------------------

    async def request(self, method: str, **params: Any) -> Any:
        """One control request. For one about a session or a call no daemon is started: they are gone with theirs."""
        check_session_id(params)
        start = params.keys().isdisjoint(("session_id", "worker_id"))
        return await self._twice(partial(self.ask, method, params), start=start)

    async def _twice(self, step: Callable[..., Awaitable[T]], *, start: bool) -> T:
        """What is asked of the daemon, of one that is started for it if `start`; once more over a new connection if the
        old one has broken, or when a daemon has gone that was about to.
        """
        try:
            return await step(start=start)
        except HangupError:
            pass
        except DaemonUnavailableError as error:
            if "stopping" not in error.details:
                raise
            if self._has_stopped:
                raise _own_doing() from None
            if not (start and self._autostart):
                raise
            await self.outlast_daemon()
            return await self._twice(step, start=start)
        try:
            return await step(start=start)
        except HangupError:
            raise DaemonUnavailableError(
                f"the daemon at {self.places.socket} hangs up; see {self.places.log_in_words()}"
            ) from None

    async def stop_daemon(self) -> int:
        autostart, self._autostart = self._autostart, False
        pid = int((await self.request("daemon.stop"))["pid"])
        self._has_stopped = autostart
        return pid

    def dial(self, *, start: bool) -> Any:
        """A fresh connection, blocking; to a daemon that is started for it, if that is wanted."""
        self.check()
        self._was_used = True
        try:
            return connect(self.places)
        except (DaemonUnavailableError, InvalidRequestError):  # who would start one knows best why none can be there
            if self._has_stopped:
                raise _own_doing() from None
            if not (start and self._autostart):
                raise
        from .autostart import start_daemon

        if start_daemon(self.places, self._is_running):
            self.started_daemon = True
        return connect(self.places)

    def check(self) -> None:
        if self.broken is not None:
            raise InvalidRequestError(f"this client cannot be used: {self.broken}")

    def _is_running(self) -> bool:
        try:
            connect(self.places).close()
        except DaemonUnavailableError:
            return False
        return True

    # --- opening ----------------------------------------------------------------------------------------------

    async def open_link(self, request: RunRequest) -> L:
        """A connection to a worker."""
        is_new = request.session in (None, NEW)  # any other session is gone with its daemon: why start another
        step = partial(self.open, request)
        try:
            link = await self._twice(step, start=is_new)
        except OSError as error:  # there is no descriptor for it
            if error.errno != errno.EMFILE or not self.kept.let_all_go():
                raise
            link = await self._twice(step, start=is_new)
        with self._lock:
            self._opened.add(link)
        if link.opened.notice:
            try:
                warn(link.opened.notice)
            except AppBrokenWarning:  # where warnings are errors: nobody is told of the session
                link.close()
                if link.opened.session_id is not None:
                    await self.request("sessions.end", session_id=link.opened.session_id)
                raise
        return link

    async def explain(self, session_id: str | None) -> WarmpoolError:
        """The error that a broken connection means. Waits for a dying worker's exit status. Raises INVALID_REQUEST if
        this client was closed.
        """
        self.check()
        if session_id is None:
            return WorkerLostError(
                "the worker died; a call that was under way may or may not have had its effects; "
                f"for how it died, and what it wrote last, see {self.places.log_in_words()}"
            )
        try:
            info = await self.request("sessions.get", session_id=session_id, settle=True)
            if info["status"] != "active":
                await self.open(RunRequest(session=session_id), start=False)  # is refused, with what to say
        except SessionError as error:
            return error
        except (DaemonUnavailableError, HangupError):
            return DaemonUnavailableError(
                f"the daemon is gone, and session {session_id} with it; see {self.places.log_in_words()}",
                session_id=session_id,
            )
        return WorkerLostError(
            f"the connection to session {session_id} broke, though the session lives: try again, "
            "and note that the call may have had its effects",
            session_id=session_id,
        )

    # --- calling ----------------------------------------------------------------------------------------------

    async def run(self, request: RunRequest) -> Data:
        """One call, in a new session, in none, or in one over the connection that is kept for it."""
        if request.session is not None and request.session != NEW:
            return await self._run_in_session(request, request.session)
        link = await self.open_link(request)
        session_id = link.opened.session_id
        if session_id is not None:
            self.kept.keep(session_id, link, request.app)
        try:
            output = await self.perform(request.function, request.input, request.timeout, link)
            return run_result(link.opened, output)
        except BaseException as error:
            if session_id is not None and not isinstance(error, Exception):
                error.add_note(f"the session lives on: {session_id}")
            raise
        finally:
            if session_id is None:
                link.close()

    async def _run_in_session(self, request: RunRequest, session_id: str) -> Data:
        self.readers.refuse(session_id)
        link = self.kept.get(session_id, request.app)

        async def reopen() -> L:
            nonlocal link
            if link is not None:
                self.kept.let_go(session_id, link)
            link = await self.open_link(request)
            self.kept.keep(session_id, link, request.app)
            return link

        output = await self.perform(request.function, request.input, request.timeout, link, reopen)
        assert link is not None
        return run_result(link.opened, output)

    async def perform(
        self,
        function: str | None,
        input: Any,
        timeout: float | None,
        link: L | None,
        reopen: Callable[[], Awaitable[L]] | None = None,
    ) -> Any:
        """One call's output. A link that broke while it was unused is opened again: then the daemon knows why, or
        hands us over once more.
        """
        fresh = link is None
        if link is None:
            assert reopen is not None
            link = await reopen()
        while True:
            try:
                return await self.call(link, function, input, timeout)
            except HangupError as hangup:
                if hangup.sent or reopen is None or (fresh and not hangup.found):
                    raise await self.explain(link.opened.session_id) from None
            link, fresh = await reopen(), True

    async def give_up(self, link: L, timeout: float | None, overdue: OverdueError) -> WarmpoolError:
        """Cancels a call whose time is up, and waits until it has stopped if it was running. Gives the error."""
        session_id, end = link.opened.session_id, None
        if overdue.call_id is not None:
            try:
                stopped = await self.stop_call(link.opened, overdue.call_id)
                if stopped["state"] == "running":
                    await self.settle(link, overdue.call_id)
            except HangupError:
                end = await self.explain(session_id)
            except SessionError as error:
                end = error
        return no_answer(timeout, session_id, end)

    async def stop_call(self, opened: Opened, call_id: int) -> Data:
        """Cancels a call on this connection."""
        return Data(await self.request("calls.cancel", **call_named(opened, call_id)))
