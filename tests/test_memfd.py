"""Memory that is passed, and what a socket has yet to take: over real sockets and the kernel's own seals."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support import open_files

from warmpool.descriptors import carrying
from warmpool.errors import PayloadTooLargeError, ProtocolError
from warmpool.memfd import enclose, receive_memory
from warmpool.outbox import Outbox
from warmpool.wire.frames import FrameReader, announcement, decode
from warmpool.wire.large import Enclosed, Frame, Memory, MessageWriter

MIB = 1024 * 1024
LIMIT = 64 * MIB


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    files = open_files()
    yield
    assert open_files() == files


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def content(memory: Memory) -> bytes:
    return os.pread(memory.fileno(), 2**31, 0)


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"x"], [b"a", b"", bytes(MIB), b"d"], [bytes([n % 256]) for n in range(2500)]]
)
def test_memory_holds_the_pieces_one_after_another(pieces: list[bytes]):
    assert content(enclose(pieces, sum(map(len, pieces)))) == b"".join(pieces)


def test_a_write_that_takes_less_is_gone_on_with(monkeypatch: pytest.MonkeyPatch):
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, views: writev(fd, [view[:7] for view in views[:1]]))
    assert content(enclose([b"0123456789" * 3, b"ab", b"x" * 14], 46)) == b"0123456789" * 3 + b"ab" + b"x" * 14


def test_memory_that_is_enclosed_cannot_be_changed():
    memory = enclose([b"it stays"], 8)
    for change in (
        lambda: os.pwrite(memory.fileno(), b"x", 0),
        lambda: os.ftruncate(memory.fileno(), 0),
        lambda: os.ftruncate(memory.fileno(), 100),
        lambda: fcntl.fcntl(memory.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(PermissionError):
        mmap.mmap(memory.fileno(), 8, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_who_has_no_memory_or_no_descriptor_is_told(monkeypatch: pytest.MonkeyPatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(PayloadTooLargeError, match="no memory for a message of 5 bytes: .*open files"):
            enclose([b"12345"], 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(PayloadTooLargeError, match="No space left"):
        enclose([b"12345"], 5)


def test_what_a_signals_handler_raises_is_no_error_of_the_kernels(monkeypatch: pytest.MonkeyPatch, ends: Ends):
    def late(*_: Any) -> int:
        raise TimeoutError("the user's own")

    Outbox(ends[0]).post(Enclosed(b"xx", enclose([b"12345"], 5)))
    ends[1].recv(1)
    monkeypatch.setattr(os, "writev", late)
    with pytest.raises(TimeoutError, match="the user's own"):
        enclose([b"12345"], 5)
    monkeypatch.setattr(mmap, "mmap", late)
    with pytest.raises(TimeoutError, match="the user's own"):
        receive_memory(ends[1], 0, 5)


def test_who_has_too_many_open_to_receive_memory_is_told_so(ends: Ends):
    Outbox(ends[0]).post(Enclosed(b"xx", enclose([b"12345"], 5)))
    ends[1].recv(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(ProtocolError, match="this process has too many open"):
            receive_memory(ends[1], 0, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memfd(data: bytes, seals: int) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


ALL = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE


@pytest.mark.parametrize(
    ("opened", "size", "words"),
    [
        (list, 5, "without its memory"),
        (lambda: [memfd(b"12345", ALL), memfd(b"12345", ALL)], 5, "without its memory"),
        (lambda: [memfd(b"12345", fcntl.F_SEAL_SHRINK)], 5, "not sealed"),
        (lambda: [memfd(b"12345", fcntl.F_SEAL_WRITE)], 5, "not sealed"),
        (lambda: [memfd(b"12345", 0)], 5, "not sealed"),
        (lambda: [os.open(__file__, os.O_RDONLY)], 5, "cannot be read"),
        (lambda: [os.open("/dev/null", os.O_RDONLY)], 5, "cannot be read"),
        (lambda: [memfd(b"1234", ALL)], 5, "cannot be read"),
        (lambda: [memfd(b"", ALL)], 5, "cannot be read"),
    ],
    ids=["none", "two", "writable", "cut", "unsealed", "a file", "a device", "short", "nothing in it"],
)
def test_what_is_no_sealed_memory_is_refused(ends: Ends, opened: Any, size: int, words: str):
    ours, theirs = ends
    fds = opened()
    ours.sendmsg([b"\0"], [carrying(*fds)] if fds else [])
    for fd in fds:
        os.close(fd)
    with pytest.raises(ProtocolError, match=words):
        receive_memory(theirs, 0, size)


def test_memory_is_not_there_yet_or_never_comes(ends: Ends):
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        receive_memory(theirs, socket.MSG_DONTWAIT, 1)
    ours.close()
    with pytest.raises(EOFError):
        receive_memory(theirs, 0, 1)


def test_memory_that_was_received_outlives_who_sent_it(ends: Ends):
    ours, theirs = ends
    Outbox(ours).post(Enclosed(b"a byte or two", enclose([b"it is here"], 10)))
    theirs.recv(12)
    ours.close()
    view = receive_memory(theirs, 0, 10)
    assert bytes(view) == b"it is here"
    assert view.readonly


# --- the outbox ---------------------------------------------------------------------------------------------------


def message_writer(limit: int = LIMIT) -> MessageWriter:
    writer = MessageWriter(limit)
    writer.share(LIMIT, enclose)
    return writer


def read(reader: FrameReader, connection: socket.socket) -> Any:
    while (frame := reader.read(connection.recv_into)) is None:
        pass
    return decode(frame)


def reader_of(connection: socket.socket) -> FrameReader:
    reader = FrameReader(LIMIT)
    reader.memory_limit = LIMIT
    reader.take_memory = lambda size: receive_memory(connection, 0, size)
    return reader


SIZES = [0, 10, 50_000, 900_000, 1_500_000, 3, 2_000_000, 2_000_001, 40_000]


@pytest.mark.parametrize("sizes", [SIZES, SIZES[::-1], [5] * 1000, [2_000_000] * 12])
def test_whatever_waits_comes_in_its_order(ends: Ends, sizes: list[int]):
    ours, theirs = ends
    outbox, reader, writer = Outbox(ours), reader_of(theirs), message_writer()
    for number, size in enumerate(sizes):
        outbox.put(writer.message(("Result", number, bytes(size))))
    assert outbox.size > sum(size for size in sizes if size < MIB)
    for number, size in enumerate(sizes):
        theirs.setblocking(False)
        answer = None
        while answer is None:
            outbox.push()
            try:
                answer = read(reader, theirs)
            except BlockingIOError:
                continue
        assert answer == ["Result", number, bytes(size)]
    assert outbox.push()
    assert not outbox.waiting
    assert outbox.size == 0


@pytest.mark.parametrize("size", [10, 40_000, 2_000_000])
def test_a_socket_that_takes_no_more_is_waited_for_and_not_waited_in(ends: Ends, size: int):
    ours, theirs = ends
    outbox, writer, sent = Outbox(ours), message_writer(), 0
    while outbox.post(writer.message(("Result", sent, bytes(size)))):
        sent += 1
    assert sent < 10 or size == 10
    assert not outbox.push()
    reader = reader_of(theirs)
    outbox.post(writer.message(("Result", sent + 1, None)))
    for number in range(sent + 1):
        while (frame := reader.read(theirs.recv_into)) is None:
            outbox.push()
        assert decode(frame) == ["Result", number, bytes(size)]
        outbox.push()
    assert read(reader, theirs) == ["Result", sent + 1, None]


def test_no_more_than_two_in_memory_are_under_way(ends: Ends):
    """Their memory is nobody's until they are read; so who does not read stops who sends."""
    ours, _ = ends
    outbox = Outbox(ours)
    posted = 0
    while outbox.post(Enclosed(announcement(1), enclose([b"x"], 1))):
        posted += 1
    assert posted <= 2
    outbox.clear()


def test_an_outbox_that_is_cleared_while_it_sends_goes_on_with_what_it_has_begun(ends: Ends):
    class Interrupted:
        """Takes seven bytes at once, and is cleared meanwhile by another thread."""

        send = ends[0].send
        taken = b""

        def sendmsg(self, views: list[memoryview], *_: object) -> int:
            outbox.clear()
            some = b"".join(views)[:7]
            self.taken += some
            return len(some)

    taker: Any = Interrupted()
    outbox = Outbox(taker)
    for _ in range(3):
        outbox.put(b"abc")
    assert outbox.push()
    assert taker.taken == b"abcabcabc"
    assert not outbox.waiting


def test_nothing_to_send_is_nothing(ends: Ends):
    outbox = Outbox(ends[0])
    frames: list[Frame] = [b"", message_writer().message(("Result", 1, None))]
    for frame in frames:
        outbox.put(frame)
        outbox.put(b"")
    assert outbox.push()
    assert outbox.post(b"")
    assert read(reader_of(ends[1]), ends[1]) == ["Result", 1, None]


def test_the_other_end_is_gone(ends: Ends):
    ours, theirs = ends
    theirs.close()
    for frame in (b"x", Enclosed(b"x", enclose([b"x"], 1)), [b"x", b"y"]):
        outbox = Outbox(ours)
        with pytest.raises(OSError, match="Broken pipe"):
            outbox.post(frame)
        outbox.clear()
