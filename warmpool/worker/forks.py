"""A process that the app forks in the middle of a call is not the worker, though it has a copy of all that the worker
has. It must not answer: the client would have the child's answer for the parent's, and two processes would serve.

So in the child all writers are mute. Its function may go on for as long as it likes; when it returns or raises, and an
answer is to be made, the process ends as any that was forked: with the status of `sys.exit`, and a traceback for other
exceptions. (`multiprocessing` leaves by itself before that.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

from ..wire.large import MessageWriter


class _MuteWriter(MessageWriter):
    __slots__ = ()

    def message(self, value: object) -> NoReturn:
        leave(sys.exception())


def mute(writers: Iterable[MessageWriter]) -> None:
    """From now on there is no answer but to leave."""
    for writer in writers:
        writer.__class__ = _MuteWriter


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
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status & 0xFF)
