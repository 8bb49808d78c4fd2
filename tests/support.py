"""What tests of real processes share: where things are, daemons, and a look at what is left behind."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import msgpack
import psutil

from warmpool import Client, Session
from warmpool.wire.messages import PROTOCOL_VERSION, Control, Open

ROOT = Path(__file__).parent.parent
APPS = Path(__file__).parent / "apps"
EXAMPLES = ROOT / "examples" / "apps"
MARK = "WARMPOOL_TEST_MARK"
MEMORY_LIMIT = 32 * 1024 * 1024
"""Of a message, to the daemon that tests share."""
PATIENCE = 20.0
"""Seconds after which a wait for something that must happen is a failure."""


class Daemon:
    """A real daemon in the background, with a client of its own."""

    def __init__(self, directory: Path, *options: str, mark: str) -> None:
        self.socket = directory / "d.sock"
        self.log = directory / "d.sock.log"
        self.mark = mark
        environment = {**os.environ, MARK: mark}
        environment.pop("WARMPOOL_SOCKET", None)
        command = [sys.executable, "-P", "-m", "warmpool", "serve", "--detach", "--socket", str(self.socket)]
        subprocess.run([*command, *options], check=True, env=environment, timeout=PATIENCE)
        self.client = Client(self.socket, autostart=False)
        self.pid = self.client.status().pid

    def stop(self) -> None:
        """And waits until all of it is gone."""
        self.client.close()
        with Client(self.socket, autostart=False) as client:
            assert wait_for_exit(client.stop())

    def text_of_log(self) -> str:
        return self.log.read_text()


class Raw:
    """One end of a connection to a daemon or a worker, on which a test says what it likes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self.passed: list[int] = []
        """Descriptors that have come, and have not been taken."""
        self._held = b""

    @classmethod
    def to(cls, path: Path, *, greet: bool = True, **hello: bool) -> Self:
        """To a daemon; `greet`: with the hello, which says what more is in `hello`."""
        raw = cls(socket.socket(socket.AF_UNIX))
        raw.socket.connect(str(path))
        if greet:
            raw.say("Control", *Control(PROTOCOL_VERSION, **hello))
        return raw

    def say(self, *message: Any) -> None:
        self.send(framed(message))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> list[Any] | None:
        """The next message; None when the other end hangs up."""
        try:
            header = self._read(4)
            if not header:
                return None
            (size,) = struct.unpack("!I", header)
            body = self._read(size)
        except ConnectionResetError:
            return None
        assert len(body) == size, f"the connection was closed after {len(body)} of {size} bytes"
        return msgpack.unpackb(body, strict_map_key=False)

    def _read(self, size: int) -> bytes:
        while len(self._held) < size:
            data, fds, _, _ = socket.recv_fds(self.socket, 65536, 1)
            self.passed += fds
            if not data:
                break
            self._held += data
        data, self._held = self._held[:size], self._held[size:]
        return data

    def has_heard(self, within: float = 0) -> bool:
        return bool(self._held or select.select([self.socket], [], [], within)[0])

    def take(self) -> Raw:
        """The connection that has come first."""
        return Raw(socket.socket(fileno=self.passed.pop(0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        for fd in self.passed:
            os.close(fd)
        self.passed.clear()


def to_worker(path: Path, app: str | None, session: str | None = "new", **hello: bool) -> tuple[list[Any], Raw]:
    """What the daemon says to an Open, and the connection that comes with it."""
    with Raw.to(path, **hello) as control:
        control.say("Open", *Open(1, app, session, "/"))
        answer = control.hear()
        assert answer is not None
        assert answer[:2] == ["Opened", 1], answer
        return answer, control.take()


class Fed:
    """A `recv_into` that has these bytes to give."""

    def __init__(self, data: bytes) -> None:
        self.rest = memoryview(data)
        self.space = 0
        """How large that was when it was asked last."""

    def __call__(self, space: memoryview) -> int:
        self.space = len(space)
        count = min(len(space), len(self.rest))
        space[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        return count


def framed(message: Any) -> bytes:
    return in_frame(msgpack.packb(message))


def in_frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def look_again() -> None:
    """Between two looks at what nobody tells. Not by a yield: two who only yield, one a core, can keep a process that has
    just begun from running at all.
    """
    select.select([], [], [], 0.002)


def is_asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def seconds_of_cpu(pid: int) -> float:
    user, system, *_ = psutil.Process(pid).cpu_times()
    return user + system


def children_of(daemon: Daemon) -> list[psutil.Process]:
    """Of a daemon that has used one app: its zygote, the template, and workers, oldest first."""
    return sorted(psutil.Process(daemon.pid).children(), key=lambda child: child.create_time())


def zygote_of(daemon: Daemon) -> psutil.Process:
    return children_of(daemon)[0]


def template_of(daemon: Daemon) -> psutil.Process:
    return children_of(daemon)[1]


def wait_for_workers(client: Client, **wanted: int) -> None:
    """Until there are so many in these states, and none in others."""
    deadline = time.monotonic() + PATIENCE
    while (found := client.status().workers_by_state) != wanted:
        assert time.monotonic() < deadline, f"{found}, not {wanted}"
        look_again()


def wait_until_busy(session: Session) -> None:
    """Until a call of it runs."""
    deadline = time.monotonic() + PATIENCE
    while not session.info().busy:
        assert time.monotonic() < deadline
        look_again()


def wait_until_said(client: Client, session_id: str, text: str) -> None:
    """Waits until an app has printed this. That its session is busy does not say that its function has begun."""
    lines = client.sessions.logs(session_id, follow=True)
    with closing(lines):
        for line in lines:
            if line.endswith(text):
                return
    raise AssertionError(f"{session_id} is over, and never said {text!r}")


def processes_marked(mark: str) -> list[psutil.Process]:
    """Everything that descends from a daemon of this test, wherever it hides."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def all_are_gone(mark: str, timeout: float) -> bool:
    """Waits until nothing descends from a daemon that was killed. Looks once more when it has found nothing: who was
    being forked meanwhile is in no list yet, and his parent may be dead.
    """
    deadline, empty = time.monotonic() + timeout, 0
    while empty < 2:
        left = processes_marked(mark)
        empty = 0 if left else empty + 1
        if not all(wait_for_exit(process.pid, max(0.0, deadline - time.monotonic())) for process in left):
            return False
    return True


def wait_for_exit(pid: int, timeout: float = PATIENCE) -> bool:
    """Waits until the process is dead; False if it still lives after `timeout` seconds."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = select.select([pidfd], [], [], timeout)
        return bool(readable)
    finally:
        os.close(pidfd)


def end_when_done(client: Client, session_id: str, *, calls: int) -> None:
    """Ends a session as soon as it has done so many calls, and waits until its worker has gone."""
    while (info := client.sessions.get(session_id)).busy or info.call_count < calls:
        look_again()
    client.sessions.end(session_id)
    assert wait_for_exit(info.pid)


def open_files() -> set[str]:
    """What this process has open: number and target of each descriptor."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} -> {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue  # the one that listed
    return found


def open_fds() -> int:
    """How many those are."""
    return len(open_files())


def when(text: str) -> float:
    """The Unix time that a session tells."""
    return datetime.fromisoformat(text).timestamp()
