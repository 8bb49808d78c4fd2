"""The daemon's end of clients' connections: who may connect, and what happens when the system has no room for one."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from support import PATIENCE, Daemon

from warmpool.constants import HELLO_TIMEOUT
from warmpool.daemon import clients
from warmpool.wire.messages import PROTOCOL_VERSION

NOBODY = 65534
is_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


class Loop:
    """Takes note of what is asked of it, and does nothing."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[..., Any]] = {}
        self.later: list[tuple[float, Callable[[], Any]]] = []

    def add_reader(self, fd: int, callback: Callable[..., Any], *arguments: Any) -> None:
        self.readers[fd] = lambda: callback(*arguments)

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def remove_writer(self, fd: int) -> bool:
        return False

    def call_later(self, delay: float, callback: Callable[..., Any], *arguments: Any) -> None:
        self.later.append((delay, lambda: callback(*arguments)))


class Listener:
    """Gives connections, or errors, in turn."""

    def __init__(self) -> None:
        self.waiting: list[socket.socket | OSError] = []
        self.closed = False

    def fileno(self) -> int:
        return -1 if self.closed else 1000

    def accept(self) -> tuple[socket.socket, str]:
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        one = self.waiting.pop(0)
        if isinstance(one, OSError):
            raise one
        return one, ""

    def close(self) -> None:
        self.closed = True


class Reception:
    """Clients on a listener of our own, and what they report."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.listener = Listener()
        self.reported: list[tuple[str, Any]] = []

        def reporter(what: str) -> Callable[..., None]:
            return lambda *facts: self.reported.append((what, facts))

        self.clients = clients.Clients(
            self.loop,  # type: ignore[arg-type]
            self.listener,  # type: ignore[arg-type]
            **{what: reporter(what) for what in ("received", "refused", "closed")},
        )
        self.ours: list[socket.socket] = []

    def connect(self, says: bytes = b"") -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.sendall(says)
        self.ours.append(ours)
        self.listener.waiting.append(theirs)
        return ours

    def knock(self) -> None:
        """The listener is readable."""
        self.loop.readers[self.listener.fileno()]()

    @property
    def is_listening(self) -> bool:
        return self.listener.fileno() in self.loop.readers


@pytest.fixture
def reception() -> Iterator[Reception]:
    reception = Reception()
    yield reception
    reception.clients.close()
    for ours in reception.ours:
        ours.close()


_HELLO = msgpack.packb(["Control", PROTOCOL_VERSION])
CONTROL = len(_HELLO).to_bytes(4, "big") + _HELLO


@pytest.mark.parametrize("uid", [0, os.getuid()])
def test_the_user_and_root_are_welcome(reception: Reception, monkeypatch: pytest.MonkeyPatch, uid: int):
    monkeypatch.setattr(clients, "peer_of", lambda _: (1, uid))
    reception.connect(CONTROL)
    reception.knock()
    assert [client.hello is not None for client in reception.clients.by_number.values()] == [True]
    assert (reception.reported, reception.loop.later) == ([], [])


@pytest.mark.parametrize("uid", [os.getuid() + 1, NOBODY])
def test_another_user_is_shown_out_unheard(reception: Reception, monkeypatch: pytest.MonkeyPatch, uid: int):
    monkeypatch.setattr(clients, "peer_of", lambda _: (1, uid))
    stranger = reception.connect(CONTROL)
    monkeypatch.setattr(os, "getuid", lambda: 1 if uid != 1 else 2)
    reception.knock()
    assert reception.reported == []
    assert reception.clients.by_number == {}
    stranger.settimeout(1)
    with pytest.raises(ConnectionResetError):  # closed with its hello unread
        stranger.recv(1)
    assert reception.is_listening


@is_root
@pytest.mark.parametrize("open_to_all", [False, True], ids=["as it is", "open to all"])
def test_a_process_of_another_user_gets_no_answer(daemon: Daemon, open_to_all: bool):
    """The directory and the socket keep it out; if somebody has opened these, the daemon does."""
    if open_to_all:
        daemon.socket.parent.chmod(0o755)
        daemon.socket.chmod(0o777)
    child = os.fork()
    if child == 0:
        os._exit(try_as_nobody(daemon))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if open_to_all else errno.EACCES)
    assert daemon.client.status().sessions == 0


def try_as_nobody(daemon: Daemon) -> int:
    """0: the daemon hangs up without a word. An errno: it cannot be reached. 255: it answers."""
    signal.alarm(10)
    try:
        os.chdir(daemon.socket.parent)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(daemon.socket.name)
            try:
                connection.sendall(CONTROL)
                return 255 if connection.recv(1) else 0
            except (BrokenPipeError, ConnectionResetError):
                return 0
    except OSError as error:
        return error.errno or 254


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=os.strerror)
def test_without_room_for_a_connection_the_listener_is_left_alone_for_a_while(reception: Reception, number: int):
    reception.connect(CONTROL)
    reception.listener.waiting.append(OSError(number, os.strerror(number)))
    reception.connect(CONTROL)
    reception.knock()
    assert len(reception.clients.by_number) == 1
    assert not reception.is_listening, "a listener that cannot accept would take all of the CPU"
    ((delay, resume),) = reception.loop.later
    assert 0.1 <= delay <= 2
    resume()
    assert reception.is_listening
    reception.knock()
    assert len(reception.clients.by_number) == 2


@pytest.mark.parametrize("says", [b"", CONTROL[:1], CONTROL[:-1]], ids=["nothing", "a byte", "nearly all"])
def test_one_who_has_not_said_hello_in_time_is_refused(reception: Reception, says: bytes):
    reception.connect(says)
    reception.knock()
    assert reception.reported == []
    ((delay, is_overdue),) = reception.loop.later
    assert delay == HELLO_TIMEOUT
    is_overdue()
    ((what, (_, error)),) = reception.reported
    assert what == "refused"
    assert "no hello came within 2 s" in str(error)


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "not read yet"])
def test_a_hello_that_was_there_in_time_counts_also_if_the_loop_is_late(reception: Reception, is_read: bool):
    ours = reception.connect(CONTROL[:3])
    reception.knock()
    (client,) = reception.clients.by_number.values()
    ours.sendall(CONTROL[3:])
    if is_read:
        reception.loop.readers[client.socket.fileno()]()
    ((_, is_overdue),) = reception.loop.later
    is_overdue()
    assert client.hello is not None
    assert reception.reported == []


def test_one_who_has_left_without_a_hello_is_not_refused(reception: Reception):
    reception.connect().close()
    reception.knock()
    assert [what for what, _ in reception.reported] == ["closed"]
    assert reception.loop.later == []


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO], ids=os.strerror)
def test_a_connection_that_is_gone_before_it_is_accepted_changes_nothing(reception: Reception, number: int):
    reception.listener.waiting.append(OSError(number, os.strerror(number)))
    reception.knock()
    assert reception.is_listening
    assert reception.loop.later == []
    reception.connect(CONTROL)
    reception.knock()
    assert len(reception.clients.by_number) == 1


def test_a_listener_that_was_closed_meanwhile_is_not_listened_to_again(reception: Reception):
    reception.listener.waiting.append(OSError(errno.EMFILE, "too many"))
    reception.knock()
    ((_, resume),) = reception.loop.later
    reception.clients.close()
    resume()
    assert reception.loop.readers == {}


def test_when_it_closes_every_client_is_let_go(reception: Reception):
    reception.connect()
    reception.connect(CONTROL)
    reception.connect(CONTROL[:5])
    reception.knock()
    assert len(reception.clients.by_number) == 3
    reception.clients.close()
    assert reception.clients.by_number == {}
    assert reception.loop.readers == {}
    for ours in reception.ours:
        ours.settimeout(PATIENCE)
        assert ours.recv(1) == b""
