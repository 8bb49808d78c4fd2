"""Messages and descriptors over real socket pairs. No test may leave a descriptor behind."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import open_fds

from warmpool import packets
from warmpool.descriptors import close_all
from warmpool.errors import ProtocolError
from warmpool.packets import FDS_LIMIT, PACKET_LIMIT, expect_fds
from warmpool.wire.frames import encode
from warmpool.wire.process_messages import FROM_WORKER, TO_TEMPLATE, TO_WORKER, Describe, Forked, Stop

STOP, NEXT = Stop("expired"), Stop("next")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_behind():
    before = open_fds()
    yield
    assert open_fds() == before


@pytest.fixture
def ends():
    ours, theirs = packets.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def files():
    """Descriptors of `FDS_LIMIT` different files, each of which holds its own number."""
    fds = []
    for number in range(FDS_LIMIT):
        fd = os.memfd_create("test")
        os.write(fd, b"%d" % number)
        fds.append(fd)
    yield fds
    close_all(fds)


def numbers_in(fds: list[int]) -> list[int]:
    return [int(os.pread(fd, 10, 0)) for fd in fds]


def raw(channel: socket.socket, packet: bytes, fds: list[int] | None = None) -> None:
    """What no honest end would send."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([packet], rights)


def stop_of(size: int) -> Stop:
    """A message whose body has exactly this many bytes."""
    for length in range(size - 12, size):
        message = Stop("x" * length)
        if len(encode(["Stop", *message], 2 * size)) - 4 == size:
            return message
    raise AssertionError(size)


# --- there and back ---------------------------------------------------------------------------------------------


def test_a_pair_is_non_blocking_and_close_on_exec(ends):
    for end in ends:
        assert end.getblocking() is False
        assert not os.get_inheritable(end.fileno())
        assert end.type == socket.SOCK_SEQPACKET


@pytest.mark.parametrize("count", range(FDS_LIMIT + 1))
def test_a_message_arrives_with_its_descriptors_in_their_order(ends, files, count):
    ours, theirs = ends
    packets.send(ours, STOP, files[:count])
    message, fds = packets.receive(theirs, TO_WORKER)
    assert message == STOP
    assert numbers_in(fds) == list(range(count))
    assert not set(fds) & set(files)
    close_all(fds)


def test_descriptors_arrive_close_on_exec(ends, files):
    ours, theirs = ends
    for fd in files:
        os.set_inheritable(fd, True)
    packets.send(ours, STOP, files)
    _, fds = packets.receive(theirs, TO_WORKER)
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
    close_all(fds)


def test_the_sender_keeps_its_descriptors(ends, files):
    ours, theirs = ends
    packets.send(ours, STOP, files[:2])
    assert numbers_in(files) == list(range(FDS_LIMIT))
    _, fds = packets.receive(theirs, TO_WORKER)
    close_all(fds)
    assert numbers_in(files) == list(range(FDS_LIMIT))


def test_each_message_has_its_own_descriptors(ends, files):
    ours, theirs = ends
    large = stop_of(3 * PACKET_LIMIT)
    for message, fds in ((STOP, files[:2]), (NEXT, []), (large, files[2:3]), (Stop("end"), files[3:6])):
        packets.send(ours, message, fds)
    for message, numbers in ((STOP, [0, 1]), (NEXT, []), (large, [2]), (Stop("end"), [3, 4, 5])):
        arrived, fds = packets.receive(theirs, TO_WORKER)
        assert arrived == message
        assert numbers_in(fds) == numbers
        close_all(fds)


@pytest.mark.parametrize(
    "size",
    [PACKET_LIMIT - 2, PACKET_LIMIT - 1, PACKET_LIMIT, PACKET_LIMIT + 1, 1024 * 1024, 10 * 1024 * 1024],
)
@pytest.mark.parametrize("count", [0, 1, FDS_LIMIT - 1])
def test_a_body_larger_than_a_packet_arrives_with_its_descriptors(ends, files, size, count):
    ours, theirs = ends
    message = stop_of(size)
    packets.send(ours, message, files[:count])
    arrived, fds = packets.receive(theirs, TO_WORKER)
    assert arrived == message
    assert numbers_in(fds) == list(range(count))
    close_all(fds)


def test_both_directions_are_apart(ends):
    ours, theirs = ends
    packets.send(ours, NEXT)
    packets.send(theirs, Forked(42))
    assert packets.receive(ours, FROM_WORKER) == (Forked(42), [])
    assert packets.receive(theirs, TO_WORKER) == (NEXT, [])


@pytest.mark.parametrize("size", [100, 2 * PACKET_LIMIT], ids=["small", "large"])
@pytest.mark.parametrize("count", [FDS_LIMIT, FDS_LIMIT + 1, FDS_LIMIT + 5])
def test_descriptors_at_and_beyond_the_limit_all_arrive_or_the_message_is_refused(ends, files, size, count):
    """But never is one dropped in silence, or taken for the body."""
    ours, theirs = ends
    fds = (files * 2)[:count]
    try:
        packets.send(ours, stop_of(size), fds)
        message, arrived = packets.receive(theirs, TO_WORKER)
    except (ProtocolError, ValueError, AssertionError):
        assert count > FDS_LIMIT
        return
    assert message == stop_of(size)
    numbers = numbers_in(arrived)
    close_all(arrived)
    assert numbers == numbers_in(fds)


# --- the end, nothing yet, too much -----------------------------------------------------------------------------


def test_the_end_of_the_stream_is_none_and_stays_so(ends):
    ours, theirs = ends
    packets.send(ours, NEXT)
    ours.close()
    assert packets.receive(theirs, TO_WORKER) == (NEXT, [])
    assert packets.receive(theirs, TO_WORKER) is None
    assert packets.receive(theirs, TO_WORKER) is None


def test_nothing_yet_is_a_blocking_io_error(ends):
    with pytest.raises(BlockingIOError):
        packets.receive(ends[1], TO_WORKER)


@pytest.mark.parametrize("size", [100, 2 * PACKET_LIMIT], ids=["small", "large"])
def test_a_peer_that_is_gone_is_an_os_error(ends, files, size):
    ours, theirs = ends
    theirs.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        packets.send(ours, stop_of(size), files)


@pytest.mark.parametrize("size", [60_000, 2 * PACKET_LIMIT], ids=["small", "large"])
def test_a_peer_with_too_much_unread_is_a_blocking_io_error_and_nothing_is_torn(ends, files, size):
    ours, theirs = ends
    message, sent = stop_of(size), 0
    with pytest.raises(BlockingIOError):
        for _ in range(10_000):
            packets.send(ours, message, files[:1])
            sent += 1
    for _ in range(sent):
        arrived, fds = packets.receive(theirs, TO_WORKER)
        assert arrived == message
        close_all(fds)
    with pytest.raises(BlockingIOError):
        packets.receive(theirs, TO_WORKER)
    packets.send(ours, message)
    assert packets.receive(theirs, TO_WORKER) == (message, [])


def test_what_was_sent_and_never_received_is_closed_with_the_socket():
    """The kernel's copies of it: a pipe says so, which ends when nobody can write to it."""
    readable, writable = os.pipe()
    ours, theirs = packets.pair()
    packets.send(ours, stop_of(2 * PACKET_LIMIT), (writable,))
    os.close(writable)
    ours.close()
    os.set_blocking(readable, False)
    with pytest.raises(BlockingIOError):
        os.read(readable, 1)
    theirs.close()
    assert os.read(readable, 1) == b""
    os.close(readable)


# --- what is not of the conversation ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 2 * PACKET_LIMIT], ids=["small", "large"])
def test_a_message_of_another_conversation_is_refused_and_its_descriptors_closed(ends, files, size):
    ours, theirs = ends
    packets.send(ours, stop_of(size), files[:3])
    before = open_fds()
    with pytest.raises(ProtocolError, match="Stop"):
        packets.receive(theirs, FROM_WORKER)
    assert open_fds() == before
    packets.send(ours, Describe())
    assert packets.receive(theirs, TO_TEMPLATE) == (Describe(), [])


GARBAGE = {
    "only-the-mark": b"\0",
    "not-msgpack": b"\0\xc1\xc1",
    "no-message": b"\0\x01",
    "a-text": b"Stop",
    "bytes-after-the-message": b"\0" + encode(["Stop", ""], 100)[4:] + b"\0",
    "larger-than-a-packet": b"\0" + b"\xc0" * (PACKET_LIMIT + 1000),
    "a-message-cut-by-the-limit": b"\0" + encode(["Stop", "x" * (PACKET_LIMIT + 1000)], 10**6)[4:],
    "an-unknown-mark": b"\x07",
    "spilled-but-no-descriptor": b"\1",
    "spilled-with-a-body": b"\1" + encode(["Stop", ""], 100)[4:],
}


@pytest.mark.parametrize("packet", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_raises_protocol_error_and_the_next_message_arrives(ends, packet):
    ours, theirs = ends
    raw(ours, packet)
    with pytest.raises(ProtocolError):
        packets.receive(theirs, TO_WORKER)
    packets.send(ours, NEXT)
    assert packets.receive(theirs, TO_WORKER) == (NEXT, [])


@pytest.mark.parametrize("packet", [b"\0\xc1", b"\0", b"x"], ids=repr)
def test_the_descriptors_of_garbage_are_closed(ends, files, packet):
    ours, theirs = ends
    raw(ours, packet, files)
    before = open_fds()
    with pytest.raises(ProtocolError):
        packets.receive(theirs, TO_WORKER)
    assert open_fds() == before


def test_the_descriptors_of_an_empty_packet_are_closed(ends, files):
    ours, theirs = ends
    raw(ours, b"", files[:2])
    before = open_fds()
    with suppress(ProtocolError):
        assert packets.receive(theirs, TO_WORKER) is None
    assert open_fds() == before


def a_pipe(tmp_path) -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def an_open_pipe(tmp_path) -> int:
    """Opened for both: to read it would wait for ever."""
    os.mkfifo(tmp_path / "fifo")
    return os.open(tmp_path / "fifo", os.O_RDWR)


def a_directory(tmp_path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


def an_empty_file(tmp_path) -> int:
    return os.open(tmp_path / "empty", os.O_RDWR | os.O_CREAT)


def a_write_only_file(tmp_path) -> int:
    return os.open(tmp_path / "writing", os.O_WRONLY | os.O_CREAT)


def a_path_only(tmp_path) -> int:
    return os.open(tmp_path, os.O_PATH)


def a_socket(tmp_path) -> int:
    return socket.socket(socket.AF_UNIX).detach()


@pytest.mark.parametrize(
    "make",
    [a_pipe, an_open_pipe, a_directory, an_empty_file, a_write_only_file, a_path_only, a_socket],
    ids=lambda make: make.__name__,
)
def test_a_spilled_body_that_is_no_readable_file_raises_protocol_error(ends, files, tmp_path, make):
    ours, theirs = ends
    odd = make(tmp_path)
    raw(ours, b"\1", [files[0], odd])
    os.close(odd)
    before = open_fds()
    with pytest.raises(ProtocolError):
        packets.receive(theirs, TO_WORKER)
    assert open_fds() == before


@settings(max_examples=100, deadline=None)
@given(packet=st.binary(max_size=50), spilled=st.none() | st.binary(max_size=50))
def test_any_packet_is_a_message_or_raises_protocol_error(packet, spilled):
    ours, theirs = packets.pair()
    with ours, theirs:
        if spilled is None:
            raw(ours, packet)
        else:
            fd = os.memfd_create("test")
            os.write(fd, spilled)
            raw(ours, b"\1" + packet, [fd])
            os.close(fd)
        try:
            received = packets.receive(theirs, TO_WORKER)
        except ProtocolError:
            return
        if received is not None:
            message, fds = received
            assert type(message).__name__ in TO_WORKER
            close_all(fds)


# --- descriptors ------------------------------------------------------------------------------------------------


def test_the_expected_descriptors_are_given_back(files):
    copies = [os.dup(fd) for fd in files[:2]]
    assert expect_fds(STOP, copies, 2) == copies
    assert expect_fds(STOP, [], 0) == []
    close_all(copies)


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, 0), (2, 1), (1, 2), (3, 1)])
def test_another_count_of_descriptors_closes_them_and_raises_protocol_error(files, count, expected):
    copies = [os.dup(fd) for fd in files[:count]]
    before = open_fds()
    with pytest.raises(ProtocolError, match=f"Stop came with {count} descriptors, not {expected}"):
        expect_fds(STOP, copies, expected)
    assert open_fds() == before - count


def test_close_all_closes_what_is_still_open(files):
    copies = [os.dup(fd) for fd in files[:3]]
    os.close(copies[1])
    close_all(copies)
    for fd in copies:
        with pytest.raises(OSError):
            os.fstat(fd)
