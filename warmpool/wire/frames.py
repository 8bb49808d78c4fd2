"""Bytes ↔ frames. A frame is a big-endian u32 length, then so many bytes: one msgpack value.

The length is checked before a byte of the body is read, so a hostile header costs nothing. A body is decoded
whole with `unpackb`; a streaming msgpack Unpacker is refused because it reserves what a nested header claims, and
may not be used again after an error.

A body that is too large for the stream lies in memory that is passed along (`large`). Its frame is announced: a header
with the bit ENCLOSED, then PADDING zeros, and with the last of them comes the memory. So many are more than a reader
takes at once, so who reads the header has not read the last byte, and a plain `recv` cannot lose what comes with it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import msgpack

from ..errors import PayloadTooLargeError, ProtocolError
from .values import carry

HEADER: Final = struct.Struct("!I")
HEADER_SIZE: Final = HEADER.size
FIRST_SIZE: Final = 480
"""Of the buffers of a connection until a frame does not fit: among other small objects, where more would be new pages.
An open makes a connection, and a page that is touched for the first time costs as much as a call takes to pack.
"""
BUFFER_SIZE: Final = 8 * 1024
"""What a reader reads at once from then on, but inside of a larger frame."""
KEPT_SIZE: Final = 1024 * 1024 + HEADER_SIZE
"""Of a larger frame the buffer is kept for the next one, up to this size: new pages cost more than a copy."""
ENCLOSED: Final = 1 << 31
PADDING: Final = 128 * 1024
"""More than half of what a Unix socket takes by default, too: so no more than two such messages are under way, and who
does not read stops who sends.
"""
PACKER_SIZE: Final = 256 * 1024
"""A packer that has made a larger frame is not kept: it would keep the memory."""

unpack: Final = partial(msgpack.unpackb, strict_map_key=False)
"""The quick half of `decode`, for what is part of every call. Where it raises, `decode` says what is the matter."""

_pack_header = HEADER.pack
_unpack_header = HEADER.unpack_from


class FrameWriter:
    """Values into frames. One owner at a time: it keeps a packer, which is not made for two threads."""

    __slots__ = ("_pack", "limit")
    carry = staticmethod(carry)

    def __init__(self, limit: int) -> None:
        """`limit`: the largest body in bytes that may be made."""
        self.limit = limit
        self._renew()

    def frame(self, value: Any) -> bytes:
        """The frame that carries `value`. Raises as `body`."""
        body = self.body(value)
        return _pack_header(len(body)) + body

    def body(self, value: Any) -> bytes:
        """What is in the frame that carries `value`.

        Raises PAYLOAD_TOO_LARGE if it would be larger than the limit, and TypeError, ValueError or OverflowError if it
        holds something that cannot be sent.
        """
        try:
            body = self._pack(value)
        except BaseException:
            self._renew()
            raise
        size = len(body)
        if size > PACKER_SIZE:
            self._renew()
        if size > self.limit:
            raise too_large(size, self.limit)
        return body

    def _renew(self) -> None:
        """A packer that has failed is not to be used again; one that made a large frame keeps a buffer of its size."""
        self._pack: Callable[[Any], bytes] = msgpack.Packer(default=self.carry, buf_size=FIRST_SIZE).pack


def too_large(size: int, limit: int, remedy: str = "send less at once") -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"a message of {size} bytes is larger than the limit of {limit} bytes; {remedy}",
        details={"size": size, "limit": limit},
    )


def call_too_large(size: int, limit: int) -> PayloadTooLargeError:
    """Of the messages of calls, whose limit is the daemon's user's to set."""
    return too_large(size, limit, "send less at once, or start the daemon with a larger --call-memory-limit")


def announcement(size: int) -> bytes:
    """The frame of a body of so many bytes in memory. That goes with the last byte."""
    return _pack_header(ENCLOSED | size) + bytes(PADDING)


def encode(value: Any, limit: int) -> bytes:
    """One frame, where there is no connection to keep a writer for."""
    return FrameWriter(limit).frame(value)


def decode(body: bytes | memoryview) -> Any:
    """The value in the body of a frame. Raises PROTOCOL_ERROR, and nothing else, on any other bytes."""
    try:
        try:
            return unpack(body)
        except TypeError:  # a key that was a tuple comes as a list, and one that was a dataclass as a dict
            return msgpack.unpackb(body, strict_map_key=False, object_pairs_hook=_with_tuple_keys)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:  # and not what a handler raises
        # Not the error's words: they can hold the peer's data, and more of it than Python can show.
        raise ProtocolError(f"a frame of {len(body)} bytes is not one msgpack value: {type(error).__name__}") from None


def _with_tuple_keys(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_as_key(key): value for key, value in pairs}


def _as_key(value: Any) -> Any:
    if type(value) is dict:
        return tuple((name, _as_key(field)) for name, field in value.items())
    return tuple(map(_as_key, value)) if type(value) is list else value


class FrameReader:
    """Frames out of a stream of bytes, however it is cut.

    `read` takes the socket's own `recv_into` and asks it at most once; as long as `pending`, there may be more whole
    frames, by `next_frame`. A frame is a view into the buffer: decode it before the next call.
    """

    __slots__ = ("_buffer", "_enclosed", "_end", "_start", "_view", "limit", "memory_limit", "pending", "take_memory")

    def __init__(self, limit: int) -> None:
        """`limit`: the largest body in bytes that is accepted."""
        self.limit = limit
        self.memory_limit = 0
        """The largest that is accepted in memory."""
        self.take_memory: Callable[[int], memoryview] | None = None
        """Receives a byte, and the memory that comes with it, of so many bytes. Raises as `recv_into` does."""
        self._enclosed = 0  # bytes of the body that is announced
        self._buffer = bytearray(FIRST_SIZE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self.pending = False
        """Bytes are here that have not been given out. At the end of the stream: it was cut inside a frame."""

    def read(self, recv_into: Callable[[memoryview], int]) -> memoryview | None:
        """The next frame: one that is here, or else one that is whole after reading once; None if it is not.

        Raises EOFError at the end of the stream, PAYLOAD_TOO_LARGE as soon as a header claims too much, and what
        `recv_into` raises.
        """
        if not self.pending:
            count = recv_into(self._view)
            if count > HEADER_SIZE:
                (size,) = _unpack_header(self._buffer)
                if size == count - HEADER_SIZE and size <= self.limit:  # a frame and nothing else: nearly always
                    return self._view[HEADER_SIZE:count]
        elif (frame := self.next_frame()) is not None:
            return frame
        elif self._enclosed and self._end - self._start == HEADER_SIZE + PADDING - 1:
            return self._take_enclosed(self._enclosed)
        else:
            count = recv_into(self._space_behind())
        if not count:
            raise EOFError
        self._end += count
        self.pending = True
        return self.next_frame()

    def next_frame(self) -> memoryview | None:
        """The body of the next whole frame, or None. Raises PAYLOAD_TOO_LARGE."""
        start, available = self._start, self._end - self._start
        if available < HEADER_SIZE:
            return None
        (size,) = _unpack_header(self._buffer, start)
        if size > self.limit:
            self._announced(size)
            return None
        body = start + HEADER_SIZE
        end = body + size
        if end > self._end:
            return None
        frame = self._view[body:end]
        self._start = end
        if end == self._end:
            self._start = self._end = 0
            self.pending = False
            if len(self._view) > BUFFER_SIZE:
                self._make_room(BUFFER_SIZE)  # often in the same buffer: the frame is decoded before the next read
        return frame

    def _announced(self, header: int) -> None:
        """Takes note of a body that comes in memory. Raises PAYLOAD_TOO_LARGE, also if it does not come so, and
        PROTOCOL_ERROR if there is none.
        """
        size = header ^ ENCLOSED
        if self.take_memory is None or size > header:
            raise too_large(header, self.limit)
        if size > self.memory_limit:
            raise call_too_large(size, self.memory_limit)
        if not size:
            raise ProtocolError("a frame of no bytes is not one msgpack value")
        self._enclosed = size

    def _take_enclosed(self, size: int) -> memoryview:
        assert self.take_memory is not None
        body = self.take_memory(size)
        self._start = self._end = self._enclosed = 0
        self.pending = False
        self._make_room(BUFFER_SIZE)
        return body

    def _space_behind(self) -> memoryview:
        """Room behind what is pending, for the rest of its frame at least."""
        start, end = self._start, self._end
        wanted = HEADER_SIZE
        if self._enclosed:
            wanted += PADDING - 1
        elif end - start >= HEADER_SIZE:
            wanted += _unpack_header(self._buffer, start)[0]
        if start + wanted > len(self._view) or end == len(self._view):
            self._make_room(max(wanted, end - start + 1, BUFFER_SIZE))
        return self._view[self._end :]

    def _make_room(self, capacity: int) -> None:
        """From now on there is room for so many bytes, and what is pending stands first."""
        held = self._view[self._start : self._end]
        if not capacity <= len(self._buffer) <= KEPT_SIZE:
            self._buffer = bytearray(capacity)
        self._view = memoryview(self._buffer)[:capacity]
        self._view[: len(held)] = held
        self._start, self._end = 0, len(held)
