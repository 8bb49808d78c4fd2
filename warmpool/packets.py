"""Messages and file descriptors between the daemon and its processes: one message a packet.

`AF_UNIX SOCK_SEQPACKET` keeps the borders of messages, so that descriptors always arrive with the message that
they belong to. A body too large for a packet (a long traceback, many schemas) travels in a memfd that comes as
the last descriptor. Descriptors are received close-on-exec; `socket.recv_fds` would leak them to children.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from .descriptors import FD_SIZE, carrying, close_all, fds_in
from .errors import ProtocolError
from .wire.frames import FrameWriter
from .wire.shapes import Conversation, Message, from_wire, to_wire

PACKET_LIMIT: Final = 8 * 1024
"""Bytes of a packet; what is longer is spilled."""
FDS_LIMIT: Final = 8
"""Descriptors that may come with one message; a spilled body takes one more."""
_SPILL_LIMIT: Final = 64 * 1024 * 1024
_INLINE: Final = b"\0"
_SPILLED: Final = b"\1"

_CUT: Final = int(socket.MSG_CTRUNC | socket.MSG_TRUNC)
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_ANCILLARY_SIZE: Final = socket.CMSG_SPACE((FDS_LIMIT + 1) * FD_SIZE)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, both non-blocking and close-on-exec."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def send(channel: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Sends one message with copies of `fds`, which the caller still owns.

    Raises BlockingIOError if the peer has too much unread, and another OSError if it is gone.
    """
    assert len(fds) <= FDS_LIMIT, "too many descriptors for one message"
    body = FrameWriter(_SPILL_LIMIT).body(to_wire(message))
    if len(body) < PACKET_LIMIT:
        _sendmsg(channel, _INLINE + body, fds)
        return
    spill = os.memfd_create("warmpool-message", os.MFD_CLOEXEC)
    try:
        with open(spill, "wb", closefd=False) as file:
            file.write(body)
        _sendmsg(channel, _SPILLED, [*fds, spill])
    finally:
        os.close(spill)


def _sendmsg(channel: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    channel.sendmsg([packet], [carrying(*fds)] if fds else [], socket.MSG_NOSIGNAL)


def receive(channel: socket.socket, conversation: Conversation) -> tuple[Message, list[int]] | None:
    """The next message and the descriptors that came with it, now the caller's; None at the end of the stream.

    Raises BlockingIOError if there is none yet, and PROTOCOL_ERROR if it is not of the conversation.
    """
    packet, ancillary, flags, _ = channel.recvmsg(PACKET_LIMIT + 1, _ANCILLARY_SIZE, _CLOEXEC)
    received = fds_in(ancillary) if ancillary else []
    try:
        if flags & _CUT:
            raise ProtocolError("a packet was cut")
        if not packet:
            close_all(received)
            return None
        body = packet[1:] if packet[:1] == _INLINE else _spilled_body(received)
        message = from_wire(body, conversation)
    except BaseException:
        close_all(received)
        raise
    return message, received


def _spilled_body(received: list[int]) -> bytes:
    """What is in the last descriptor, which is taken from the list."""
    if not received:
        raise ProtocolError("a spilled message came without its body")
    try:
        size = os.fstat(received[-1]).st_size
        if size > _SPILL_LIMIT:
            raise ProtocolError(f"the body of a spilled message has {size} bytes")
        body = os.pread(received[-1], size, 0)
    except OSError as error:
        raise ProtocolError(f"the body of a spilled message cannot be read: {error}") from error
    os.close(received.pop())
    return body


def expect_fds(message: Message, fds: list[int], count: int) -> list[int]:
    """`fds` if there are `count`; else closes them and raises PROTOCOL_ERROR."""
    if len(fds) != count:
        close_all(fds)
        raise ProtocolError(f"{type(message).__name__} came with {len(fds)} descriptors, not {count}")
    return fds
