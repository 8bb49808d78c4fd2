"""The command line. stdout carries results, stderr what people should know; exit codes say what went wrong."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from ..errors import AppFailure, CallError, RequestError, SessionError, UnavailableError, WarmpoolError
from .output import say
from .parser import parse

OK = 0
FAILED = 1
"""A bug in warmpool, or something that nobody foresaw."""
USAGE = 2
"""The command line cannot be read."""
BAD_REQUEST = 3
"""The request cannot be served as it was made: input, app, function, parameter."""
APP_FAILED = 4
"""The app raised, or is broken."""
SESSION_OVER = 5
"""The session is not there, over, lost, or another's."""
UNAVAILABLE = 6
"""No daemon, or no room."""
STOPPED = 7
"""The call was cancelled, or took too long; its session lives."""
INTERRUPTED = 130

_OF_A_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

_CODES: tuple[tuple[type[WarmpoolError], int], ...] = (
    (RequestError, BAD_REQUEST),
    (AppFailure, APP_FAILED),
    (SessionError, SESSION_OVER),
    (UnavailableError, UNAVAILABLE),
    (CallError, STOPPED),
)


def program() -> NoReturn:
    """One command in a process of its own. Leaves it to the kernel to take it apart: Python would take longer over that
    than the call took.
    """
    gc.disable()  # until everything is imported
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit code."""
    _open_standard_streams()
    typed = sys.argv[1:] if arguments is None else arguments
    options = parse(typed)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = options.command(options) or OK
        sys.stdout.flush()
        return int(code)
    except WarmpoolError as error:
        _print_error(error)
        return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
    except KeyboardInterrupt as interrupt:
        return code_of(interrupt)
    except BrokenPipeError:  # whoever read our output has left, and Python would complain once more at exit
        _print_no_more()
        return OK
    except OSError as error:
        if error.errno not in _OF_A_WRITE:
            raise
        _print_no_more()
        say(f"error: the output cannot be written: {error.strerror}")
        return FAILED


def code_of(interrupt: KeyboardInterrupt) -> int:
    """As a shell tells of a command that a signal has ended: Ctrl-C's, or that which is named."""
    return 128 + interrupt.args[0] if interrupt.args else INTERRUPTED


def _print_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_standard_streams() -> None:
    """Whoever started us may have closed some (`>&-`). What is opened next would get the number of such a stream, and
    then what a daemon and its apps print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115  (for as long as we live)


def _print_error(error: WarmpoolError) -> None:
    say(f"error: {error.code}: {error}")
    if isinstance(error, AppFailure) and error.traceback:
        say(error.traceback.rstrip())
    if error.session_id and isinstance(error, CallError):  # which may have been cancelled for the session's end
        say(f"its session: {error.session_id}")
    elif error.session_id and not isinstance(error, SessionError | UnavailableError):  # which tell what became of it
        say(f"the session lives on: {error.session_id}")
