"""`warmpool serve`: the daemon in this process, or with `--detach` in one of its own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from ..paths import Places, make_private
from ..settings import MIB, Settings


def serve(options: argparse.Namespace) -> int:
    places = Places.of(options.socket)
    settings = _settings(options)
    if not options.detach:
        _serve(options, places, settings, ready=lambda: None)
        return 0
    make_private(places)
    return _detach(places, lambda ready: _serve(options, places, settings, ready=ready))


def _serve(options: argparse.Namespace, places: Places, settings: Settings, *, ready: Callable[[], None]) -> None:
    from ..daemon.main import serve

    serve(places, settings, options.apps, log_json=options.log_json, ready=ready)


def _settings(options: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {
        "max_workers": options.max_workers,
        "warm": options.warm,
        "min_free_bytes": None if options.min_free_mb is None else options.min_free_mb * MIB,
        "open_timeout": options.open_timeout,
        "call_frame_limit": options.call_frame_limit,
        "idle_exit": options.idle_exit,
    }
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _detach(places: Places, run: Callable[[Callable[[], None]], None]) -> int:
    """Runs the daemon in a child of its own session, and returns when it is ready (0) or has failed (1)."""
    readable, writable = os.pipe()
    if os.fork():
        os.close(writable)
        with open(readable, "rb") as pipe:
            return 0 if pipe.read() else 1
    os.close(readable)
    os.setsid()
    os.chdir("/")
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)

    def ready() -> None:
        os.write(writable, b"ready")
        os.close(writable)

    run(ready)
    return 0
