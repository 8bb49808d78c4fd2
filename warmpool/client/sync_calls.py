"""A blocking client's connection to a worker: one call at a time, several, or one with events.

It belongs to the thread that has its lock. A stream or a `map` seizes it, and gives it back at its end.
"""

from __future__ import annotations

import select
import socket
import time
from _thread import _count as threads  # besides the main one
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from os import sched_yield
from typing import Any, Final

from ..errors import InvalidRequestError, WarmpoolError
from ..outbox import Outbox
from ..wire.calls import CallState, OpenCalls
from ..wire.frames import PADDING
from ..wire.messages import Opened
from . import sync_links
from .bells import UNHEARD, Bell, ring
from .connections import (
    FORKED,
    SPIN_BACKOFF,
    UNSENDABLE,
    HangupError,
    OverdueError,
    cannot_send,
    cannot_use,
    first_call_id,
    for_calls,
    payload_of,
)
from .sync_links import Link, is_of_the_kernel

SPINS: Final = 48
"""Times that a caller looks for its answer before it sleeps, two microseconds each: a core that falls asleep takes
longer to wake up than a short call takes. In between it lets others run, and leaves the socket to whoever would send.
"""
_AFTER_ONE_SPIN: Final = SPINS - 1
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR


class _LateError(Exception):
    """The deadline has passed. Not TimeoutError, which a user's signal handler may raise."""


def _nested() -> InvalidRequestError:
    return InvalidRequestError(
        "a call of this session is being made by this very thread, and calls run one at a time: another one, by what "
        "gives its input or by the handler of a signal, would wait for itself"
    )


class CallLink(Link):
    def __init__(self, connection: socket.socket, opened: Opened, bell: Bell) -> None:
        reader, self._messages = for_calls(connection, opened)
        super().__init__(connection, reader)
        self.opened = opened
        self._bell = bell
        self._calls = OpenCalls(first_call_id())
        self._early: dict[int, list[list[Any]]] = {}  # what came for a call before anybody looked
        self._outbox = Outbox(connection)
        self._caller: int | None = None
        """The thread whose call is under way. It can come for another one by the handler of a signal."""
        self._backoff = self._next_backoff = 0
        """Calls to come before one spins; and how many there will be after one has spun in vain: none at first, since
        a worker's first call is slow.
        """
        self._receive_now = partial(connection.recv_into, nbytes=0, flags=socket.MSG_DONTWAIT)
        self.left_open: list[int] = []
        """The calls that were under way when an interruption closed this link."""

    def disown(self) -> None:
        super().disown()
        self._caller = None

    def close(self) -> None:
        super().close()
        self._outbox.clear()
        self._bell = UNHEARD

    # --- one call ---------------------------------------------------------------------------------------------

    def call(self, function: str | None, input: object) -> Any:
        """The function's output. Raises its error, or HangupError. One call at a time; others wait."""
        if self._caller == (me := get_ident()):
            raise _nested()
        with self._lock:
            if self.broken is not None:
                raise cannot_use(self.broken)
            spins_left = 0
            if threads():
                self._bound_reads()
            elif self._backoff:
                self._backoff -= 1
            else:
                spins_left = SPINS
            calls, connection, read = self._calls, self._socket, self._reader.read
            call_id, sent = calls.start(), False
            answer: list[Any] | None = None
            try:
                self._caller = me
                frame = self._messages.message(("Call", call_id, function, input))
                try:
                    sent = True  # before it is: an interruption may fall right behind
                    all_taken = self._outbox.post(frame)
                except OSError:
                    sent = False
                    raise
                del frame  # it may hold much memory
                if not all_taken:
                    self._push()
                elif spins_left:
                    ring(self._bell, call_id)
                while answer is None:  # nothing yet, or the late answer to a call that was abandoned
                    try:
                        body = read(self._receive_now if spins_left > 0 else connection.recv_into)
                    except BlockingIOError:
                        spins_left -= 1
                        if spins_left == 0:
                            self._backoff, self._next_backoff = self._next_backoff, SPIN_BACKOFF
                        sched_yield()
                        continue
                    if body is not None:
                        answer = calls.answer(body)
            except BaseException as error:
                raise self._failure(call_id, error, sent=sent) from None
            finally:
                self._caller = None
        if spins_left == _AFTER_ONE_SPIN:  # as soon as others were let run: the worker shares our core
            self._backoff = SPIN_BACKOFF
        return answer[2] if answer[0] == "Result" else payload_of(answer)

    def call_within(
        self, function: str | None, input: object, timeout: float, give_up: Callable[[OverdueError], WarmpoolError]
    ) -> Any:
        """As `call`. After `timeout` seconds, which include waiting for one's turn, raises what `give_up` gives. Until
        then it keeps its turn: whoever is next would not give it back before his own call has ended.
        """
        deadline = time.monotonic() + timeout
        me = get_ident()
        if self._caller == me:
            raise _nested()
        held: list[bool] = []
        try:
            # In one step: an interruption between two would leave the lock to nobody.
            held.extend(map(self._lock.acquire, (True,), (timeout,)))
            try:
                if not held[0]:
                    raise OverdueError(None)
                self._caller = me
                call_id = self.begin("Call", function, input)
                self.flush(deadline)
                answer = self.next_parts(call_id, deadline)
            except OverdueError as overdue:
                raise give_up(overdue) from None
        except (WarmpoolError, HangupError):
            raise
        except BaseException:
            if held and held[0]:
                self.interrupt()
            raise
        finally:
            if held and held[0]:
                self._caller = None
                self._lock.release()
        return payload_of(answer)

    # --- for whose turn it is, or who has seized the link: several at once, or one with events ------------------

    def seize(self) -> bool:
        """Takes the link for oneself alone, if nobody uses it; until `release`."""
        return self.broken is None and self._lock.acquire(blocking=False)

    def release(self) -> None:
        if self.broken is FORKED:
            return  # it was seized in the parent
        if self._calls.awaited():
            self.close()  # whoever began them is not there to take their answers
        self._lock.release()

    def begin(self, kind: str, function: str | None, input: object) -> int:
        """A new call's id; it leaves with the next `flush`. `kind` is "Call" or "Stream". Raises INVALID_REQUEST."""
        if self.broken is not None:
            raise cannot_use(self.broken)
        call_id = self._calls.start(CallState.STREAMING if kind == "Stream" else CallState.WAITING)
        try:
            self._outbox.put(self._messages.message((kind, call_id, function, input)))
        except BaseException as error:
            raise self._failure(call_id, error, sent=False) from None
        return call_id

    def has_enough(self) -> bool:
        """Whether so much waits to be sent that it should be sent before there is more."""
        return self._outbox.size >= PADDING

    def flush(self, deadline: float | None = None) -> None:
        """Sends what has begun, as far as it goes until the deadline. Raises HangupError."""
        try:
            self._push(deadline)
        except BaseException as error:
            raise self._failure(None, error, sent=True) from None

    def next_parts(self, call_id: int, deadline: float | None = None) -> list[Any]:
        """What comes next for a call: an Event, a Result or a Failure. Raises HangupError; and OverdueError at the
        deadline on the monotonic clock.
        """
        if (early := self._early.get(call_id)) is not None:
            parts = early.pop(0)
            if not early:
                del self._early[call_id]
            return parts
        if self.broken is not None:
            raise HangupError(sent=True)
        try:
            while (found := self._calls.answer(self._body(deadline))) is None or found[1] != call_id:
                self._keep(found)
            return found
        except _LateError:
            if self._outbox.waiting:
                self.close()  # half a call would keep the session for ever
            self._calls.abandon(call_id)
            raise OverdueError(call_id) from None
        except BaseException as error:
            raise self._failure(call_id, error, sent=True) from None

    def abandon(self, call_id: int) -> None:
        """Nobody waits for this call any more."""
        self._early.pop(call_id, None)
        self._calls.abandon(call_id)

    def settle(self, call_id: int) -> None:
        """Waits until an abandoned call has been answered. Raises HangupError."""
        while call_id in self._calls:
            if self.broken is not None:
                raise cannot_use(self.broken)
            try:
                self._keep(self._calls.answer(self._body(None)))
            except BaseException as error:
                raise self._failure(call_id, error, sent=True) from None

    # --- bytes ------------------------------------------------------------------------------------------------

    def _push(self, deadline: float | None = None) -> None:
        """Sends all, and reads meanwhile: a worker whose answers nobody takes reads no calls either."""
        poll: select.poll | None = None
        while not self._outbox.push():
            if poll is None:
                poll = select.poll()
                poll.register(self._socket.fileno(), select.POLLOUT | _READABLE)
            patience = sync_links.SIGNAL_CHECK
            if deadline is not None:
                patience = min(deadline - time.monotonic(), patience)
            if patience <= 0:
                return
            for _, events in poll.poll(patience * 1000):
                if events & _READABLE and (body := self._read()) is not None:
                    self._keep(self._calls.answer(body))
                    while (more := self._reader.next_frame()) is not None:
                        self._keep(self._calls.answer(more))

    def _body(self, deadline: float | None) -> memoryview:
        """The next frame. Raises _LateError at the deadline."""
        reader = self._reader
        if deadline is not None and time.monotonic() >= deadline:  # also for who is told more than he can read
            raise _LateError
        body = reader.next_frame() if reader.pending else None
        while body is None:
            if deadline is not None:
                poll = select.poll()
                poll.register(self._socket.fileno(), _READABLE)
                patience = deadline - time.monotonic()
                if not poll.poll(max(0.0, min(patience, sync_links.SIGNAL_CHECK)) * 1000):
                    if patience <= sync_links.SIGNAL_CHECK:
                        raise _LateError
                    continue
            body = self._read()
        return body

    def _read_out(self) -> None:
        """The other end is gone. If it is sending that has told so, what was said before can still be read."""
        with suppress(OSError, EOFError, WarmpoolError):
            while True:
                if (body := self._reader.read(self._receive_now)) is not None:
                    self._keep(self._calls.answer(body))

    def _keep(self, parts: list[Any] | None) -> None:
        if parts is not None:
            self._early.setdefault(parts[1], []).append(parts)

    def _failure(self, call_id: int | None, error: BaseException, *, sent: bool) -> BaseException:
        """What to raise for a call that was not answered."""
        if isinstance(error, EOFError) or is_of_the_kernel(error):
            self._read_out()
            self.close()
            return HangupError(sent=sent)
        if not sent and isinstance(error, UNSENDABLE):
            assert call_id is not None
            self._calls.forget(call_id)  # it did not leave
            return cannot_send(error, self.opened.session_id)
        if isinstance(error, WarmpoolError):
            self.close()  # the peer talks nonsense
        else:
            self.interrupt()
        return error

    def interrupt(self) -> None:
        """An interruption has fallen while the link was in hand: nobody knows how much was sent or read."""
        if self.broken is None:
            self.left_open = self._calls.awaited()
            self.close()
