"""A process that the app forks is not the worker, though it has a copy of all that the worker has. It must not answer:
the client would have the child's answer for the parent's, and two processes would serve.

So in the child all writers are mute and all readers deaf. The app's code may go on for as long as it likes; when it
comes back to ours the process ends as any that was forked: with the status of `sys.exit`, and a traceback for other
exceptions. From a call it comes back to make an answer, from a hook out of `parent_only`, and from a background task to
the loop, which ends it as soon as there is something to read. (`multiprocessing` leaves by itself.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from ..wire.frames import FrameReader
from ..wire.large import MessageWriter
from .failures import print_failure


class _MuteWriter(MessageWriter):
    __slots__ = ()

    def message(self, value: object) -> NoReturn:
        leave(sys.exception())


class _DeafReader(FrameReader):
    __slots__ = ()

    def read(self, receive_into: object) -> NoReturn:
        leave(None)


def mute(writer: MessageWriter) -> None:
    """From now on there is no answer but to leave."""
    writer.__class__ = _MuteWriter


def deafen(reader: FrameReader) -> None:
    """What comes is for the parent."""
    reader.__class__ = _DeafReader


@contextmanager
def parent_only() -> Iterator[None]:
    """Around code of the app's that is no call: who comes out of it is who went in."""
    own = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != own:
            leave(sys.exception())


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
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status & 0xFF)
