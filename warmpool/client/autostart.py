"""Starting a daemon when none runs, without a race when many clients find that out at once.

As tmux does it: whoever gets the lock tries once more to connect before it starts anything, so of twenty clients
one starts a daemon and nineteen find it. The daemon says that it is ready by its starter's exit; nothing polls.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ..constants import AUTOSTART_IDLE_EXIT, STOP_GRACE
from ..errors import DaemonUnavailableError
from ..launch import is_gone, python_command, spawn_afresh
from ..lock import LockFile, holder
from ..paths import Places, make_private

LEAVING: Final = STOP_GRACE + 5.0
"""Seconds after which a daemon that said that it leaves is stuck."""
_SHOWN_LINES: Final = 12


def start_daemon(places: Places, is_running: Callable[[], bool]) -> bool:
    """Makes sure that a daemon listens at `places`; True if it was us who started it.

    Raises DAEMON_UNAVAILABLE with the last lines of its log if it does not come up.
    """
    make_private(places)
    try:
        lock = LockFile(places.starting, wait=True)
    except OSError as error:
        raise DaemonUnavailableError(f"no daemon can be started at {places.socket}: {error}") from error
    try:
        if is_running():
            return False
        _run_detached(places)
        return True
    finally:
        lock.release()


def outlast(places: Places) -> None:
    """Waits for the end of a daemon that has said that it leaves, which may take as long as its apps' `unload` does.
    Raises DAEMON_UNAVAILABLE if it stays.
    """
    pid = holder(places.lock)
    if pid is not None and not is_gone(pid, LEAVING):
        raise DaemonUnavailableError(
            f"the daemon, pid {pid}, is stopping and does not end; see {places.log_in_words()}"
        )


def _run_detached(places: Places) -> None:
    command = python_command(
        "warmpool.cli", "serve", "--detach", "--socket", str(places.socket), "--idle-exit", str(AUTOSTART_IDLE_EXIT)
    )
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    before = places.log.stat().st_size if places.log.exists() else 0
    pid = spawn_afresh(command, null)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return  # SIGCHLD is ignored, or somebody here reaps all children: it has exited, and connecting will tell
    if status:
        raise DaemonUnavailableError(
            f"the daemon did not start (status {os.waitstatus_to_exitcode(status)}); "
            f"the end of its log, {places.log}:\n{_last_lines(places, before)}"
        )


def _last_lines(places: Places, before: int) -> str:
    """`before`: how long the log was when daemons before this one had written to it."""
    try:
        with places.log.open(errors="replace") as log:
            is_same = os.fstat(log.fileno()).st_size >= before  # or else it was full, and this is a new one
            log.seek(before if is_same else 0)
            lines = log.read().splitlines()
    except OSError as error:
        return f"(cannot be read: {error})"
    return "\n".join(lines[-_SHOWN_LINES:])
