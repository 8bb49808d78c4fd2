"""One daemon per socket: a locked file that says who holds it, held for as long as the daemon lives.

The kernel lets go of the lock when the process dies, however it dies, so a lock that is free means that the socket
beside it is nobody's. The file is removed while it is still locked; whoever locked it in that moment sees that the
name has gone, and starts over.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path


class AlreadyLockedError(Exception):
    """Somebody else holds it. `pid` 0: it has not said who it is yet."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by pid {pid}")
        self.pid = pid


def holder(path: Path) -> int | None:
    """The pid of whoever holds the lock at `path`; None if nobody does. Looks without touching it: who would take it in
    this moment must not find it taken.
    """
    try:
        file = path.stat()
        with open("/proc/locks") as locks:
            for line in locks:
                kind, _, _, pid, place = line.split()[1:6]  # place: major:minor:inode of the file
                if kind == "FLOCK" and place.rpartition(":")[2] == str(file.st_ino) and _has_open(pid, file):
                    return int(pid)
    except OSError:
        pass
    return None


def _has_open(pid: str, file: os.stat_result) -> bool:
    """Whether a process that has locked a file with the number of this one's inode means this one: on another device
    there may be another of that number, and the device that `/proc/locks` names need not be the one that `stat` knows.
    """
    with suppress(OSError):  # it is gone, or another user's
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed meanwhile
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), file):
                    return True
    return False


class LockFile:
    def __init__(self, path: Path, *, wait: bool = False) -> None:
        """Takes the lock. Raises AlreadyLockedError unless told to `wait`, and OSError; then nothing is left of it."""
        self._path = path
        while not self._take(wait=wait):
            pass

    def _take(self, *, wait: bool) -> bool:
        """Whether it is ours: not if the file was removed meanwhile."""
        with ExitStack() as undo:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, self._fd)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
                raise AlreadyLockedError(int(pid) if pid.isdigit() else 0) from None
            if not self.is_still_there():
                return False
            undo.callback(self._path.unlink, missing_ok=True)
            os.truncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)
            undo.pop_all()
            return True

    def is_still_there(self) -> bool:
        """Whether the file with its name is still ours, and not one that somebody has put in its place."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Removes the file if that can be, then lets go of it."""
        if self.is_still_there():
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        os.close(self._fd)
