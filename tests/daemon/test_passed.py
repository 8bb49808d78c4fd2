"""Connections that a client passes to the daemon instead of connecting once more."""

from __future__ import annotations

import os
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
from support import APPS, PATIENCE, Daemon

from warmpool import AppNotFoundError, Client
from warmpool.wire.messages import PROTOCOL_VERSION

COUNTER = str(APPS / "counter.py")
LIMITED = str(APPS / "limited.py")
ENDS_SLOWLY = str(APPS / "ends_slowly.py")


def framed(*message: Any) -> bytes:
    body = msgpack.packb(message)
    return struct.pack("!I", len(body)) + body


def open_of(app: str, open_timeout: float | None = None) -> bytes:
    return framed("Open", PROTOCOL_VERSION, app, "new", "/", None, open_timeout)


def hear(connection: socket.socket) -> list[Any] | None:
    """The next message; None when the other end hangs up."""
    with connection.makefile("rb", buffering=0) as file:
        header = file.read(4)
        return msgpack.unpackb(file.read(*struct.unpack("!I", header))) if header else None


class Passer:
    """A control connection, byte by byte and descriptor by descriptor."""

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        self.socket = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self.socket.sendall(framed("Control", PROTOCOL_VERSION))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE)
        return self._stack.enter_context(ours), self._stack.enter_context(theirs)

    def pass_one(self, data: bytes) -> socket.socket:
        """Our end of a connection whose other end goes with `data`, and is the daemon's alone."""
        ours, theirs = self.pair()
        socket.send_fds(self.socket, [data], [theirs.fileno()])
        theirs.close()
        return ours

    def is_refused(self) -> bool:
        answer = hear(self.socket)
        return answer is not None and answer[2]["code"] == "PROTOCOL_ERROR" and hear(self.socket) is None

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def passer(shared_daemon: Daemon, client: Client) -> Iterator[Passer]:
    """At the end the daemon has as many descriptors and sessions as before."""
    for app in (COUNTER, ENDS_SLOWLY, LIMITED):
        client.apps.describe(app)
    before = at_rest(client, shared_daemon)
    passer = Passer(shared_daemon.socket)
    yield passer
    passer.close()
    for info in client.sessions.list():
        client.sessions.end(info.id)
    deadline = time.monotonic() + 5
    while (after := at_rest(client, shared_daemon))[:-1] != before[:-1] or after[-1] > before[-1]:
        assert time.monotonic() < deadline, f"{after}, before it was {before}"


def at_rest(client: Client, daemon: Daemon) -> tuple[Any, ...]:
    deadline = time.monotonic() + 5
    while (states := client.status().workers_by_state) != {"warm": 2} and time.monotonic() < deadline:
        os.sched_yield()  # of the apps above one has none
    return states, client.status().sessions, psutil.Process(daemon.pid).num_fds()


def call(connection: socket.socket) -> list[Any] | None:
    connection.sendall(framed("Call", 1, "add", {}))
    return hear(connection)


def test_it_is_answered_on_and_goes_to_the_worker(passer: Passer, client: Client):
    ours = passer.pass_one(open_of(COUNTER))
    opened = hear(ours)
    assert opened is not None
    assert opened[0] == "Opened"
    assert call(ours) == ["Result", 1, {"total": 1}]
    assert client.sessions.get(opened[1]).call_count == 1


def test_the_control_connection_stays_what_it_is(passer: Passer):
    ours = passer.pass_one(open_of(COUNTER))
    passer.socket.sendall(framed("Request", 7, "daemon.status", {}))
    answer = hear(passer.socket)
    assert answer is not None
    assert answer[:2] == ["Reply", 7]
    assert hear(ours)[0] == "Opened"  # type: ignore[index]


def test_one_that_comes_with_the_hello(shared_daemon: Daemon, passer: Passer):
    ours, theirs = passer.pair()
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(shared_daemon.socket))
        hello = framed("Control", PROTOCOL_VERSION) + open_of(COUNTER)
        socket.send_fds(control, [hello], [theirs.fileno()])
        theirs.close()
        assert hear(ours)[0] == "Opened"  # type: ignore[index]


def test_several_at_once_are_told_apart(passer: Passer, client: Client):
    apps = [COUNTER, "nowhere", COUNTER, "nowhere"]
    answers = [hear(ours) for ours in [passer.pass_one(open_of(app)) for app in apps]]
    assert [answer[0] for answer in answers if answer] == ["Opened", "Failure", "Opened", "Failure"]
    assert client.status().sessions == 2


@pytest.mark.parametrize("cut", [1, 4, 20, -1])
def test_an_open_that_comes_in_two_parts(passer: Passer, client: Client, cut: int):
    data = open_of(COUNTER)
    ours = passer.pass_one(data[:cut])
    client.status()
    passer.socket.sendall(data[cut:])
    assert hear(ours)[0] == "Opened"  # type: ignore[index]


def test_who_closes_the_control_connection_keeps_the_session(passer: Passer):
    ours = passer.pass_one(open_of(COUNTER))
    passer.socket.close()
    assert hear(ours)[0] == "Opened"  # type: ignore[index]
    assert call(ours) == ["Result", 1, {"total": 1}]


def test_a_refusal_ends_it_and_nothing_else(passer: Passer):
    ours = passer.pass_one(open_of("nowhere"))
    refusal = hear(ours)
    assert refusal is not None
    assert (refusal[:2], refusal[2]["code"]) == (["Failure", 0], "APP_NOT_FOUND")
    assert hear(ours) is None
    assert hear(passer.pass_one(open_of(COUNTER)))[0] == "Opened"  # type: ignore[index]


# --- what is out of place -----------------------------------------------------------------------------------------


def test_an_open_without_a_connection(passer: Passer):
    passer.socket.sendall(open_of(COUNTER))
    assert passer.is_refused()


def test_a_connection_without_an_open(passer: Passer):
    ours = passer.pass_one(framed("Request", 1, "daemon.status", {}))
    assert hear(passer.socket)[0] == "Reply"  # type: ignore[index]
    assert passer.is_refused()
    assert hear(ours) is None


def test_more_connections_than_opens(passer: Passer):
    ends = [passer.pair() for _ in range(3)]
    socket.send_fds(passer.socket, [open_of(COUNTER)], [theirs.fileno() for _, theirs in ends])
    for _, theirs in ends:
        theirs.close()
    assert passer.is_refused()
    assert hear(ends[1][0]) is None
    assert hear(ends[2][0]) is None


def test_what_is_no_connection_at_all(passer: Passer, tmp_path: Path):
    with open(tmp_path / "file", "wb") as file:
        socket.send_fds(passer.socket, [open_of(COUNTER)], [file.fileno()])
    assert passer.is_refused()


@pytest.mark.parametrize("says", [b"x", framed("Call", 1, "add", {})], ids=["a byte", "a call"])
def test_what_is_said_before_the_answer_is_out_of_place(passer: Passer, client: Client, says: bytes):
    """Only while it waits in line can the daemon see it."""
    with client.session(LIMITED):
        ours = passer.pass_one(open_of(LIMITED))
        client.status()
        ours.sendall(says)
        refusal = hear(ours)
        assert refusal is not None
        assert refusal[2]["code"] == "PROTOCOL_ERROR"
        assert hear(ours) is None


def test_who_leaves_the_line_leaves_nothing(passer: Passer, client: Client):
    with client.session(LIMITED):
        passer.pass_one(open_of(LIMITED, open_timeout=PATIENCE)).close()
        client.status()
    with client.session(LIMITED, open_timeout=PATIENCE):
        assert client.status().sessions == 1


# --- the client that does it --------------------------------------------------------------------------------------


def test_opens_do_not_wait_for_another_threads_request(client: Client, passer: Passer):
    """To end a session takes as long as its hooks do."""
    with Client(client.places.socket, autostart=False) as shared:
        slow = shared.session(ENDS_SLOWLY)
        ending = threading.Thread(target=slow.end)
        ending.start()
        try:
            while client.sessions.list():
                pass
            started = time.monotonic()
            assert shared.session(COUNTER).call("add") == {"total": 1}
            took = time.monotonic() - started
            assert ending.is_alive(), f"the open took {took:.1f} s"
        finally:
            ending.join()


def test_a_client_goes_on_with_the_daemon_that_comes_after(start_daemon: Callable[..., Daemon], daemon: Daemon):
    with Client(daemon.socket, autostart=False) as client:
        client.session(COUNTER)
        daemon.stop()
        successor = start_daemon()
        assert successor.socket == daemon.socket
        assert client.session(COUNTER).call("add") == {"total": 1}
        with pytest.raises(AppNotFoundError):
            client.session("nowhere")


def test_without_a_descriptor_for_it_a_client_knocks_at_the_door(daemon: Daemon):
    """There it waits until one is free, like anybody."""
    held = daemon.client.session(COUNTER)
    deadline = time.monotonic() + 5
    while daemon.client.status().workers_by_state != {"leased": 1, "warm": 1}:
        assert time.monotonic() < deadline
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir(f"/proc/{daemon.pid}/fd")) + 1
    gaps = used - len(os.listdir(f"/proc/{daemon.pid}/fd"))
    crowd = []
    for _ in range(gaps):
        crowd.append(socket.socket(socket.AF_UNIX))
        crowd[-1].connect(str(daemon.socket))
    daemon.client.status()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used, hard))
    found: list[Any] = []
    opener = threading.Thread(target=lambda: found.append(daemon.client.session(COUNTER).call("add")))
    opener.start()
    try:
        select.select([], [], [], 0.2)
        assert found == []
        assert held.call("add") == {"total": 1}
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
        for one in crowd:
            one.close()
        opener.join(PATIENCE)
    assert found == [{"total": 1}]
