"""The daemon's log: a line for people, or one JSON document, per event, on stderr.

Promises never to wait: whoever reads a pipe or a terminal may stop, and a descriptor that was ready a moment ago may be
filled by a worker that prints to the same one. So a pipe or a terminal is opened once more, for writes of ours that
give up; O_NONBLOCK on stderr itself would be set for everybody who shares it. What could not be written is counted, and
the next line that gets through says so. One write per line of up to 4 KiB, as long as there is room (and a look at the
size of a file that is begun anew when it is too long): a line is written while a client's first call is on its way.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..constants import DAEMON_LOG_LIMIT

Log = Callable[[str], None]

STDOUT: Final = 1
STDERR: Final = 2


def is_written_to(path: Path, fd: int = STDERR) -> bool:
    """Whether what is written to this descriptor comes into this file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def as_text(message: str) -> str:
    return f"{time.strftime('%H:%M:%S')} {message}\n"


def as_json(message: str) -> str:
    return json.dumps({"time": round(time.time(), 6), "message": message}) + "\n"


def tail_to(log: Log) -> Callable[[str, str], None]:
    """Writes to the log what workers print, each line with the name of its worker or session."""
    return lambda name, line: log(f"[{name}] {line}")


class LogWriter:
    """Writes messages to a descriptor, which stays its owner's."""

    def __init__(self, fd: int, form: Callable[[str], str], kept: Path | None = None) -> None:
        """`kept`: if this is the file that `fd` writes to, it is begun anew when it is too long."""
        self._write, self.close = _writer_of(fd)
        self._fd, self._form, self._kept = fd, form, kept
        self._lost = 0
        self._is_cut = False
        """The last line that was begun has no end."""

    def __call__(self, message: str) -> None:
        if self._lost:
            if not self._put(f"lines missing or cut here: {self._lost} (nobody read the log, or the disk was full)"):
                self._lost += 1
                return
            self._lost = 0
        with suppress(OSError):
            if self._kept is not None and os.fstat(self._fd).st_size > DAEMON_LOG_LIMIT:
                _begin_anew(self._kept, {STDOUT, self._fd})
        self._lost += not self._put(message)

    def _put(self, message: str) -> bool:
        """Writes one line, or as much of it as there is room for; False if that is not all."""
        data = rest = (b"\n" if self._is_cut else b"") + self._form(message).encode(errors="replace")
        with suppress(OSError):  # nor may a full disk or a closed terminal decide over leases
            while rest:
                rest = rest[self._write(rest[: select.PIPE_BUF]) :]
        self._is_cut = 0 < len(rest) < len(data) or (self._is_cut and bool(rest))
        return not rest


def _begin_anew(log: Path, fds: set[int]) -> None:
    """For those of these descriptors that write to it. What is there is kept as `.old`."""
    ours = [fd for fd in fds if is_written_to(log, fd)]
    if not ours:
        return
    fresh = log.with_name(f"{log.name}.new")
    another = open_log(fresh)  # first: it may not be had
    try:
        put_aside(log)
        fresh.rename(log)
        for fd in ours:
            os.dup2(another, fd)
    finally:
        os.close(another)


def put_aside(log: Path) -> None:
    """Raises OSError."""
    log.replace(f"{log}.old")


def open_log(path: Path) -> int:
    """Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _writer_of(fd: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """A function that writes what `fd` takes at once, or raises BlockingIOError, and one that gives back what that
    needs.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):  # takes everything, and a second opening would have a place in it of its own
        return lambda data: os.write(fd, data), lambda: None
    if stat.S_ISSOCK(mode):
        ours = socket.socket(fileno=os.dup(fd))
        return lambda data: ours.send(data, socket.MSG_DONTWAIT), ours.close
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it was opened by another user, before a su
        return lambda data: _write_if_ready(fd, data), lambda: None
    return lambda data: os.write(own, data), lambda: os.close(own)


def _write_if_ready(fd: int, data: bytes) -> int:
    """The second best: somebody else may fill it in between."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data)
