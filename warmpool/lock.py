"""One daemon per socket: a locked file that says who holds it, held for as long as the daemon lives.

The kernel lets go of the lock when the process dies, however it dies, so a lock that is free means that the socket
beside it is nobody's. The file is removed while it is still locked; whoever locked it in that moment sees that the
name has gone, and starts over.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class AlreadyLockedError(Exception):
    """Somebody else holds it. `pid` 0: it has not said who it is yet."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"held by pid {pid}")
        self.pid = pid


class LockFile:
    def __init__(self, path: Path, *, wait: bool = False) -> None:
        """Takes the lock. Raises AlreadyLockedError unless told to `wait`."""
        self._path = path
        while True:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
                os.close(self._fd)
                raise AlreadyLockedError(int(pid) if pid.isdigit() else 0) from None
            if self._is_still_there():
                break
            os.close(self._fd)
        os.truncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def _is_still_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Removes the file, then lets go of it."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._fd)
