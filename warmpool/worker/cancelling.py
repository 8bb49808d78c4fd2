"""What the daemon has sent to this worker, and how a call is told to stop.

A cancel must reach code that never looks: a loop, a sleep, a read that blocks. So a message of the daemon raises
SIGURG (the kernel does: O_ASYNC on the channel), for the main thread and no other, and Python runs our handler there
between two steps of whatever runs. The handler takes what has been sent, and if the call that is exposed is to stop
it raises `CallCancelled` on the spot. Why that is safe:

- It raises only while `exposed` holds the id of a cancelled call. `exposed` is set and cleared inside a `try` that
  catches everything, around the app's code and what decodes and encodes for it, and nothing else:
  wherever the exception falls, it ends up there. It is cleared before the exception is raised, so there is one a call.
- What of ours the app's code calls (progress, print, the logger) is shielded: `exposed` is cleared on the way in; on
  the way out `expose` looks at what has been missed.
- A cancel that comes before its call is exposed finds nothing to stop. It is remembered by its id, and `must_check`
  makes the call look: before it begins, so that it never does, and once more right after it is exposed. Either the
  handler sees the call, or the call sees the cancel. Ids are unique, so what comes too late stops nothing; what never
  comes is forgotten some time.
- What Python swallows (in a `__del__`, a callback of C) is raised once more, where the app is by then.
- Taking messages is not to be interrupted half-way, or one would be lost: in the handler all signals are blocked for
  it, and elsewhere the handler only notes that there is something to take.

What an async call awaits is not exposed. When its loop has heeded the daemon it asks `claim_cancel`, and cancels the
task.
(Refused: a thread that raises in the main one by `PyThreadState_SetAsyncExc`. It cannot wake a call that blocks, and
may raise after the call.)
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import fcntl
import os
import signal
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from ..app import CallCancelled
from ..errors import ProtocolError
from ..packets import receive, send
from ..wire.process_messages import TO_WORKER, Cancel, WakeMe
from ..wire.shapes import Message
from .birth import set_handler

NOTHING: Final = 0
"""In place of a call's id: no code of the app's runs that may be stopped."""

REMEMBERED: Final = 1024
"""Cancelled calls that have not come yet."""
FORGOTTEN_AFTER: Final = 10_000
"""Other calls that may come before one that was cancelled."""

_ALL: Final = _signal.valid_signals()
_set_mask: Final[Callable[[int, set[int]], set[int]]] = _signal.pthread_sigmask
"""As `birth.set_handler`: without enums, which take ten times as long as all else that a cancel does."""
_F_SETOWN_EX: Final = 15
_F_OWNER_TID: Final = 0


class Inbox:
    def __init__(self, channel: socket.socket, is_over: Callable[[int], bool]) -> None:
        """`is_over` says whether a call has been answered already."""
        self._channel = channel
        self._is_over = is_over
        self._doomed: dict[int, None] = {}
        self._stopped = NOTHING  # the last call that was, which may be cancelled again while it cleans up
        self._unmatched_calls = 0
        self._is_collecting = False
        self._signal_came = False  # meanwhile
        self.messages: deque[tuple[Message, list[int]] | ProtocolError] = deque()
        """What is to be heeded, in its order; or why it could not be taken."""
        self.on_received: Callable[[], None] = _nothing
        """Called when something was taken: the channel does not tell of it any more."""
        self.has_mail = False
        """There may be more since this was cleared, of the daemon's or of the worker's own."""
        self.must_check = False
        """A call that is exposed must look."""
        self.exposed = NOTHING
        """Id of the call whose code, the app's, may be interrupted right now."""
        self.was_cancelled = False
        """The call that runs, or ran last, was stopped while it ran. The loop's to clear, when it has run the hook."""

    def __repr__(self) -> str:
        return f"<Inbox exposed={self.exposed} doomed={list(self._doomed)} messages={len(self.messages)}>"

    def watch(self, handler: Callable[[int, FrameType | None], None]) -> None:
        """From now on `handler` runs in the main thread when the daemon sends something. It must call `on_signal`."""
        fd = self._channel.fileno()
        set_handler(signal.SIGURG, handler)
        _set_mask(signal.SIG_UNBLOCK, {signal.SIGURG})  # the app's `setup` may have blocked all
        fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("@ii", _F_OWNER_TID, threading.get_native_id()))
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        self.has_mail = True  # what came before this has raised no signal

    def watch_what_is_swallowed(self) -> None:
        """From now on. The daemon is asked for another signal, since one of our own would come at once."""
        tell = sys.unraisablehook

        def on_unraisable(what: sys.UnraisableHookArgs) -> None:
            if isinstance(what.exc_value, CallCancelled):
                self._doomed[self._stopped] = None
                with suppress(OSError):
                    send(self._channel, WakeMe())
                self.exposed = self._stopped  # last: what were raised in here would be swallowed, too
            else:
                tell(what)

        sys.unraisablehook = on_unraisable

    def unwatch(self) -> None:
        """Nothing more is sent: lets go of the handler, and with it of all that it knows."""
        set_handler(signal.SIGURG, _signal.SIG_DFL)

    def on_signal(self) -> None:
        """The signal has come. Raises CallCancelled if the call that is exposed is to stop."""
        self.has_mail = self.must_check = True
        if self._is_collecting:
            self._signal_came = True
        elif self.exposed:
            self._strike()

    def begin(self) -> None:
        """Right after a call was exposed, if it must check. Raises CallCancelled if it was cancelled before."""
        try:
            self.look()
        except CallCancelled:
            self.was_cancelled = False  # nothing of the app's has run
            raise

    def look(self) -> None:
        """As `begin`, in the middle of a call."""
        self.must_check = False  # first: a signal that comes now sets it again
        try:
            self._strike()
        finally:
            self._unmatched_calls = self._unmatched_calls + 1 if self._doomed else 0
            if self._unmatched_calls > FORGOTTEN_AFTER:
                self._doomed.clear()
            elif self._doomed:
                self.must_check = True

    def expose(self, call_id: int) -> None:
        """The app's code goes on. Raises CallCancelled if a cancel has come in between."""
        self.exposed = call_id
        if self.must_check and call_id:
            self.look()

    def _strike(self) -> None:
        if self.has_mail:
            self._collect_masked()
        if self.exposed and self.claim_cancel(self.exposed):
            self.exposed = NOTHING
            raise _kind_of_cancel()("the call was cancelled")

    def _collect_masked(self) -> None:
        """Takes all that is there, and what comes meanwhile. Signals that come meanwhile must not do it, too: if there
        are many, each would begin inside of the one before, to the end of Python's stack.
        """
        self._signal_came = True
        while self._signal_came:
            self._signal_came, self._is_collecting = False, True
            mask = _set_mask(signal.SIG_BLOCK, _ALL)
            try:
                self.collect()
            finally:
                _set_mask(signal.SIG_SETMASK, mask)
                self._is_collecting = False

    def forgoes(self, call_id: int) -> bool:
        """Whether this call, which is about to begin, was cancelled while it waited: then it never does. To be asked
        when a call must check.
        """
        if self.has_mail:
            self._collect_masked()
        if call_id not in self._doomed:
            return False
        del self._doomed[call_id]
        self._stopped = call_id
        return True

    def has_cancel_for(self, call_id: int) -> bool:
        """Whether a cancel of this call waits to be heeded."""
        return call_id in self._doomed

    def claim_cancel(self, call_id: int) -> bool:
        """Whether this call, which runs, is to stop. True once: whoever asks has to stop it."""
        if call_id not in self._doomed:
            return False
        del self._doomed[call_id]
        self._stopped = call_id
        self.was_cancelled = True
        return True

    def collect(self) -> None:
        """Takes all that is there."""
        while True:
            try:
                received = receive(self._channel, TO_WORKER)
            except BlockingIOError:
                return
            except ProtocolError as error:
                self.messages.append(error)
                self.on_received()
                continue
            if received is None:
                os._exit(0)  # the daemon is gone, and with it whoever could want anything
            self.on_received()
            message, _ = received
            if not isinstance(message, Cancel):
                self.messages.append(received)
            elif message.call_id != self._stopped and not self._is_over(message.call_id):
                self._doomed[message.call_id] = None
                self.must_check = True
                if len(self._doomed) > REMEMBERED:
                    del self._doomed[next(iter(self._doomed))]


class _CancelledInLoop(CallCancelled, KeyboardInterrupt):
    """As asyncio lets it pass out of a callback, or a task that nobody awaits: all else it keeps there."""


def _kind_of_cancel() -> type[CallCancelled]:
    """In a plain app's `asyncio.run` what falls into a task goes to who awaits that; it must not end the loop too."""
    asyncio: Any = sys.modules.get("asyncio")
    running = getattr(asyncio, "_get_running_loop", None)  # it may be about to be imported
    if running is None or running() is None:
        return CallCancelled
    task = asyncio.current_task()
    return CallCancelled if task is not None and task._callbacks else _CancelledInLoop


def _nothing() -> None:
    pass
