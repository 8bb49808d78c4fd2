"""Messages of calls, of any size: the small ones as frames, the large ones in memory that both ends share.

Large bytes are never packed: msgpack would copy them twice. The message is a list of pieces, these bytes among them,
and the pieces are sent, or written to memory, from where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgpack

from ..errors import PayloadTooLargeError
from .frames import HEADER, FrameWriter, announcement, call_too_large
from .values import carry, carry_input

STREAM_LIMIT: Final = 1024 * 1024
"""A body of more bytes goes in memory: two copies less, for pages that are new each time."""
LARGE_BYTES: Final = 32 * 1024
"""From here on to copy bytes takes longer than to take a message to pieces."""

_pack_header = HEADER.pack
_BIN: Final = b"\xc6"
"""How msgpack begins bytes whose length takes 32 bits."""


class Memory(Protocol):
    """What a body lies in, until it is dropped."""

    def fileno(self) -> int: ...


class Enclosed(NamedTuple):
    """A frame whose body goes with the last byte of its announcement."""

    announcement: bytes
    memory: Memory


Frame: TypeAlias = bytes | list[bytes] | Enclosed
"""Whole, or in pieces."""
Enclose: TypeAlias = Callable[[list[bytes], int], Memory]
"""Puts pieces, of so many bytes in all, into memory that can be passed. Raises PAYLOAD_TOO_LARGE if there is none."""


class MessageWriter(FrameWriter):
    """Messages of calls into frames. One owner at a time."""

    __slots__ = ("_enclose", "_memory_limit", "_small")

    def __init__(self, limit: int) -> None:
        """`limit`: the largest body in bytes that the peer takes from the stream."""
        super().__init__(limit)
        self._small = min(limit, LARGE_BYTES)
        self._memory_limit = 0
        self._enclose: Enclose | None = None

    def share(self, memory_limit: int, enclose: Enclose | None) -> None:
        """From now on the peer takes bodies of up to `memory_limit` bytes in memory; 0: none."""
        self._memory_limit, self._enclose = memory_limit, enclose if memory_limit else None

    def another(self) -> MessageWriter:
        """One like this, for another owner."""
        writer = MessageWriter(self.limit)
        writer.share(self._memory_limit, self._enclose)
        return writer

    def message(self, message: tuple[Any, ...]) -> Frame:
        """As `frame`. The body may be as large as the peer takes it in any way."""
        payload = message[-1]
        if type(payload) is dict:
            for value in payload.values():
                if type(value) is bytes and len(value) >= LARGE_BYTES:
                    return self._of_pieces(pieces_of(message, self.carry))
        elif type(payload) is bytes and len(payload) >= LARGE_BYTES:
            return self._of_pieces(pieces_of(message, self.carry))
        try:
            body = self._pack(message)
        except BaseException:
            self._renew()
            raise
        size = len(body)
        if size > self._small:
            self._renew()
            return self._of_pieces([body])
        return _pack_header(size) + body

    def _of_pieces(self, pieces: list[bytes]) -> Frame:
        size = sum(map(len, pieces))
        if self._enclose is not None and min(self.limit, STREAM_LIMIT) < size <= self._memory_limit:
            try:
                return Enclosed(announcement(size), self._enclose(pieces, size))
            except PayloadTooLargeError:  # out of memory or descriptors: what the stream takes goes there
                if size > self.limit:
                    raise
        elif size > self.limit:
            raise call_too_large(size, max(self.limit, self._memory_limit))
        return [_pack_header(size), *pieces]


class InputWriter(MessageWriter):
    """Of a client, whose messages hold inputs."""

    __slots__ = ()
    carry = staticmethod(carry_input)


def pieces_of(message: tuple[Any, ...], carry: Callable[[Any], Any] = carry) -> list[bytes]:
    """What msgpack makes of a message, in pieces: bytes that are its last part, or a value of that, are pieces. What is
    packed by itself has as many lists around it as it lies in, a byte each, so that what is too deep is refused here.
    """
    packer = msgpack.Packer(default=carry)
    *head, payload = message
    pieces: list[bytes] = [packer.pack_array_header(len(message)), *map(packer.pack, head)]

    def add(value: Any) -> None:
        if type(value) is bytes and len(value) >= LARGE_BYTES:
            pieces.append(_BIN + HEADER.pack(len(value)))
            pieces.append(value)
        else:
            pieces.append(packer.pack([[value]])[2:])

    if type(payload) is dict:
        pieces.append(packer.pack_map_header(len(payload)))
        for key, value in payload.items():
            pieces.append(packer.pack(key))
            add(value)
    else:
        add(payload)
    return pieces
