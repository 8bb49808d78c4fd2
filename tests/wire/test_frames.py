"""Bytes ↔ frames: one fuzz law for what comes in, one for what goes out, and tables of the hostile and the odd."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import struct
import subprocess
import sys
import tracemalloc
import types
import uuid
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn

import msgpack
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Fed

from warmpool.constants import CONTROL_FRAME_LIMIT
from warmpool.errors import PayloadTooLargeError, ProtocolError
from warmpool.wire import messages, process_messages, shapes
from warmpool.wire.frames import (
    BUFFER_SIZE,
    FIRST_SIZE,
    HEADER,
    HEADER_SIZE,
    FrameReader,
    FrameWriter,
    decode,
    encode,
)

MIB = 1024 * 1024
LIMIT = 16 * MIB

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=12,
)
cuts = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def pieces_of(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` cut into pieces of these sizes, over and over."""
    pieces, start, turn = [], 0, 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[start : start + size])
        start, turn = start + size, turn + 1
    return pieces


def frames_of(reader: FrameReader, pieces: list[bytes]) -> list[bytes]:
    """All whole frames in `pieces`, fed one after another."""
    found: list[bytes] = []
    for piece in pieces:
        fed = Fed(piece)
        while fed.rest:
            frame = reader.read(fed)
            while frame is not None:
                found.append(bytes(frame))
                frame = reader.next_frame()
    return found


def room_of(reader: FrameReader) -> int:
    """How many bytes it would take at once."""
    fed = Fed(b"")
    with pytest.raises(EOFError):
        reader.read(fed)
    return fed.space


def outcome(data: bytes, sizes: list[int], limit: int = LIMIT) -> tuple[list[bytes], type[Exception] | None]:
    """The frames in `data`, read in pieces of these sizes, and what ended the stream."""
    reader, frames = FrameReader(limit), []
    try:
        for piece in pieces_of(data, sizes):
            fed = Fed(piece)
            while fed.rest:
                frame = reader.read(fed)
                while frame is not None:
                    frames.append(bytes(frame))
                    frame = reader.next_frame() if reader.pending else None
    except ProtocolError as error:
        return frames, type(error)
    return frames, None


@contextmanager
def allocating_at_most(size: int):
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= size, f"{peak / MIB:.1f} MiB were allocated, more than {size / MIB:.1f}"


@contextmanager
def keeping_at_most(size: int):
    tracemalloc.start()
    try:
        yield
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept <= size, f"{kept / MIB:.1f} MiB are still held, more than {size / MIB:.1f}"


# --- the reader: any cut of the stream gives the same frames ----------------------------------------------------


@quick
@given(st.lists(values, max_size=8), cuts)
def test_any_cut_of_the_stream_gives_the_same_frames(sent, sizes):
    stream = b"".join(encode(value, LIMIT) for value in sent)
    reader = FrameReader(LIMIT)
    received = frames_of(reader, pieces_of(stream, sizes))
    assert [decode(frame) for frame in received] == sent
    assert not reader.pending


@quick
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_byte_by_byte_gives_the_same_frames_as_the_whole(bodies):
    stream = b"".join(HEADER.pack(len(body)) + body for body in bodies)
    assert outcome(stream, [1]) == outcome(stream, [len(stream) or 1]) == (bodies, None)


BORDER_SIZES = [*range(BUFFER_SIZE - 5, BUFFER_SIZE + 3), 3 * BUFFER_SIZE + 1]


@pytest.mark.parametrize("piece", [1000, BUFFER_SIZE - 1, BUFFER_SIZE, 10 * MIB], ids=lambda n: f"piece-{n}")
def test_frames_around_and_above_the_buffer_size_survive_any_piece(piece):
    bodies = [bytes([n]) * size for n, size in enumerate(BORDER_SIZES)]
    bodies = [part for body in bodies for part in (body, b"small")]
    stream = b"".join(HEADER.pack(len(body)) + body for body in bodies)
    assert outcome(stream, [piece]) == (bodies, None)


def test_a_large_frame_survives_byte_by_byte():
    body = bytes(range(256)) * (BUFFER_SIZE // 256) + b"end"
    stream = HEADER.pack(len(body)) + body + HEADER.pack(1) + b"x"
    assert outcome(stream, [1]) == ([body, b"x"], None)


@quick
@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.data())
def test_space_is_never_empty_and_pending_tells_of_what_is_not_given_out(sizes, data):
    reader = FrameReader(LIMIT)
    stream = b"".join(HEADER.pack(size) + bytes(size) for size in sizes)
    given_out = fed = 0
    while fed < len(stream):
        piece = Fed(stream[fed : fed + data.draw(st.integers(1, 400))])
        before = len(piece.rest)
        frame = reader.read(piece)
        assert piece.space > 0
        fed += before - len(piece.rest)
        while frame is not None:
            given_out += HEADER.size + len(frame)
            assert reader.pending is (fed != given_out)
            frame = reader.next_frame()
        assert reader.pending is (fed != given_out)
    assert fed == given_out


def test_a_stream_that_ends_inside_a_frame_leaves_bytes_pending():
    reader = FrameReader(LIMIT)
    assert frames_of(reader, [encode("whole", LIMIT), encode("cut", LIMIT)[:-1]]) == [msgpack.packb("whole")]
    assert reader.pending
    assert reader.next_frame() is None


def test_a_reader_begins_small_and_grows_with_the_first_frame_that_does_not_fit():
    reader = FrameReader(LIMIT)
    assert room_of(reader) == FIRST_SIZE
    assert not reader.pending
    small, larger = (HEADER.pack(size) + bytes(size) for size in (FIRST_SIZE - HEADER_SIZE, FIRST_SIZE))
    assert len(frames_of(reader, [small])) == 1
    assert room_of(reader) == FIRST_SIZE
    assert len(frames_of(reader, [larger])) == 1
    assert room_of(reader) == BUFFER_SIZE


def test_nothing_is_read_while_a_whole_frame_is_there():
    frame = HEADER.pack(1020) + bytes(1020)
    reader = FrameReader(LIMIT)
    assert frames_of(reader, [frame])
    fed = Fed(frame * (BUFFER_SIZE // len(frame) + 1))
    for _ in range(BUFFER_SIZE // len(frame)):
        assert len(reader.read(fed)) == 1020
    assert len(fed.rest) == len(frame)


@pytest.mark.parametrize("before", [0, 60_000], ids=["at-the-start", "behind-other-bytes"])
def test_a_large_frame_gets_room_for_all_of_it_at_once(before):
    reader = FrameReader(LIMIT)
    data = HEADER.pack(before) + bytes(before) + HEADER.pack(MIB) + b"x"
    assert len(frames_of(reader, [data])) == 1
    assert room_of(reader) >= MIB - 1


def test_an_empty_body_is_a_frame_but_not_a_value():
    assert frames_of(FrameReader(LIMIT), [HEADER.pack(0)]) == [b""]
    with pytest.raises(ProtocolError):
        decode(b"")


# --- the reader: garbage either parses or is refused ------------------------------------------------------------

CONVERSATIONS = [
    table
    for name, table in {**vars(messages), **vars(process_messages)}.items()
    if name.isupper() and not name.startswith("_") and isinstance(table, dict)
]

near_frames = st.lists(
    st.one_of(
        st.binary(max_size=30),
        values.map(lambda value: encode(value, LIMIT)),
        values.map(lambda value: encode(value, LIMIT)[:-1]),
        st.binary(max_size=30).map(lambda body: HEADER.pack(len(body)) + body),
        st.tuples(st.sampled_from(sorted(messages.CALLS | messages.HELLO)), st.lists(scalars, max_size=6)).map(
            lambda parts: encode([parts[0], *parts[1]], LIMIT)
        ),
    ),
    max_size=6,
).map(b"".join)


def meanings(frames: list[bytes]) -> list[object]:
    """What each conversation makes of each frame: a message, or ProtocolError. Anything else is a bug."""
    found: list[object] = []
    for frame in frames:
        for conversation in CONVERSATIONS:
            try:
                found.append(repr(shapes.from_wire(frame, conversation)))
            except ProtocolError:
                found.append(ProtocolError)
    return found


@settings(quick, max_examples=200)
@given(near_frames)
def test_garbage_parses_or_raises_protocol_error_whole_and_byte_by_byte(garbage):
    whole = outcome(garbage, [len(garbage) or 1], limit=1000)
    assert outcome(garbage, [1], limit=1000) == whole
    frames, _ = whole
    meanings(frames)


@quick
@given(st.lists(values, min_size=1, max_size=4), st.data())
def test_one_flipped_byte_parses_or_raises_protocol_error(sent, data):
    stream = bytearray(b"".join(encode(value, LIMIT) for value in sent))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    frames, _ = outcome(bytes(stream), [1])
    meanings(frames)


# --- the reader: limits -----------------------------------------------------------------------------------------


def test_the_largest_header_is_refused_before_any_body_and_allocates_nothing():
    reader = FrameReader(LIMIT)
    with allocating_at_most(64 * 1024), pytest.raises(PayloadTooLargeError) as refused:
        frames_of(reader, [b"\xff\xff\xff\xff"])
    assert refused.value.details == {"size": 0xFFFFFFFF, "limit": LIMIT}
    with pytest.raises(PayloadTooLargeError):
        reader.next_frame()


def test_the_largest_header_costs_nothing_even_if_one_reads_on():
    reader, fed = FrameReader(1000), Fed(b"\xff\xff\xff\xff")
    with allocating_at_most(64 * 1024):
        for _ in range(2):
            with pytest.raises(PayloadTooLargeError):
                reader.read(fed)


def test_a_header_byte_by_byte_is_refused_at_its_fourth_byte():
    reader = FrameReader(100)
    assert frames_of(reader, [b"\0", b"\0", b"\0"]) == []
    with pytest.raises(PayloadTooLargeError):
        frames_of(reader, [b"\x65"])


@pytest.mark.parametrize("limit", [0, 1, 100, BUFFER_SIZE - 4, BUFFER_SIZE, BUFFER_SIZE + 1, 3 * BUFFER_SIZE])
def test_a_reader_takes_exactly_its_limit_and_not_one_byte_more(limit):
    body = b"x" * limit
    assert frames_of(FrameReader(limit), [HEADER.pack(limit) + body]) == [body]
    above = HEADER.pack(limit + 1) + body + b"x"
    for pieces in ([above], [above[:4]], [HEADER.pack(0) + above], [above + above]):
        with pytest.raises(PayloadTooLargeError):
            frames_of(FrameReader(limit), pieces)


@pytest.mark.parametrize("length", [0, 1, 100, BUFFER_SIZE - 3, BUFFER_SIZE, 3 * BUFFER_SIZE])
def test_a_writer_makes_exactly_its_limit_and_not_one_byte_more(length):
    value = "x" * length
    limit = len(msgpack.packb(value))
    assert FrameWriter(limit).frame(value) == HEADER.pack(limit) + msgpack.packb(value)
    writer = FrameWriter(limit - 1)
    with pytest.raises(PayloadTooLargeError) as refused:
        writer.frame(value)
    assert refused.value.details == {"size": limit, "limit": limit - 1}
    writer.limit = limit
    assert writer.frame(value) == encode(value, limit)


def test_frames_before_a_refused_header_are_given_out_first():
    reader = FrameReader(100)
    data = HEADER.pack(3) + b"abc" + HEADER.pack(101)
    assert bytes(reader.read(Fed(data))) == b"abc"
    with pytest.raises(PayloadTooLargeError):
        reader.next_frame()


def test_the_buffer_shrinks_back_after_a_large_frame():
    reader = FrameReader(LIMIT)
    assert len(frames_of(reader, [HEADER.pack(4 * MIB), bytes(4 * MIB)])) == 1
    assert room_of(reader) == BUFFER_SIZE


def test_the_buffer_shrinks_back_even_if_the_stream_never_falls_silent():
    reader = FrameReader(LIMIT)
    header = HEADER.pack(95)
    assert len(frames_of(reader, [HEADER.pack(MIB), bytes(MIB), header[:2]])) == 1
    for _ in range(MIB // 99 + 1):
        assert len(frames_of(reader, [header[2:] + bytes(95) + header[:2]])) == 1
        assert reader.pending
    assert room_of(reader) <= BUFFER_SIZE


# --- decode: the table of hostile bodies ------------------------------------------------------------------------


def nested_arrays(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def nested_maps(depth: int) -> bytes:
    return b"\x81\xc0" * depth + b"\xc0"


HOSTILE = {
    "empty": b"",
    "never-used-0xC1": b"\xc1",
    "0xC1-inside": b"\x92\x01\xc1",
    "arrays-1025-deep": nested_arrays(1025),
    "arrays-100000-deep": nested_arrays(100_000),
    "maps-1025-deep": nested_maps(1025),
    "maps-100000-deep": nested_maps(100_000),
    "array32-of-2**32-1": b"\xdd\xff\xff\xff\xff",
    "map32-of-2**32-1": b"\xdf\xff\xff\xff\xff",
    "array32-of-1e6-nested-500": (b"\xdd" + struct.pack(">I", 1_000_000)) * 500,
    "array32-of-its-own-size-nested-500": (b"\xdd" + struct.pack(">I", 2_500)) * 500,
    "map32-of-1e6-nested-500": (b"\xdf" + struct.pack(">I", 1_000_000)) * 500,
    "bin32-of-4-GB": b"\xc6\xff\xff\xff\xff",
    "str32-of-4-GB": b"\xdb\xff\xff\xff\xff",
    "ext32-of-4-GB": b"\xc9\xff\xff\xff\xff\x01",
    "cut-string": b"\xa5abcd",
    "cut-integer": b"\xcf\0\0",
    "cut-array": b"\x92\x01",
    "bad-utf8": b"\xa2\xff\xfe",
    "bad-utf8-of-1-MB": b"\xdb" + struct.pack(">I", MIB) + b"\xff" * MIB,
    "utf8-surrogate": b"\xa3\xed\xa0\x80",
    "bad-utf8-map-key": b"\x81\xa1\xff\x01",
    "two-values": b"\x01\x02",
    "value-and-1-MB-more": b"\x01" + bytes(MIB),
    "1-MB-and-one-byte-more": msgpack.packb(bytes(MIB)) + b"\0",
    "arrays-1000-deep-and-one-byte-more": nested_arrays(1000) + b"\0",
    "maps-1000-deep-and-one-byte-more": nested_maps(1000) + b"\0",
    "timestamp-of-3-bytes": b"\xc7\x03\xff\0\0\0",
    "timestamp-of-0-bytes": b"\xc7\x00\xff",
    "timestamp-with-too-many-nanoseconds": b"\xc7\x0c\xff" + struct.pack(">Iq", 10**9, 0),
    "map-key-1000-deep": b"\x81" + nested_maps(1000) + b"\x01",
}

hostile = pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())


@hostile
def test_a_hostile_body_raises_protocol_error_and_nothing_else(body):
    with pytest.raises(ProtocolError):
        decode(body)
    with pytest.raises(ProtocolError):
        decode(memoryview(body))


@hostile
def test_a_hostile_body_is_no_message_of_any_conversation(body):
    assert set(meanings([body])) == {ProtocolError}


@hostile
def test_the_error_about_a_hostile_body_stays_short(body):
    """It goes to logs and to the peer: it must not quote what it refuses."""
    with pytest.raises(ProtocolError) as refused:
        decode(body)
    assert len(str(refused.value)) < 400


@hostile
def test_a_hostile_body_costs_little_memory(body):
    with allocating_at_most(32 * MIB), pytest.raises(ProtocolError):
        decode(body)


def test_the_worst_control_frame_costs_bounded_memory():
    """Each nested array is reserved before it is filled, for 8192 items at most, at 1024 levels at most."""
    worst = ((b"\xdd" + struct.pack(">I", 60_000)) * 1023).ljust(CONTROL_FRAME_LIMIT, b"\xc0")
    with allocating_at_most(96 * MIB), pytest.raises(ProtocolError):
        decode(worst)


def test_hostile_bodies_leave_no_memory_behind_in_the_process():
    program = """
import sys
from warmpool.errors import ProtocolError
from warmpool.wire.frames import decode

def memory(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

bodies = eval(sys.stdin.read())
before = memory("VmRSS")
for _ in range(20):
    for body in bodies:
        try:
            decode(body)
        except ProtocolError:
            pass
        except RecursionError:
            pass  # the subject of another test
print(memory("VmRSS") - before, memory("VmHWM") - before)
"""
    bodies = [body for body in HOSTILE.values() if len(body) < MIB]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=repr(bodies),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30,
    )
    left, peak = (int(number) * 1024 for number in done.stdout.split())
    assert left < 8 * MIB
    assert peak < 32 * MIB


LAWFUL = {
    "arrays-1000-deep": nested_arrays(1000),
    "int-keys": msgpack.packb({1: 2}),
    "nil-key": msgpack.packb({None: 1}),
    "same-key-twice": b"\x82\xa1a\x01\xa1a\x02",
    "nan": msgpack.packb(math.nan),
    "timestamp": b"\xd6\xff\0\0\0\0",
    "unknown-extension": b"\xd4\x05\0",
}


@pytest.mark.parametrize("body", LAWFUL.values(), ids=LAWFUL.keys())
def test_an_odd_but_lawful_body_is_read(body):
    decode(body)


def test_of_two_equal_keys_the_last_counts():
    assert decode(LAWFUL["same-key-twice"]) == {"a": 2}


def test_a_list_as_a_key_is_refused_or_read_but_raises_nothing_else():
    with suppress(ProtocolError):
        assert decode(b"\x81\x92\x01\x02\x03") == {(1, 2): 3}


# --- the writer: what msgpack carries ---------------------------------------------------------------------------


def sent(value: Any, limit: int = LIMIT) -> Any:
    """`value` as it arrives."""
    (body,) = frames_of(FrameReader(limit), [encode(value, limit)])
    return decode(body)


@settings(quick, max_examples=200)
@given(values)
def test_everything_msgpack_carries_arrives_as_it_was(value):
    assert sent(value) == value


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0, math.inf, -0.0], ids=str)
def test_the_outermost_numbers_arrive_as_they_were(number):
    assert repr(sent(number)) == repr(number)


def test_nan_arrives_as_nan():
    assert math.isnan(sent(math.nan))


def test_a_tuple_arrives_as_a_list():
    assert sent((1, (2, ()))) == [1, [2, []]]


@given(values)
@quick
def test_one_writer_makes_what_a_fresh_one_makes(value):
    writer = FrameWriter(LIMIT)
    assert writer.frame(value) == writer.frame(value) == encode(value, LIMIT)


# --- the writer: what pydantic's rules turn into it -------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    RAW = b"\xff"
    DAY = dt.date(2026, 1, 2)
    MIXED = frozenset([1])


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    HELLO = "hello"


@dataclasses.dataclass
class Point:
    x: int
    raw: bytes = b"\xff\0"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    start: Point
    points: list[Point]
    tags: frozenset[str] = frozenset({"t"})


class Inner(pydantic.BaseModel):
    raw: bytes
    tags: set[int]


class Outer(pydantic.BaseModel):
    inner: Inner
    when: dt.datetime
    more: dict[str, Inner] = {}
    anything: Any = None


class Doubled(pydantic.BaseModel):
    n: int

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        return 2 * self.n


class Roots(pydantic.RootModel[list[bytes]]):
    pass


class RootSet(pydantic.RootModel[set[bytes]]):
    pass


class RootMoment(pydantic.RootModel[dt.datetime]):
    pass


class RootOfRoot(pydantic.RootModel[RootSet]):
    pass


class Linked(pydantic.BaseModel):
    url: pydantic.AnyUrl


@pydantic.dataclasses.dataclass
class Checked:
    raw: bytes
    tags: set[int]


class Pair(NamedTuple):
    left: int
    right: bytes


MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")

CARRIED: dict[str, tuple[object, object]] = {
    "datetime": (MOMENT, "2026-01-02T03:04:05.000678Z"),
    "datetime-naive": (MOMENT.replace(tzinfo=None), "2026-01-02T03:04:05.000678"),
    "date": (dt.date(2026, 1, 2), "2026-01-02"),
    "time": (dt.time(3, 4), "03:04:00"),
    "timedelta": (dt.timedelta(seconds=90), "PT1M30S"),
    "uuid": (ID, str(ID)),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "path": (pathlib.Path("/a/b"), "/a/b"),
    "set": ({b"\xff"}, [b"\xff"]),
    "frozenset-nested": (frozenset([frozenset([b"\xff"])]), [[b"\xff"]]),
    "bytearray": (bytearray(b"\xff"), b"\xff"),
    "memoryview": (memoryview(b"\xff"), b"\xff"),
    "mapping-proxy": (types.MappingProxyType({"raw": b"\xff"}), {"raw": b"\xff"}),
    "default-dict": (collections.defaultdict(set, {"k": {1}}), {"k": [1]}),
    "ordered-dict": (collections.OrderedDict(a=1), {"a": 1}),
    "counter": (collections.Counter("aa"), {"a": 2}),
    "deque": (collections.deque([1, "a"]), [1, "a"]),
    "deque-of-bytes": (collections.deque([b"\xff", b"a"]), [b"\xff", b"a"]),
    "named-tuple": (Pair(1, b"\xff"), [1, b"\xff"]),
    "enum": (Colour.RED, "red"),
    "enum-of-bytes": (Colour.RAW, b"\xff"),
    "enum-of-date": (Colour.DAY, "2026-01-02"),
    "enum-of-set": (Colour.MIXED, [1]),
    "int-enum": (Level.HIGH, 3),
    "str-enum": (Word.HELLO, "hello"),
    "dataclass": (Point(1), {"x": 1, "raw": b"\xff\0"}),
    "dataclass-nested": (
        Line(Point(1), [Point(2, b"\xfe")]),
        {"start": {"x": 1, "raw": b"\xff\0"}, "points": [{"x": 2, "raw": b"\xfe"}], "tags": ["t"]},
    ),
    "pydantic-dataclass": (Checked(b"\xff", {1}), {"raw": b"\xff", "tags": [1]}),
    "model": (Inner(raw=b"\xff", tags={1}), {"raw": b"\xff", "tags": [1]}),
    "model-nested": (
        Outer(inner=Inner(raw=b"\xff", tags={1}), when=MOMENT, more={"k": Inner(raw=b"", tags=set())}),
        {
            "inner": {"raw": b"\xff", "tags": [1]},
            "when": "2026-01-02T03:04:05.000678Z",
            "more": {"k": {"raw": b"", "tags": []}},
            "anything": None,
        },
    ),
    "model-holding-dataclass": (
        Outer(inner=Inner(raw=b"", tags=set()), when=MOMENT, anything=Line(Point(1), [])),
        {
            "inner": {"raw": b"", "tags": []},
            "when": "2026-01-02T03:04:05.000678Z",
            "more": {},
            "anything": {"start": {"x": 1, "raw": b"\xff\0"}, "points": [], "tags": ["t"]},
        },
    ),
    "model-with-computed-field": (Doubled(n=2), {"n": 2, "twice": 4}),
    "root-model": (Roots([b"\xff"]), [b"\xff"]),
    "root-model-of-set": (RootSet({b"\xff"}), [b"\xff"]),
    "root-model-of-datetime": (RootMoment(MOMENT), "2026-01-02T03:04:05.000678Z"),
    "root-model-of-root-model": (RootOfRoot(RootSet({b"\xff"})), [b"\xff"]),
    "url": (pydantic.AnyUrl("http://a.example/"), "http://a.example/"),
    "model-with-url": (Linked(url="http://a.example/"), {"url": "http://a.example/"}),
    "dataclass-holding-model": (Line(Inner(raw=b"", tags={1}), []), {"start": {"raw": b"", "tags": [1]}, "points": [], "tags": ["t"]}),
    "uuid-key": ({ID: 1}, {str(ID): 1}),
    "enum-key": ({Colour.RED: 1}, {"red": 1}),
    "date-key": ({dt.date(2026, 1, 2): 1}, {"2026-01-02": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("value", "arrives"), CARRIED.values(), ids=CARRIED.keys())
def test_what_msgpack_lacks_is_carried_by_pydantics_rules(value, arrives):
    assert sent(value) == arrives
    assert sent([{"deep": (value, value)}]) == [{"deep": [arrives, arrives]}]


@quick
@given(
    st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False, allow_infinity=False)
)
def test_moments_ids_and_decimals_are_the_text_that_pydantic_writes_and_reads(value):
    adapter = pydantic.TypeAdapter(type(value))
    text = sent(value)
    assert text == adapter.dump_python(value, mode="json")
    assert adapter.validate_python(text) == value


@given(st.sets(st.integers() | st.binary(max_size=5), max_size=10).filter(lambda s: all(abs(i) < 2**63 for i in s if isinstance(i, int))))  # fmt: skip
@quick
def test_a_set_arrives_as_a_list_of_its_members(members):
    arrived = sent(members)
    assert len(arrived) == len(members)
    assert set(arrived) == members


@pytest.mark.parametrize("items", [[1, "a"], [b"\xff", b"a"], [{b"\xff"}, Point(1)]], ids=["plain", "bytes", "odd"])
def test_a_generator_arrives_as_a_list(items):
    assert sent(item for item in items) == sent(items)
    assert sent({"deep": (item for item in items)}) == {"deep": sent(items)}


def test_a_model_whose_field_was_set_to_another_type_is_sent_as_it_is_without_a_warning():
    model = Doubled.model_construct(n="ab")
    assert sent(model) == {"n": "ab", "twice": "abab"}


# --- the writer: what cannot be sent ----------------------------------------------------------------------------


class Opaque:
    pass


def odd_function() -> None:
    pass


UNSENDABLE: dict[str, tuple[Any, str]] = {
    "object": (Opaque(), "Opaque"),
    "function": (odd_function, "function"),
    "module": (types, "module"),
    "class": (Opaque, "type"),
    "model-class": (Inner, "ModelMetaclass"),
    "dataclass-class": (Point, "type"),
    "exception": (ValueError("x"), "ValueError"),
    "in-list": ([1, [Opaque()]], "Opaque"),
    "in-map": ({"k": {"k": Opaque()}}, "Opaque"),
    "as-key": ({Opaque(): 1}, "Opaque"),
    "in-set": ({Opaque()}, "Opaque"),
    "in-dataclass": (Point(Opaque()), "Opaque"),
    "in-model": (Outer(inner=Inner(raw=b"", tags=set()), when=MOMENT, anything=[Opaque()]), "Opaque"),
}


@pytest.mark.parametrize(("value", "named"), UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_a_value_that_cannot_be_sent_raises_type_error_that_names_its_type_and_the_writer_works_on(value, named):
    writer = FrameWriter(LIMIT)
    writer.frame("before")
    with pytest.raises(TypeError, match=rf"\b{named}\b"):
        writer.frame(["some", "text", value])
    assert writer.frame({"after": 1}) == encode({"after": 1}, LIMIT)


def cyclic_list() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def cyclic_map() -> dict[str, Any]:
    cycle: dict[str, Any] = {}
    cycle["k"] = cycle
    return cycle


def cyclic_dataclass() -> Point:
    point = Point(0)
    point.x = point
    return point


def cyclic_model() -> Outer:
    model = Outer(inner=Inner(raw=b"", tags=set()), when=MOMENT)
    model.anything = model
    return model


def cyclic_deque() -> collections.deque[Any]:
    cycle: collections.deque[Any] = collections.deque()
    cycle.append(cycle)
    return cycle


def too_deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    return value


@dataclasses.dataclass
class HalfMade:
    missing: int = dataclasses.field(init=False)


IMPOSSIBLE = {
    "int-above-64-bit": lambda: 2**64,
    "int-below-64-bit": lambda: -(2**63) - 1,
    "int-above-64-bit-as-key": lambda: {2**64: 1},
    "lone-surrogate": lambda: "\ud800",
    "lone-surrogate-as-key": lambda: {"\ud800": 1},
    "cyclic-list": cyclic_list,
    "cyclic-map": cyclic_map,
    "cyclic-dataclass": cyclic_dataclass,
    "cyclic-model": cyclic_model,
    "cyclic-deque": cyclic_deque,
    "list-5000-deep": too_deep,
    "dataclass-without-a-field": HalfMade,
}


@pytest.mark.parametrize("make", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_an_impossible_value_raises_a_plain_error_and_the_writer_works_on(make):
    writer = FrameWriter(LIMIT)
    writer.frame("before")
    with pytest.raises((TypeError, ValueError, OverflowError)):
        writer.frame(["some", "text", make()])
    assert writer.frame({"after": 1}) == encode({"after": 1}, LIMIT)


@dataclasses.dataclass(frozen=True)
class Place:
    x: int
    names: tuple[str, ...]


ODD_KEYS: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, 2), (1, 2)),
    "frozenset": (frozenset([1]), (1,)),
    "dataclass": (Place(1, ("a",)), (("x", 1), ("names", ("a",)))),
    "tuple-of-dataclasses": ((Place(1, ()), 2), ((("x", 1), ("names", ())), 2)),
}


@pytest.mark.parametrize(("key", "arrives"), ODD_KEYS.values(), ids=ODD_KEYS.keys())
def test_what_the_writer_takes_the_reader_can_read(key, arrives):
    """Else one odd key in a result breaks the connection, and the peer is blamed for it."""
    assert sent([{key: 1}]) == [{arrives: 1}]


# --- the writer: large frames -----------------------------------------------------------------------------------


def test_after_a_frame_of_20_mb_the_writer_works_and_its_memory_is_given_back():
    with keeping_at_most(2 * MIB):
        writer = FrameWriter(64 * MIB)
        assert len(writer.frame(bytes(20 * MIB))) > 20 * MIB
        assert writer.frame("small") == encode("small", LIMIT)


@pytest.mark.parametrize(
    ("limit", "value", "error"),
    [
        pytest.param(MIB, bytes(20 * MIB), PayloadTooLargeError, id="too-large"),
        pytest.param(64 * MIB, [bytes(20 * MIB), Opaque()], TypeError, id="unsendable-at-the-end"),
        pytest.param(64 * MIB, [bytes(20 * MIB), 2**64], OverflowError, id="int-above-64-bit-at-the-end"),
    ],
)
def test_after_a_large_frame_that_failed_the_writer_works_and_its_memory_is_given_back(limit, value, error):
    with keeping_at_most(2 * MIB):
        writer = FrameWriter(limit)
        with pytest.raises(error) as failed:
            writer.frame(value)
        del failed
        assert writer.frame("small") == encode("small", LIMIT)


def test_many_failures_in_a_row_leave_the_writer_whole():
    writer = FrameWriter(100)
    for make in IMPOSSIBLE.values():
        for _ in range(3):
            with pytest.raises(Exception):  # noqa: B017  (which ones is the subject of the tests above)
                writer.frame([b"x" * 50, make()])
            assert decode(writer.frame([1, "a"])[HEADER.size :]) == [1, "a"]


def test_scalars_of_numpy_travel_as_the_numbers_that_they_are():
    """As a data frame gives them, though pydantic does not know them. An array is refused: it may be large."""
    numpy = pytest.importorskip("numpy")
    values = {
        "int": numpy.int64(3),
        "float": numpy.float32(0.5),
        "bool": numpy.bool_(True),
        "day": numpy.datetime64("2026-01-02"),
        "moment": numpy.datetime64("2026-01-02T03:04:05", "ns"),
        "duration": numpy.timedelta64(90_000_000_000, "ns"),
        "none": numpy.datetime64("nat", "ns"),
    }
    frame = FrameWriter(CONTROL_FRAME_LIMIT).frame(values)
    assert decode(frame[HEADER_SIZE:]) == {
        "int": 3, "float": 0.5, "bool": True, "day": "2026-01-02", "moment": "2026-01-02T03:04:05",
        "duration": "PT1M30S", "none": None,
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        FrameWriter(CONTROL_FRAME_LIMIT).frame(numpy.zeros(3))


def test_a_scalar_of_another_library_travels_as_the_number_that_it_is():
    class Tensor:
        """As torch has it, whose types have no name."""

        shape = ()
        dtype = object()

        def item(self) -> int:
            return 7

    frame = FrameWriter(CONTROL_FRAME_LIMIT).frame({"label": Tensor()})
    assert decode(frame[HEADER_SIZE:]) == {"label": 7}


def test_a_moment_that_cannot_be_written_is_refused():
    class Zone(dt.tzinfo):
        def utcoffset(self, moment: dt.datetime | None) -> NoReturn:
            raise ValueError("there is no such zone any more")

    with pytest.raises(TypeError, match="cannot be sent"):
        FrameWriter(CONTROL_FRAME_LIMIT).frame(dt.datetime(2026, 1, 2, tzinfo=Zone()))


def test_a_moment_that_is_none_goes_as_none():
    class NaT(dt.datetime):
        """As pandas has it: it equals nothing, and no one can write it."""

        def __ne__(self, other: object) -> bool:
            return True

    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    frame = FrameWriter(CONTROL_FRAME_LIMIT).frame([{"at": moment}, {"at": NaT(1, 1, 1, tzinfo=dt.UTC)}])
    assert decode(frame[HEADER_SIZE:]) == [{"at": "2026-01-02T00:00:00Z"}, {"at": None}]
