"""What workers print: read from a pipe each, kept in a file each with a cap, and given to whoever asks or follows.

On disk a log is two files, the older of which is dropped whole when the newer has reached the cap. A position in a log
counts every byte that was ever in it, so it means the same after that. Of sessions that are over only so much is kept,
all together, and the oldest logs go first. No file is held open: a session costs one descriptor here.

Each line begins with the time at which it was read and the number of the call that had begun last.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from codecs import utf_8_decode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from ..constants import FINISHED_LOGS_LIMIT
from ..policy.events import Ticket
from .printed import Lines, Pipe

PIECE_SIZE: Final = 32 * 1024
LAST_LINES: Final = 10
"""For whoever is told of an end."""

Tail = Callable[[str, str], None]
"""Told a worker and a line of its."""


class Piece(NamedTuple):
    """Part of a log. `offset`: ask with it next; `lost`: bytes before it that were asked for and are gone."""

    text: str
    offset: int
    lost: int


class LogFile:
    """The last bytes of an endless text."""

    def __init__(self, path: Path, cap: int) -> None:
        self._path = path
        self._old_path = path.with_suffix(".old")
        self._cap = cap
        self._old_size = self._size = self._unwritten = 0
        self.end = 0
        """Bytes ever written."""

    def __repr__(self) -> str:
        return f"<LogFile {self._path} {self.start}..{self.end}>"

    @property
    def start(self) -> int:
        """How many of the first bytes are lost."""
        return self.end - self.size

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._size + self._old_size

    def append(self, data: bytes) -> None:
        """A disk that is full loses text and nothing else."""
        while data:
            if self._size + len(data) > self._cap:
                self._turn()
            room = self._cap - self._size
            cut = len(data) if len(data) <= room else data.rfind(b"\n", 0, room) + 1 or room
            self._write(data[:cut])
            data = data[cut:]

    def _write(self, data: bytes) -> None:
        """What cannot be written is lost, and told of as soon as something can."""
        note = b""
        if self._unwritten:
            note = f"\n({self._unwritten} bytes of this log are lost: there was no room)\n".encode()
        written = self._append(note + data)
        self._size += written
        self.end += written
        if written < len(note):
            self._unwritten += len(data)
        else:
            self._unwritten = len(note) + len(data) - written

    def _append(self, data: bytes) -> int:
        """How much of it was written."""
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                return os.write(fd, data)
            finally:
                os.close(fd)
        return 0

    def _turn(self) -> None:
        if not self._size:
            return
        lost = self.end - self._size
        with suppress(OSError):
            self._path.replace(self._old_path)
        self._old_size, self._size = self._size, 0
        if lost:
            self._write(f"(the oldest {lost} bytes of this log are lost: it is longer than --log-cap-mb)\n".encode())

    def read(self, offset: int, size: int) -> Piece:
        """From `offset` on, or from the first byte there is: whole lines if there is one, and no part of a letter."""
        begin = min(max(offset, self.start), self.end)
        data = self._bytes(begin, size)
        text, used = utf_8_decode(data[: data.rfind(b"\n") + 1] or data, "replace", False)
        return Piece(text, begin + used, begin - offset if offset < begin else 0)

    def last_lines(self, count: int, size: int) -> list[str]:
        """As many as there are in the last `size` bytes."""
        begin = max(self.start, self.end - size - 1)  # one more tells whether the first line is whole
        data = self._bytes(begin, size + 1)
        if begin > self.start:
            data = data[data.find(b"\n") + 1 :]
        lines = data.decode(errors="replace").removesuffix("\n").split("\n")
        return lines[-count:] if data else []

    def _bytes(self, begin: int, size: int) -> bytes:
        middle = self.end - self._size
        data = b""
        for path, first, last in ((self._old_path, self.start, middle), (self._path, middle, self.end)):
            at = begin + len(data)
            if first <= at < last and len(data) < size:
                with suppress(OSError), path.open("rb") as file:
                    file.seek(at - first)
                    data += file.read(min(last - at, size - len(data)))
        return data

    def remove(self) -> None:
        """All of it is lost."""
        self._old_size = self._size = 0
        for path in (self._path, self._old_path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


class _Source:
    """A living worker."""

    pipe: Pipe

    def __init__(self, row: int, lines: Lines | None) -> None:
        """`lines`: for the tail."""
        self.row = row
        self.is_mid_line = False
        self.lines = lines


class Logs:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Path,
        cap: int,
        *,
        calls_of: Callable[[int], int],
        reply: Callable[[Ticket, object], None],
        tail: Tail | None,
    ) -> None:
        """`calls_of` gives the calls begun on a row of the board; `tail` is given each line as it was printed."""
        self._loop = loop
        self._directory = directory
        self._cap = cap
        self._calls_of = calls_of
        self._reply = reply
        self._tail = tail
        self._sources: dict[str, _Source] = {}
        self._files: dict[str, LogFile] = {}
        self._followers: dict[str, list[tuple[Ticket, int]]] = {}
        """By worker: who waits for more, and from where."""
        self._finished: dict[str, LogFile] = {}
        self._finished_size = 0
        """Bytes of those whose worker is dead, oldest first, as far as they are on disk."""
        shutil.rmtree(directory, ignore_errors=True)  # of a daemon that was killed

    def __repr__(self) -> str:
        return f"<Logs {len(self._sources)} open, {len(self._files)} kept>"

    def open(self, worker: str, row: int) -> int:
        """A descriptor for the worker to print to; the caller's to close. Raises OSError if there can be none."""
        source = _Source(row, None if self._tail is None else Lines(partial(self._tail, worker)))
        readable, writable = os.pipe2(os.O_CLOEXEC)
        source.pipe = Pipe(self._loop, readable, partial(self._keep, worker, source), partial(self._ended, worker))
        self._sources[worker] = source
        return writable

    def finish(self, worker: str) -> None:
        """The worker is dead: takes what it has left."""
        if (source := self._sources.get(worker)) is not None:
            source.pipe.drain()
        if (file := self._files.get(worker)) is not None and worker not in self._finished:
            self._finished[worker] = file
            self._finished_size += file.size
            while self._finished_size > FINISHED_LOGS_LIMIT:
                self._lose(next(iter(self._finished)))

    def forget(self, worker: str) -> None:
        if worker in self._files:
            self._lose(worker)
            del self._files[worker]

    def _lose(self, worker: str) -> None:
        file = self._files[worker]
        if self._finished.pop(worker, None) is not None:
            self._finished_size -= file.size
        file.remove()

    def catch_up(self, worker: str) -> None:
        """Takes what it has printed by now, as much as a pipe holds: whoever asks after a call was answered is told of
        what that has printed.
        """
        source = self._sources.get(worker)
        if source is not None:
            source.pipe.read()

    def answer(self, ticket: Ticket, worker: str, offset: int, *, wait: bool) -> None:
        """Replies with what there is from `offset` on; with `wait`, once there is some or no more can come."""
        self.catch_up(worker)
        self._answer(ticket, worker, offset, wait=wait)

    def drop_followers(self, connection: int) -> None:
        """Nobody waits behind the tickets of this connection any more."""
        for worker, waiting in list(self._followers.items()):
            self._followers[worker] = [one for one in waiting if one[0][0] != connection]
            if not self._followers[worker]:
                del self._followers[worker]

    def read(self, worker: str, offset: int) -> Piece:
        file = self._files.get(worker)
        return Piece("", offset, 0) if file is None else file.read(offset, PIECE_SIZE)

    def last_lines(self, worker: str, count: int) -> list[str]:
        file = self._files.get(worker)
        return [] if file is None else file.last_lines(count, PIECE_SIZE)

    def is_open(self, worker: str) -> bool:
        """Whether there may be more."""
        return worker in self._sources

    def close(self) -> None:
        for source in list(self._sources.values()):
            source.pipe.close()

    def _keep(self, worker: str, source: _Source, data: bytes) -> None:
        calls = self._calls_of(source.row)
        now = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
        mark = f"{now} #{calls} ".encode() if calls else f"{now} - ".encode()
        marked = data.replace(b"\n", b"\n" + mark)
        if data.endswith(b"\n"):
            marked = marked[: -len(mark)]
        if not source.is_mid_line:
            marked = mark + marked
        source.is_mid_line = not data.endswith(b"\n")
        file = self._files.get(worker)
        if file is None:
            with suppress(OSError):
                self._directory.mkdir(mode=0o700, exist_ok=True)
            file = self._files[worker] = LogFile(self._directory / f"{worker}.log", self._cap)
        file.append(marked)
        if source.lines is not None:
            source.lines.add(data)
        self._grown(worker)

    def _ended(self, worker: str) -> None:
        lines = self._sources.pop(worker).lines
        if lines is not None:
            lines.end()
        self._grown(worker)

    def _grown(self, worker: str) -> None:
        """There is more of this log, or the end of it."""
        for ticket, offset in self._followers.pop(worker, ()):
            self._answer(ticket, worker, offset, wait=False)

    def _answer(self, ticket: Ticket, worker: str, offset: int, *, wait: bool) -> None:
        piece, is_open = self.read(worker, offset), self.is_open(worker)
        if wait and is_open and not piece.text:
            self._followers.setdefault(worker, []).append((ticket, offset))
        else:
            self._reply(ticket, {**piece._asdict(), "end": not piece.text and not is_open})
