"""Messages that are too large for the stream, at a worker: from clients that can pass memory, and that say they can and
pass something else."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import psutil
import pytest
from support import APPS, MEMORY_LIMIT, PATIENCE, Daemon, framed, to_worker

from warmpool import Client, InvalidInputError
from warmpool.descriptors import carrying
from warmpool.memfd import enclose
from warmpool.wire.frames import ENCLOSED, PADDING, announcement

VALUES = str(APPS / "values.py")
LENGTH = str(APPS / "answers_at_length.py")
MIB = 1024 * 1024

plain_and_async = pytest.mark.parametrize("app", [VALUES, LENGTH], ids=["plain", "async"])


class Sharing:
    """A client that can pass memory, and says what it likes."""

    def __init__(self, daemon: Daemon, session: str) -> None:
        opened, raw = to_worker(daemon.socket, None, session, takes_memory=True)
        self.socket = raw.socket
        assert opened[8] == MEMORY_LIMIT

    def announce(self, size: int, *fds: int) -> None:
        self.socket.sendall(announcement(size)[:-1])
        self.socket.sendmsg([b"\0"], [carrying(*fds)] if fds else [])

    def announce_memory(self, size: int, content: bytes) -> None:
        memory = enclose([content], len(content))
        self.announce(size, memory.fileno())

    def pass_on(self, *message: Any) -> None:
        body = msgpack.packb(message)
        self.announce_memory(len(body), body)

    def take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def hear(self) -> Any:
        """The next message, of either kind."""
        (size,) = struct.unpack("!I", self.take(4))
        if not size & ENCLOSED:
            return msgpack.unpackb(self.take(size))
        self.take(PADDING - 1)
        _, fds, _, _ = socket.recv_fds(self.socket, 1, 1)
        try:
            assert os.fstat(fds[0]).st_size == size ^ ENCLOSED
            return msgpack.unpackb(os.pread(fds[0], size ^ ENCLOSED, 0))
        finally:
            os.close(fds[0])


@pytest.fixture
def share(shared_daemon: Daemon, client: Client) -> Iterator[Callable[[str], Sharing]]:
    made: list[Sharing] = []

    def share(session: str) -> Sharing:
        made.append(Sharing(shared_daemon, session))
        return made[-1]

    yield share
    for each in made:
        each.socket.close()


@plain_and_async
def test_it_takes_memory_and_gives_memory(client: Client, share: Callable[[str], Sharing], app: str):
    with client.session(app) as session:
        sharing = share(session.id)
        for size in (MIB, 5, 3 * MIB, MEMORY_LIMIT - 100, 17):
            sharing.socket.sendall(framed(["Call", 1, "large", {"size": size}]))
            assert sharing.hear() == ["Result", 1, b"x" * size]
        assert not memory_of(session.info().pid)


def test_what_was_refused_or_not_taken_is_let_go_of_at_once(client: Client, share: Callable[[str], Sharing]):
    """Not by the collector, which an app may have switched off."""
    with client.session(VALUES) as session:
        before = session.call("kept")
        for _ in range(3):
            with pytest.raises(InvalidInputError):
                session.call("count", number=b"x" * MIB)
        for _ in range(3):
            leaver = share(session.id)
            leaver.pass_on("Call", 1, "echo", {"value": b"x" * 2 * MIB})
            leaver.pass_on("Call", 2, "echo", {"value": b"x" * 2 * MIB})
            leaver.socket.close()
        while psutil.Process(session.info().pid).num_fds() >= before[1]:  # which had one more, to look with
            session.call("kept")
        assert session.call("kept") == before


def test_a_small_message_may_come_in_memory_too(client: Client, share: Callable[[str], Sharing]):
    with client.session(VALUES) as session:
        sharing = share(session.id)
        for value in (1, b"x" * 2 * MIB, None):
            sharing.pass_on("Call", 1, "echo", {"value": value})
            assert sharing.hear() == ["Result", 1, value]


def memory_of(pid: int) -> list[str]:
    """Descriptors and maps of passed memory that a worker holds."""
    process = psutil.Process(pid)
    files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return [name for name in [*files, *(m.path for m in process.memory_maps())] if "warmpool-message" in name]


def wait_until_it_holds_none(pid: int) -> None:
    """Whoever is answered may know it before the worker has let go of what it sent."""
    deadline = time.monotonic() + PATIENCE
    while held := memory_of(pid):
        assert time.monotonic() < deadline, held


@plain_and_async
def test_a_worker_that_waits_holds_none_of_it(client: Client, share: Callable[[str], Sharing], app: str):
    with client.session(app) as session:
        assert session.call("length", data=bytes(5 * MIB)) == 5 * MIB
        assert session.call("large", size=5 * MIB) == b"x" * 5 * MIB
        wait_until_it_holds_none(session.info().pid)
        sharing = share(session.id)
        sharing.pass_on("Call", 1, "length", {"data": bytes(MIB)})
        assert sharing.hear() == ["Result", 1, MIB]
        wait_until_it_holds_none(session.info().pid)


# --- who says one thing and does another --------------------------------------------------------------------------


def refused(sharing: Sharing) -> str:
    """The code of the last word, after which the connection is closed."""
    name, number, error = sharing.hear()
    assert (name, number) == ("Failure", 0)
    with pytest.raises((EOFError, ConnectionResetError)):
        sharing.take(1)
    return str(error["code"])


@plain_and_async
@pytest.mark.parametrize(
    "kind", ["without", "a pipe", "writable", "short", "garbage", "not a call", "too large", "empty"]
)
def test_what_is_no_message_in_memory_ends_the_connection_and_nothing_else(
    client: Client, share: Callable[[str], Sharing], app: str, kind: str
):
    with client.session(app) as session:
        sharing = share(session.id)
        writable = os.memfd_create("test")
        os.write(writable, msgpack.packb(["Call", 1, "fine", {}]))
        readable, pipe = os.pipe()
        try:
            match kind:
                case "without":
                    sharing.announce(2 * MIB)
                case "a pipe":
                    sharing.announce(2 * MIB, readable)
                case "writable":
                    sharing.announce(os.fstat(writable).st_size, writable)
                case "short":
                    sharing.announce_memory(2 * MIB, b"x")
                case "garbage":
                    sharing.announce_memory(2 * MIB, bytes(2 * MIB))
                case "not a call":
                    sharing.pass_on("Result", 1, bytes(2 * MIB))
                case "too large":
                    sharing.announce(MEMORY_LIMIT + 1)
                case "empty":
                    sharing.announce_memory(0, b"")
        except BrokenPipeError:
            assert kind in ("too large", "empty"), "it is refused before all of it is there"
        finally:
            os.close(writable)
            os.close(readable)
            os.close(pipe)
        assert refused(sharing) == ("PAYLOAD_TOO_LARGE" if kind == "too large" else "PROTOCOL_ERROR")
        assert session.call("large", size=3) == b"xxx"
        assert memory_of(session.info().pid) == []


@plain_and_async
@pytest.mark.parametrize("cut", [3, 4, 5000, PADDING, PADDING + 3])
def test_who_leaves_within_an_announcement_holds_nobody_up(
    client: Client, share: Callable[[str], Sharing], app: str, cut: int
):
    with client.session(app) as session:
        sharing = share(session.id)
        sharing.socket.sendall(announcement(2 * MIB)[:cut])
        assert session.call("large", size=1) == b"x"
        sharing.socket.close()
        assert session.call("large", size=2) == b"xx"


def test_who_did_not_say_that_it_takes_memory_is_sent_none(
    client: Client, shared_daemon: Daemon, share: Callable[[str], Sharing]
):
    """Up to the limit of the stream; above it there is no way to it."""
    with client.session(VALUES) as session:
        opened, other = to_worker(shared_daemon.socket, None, session.id)
        assert opened[8] == 0
        other.say("Call", 1, "large", {"size": 3 * MIB})
        assert other.hear() == ["Result", 1, b"x" * 3 * MIB]
        for send in (
            lambda: other.say("Call", 2, "large", {"size": 17 * MIB}),
            lambda: other.send(announcement(9)[:9]),
        ):
            send()
            answer = other.hear()
            assert answer is not None
            assert answer[2]["code"] == "PAYLOAD_TOO_LARGE"
        other.close()


def test_a_worker_does_not_give_more_than_is_taken(client: Client, share: Callable[[str], Sharing]):
    """What is under way in memory is nobody's: it must not grow without bound."""
    with client.session(LENGTH) as session:
        sharing = share(session.id)
        for number in range(40):
            sharing.socket.sendall(framed(["Call", number, "large", {"size": 4 * MIB}]))
        assert session.call("large", size=1) == b"x"
        assert len(memory_of(session.info().pid)) <= 1
        for number in range(40):
            assert sharing.hear() == ["Result", number, b"x" * 4 * MIB]
