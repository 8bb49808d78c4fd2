"""One call into one reply, for both loops; and the worker's row of the board, which each call writes to."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final

from ..app import AppContext, BaseApp, CallCancelled
from ..board import BELL, CALL_ID, FINISHED, OFFSET_NS, STARTED, USED_NS, Board
from ..errors import PayloadTooLargeError, ProtocolError, WarmpoolError
from ..inputs import Arguments
from ..signatures import DEFAULT_FUNCTION, Function, select
from ..wire.large import Frame, MessageWriter
from ..wire.messages import Call, Failure, Stream
from ..wire.shapes import to_wire
from .cancelling import NOTHING, Inbox
from .failures import OUTSIDE, app_error, call_cancelled, cannot_send, print_failure

LOOKS: Final = range(300)
"""Some twelve microseconds: about as long as a client takes to send its next call, if it does so at once."""
_NOT_YET: Final[Any] = object()
DEAF: Final = 16
"""Calls after which a worker that has waited awake in vain does so once more."""


class Caller:
    """Runs calls on the app, and keeps the worker's row of the board."""

    def __init__(
        self, app: BaseApp, functions: dict[str, Function], board: Board, row: int, context: AppContext, inbox: Inbox
    ) -> None:
        self.app = app
        self.functions = functions
        self.inbox = inbox
        self._context = context
        self._cells = board.cells
        start = Board.start_of(row)
        self._used, self._started, self._finished = start + USED_NS, start + STARTED, start + FINISHED
        self._call_id, self._bell = start + CALL_ID, start + BELL
        self.calls = 0
        self._is_awake = False
        """Whether it was not in vain that it waited awake after the last call."""

    def begin(self, call_id: int) -> None:
        """A call begins: the window slides."""
        cells = self._cells
        cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
        cells[self._call_id] = call_id
        self.calls = cells[self._started] = self.calls + 1

    def end(self) -> None:
        """It has ended: the window slides again. Comes before its reply is sent."""
        cells = self._cells
        cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
        cells[self._finished] = self.calls

    def wait_awake(self) -> None:
        """Waits some microseconds for the next call, if the last one was rung for, until it is rung for too. (Ids of
        one connection count up.)
        """
        if self._is_awake or not self.calls % DEAF:
            cells, bell, last = self._cells, self._bell, self._cells[self._call_id]
            try:
                self._is_awake = cells[bell] >= last and any(cells[bell] > last for _ in LOOKS)
            except BaseException as error:  # by a handler of the app's
                print_failure(OUTSIDE, error)

    def decode(self, call: Call | Stream) -> tuple[Function, Arguments]:
        """The function that is meant and its arguments. Raises the error to answer with."""
        function, value = self.functions.get(call.function), call.input  # type: ignore[arg-type]
        if function is None:
            function, value = select(self.functions, self._context.app, call.function, value, type(self.app))
        return function, function.decode(value)

    def answer(self, call: Call, writer: MessageWriter) -> Frame:
        """The whole of a call of a plain function: gives the frame with its reply. The hot path: `begin`, `decode`,
        `run`, `reply` and `end` stand here in full.

        If the call was stopped (`inbox.was_cancelled`), it is not over yet: the hook is to be run, and then `end`.
        """
        call_id, name, value = call
        cells, inbox = self._cells, self.inbox
        arguments = output = _NOT_YET
        try:
            cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
            cells[self._call_id] = call_id
            self.calls = cells[self._started] = self.calls + 1
            function = self.functions.get(name)  # type: ignore[arg-type]
            if function is None:
                function, value = select(self.functions, self._context.app, name, value, type(self.app))
            try:
                inbox.exposed = call_id
                if inbox.must_check:
                    inbox.begin()
                arguments = function.decode(value)
                output = function.method(self.app, *arguments)
                value = function.encode(output)
            finally:
                inbox.exposed = NOTHING
            reply = writer.message(("Result", call_id, value))
        except BaseException as error:
            if arguments is _NOT_YET:
                reply = self.refuse(call_id, self.undecoded(call, error), writer)
            else:
                assert function is not None
                reply = self._refuse_result(call_id, function, output, error, writer)
        if inbox.was_cancelled:
            return reply
        cells[self._used] = monotonic_ns() + cells[OFFSET_NS]
        cells[self._finished] = self.calls
        return reply

    def forgo(self, call: Call | Stream, writer: MessageWriter) -> Frame:
        """The reply to a call that was cancelled before it began. It counts as none."""
        return self.refuse(call.id, call_cancelled(call.function or DEFAULT_FUNCTION, CallCancelled()), writer)

    def run(self, call_id: int, step: Callable[..., Any], *arguments: Any) -> Any:
        """Runs code of the app's that a cancel of this call may interrupt. Raises what it raises."""
        inbox = self.inbox
        try:
            inbox.exposed = call_id
            if inbox.must_check:
                inbox.begin()
            return step(*arguments)
        finally:
            inbox.exposed = NOTHING

    def raised(self, function: str, error: BaseException) -> WarmpoolError:
        """What to say when a function has raised."""
        return call_cancelled(function, error) if self._is_cancelled(error) else app_error(function, error)

    def _is_cancelled(self, error: BaseException) -> bool:
        """Whether this was raised in a call that was stopped, or stops itself: a library may have changed the error."""
        return self.inbox.was_cancelled or isinstance(error, CallCancelled)

    def reply(self, call_id: int, function: Function, value: Any, writer: MessageWriter) -> Frame:
        return self.reply_with(function.encode, call_id, function, value, writer)

    def reply_with(
        self, encode: Callable[[Any], Any], call_id: int, function: Function, value: Any, writer: MessageWriter
    ) -> Frame:
        try:
            return writer.message(("Result", call_id, encode(value)))
        except BaseException as error:
            return self.refuse_output(call_id, function, value, error, writer)

    def _refuse_result(
        self, call_id: int, function: Function, output: object, error: BaseException, writer: MessageWriter
    ) -> Frame:
        if output is _NOT_YET:
            return self.refuse(call_id, self.raised(function.name, error), writer)
        return self.refuse_output(call_id, function, output, error, writer)

    def refuse_output(
        self, call_id: int, function: Function, value: Any, error: BaseException, writer: MessageWriter
    ) -> Frame:
        if self._is_cancelled(error):
            refusal: WarmpoolError = call_cancelled(function.name, error)
        elif isinstance(error, PayloadTooLargeError):
            refusal = error
        else:
            refusal = cannot_send(function.name, value, error)
        return self.refuse(call_id, refusal, writer)

    def undecoded(self, call: Call | Stream, error: BaseException) -> WarmpoolError:
        """What to say when a call could not be decoded: ours to refuse, or a validator of the app that raised."""
        if self._is_cancelled(error):
            return call_cancelled(call.function or DEFAULT_FUNCTION, error)
        if isinstance(error, WarmpoolError):
            return error
        if not -(2**63) <= call.id < 2**63:
            return ProtocolError("the id of a call is a signed number of 64 bits")  # the board has said so
        return app_error(f"validating the input of {call.function}", error)

    def refuse(self, call_id: int, error: WarmpoolError, writer: MessageWriter) -> Frame:
        """The frame with an error; with its first words only, where all of it cannot be sent."""
        error.session_id = self._context.session_id
        try:
            return writer.message(to_wire(Failure(call_id, error.to_wire())))
        except Exception:
            words = str(error)[:200].encode("utf-8", "replace").decode()
            short = type(error)(words, session_id=error.session_id)
            return writer.message(to_wire(Failure(call_id, short.to_wire())))
