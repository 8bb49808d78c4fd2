"""What Python's sockets leave to be done: descriptors beside the bytes, and many pieces of bytes in one system call."""

from __future__ import annotations

import os
import socket
from array import array
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, TypeAlias

Ancillary: TypeAlias = tuple[int, int, bytes]
"""What goes beside the bytes of a message, as `sendmsg` takes it: level, kind, data."""

NOW: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
"""To send what is taken at once. A peer that has gone is an error, and no SIGPIPE: its handler is the user's to choose.
A plain number, as those below: to join flags of an enum takes longer than the system call that they are for.
"""
_SOCKET: Final = int(socket.SOL_SOCKET)
_RIGHTS: Final = int(socket.SCM_RIGHTS)
FD_SIZE: Final = 4
IOV_MAX: Final = 1000
"""Pieces that one `writev` or `sendmsg` takes (1024 on Linux)."""


def adopt(fd: int, kind: socket.SocketKind = socket.SOCK_STREAM, *, blocking: bool = True) -> socket.socket:
    """The socket behind a descriptor, now the caller's, without the time-out that an app or a client's program may have
    set for all new sockets (`socket.setdefaulttimeout`): it means its own.
    """
    adopted = socket.socket(socket.AF_UNIX, kind, 0, fd)
    adopted.setblocking(blocking)
    return adopted


def carrying(*fds: int) -> Ancillary:
    """What sends copies of `fds` along with bytes."""
    return _SOCKET, _RIGHTS, array("i", fds).tobytes()


def fds_in(ancillary: Iterable[Ancillary]) -> list[int]:
    """The descriptors that came with a message, now the caller's."""
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == _SOCKET and kind == _RIGHTS:
            fds += memoryview(data[: len(data) & -FD_SIZE]).cast("i")
    return fds


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def take_off(pieces: deque[Any], count: int) -> None:
    """So many bytes of these have been taken: what is left stands first."""
    while count:
        head = pieces[0]
        if count < len(head):
            pieces[0] = head[count:]
            return
        count -= len(head)
        pieces.popleft()
