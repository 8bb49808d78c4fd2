"""How sessions and apps are shown to clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from ..footprint import footprint_of
from ..policy.pool import App
from ..policy.sessions import SessionView
from ..wire.frames import decode

CLOCKS_DIFFER: Final = 0.5
"""Seconds by which two readings of two clocks may be apart for no reason but that time passes in between."""


class WallTime:
    """Lease time into Unix time. Of one moment it tells the same each time, unless the clock was set or the machine has
    slept.
    """

    def __init__(self, lease_time: Callable[[], float], unix_time: Callable[[], float] = time.time) -> None:
        self._lease_time = lease_time
        self._unix_time = unix_time
        self._offset = unix_time() - lease_time()

    def __call__(self, moment: float) -> float:
        offset = self._unix_time() - self._lease_time()
        if abs(offset - self._offset) > CLOCKS_DIFFER:
            self._offset = offset
        return moment + self._offset


def memory_of(pid: int | None) -> dict[str, int | None]:
    """Bytes that are the process's alone, and bytes that it shares with its template and others; None if it is gone."""
    try:
        private, shared = (None, None) if pid is None else footprint_of(pid)
    except OSError:
        private = shared = None
    return {"private_bytes": private, "shared_bytes": shared}


def present(view: SessionView, wall_time: Callable[[float], float]) -> dict[str, Any]:
    """A session as clients see it: times as ISO 8601 in UTC. `wall_time` turns lease time into Unix time."""
    value = None if view.end_value is None else decode(view.end_value)
    return {**summary(view, wall_time), "end_value": value}


def summary(view: SessionView, wall_time: Callable[[float], float]) -> dict[str, Any]:
    """A session in a list: without the value of its end, which can take megabytes."""
    fields = view._asdict()
    del fields["end_value"]
    for name in ("created_at", "expires_at", "last_call_at", "ended_at"):
        if fields[name] is not None:
            fields[name] = iso(wall_time(fields[name]))
    return fields


def iso(unix_time: float) -> str:
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def state_of(app: App | None) -> dict[str, Any]:
    """How an app fares: its version, its workers, what is wrong with it."""
    if app is None:
        return {"state": "not loaded", "version": None, "workers": 0, "error": None}
    state = "ready" if app.current else "loading" if app.candidate else "broken" if app.failure else "not loaded"
    error = app.failure.error["message"] if app.failure else None
    if error is None and app.candidate is not None:
        error = app.candidate.no_room
    version = app.current.version if app.current else None
    return {"state": state, "version": version, "workers": app.live, "error": error}
