"""One worker's life: construct the app, set it up, serve calls, run the hooks, go.

`AppProcess` is that life; how it waits for bytes and runs functions is one of two loops with the same face:
`BlockingLoop` for an app whose functions are all plain, `EventLoop` for one with any `async def`. `Caller` turns one
call into one reply for both.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns
from typing import Any, Protocol

from ..app import BaseApp
from ..board import FINISHED, OFFSET_NS, STARTED, USED_NS, Board
from ..errors import ProtocolError, WarmpoolError
from ..packets import expect_fds, receive, send
from ..settings import HOOK_TIMEOUT, UNLOAD_TIMEOUT
from ..signatures import Arguments, Function, select
from ..wire.frames import FrameReader, FrameWriter
from ..wire.messages import (
    TO_WORKER,
    Attach,
    Busy,
    Call,
    Expire,
    Failure,
    Leaving,
    Ready,
    Released,
    SetupFailed,
    Stop,
    to_wire,
)
from .failures import app_broken, app_error, cannot_send, print_failure


class Loop(Protocol):
    """A worker's way of waiting, and of running what is async."""

    def __init__(self, process: AppProcess) -> None: ...

    def run_hook(self, hook: Callable[..., Any], *arguments: Any, timeout: float | None) -> None:
        """Calls a plain or async hook. Raises TimeoutError when it takes longer than `timeout` seconds."""

    def serve(self) -> None:
        """Serves calls, and has the process heed the daemon, until that has a reason to go."""

    def attach(self, connection: Connection) -> None:
        """Serves this client from now on."""

    def is_busy(self) -> bool:
        """Whether a call runs, or any part of one is here."""

    def close(self) -> None:
        """Lets go of what it has open."""


def loop_for(functions: dict[str, Function]) -> type[Loop]:
    """The loop that suits the app. Called in the template, so that its workers share what it imports."""
    if any(function.is_async for function in functions.values()):
        from .event_loop import EventLoop

        return EventLoop
    from .blocking_loop import BlockingLoop

    return BlockingLoop


class Connection:
    """A client's connection, in the hands of the worker."""

    __slots__ = ("reader", "socket", "unsent", "writer")

    def __init__(self, fd: int, frame_limit: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.reader = FrameReader(frame_limit)
        self.writer = FrameWriter(frame_limit)
        self.unsent: memoryview | None = None
        """What the client has not taken of its last answer."""

    def close(self) -> None:
        """Ends the connection, also where a process that the app has forked holds a copy of it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def has_bytes(self) -> bool:
        """Whether part of a call is here, or all of it."""
        try:
            return self.reader.pending or bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def __repr__(self) -> str:
        return f"<Connection fd={self.socket.fileno()}{' inside a frame' if self.reader.pending else ''}>"


class Caller:
    """Runs calls on the app, and keeps the worker's row of the board."""

    def __init__(self, app: BaseApp, functions: dict[str, Function], board: Board, row: int, name: str) -> None:
        self.app = app
        self.functions = functions
        self._name = name
        self._cells = board.cells
        start = Board.start_of(row)
        self._used, self._started, self._finished = start + USED_NS, start + STARTED, start + FINISHED
        self.calls = 0

    def begin(self) -> None:
        """A call begins: the window slides."""
        cells = self._cells
        cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
        self.calls = cells[self._started] = self.calls + 1

    def end(self) -> None:
        """It has ended: the window slides again. Comes before its reply is sent."""
        cells = self._cells
        cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
        cells[self._finished] = self.calls

    def decode(self, call: Call) -> tuple[Function, Arguments]:
        """The function that is meant and its arguments. Raises the error to answer with."""
        function, value = self.functions.get(call.function), call.input  # type: ignore[arg-type]
        if function is None:
            function, value = select(self.functions, self._name, call.function, value)
        return function, function.decode(value)

    def answer(self, call: Call, writer: FrameWriter) -> bytes:
        """The whole of a call of a plain function: gives the frame with its reply. The hot path: `begin`, `decode`,
        `reply` and `end` stand here in full.
        """
        call_id, name, value = call
        cells = self._cells
        cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
        self.calls = cells[self._started] = self.calls + 1
        try:
            function = self.functions.get(name)  # type: ignore[arg-type]
            if function is None:
                function, value = select(self.functions, self._name, name, value)
            arguments = function.decode(value)
        except BaseException as error:
            reply = self.refuse(call_id, self.undecoded(name, error), writer)
        else:
            try:
                value = function.method(self.app, *arguments)
            except BaseException as error:
                reply = self.refuse(call_id, app_error(function.name, error), writer)
            else:
                try:
                    reply = writer.frame(("Result", call_id, function.encode(value)))
                except Exception as error:
                    reply = self.refuse_output(call_id, function, value, error, writer)
        cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
        cells[self._finished] = self.calls
        return reply

    def reply(self, call_id: int, function: Function, value: Any, writer: FrameWriter) -> bytes:
        try:
            return writer.frame(("Result", call_id, function.encode(value)))
        except Exception as error:
            return self.refuse_output(call_id, function, value, error, writer)

    def refuse_output(
        self, call_id: int, function: Function, value: Any, error: Exception, writer: FrameWriter
    ) -> bytes:
        refusal = error if isinstance(error, WarmpoolError) else cannot_send(function.name, value, error)
        return self.refuse(call_id, refusal, writer)

    def undecoded(self, function: str | None, error: BaseException) -> WarmpoolError:
        """What to say when a call could not be decoded: ours to refuse, or a validator of the app that raised."""
        return error if isinstance(error, WarmpoolError) else app_error(f"validating the input of {function}", error)

    def refuse(self, call_id: int, error: WarmpoolError, writer: FrameWriter) -> bytes:
        """The frame with an error; with its first words only, where all of it cannot be sent."""
        error.session_id = self.app.context.session_id
        try:
            return writer.frame(to_wire(Failure(call_id, error.to_wire())))
        except Exception:
            words = str(error)[:200].encode("utf-8", "replace").decode()
            short = type(error)(words, session_id=error.session_id)
            return writer.frame(to_wire(Failure(call_id, short.to_wire())))


class AppProcess:
    """The worker's side of its conversation with the daemon."""

    def __init__(
        self,
        channel: socket.socket,
        app: type[BaseApp],
        functions: dict[str, Function],
        board: Board,
        *,
        worker_id: str,
        row: int,
        name: str,
        version: str,
        frame_limit: int,
    ) -> None:
        self.channel = channel
        self._app_class = app
        self._functions = functions
        self._board = board
        self._row = row
        self._name = name
        self._version = version
        self._worker_id = worker_id
        self._frame_limit = frame_limit
        self.caller: Caller
        self.loop: Loop
        self.reason: str | None = None
        """Why the worker is to go, once it is."""

    def live(self, loop: type[Loop]) -> None:
        """From setup to the last hook."""
        self.loop = loop(self)
        try:
            self._set_up()
        except BaseException as error:
            send(self.channel, SetupFailed(app_broken(self._name, "its setup", error).to_wire()))
            return
        send(self.channel, Ready())
        self.loop.serve()
        if self.caller.app.context.session_id is not None:
            self._last_hook("on_end", self.reason, timeout=HOOK_TIMEOUT)
        self._last_hook("unload", timeout=UNLOAD_TIMEOUT)
        self.loop.close()

    def heed_daemon(self) -> None:
        """Does what the daemon has said by now."""
        while self.reason is None:
            try:
                received = receive(self.channel, TO_WORKER)
            except BlockingIOError:
                return
            except ProtocolError as error:  # out of descriptors: the client that was passed is cut off, and told why
                print_failure("taking a connection", error)
                continue
            if received is None:
                os._exit(0)  # the daemon is gone, and with it whoever could want anything
            message, fds = received
            match message:
                case Attach():
                    self._attach(message, *expect_fds(message, fds, 1))
                case Expire():
                    self._expire(message)
                case Stop():
                    self._leave(message.reason)

    def _attach(self, attach: Attach, fd: int) -> None:
        """Takes a client's connection. The first of a session makes this worker the session's own."""
        context = self.caller.app.context
        if context.session_id != attach.session_id:
            assert context.session_id is None, f"{self._worker_id} serves {context.session_id}"
            context.session_id = attach.session_id
            context.labels = dict(attach.labels)
        if attach.session_id is None or self.caller.calls == 0:
            with suppress(OSError):  # the client's directory may be gone
                os.chdir(attach.cwd)
        self.loop.attach(Connection(fd, self._frame_limit))

    def _expire(self, expire: Expire) -> None:
        if self.caller.calls != expire.started or self.loop.is_busy():
            send(self.channel, Busy())
        else:
            self._leave("idle")

    def _leave(self, reason: str) -> None:
        self.reason = reason
        send(self.channel, Leaving(reason))

    def release_if_stateless(self) -> None:
        """The last connection is gone. A session's worker waits for the next; a stateless one is free."""
        if self.caller.app.context.session_id is None:
            send(self.channel, Released())

    def _set_up(self) -> None:
        app = self._app_class.__new__(self._app_class)
        context = app.context
        context.app, context.version, context.worker_id = self._name, self._version, self._worker_id
        app.__init__()  # type: ignore[misc]
        self.caller = Caller(app, self._functions, self._board, self._row, self._name)
        if (setup := getattr(app, "setup", None)) is not None:
            self.loop.run_hook(setup, timeout=None)

    def _last_hook(self, name: str, *arguments: Any, timeout: float) -> None:
        hook = getattr(self.caller.app, name, None)
        if hook is None:
            return
        try:
            self.loop.run_hook(hook, *arguments, timeout=timeout)
        except BaseException as error:
            print_failure(f"{self._name}: {name}", error)


def log_to_stderr() -> None:
    """What `self.logger` writes goes where `print` to stderr goes."""
    logger = logging.getLogger("warmpool.app")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
