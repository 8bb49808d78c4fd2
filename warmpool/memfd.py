"""Memory that one process fills and another reads: a memfd, sealed, so that what was checked stays as it is.

Without the seals who has filled it could cut it while it is read, and the reader would die of SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from .descriptors import FD_SIZE, IOV_MAX, Ancillary, close_all, fds_in, take_off
from .errors import PayloadTooLargeError, ProtocolError
from .wire.large import Memory

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_OWNER: Final = select.epoll.fromfd
"""Makes an owner of a descriptor, of whatever kind that is. An epoll object is the only one of Python's that closes
what it owns without a warning and in C: a signal's handler may raise in a `__del__`, and the descriptor would stay.
"""
_SPACE: Final = socket.CMSG_SPACE(FD_SIZE)


def enclose(pieces: Sequence[bytes], size: int) -> Memory:
    """Memory that holds the pieces, `size` bytes in all. Raises PAYLOAD_TOO_LARGE if there is no more to be had."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        # In one step: the handler of a signal may raise between two, and the descriptor would be nobody's.
        (memory,) = map(_OWNER, map(os.memfd_create, ("warmpool-message",), (flags,)))
        views = deque(memoryview(piece) for piece in pieces if piece)
        while views:
            take_off(views, os.writev(memory.fileno(), list(islice(views, IOV_MAX))))
        fcntl.fcntl(memory.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        if error.errno is None:
            raise  # by a signal's handler
        raise PayloadTooLargeError(
            f"there is no memory for a message of {size} bytes: {error}", details={"size": size}
        ) from error
    return memory


def receive_memory(connection: socket.socket, flags: int, size: int) -> memoryview:
    """Receives a byte, and with it memory of `size` bytes at least. Raises EOFError at the end of the stream,
    PROTOCOL_ERROR if it came without or if somebody could still change it, and what `recvmsg` raises.
    """
    received: list[tuple[bytes, list[Ancillary], int, Any]] = []
    try:
        # In one step, too.
        received.extend(map(connection.recvmsg, (1,), (_SPACE,), (flags | socket.MSG_CMSG_CLOEXEC,)))
        ((byte, ancillary, cut, _),) = received
        if not byte:
            raise EOFError
        if len(fds := fds_in(ancillary)) != 1 or cut & socket.MSG_CTRUNC:
            is_cut = fds or cut & socket.MSG_CTRUNC
            many = "more than one, or none since this process has too many open" if is_cut else "none"
            raise ProtocolError(f"a message in memory came without its memory: of descriptors there came {many}")
        try:
            if ~fcntl.fcntl(fds[0], fcntl.F_GET_SEALS) & (fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE):
                raise ProtocolError("a message in memory can still be changed: its memory is not sealed")
            if os.fstat(fds[0]).st_size < size:
                raise ProtocolError("a message in memory cannot be read: its memory is shorter than it")
            return memoryview(mmap.mmap(fds[0], size, mmap.MAP_PRIVATE | mmap.MAP_POPULATE, mmap.PROT_READ))
        except OSError as error:
            if error.errno is None:
                raise  # by a signal's handler
            raise ProtocolError(f"a message in memory cannot be read: {error}") from error
    finally:
        for _, ancillary, _, _ in received:
            close_all(fds_in(ancillary))
