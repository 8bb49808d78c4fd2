"""`warmpool serve`: the daemon in this process, or with `--detach` in one of its own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from typing import Any

from ..checks import check_number
from ..constants import MIB
from ..daemon.log import STDERR, STDOUT, as_json, as_text, open_log
from ..errors import DaemonUnavailableError, InvalidRequestError, WarmpoolError
from ..handshake import READY, error_in, refusal
from ..launch import close_all_but
from ..paths import Places, make_private, working_directory
from ..settings import BOUNDS, Settings

_IN_UNITS = {"min_free_bytes": ("min_free_mb", MIB), "log_cap": ("log_cap_mb", MIB)}
"""Settings that are typed under another name, in so many of their unit."""


def serve(options: argparse.Namespace) -> int:
    places = Places.of(options.socket)
    options.apps = [os.path.normpath(os.path.join(working_directory(), path)) for path in options.apps]
    settings = _settings(options)
    if not options.detach:
        _serve(options, places, settings, ready=lambda: None)
        return 0
    make_private(places)
    form = as_json if options.log_json else as_text
    return _detach(places, form, lambda ready: _serve(options, places, settings, ready=ready))


def _serve(options: argparse.Namespace, places: Places, settings: Settings, *, ready: Callable[[], None]) -> None:
    from ..daemon.main import serve

    serve(places, settings, options.apps, log_json=options.log_json, tail=options.tail, ready=ready)


def _settings(options: argparse.Namespace) -> Settings:
    """Checked here as well, so that an error speaks of what was typed."""
    given: dict[str, Any] = {}
    for name, (low, high) in BOUNDS.items():
        option, unit = _IN_UNITS.get(name, (name, 1))
        value = getattr(options, option)
        if value is not None:
            check_number(f"--{option.replace('_', '-')}", value, ceil(low / unit), high // unit)
            given[name] = value * unit
    return Settings(**given)


def _detach(places: Places, form: Callable[[str], str], run: Callable[[Callable[[], None]], None]) -> int:
    """Runs the daemon in a child of its own session, and returns when it is ready. Raises its error if it fails, which
    is in its log too, in this form: that may be another daemon's, and somebody else may have started this one.
    """
    try:
        log = open_log(places.log)
    except OSError as error:
        raise InvalidRequestError(f"no log can be kept in {places.log}: {error.strerror}") from error
    readable, writable = os.pipe()
    if os.fork():
        os.close(writable)
        with open(readable, "rb") as pipe:
            said = pipe.read()
        if said == READY:
            return 0
        raise error_in(said, f"; see {places.log}")
    os.close(readable)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (log, STDOUT), (log, STDERR)):
        os.dup2(fd, target)
    close_all_but({0, 1, 2, writable})

    def ready() -> None:
        try:
            os.write(writable, READY)
        except BrokenPipeError:
            raise DaemonUnavailableError("whoever started this daemon did not wait for it: it leaves") from None
        os.close(writable)

    try:
        run(ready)
    except WarmpoolError as error:
        with suppress(OSError):  # after `ready` nobody listens there
            os.write(writable, refusal(error))
        with suppress(OSError):
            os.write(STDERR, form(f"not started: {error.code}: {error}").encode(errors="replace"))
        return 1
    return 0
