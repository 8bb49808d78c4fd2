"""One worker's life: construct the app, set it up, serve calls, run the hooks, go.

`AppProcess` is that life; how it waits for bytes and runs functions is one of two loops:
`BlockingLoop` for an app whose functions are all plain, `EventLoop` for one with any `async def`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, Final, TypeVar

from .. import current_call
from ..app import AppContext, BaseApp
from ..board import CANCELLED, Board
from ..constants import HOOK_TIMEOUT, UNLOAD_TIMEOUT
from ..descriptors import adopt
from ..errors import ProtocolError
from ..packets import expect_fds, send
from ..signatures import Function
from ..wire.frames import FrameWriter, decode
from ..wire.process_messages import (
    TO_CONNECTION,
    Attach,
    Busy,
    Ended,
    Expire,
    HangNext,
    HangsNext,
    Leaving,
    Ready,
    Relabel,
    Released,
    Serve,
    SetupFailed,
    Stop,
    Wake,
)
from ..wire.shapes import from_wire
from ..wire.values import in_full
from .caller import Caller
from .cancelling import NOTHING, Inbox
from .connection import Connection
from .failures import app_broken, name_of, print_failure, words_of
from .faults import hang_once
from .forks import ParentOnly, mute
from .limits import LimitedCaller, Limits
from .logs import follow, sendable
from .loop import Loop
from .streams import Outlet, speaker, wait_until_taken

A = TypeVar("A", bound=BaseApp)

END_VALUE_LIMIT: Final = 64 * 1024
"""Bytes of what `on_end` returns."""
_WITHIN: Final = b"\x91" * 8
"""Lists of one, as msgpack begins them: it is answered within as many maps and lists, of which there is a limit."""


def any_async(functions: dict[str, Function]) -> bool:
    return any(function.is_async for function in functions.values())


def loop_for(functions: dict[str, Function]) -> type[Loop]:
    """The loop that suits the app. Called in the template, so that its workers share what it imports."""
    if any_async(functions):
        from .event_loop import EventLoop

        return EventLoop
    from .blocking_loop import BlockingLoop

    return BlockingLoop


class AppProcess:
    """The worker's side of its conversation with the daemon, and its app's host."""

    def __init__(
        self,
        channel: socket.socket,
        app: type[BaseApp],
        functions: dict[str, Function],
        board: Board,
        context: AppContext,
        *,
        row: int,
        frame_limit: int,
        primed: BaseApp | None = None,
    ) -> None:
        """`context`: the app's, which is kept here too: an app may put something else in its place. `primed`: an
        instance that has been set up before this process was forked, with this context.
        """
        self.channel = channel
        self._context = context
        context._host = self
        self._primed = primed
        self._app_class = app
        self._functions = functions
        self._board = board
        self._row = row
        self._frame_limit = frame_limit
        self.inbox = Inbox(channel, self._is_over)
        self._main_thread = get_ident()
        self.outlet: Outlet | None = None
        """Of the call that runs, if it is followed."""
        self.caller: Caller
        self.loop: Loop
        self._limits = Limits(app, board)
        self.drain_reason: str | None = None
        """Why no call is begun any more: it goes as soon as it owes nothing."""
        self._stop_reason: str | None = None
        """The daemon's, who wants it to go as soon as no call runs."""
        self.exit_reason: str | None = None
        """Why it goes, once that is decided."""

    def live(self, loop: type[Loop], first: socket.socket) -> None:
        """From setup to the last hook. `first`: the connection that the first client will have."""
        self.loop = loop(self)
        try:
            with ParentOnly():
                self._set_up()
        except BaseException as error:
            send(self.channel, SetupFailed(app_broken(self._context.app, "its setup", error).to_wire()))
            return
        self.loop.add(Connection(first, self._frame_limit))
        send(self.channel, Ready())
        self.loop.serve()
        if self._context.session_id is not None:
            value = self.run_hook("on_end", self.exit_reason, timeout=HOOK_TIMEOUT)
            if value is not None:
                with suppress(OSError):
                    send(self.channel, Ended(_packed(value)))
        self.run_hook("unload", timeout=UNLOAD_TIMEOUT)
        self.loop.close()

    def heed_daemon(self) -> None:
        """Does what the daemon has said by now."""
        inbox = self.inbox
        inbox.has_mail = False
        inbox.collect()
        self.loop.meet_newcomers()  # a session begins before anything else is said of it
        while inbox.messages and self.exit_reason is None:
            received = inbox.messages.popleft()
            if isinstance(received, ProtocolError):  # out of descriptors: the client that was passed is cut off
                print_failure("taking a connection", received)
                self.release_if_stateless()
                continue
            message, fds = received
            match message:
                case Serve():
                    (fd,) = expect_fds(message, fds, 1)
                    self.loop.add(Connection(adopt(fd), self._frame_limit))
                    self.loop.meet_newcomers()
                case Expire():
                    self._expire(message)
                case Relabel():
                    self._context.labels = dict(message.labels)
                case Stop():
                    self._stop_reason = self.drain_reason = message.reason
                case Wake():
                    pass
                case HangNext():
                    hang_once(self.caller)
                    send(self.channel, HangsNext())
        if self.exit_reason is None:
            self.leave_if_done()

    def see_labels(self) -> None:
        """A call is in hand that may have been sent after its client was told that the labels are set. All else that
        the daemon has said is heeded after it.
        """
        self.inbox.collect()
        for received in self.inbox.messages:
            if not isinstance(received, ProtocolError) and isinstance(received[0], Relabel):
                self._context.labels = dict(received[0].labels)

    def leave_if_done(self) -> None:
        """Goes if it is to, and nothing holds it."""
        if self._stop_reason is not None and not self.loop.is_calling():
            self._leave(self._stop_reason)
        elif self.drain_reason is not None and not self.loop.owes():
            self._leave(self.drain_reason)

    def want_to_leave(self, reason: str) -> None:
        if self.drain_reason is None:
            self.drain_reason = reason
            self.loop.wake()

    def disown(self) -> None:
        """In a process that the app has forked: what this one has open is not its own."""
        current_call.session = current_call.outside
        mute(self.loop.writers())
        self.loop.disown()
        if self.outlet is not None:
            self.outlet.mute()

    def session_of_call(self) -> str | None:
        """The session, for who asks from within its call: plain code of it, or its task."""
        is_inside = get_ident() == self._main_thread and (self.inbox.exposed != NOTHING or self.loop.is_in_call())
        return self._context.session_id if is_inside else None

    def _is_over(self, call_id: int) -> bool:
        activity = self._board.read(self._row)
        return activity.call_id == call_id and not activity.busy

    # --- what the app asks of its host ------------------------------------------------------------------------

    def cancel_requested(self) -> bool:
        activity = self._board.read(self._row)
        cancelled = self._board.cells[Board.start_of(self._row) + CANCELLED]
        return activity.busy and cancelled == activity.call_id != 0

    def progress(self, done: float, total: float | None, message: str) -> None:
        outlet = self.outlet
        if outlet is not None and speaker.get(outlet.call_id) == outlet.call_id:
            self._tell(outlet, "progress", {"done": done, "total": total, "message": message})

    def log(self, level: str, logger: str, message: str) -> None:
        if self.outlet is not None:
            self._tell(self.outlet, "log", {"level": level, "logger": logger, "message": sendable(message)})

    def follow(self, connection: Connection, call_id: int) -> Outlet:
        """A call begins that is followed."""
        self.outlet = Outlet(connection, call_id)
        follow(self.log)
        return self.outlet

    def unfollow(self) -> None:
        """It has ended: what is left to be sent of it goes before the answer."""
        assert self.outlet is not None
        follow(None)
        outlet, self.outlet = self.outlet, None
        outlet.close()

    def end_session(self) -> None:
        self.want_to_leave("app")

    def _tell(self, outlet: Outlet, kind: str, data: object) -> None:
        """Code of the app's has something to say. Shielded: a cancel must not fall into a frame that is half sent."""
        inbox = self.inbox
        if get_ident() != self._main_thread:
            outlet.tell(kind, data)
            if outlet.unsent:
                self.loop.unstick(outlet)
            return
        exposed, inbox.exposed = inbox.exposed, NOTHING
        try:
            outlet.tell(kind, data)
            if outlet.unsent and exposed:
                wait_until_taken(outlet, inbox, self.channel)
            elif outlet.unsent:
                self.loop.unstick(outlet)
        finally:
            inbox.expose(exposed)

    def attach(self, connection: Connection, frame: memoryview) -> None:
        """The first frame of a connection says whose it is. The first of a session makes this worker the session's own.
        Raises PROTOCOL_ERROR.
        """
        attach = from_wire(frame, TO_CONNECTION)
        assert isinstance(attach, Attach)
        context = self._context
        if context.session_id != attach.session_id:
            assert context.session_id is None, f"{context.worker_id} serves {context.session_id}"
            context.session_id = attach.session_id
            context.labels = dict(attach.labels)
        self._limits.begin(attach.since)
        if attach.session_id is None or self.caller.calls == 0:
            with suppress(OSError):  # the client's directory may be gone
                os.chdir(attach.cwd)
        connection.attach(attach.memory_limit)

    def _expire(self, expire: Expire) -> None:
        if self.caller.calls != expire.started or self.loop.is_busy():
            send(self.channel, Busy())
        else:
            self._leave(expire.reason)

    def _leave(self, reason: str) -> None:
        self.exit_reason = reason
        send(self.channel, Leaving(reason))

    def release_if_stateless(self) -> None:
        """The last connection is gone. A session's worker waits for the next; a stateless one is free."""
        if self._context.session_id is None and self.drain_reason is None:
            send(self.channel, Released())

    def _set_up(self) -> None:
        app = constructed(self._app_class, self._context) if self._primed is None else self._primed
        kind: Callable[..., Caller] = Caller
        if self._limits:
            kind = partial(LimitedCaller, limits=self._limits, on_limit=self.want_to_leave)
        self.caller = kind(app, self._functions, self._board, self._row, self._context, self.inbox)
        if self._primed is None and (setup := getattr(app, "setup", None)) is not None:
            self.loop.run_hook(setup, timeout=None)

    def run_hook(self, name: str, *arguments: Any, timeout: float) -> Any:
        """Runs a hook of the app, if there is one, while nothing is served. What it raises goes to the log."""
        try:
            with ParentOnly():
                hook = getattr(self.caller.app, name, None)
                return None if hook is None else self.loop.run_hook(hook, *arguments, timeout=timeout)
        except BaseException as error:
            print_failure(f"{self._context.app}: {name}", error)
            return None


def _packed(value: object) -> bytes:
    """The value of a session's end; or, if it cannot be sent or is too large, what it was."""
    writer = FrameWriter(END_VALUE_LIMIT)
    try:
        packed = writer.body(in_full(value))
        writer.body(decode(_WITHIN + packed))
    except BaseException as error:  # what is serialised may be code of the app's
        return writer.body(f"a {name_of(value)} that cannot be kept: {words_of(error)}")
    return packed


def constructed(app_class: type[A], context: AppContext) -> A:
    """An instance that knows its context before its `__init__` runs."""
    app: A = app_class.__new__(app_class)  # type: ignore[assignment]
    if type(vars(app).get("context")) is AppContext:  # or else the app has another use for the name
        app.context = context
    given: object = app.__init__()  # type: ignore[misc]
    if given is not None:  # of an async one, it would never be run
        raise TypeError(f"__init__() should return None, not {type(given).__name__!r}")
    return app
