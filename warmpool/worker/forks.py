"""A process that the app forks is not the worker, though it has a copy of all that the worker has. It must not answer:
the client would have the child's answer for the parent's, and two processes would serve.

So in the child all writers are mute. The app's code may go on for as long as it likes; when it comes back to ours the
process ends as any that was forked: with the status of `sys.exit`, and a traceback for other exceptions. From a call it
comes back to make an answer, and from a hook out of `ParentOnly`. Async code comes back to the event loop, as soon as
it awaits anything, and ends there. Until then the child has an epoll of its own in the place of the loop's: that is one
thing in the kernel for both processes, and what one of them forgets the other would not hear of any more.
(`multiprocessing` leaves by itself.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import NoReturn

from ..wire.large import MessageWriter
from .failures import print_failure
from .logs import flush_streams


class _MuteWriter(MessageWriter):
    __slots__ = ()

    def message(self, value: object) -> NoReturn:
        leave(sys.exception())


def mute(writers: Iterable[MessageWriter]) -> None:
    """From now on there is no answer but to leave."""
    for writer in writers:
        writer.__class__ = _MuteWriter


class ParentOnly:
    """Around code of the app's that is no call: who comes out of it is who went in."""

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            leave(error)


def leave(error: BaseException | None) -> NoReturn:
    """Ends this process as Python would end one in which this has been raised."""
    status = 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            status = error.code
        elif error.code is not None:
            print(error.code, file=sys.stderr)  # noqa: T201  (the session's log)
            status = 1
    elif error is not None:
        print_failure(f"process {os.getpid()}, which the app has forked,", error)
        status = 1
    flush_streams()
    os._exit(status & 0xFF)
