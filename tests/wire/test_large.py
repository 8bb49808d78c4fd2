"""Messages of any size into frames, and out of a stream in which some lie in memory that comes with a byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Fed

from warmpool.errors import PayloadTooLargeError, ProtocolError
from warmpool.wire import large
from warmpool.wire.frames import BUFFER_SIZE, ENCLOSED, HEADER, HEADER_SIZE, PADDING, FrameReader, announcement, decode
from warmpool.wire.large import STREAM_LIMIT, Enclosed, Frame, MessageWriter, pieces_of

MIB = 1024 * 1024
LIMIT = 16 * MIB
MEMORY_LIMIT = 64 * MIB


class Block:
    """What stands for memory: its bytes."""

    def __init__(self, pieces: list[bytes], size: int) -> None:
        self.content = b"".join(pieces)
        assert len(self.content) == size

    def fileno(self) -> int:
        raise AssertionError("nobody sends this")


def writer(limit: int = LIMIT, memory_limit: int = MEMORY_LIMIT) -> MessageWriter:
    made = MessageWriter(limit)
    made.share(memory_limit, Block)
    return made


def body_of(frame: Frame) -> bytes:
    """Of a frame of any kind, after a look at its header."""
    if isinstance(frame, Enclosed):
        assert isinstance(frame.memory, Block)
        assert frame.announcement == announcement(len(frame.memory.content))
        return frame.memory.content
    whole = frame if isinstance(frame, bytes) else b"".join(frame)
    assert HEADER.unpack_from(whole) == (len(whole) - HEADER_SIZE,)
    return whole[HEADER_SIZE:]


# --- pieces -------------------------------------------------------------------------------------------------------

some_bytes = st.binary(max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=9) | some_bytes,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    payload=anything | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), some_bytes, max_size=20),
)
def test_the_pieces_are_a_message_like_what_msgpack_makes_of_the_whole(payload: Any):
    message = ("Call", 2**60, "function", payload)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(large, "LARGE_BYTES", 16)
        for body in (b"".join(pieces_of(message)), body_of(writer().message(message))):
            assert decode(body) == decode(msgpack.packb(message))


@pytest.mark.parametrize(
    "payload", [bytes(2 * MIB), {"a": 1, "data": bytes(2 * MIB), "b": [1]}], ids=["alone", "in a dict"]
)
def test_large_bytes_are_never_copied(payload: Any):
    data = payload if isinstance(payload, bytes) else payload["data"]
    assert any(piece is data for piece in pieces_of(("Result", 1, payload)))


def test_what_is_too_deep_is_refused_by_who_writes_it_in_pieces_as_in_one():
    """The deepest that one can write, the other can read."""
    nested: Any = 1
    depths: dict[bool, int] = {}
    for depth in range(2000):
        nested = [nested]
        for in_pieces in {True, False} - depths.keys():
            data = bytes(large.LARGE_BYTES if in_pieces else 1)
            message = ("Result", 1, {"data": data, "nested": nested})
            try:
                frame = writer().message(message)
            except ValueError:
                depths[in_pieces] = depth
            else:
                assert decode(body_of(frame))[2]["data"] == data
        if len(depths) == 2:
            break
    assert depths[True] == depths[False]


# --- which way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"data": data}, lambda data: [[data]]])
@pytest.mark.parametrize("limit", [1000, 100_000, STREAM_LIMIT, LIMIT])
@pytest.mark.parametrize("above", [-1, 0, 1])
def test_what_is_too_large_for_the_stream_goes_in_memory(wrap: Callable[[bytes], Any], limit: int, above: int):
    border = min(limit, STREAM_LIMIT)
    room = border - len(msgpack.packb(("Result", 1, wrap(bytes(border))))) + border
    message = ("Result", 1, wrap(bytes(room + above)))
    frame = writer(limit).message(message)
    assert isinstance(frame, Enclosed) == (above > 0)
    assert body_of(frame) == msgpack.packb(message)


@pytest.mark.parametrize(("limit", "memory_limit"), [(1000, 2 * MIB), (4 * MIB, 2 * MIB), (4 * MIB, 0), (1000, 0)])
def test_what_is_above_both_limits_is_refused(limit: int, memory_limit: int):
    largest = max(limit, memory_limit)
    overhead = len(msgpack.packb(("Result", 1, bytes(largest)))) - largest
    made = writer(limit, memory_limit)
    body_of(made.message(("Result", 1, bytes(largest - overhead))))
    with pytest.raises(PayloadTooLargeError) as refused:
        made.message(("Result", 1, bytes(largest - overhead + 1)))
    assert refused.value.details == {"size": largest + 1, "limit": largest}


def test_with_little_memory_the_stream_takes_what_it_can():
    made = writer(limit=16 * MIB, memory_limit=2 * MIB)
    ways = {size: type(made.message(("Result", 1, bytes(size * MIB)))) for size in (1, 3, 15)}
    assert ways == {1: Enclosed, 3: list, 15: list}


def test_out_of_memory_the_stream_takes_what_it_can():
    def enclose(pieces: list[bytes], size: int) -> Block:
        raise PayloadTooLargeError("no memory")

    made = MessageWriter(4 * MIB)
    made.share(MEMORY_LIMIT, enclose)
    assert body_of(made.message(("Result", 1, bytes(3 * MIB)))) == msgpack.packb(("Result", 1, bytes(3 * MIB)))
    with pytest.raises(PayloadTooLargeError, match="no memory"):
        made.message(("Result", 1, bytes(5 * MIB)))


def test_without_memory_everything_goes_in_the_stream():
    made = MessageWriter(LIMIT)
    assert body_of(made.message(("Result", 1, bytes(8 * MIB)))) == msgpack.packb(("Result", 1, bytes(8 * MIB)))


def test_another_writer_has_the_same_limits():
    assert isinstance(writer(1000).another().message(("Result", 1, bytes(1001))), Enclosed)
    assert isinstance(MessageWriter(LIMIT).another().message(("Result", 1, bytes(2 * MIB))), list)


@pytest.mark.parametrize("payload", [object(), {"x": object()}, {"large": bytes(MIB), "x": object()}, 2**70])
def test_what_cannot_be_sent_is_refused_and_the_next_message_is_not(payload: Any):
    made = writer()
    with pytest.raises((TypeError, OverflowError)):
        made.message(("Result", 1, payload))
    assert body_of(made.message(("Result", 1, {"x": 1}))) == msgpack.packb(("Result", 1, {"x": 1}))


# --- reading ------------------------------------------------------------------------------------------------------


class Stream:
    """A stream of bytes, of which some come with memory. Each read gets as much as `sizes` says, or what was asked for."""

    def __init__(self, frames: list[Frame], sizes: list[int]) -> None:
        self._data = bytearray()
        self._memory: dict[int, Block] = {}
        for frame in frames:
            if isinstance(frame, Enclosed):
                assert isinstance(frame.memory, Block)
                self._data += frame.announcement
                self._memory[len(self._data) - 1] = frame.memory
            else:
                self._data += frame if isinstance(frame, bytes) else b"".join(frame)
        self._position = self._turn = 0
        self._sizes = sizes

    def _chunk(self, most: int) -> int:
        self._turn += 1
        return min(most, self._sizes[self._turn % len(self._sizes)], len(self._data) - self._position)

    def receive_into(self, space: memoryview) -> int:
        count = self._chunk(len(space))
        end = self._position + count
        assert not any(self._position <= mark < end for mark in self._memory), "the memory is lost"
        space[:count] = self._data[self._position : end]
        self._position = end
        return count

    def take_memory(self, size: int) -> memoryview:
        if self._turn % 2:  # not there yet
            self._turn += 1
            raise BlockingIOError
        memory = self._memory.pop(self._position)
        self._position += 1
        assert len(memory.content) == size
        return memoryview(memory.content)


messages = st.lists(
    st.sampled_from([0, 1, 100, BUFFER_SIZE - 3, BUFFER_SIZE, 40_000, 70_000, 200_000]).map(
        lambda size: ("Result", 1, bytes(size))
    ),
    max_size=12,
)
cuts = st.lists(st.sampled_from([1, 2, 3, 5, 100, 4000, BUFFER_SIZE, 10**6]), min_size=1, max_size=5).filter(
    lambda sizes: max(sizes) >= 100  # or it takes for ever
)


@given(messages=messages, sizes=cuts)
def test_however_the_stream_is_cut_no_memory_is_lost(messages: list[tuple[Any, ...]], sizes: list[int]):
    made = writer(limit=50_000)
    stream = Stream([made.message(message) for message in messages], sizes)
    reader = FrameReader(50_000)
    reader.memory_limit, reader.take_memory = MEMORY_LIMIT, stream.take_memory
    for message in messages:
        frame = None
        while frame is None:
            try:
                frame = reader.read(stream.receive_into)
            except BlockingIOError:
                assert reader.pending
        assert decode(frame) == list(message)
    assert not reader.pending
    with pytest.raises(EOFError):
        reader.read(stream.receive_into)


def reading(data: bytes, *, memory_limit: int, take: Callable[[int], memoryview] | None) -> None:
    reader = FrameReader(LIMIT)
    reader.memory_limit, reader.take_memory = memory_limit, take
    reader.read(Fed(data))


def test_memory_above_the_limit_is_refused_as_soon_as_it_is_announced():
    taken: list[int] = []
    for size in (MEMORY_LIMIT + 1, ENCLOSED - 1):
        with pytest.raises(PayloadTooLargeError) as refused:
            reading(HEADER.pack(ENCLOSED | size), memory_limit=MEMORY_LIMIT, take=taken.append)
        assert refused.value.details == {"size": size, "limit": MEMORY_LIMIT}
    reading(HEADER.pack(ENCLOSED | MEMORY_LIMIT), memory_limit=MEMORY_LIMIT, take=taken.append)
    assert taken == []


@pytest.mark.parametrize("size", [0, 1, MIB])
def test_who_takes_no_memory_refuses_all_of_it(size: int):
    with pytest.raises(PayloadTooLargeError):
        reading(HEADER.pack(ENCLOSED | size), memory_limit=0, take=None)


def test_a_stream_that_ends_within_an_announcement_was_cut():
    reader = FrameReader(LIMIT)
    reader.memory_limit, reader.take_memory = MIB, lambda _: pytest.fail("there is none")
    fed = Fed(announcement(MIB)[: PADDING // 2])
    with pytest.raises(EOFError):
        while True:
            assert reader.read(fed) is None
    assert reader.pending


def test_what_take_memory_raises_is_raised():
    def take(size: int) -> memoryview:
        raise ProtocolError("no memory")

    stream = Stream([Enclosed(announcement(1), Block([b"x"], 1))], [10**6])
    reader = FrameReader(LIMIT)
    reader.memory_limit, reader.take_memory = MIB, take
    with pytest.raises(ProtocolError):
        while True:
            reader.read(stream.receive_into)
