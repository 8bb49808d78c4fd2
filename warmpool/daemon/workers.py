"""A worker as the daemon has it: what it is told, and the connections on which it serves clients."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Final

from ..descriptors import NOW
from ..wire.process_messages import Serve
from ..wire.shapes import Message
from .child import Channel, Child

NUDGE_AFTER: Final = 0.02
"""Seconds after which a worker that has not read a message is told of it once more. The signal that the message raised
may have come just before a system call that it should have ended: a read of ours, or one of the app's.
"""


class WorkerEnd:
    """Our end of one worker, from when it is asked for."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, channel: Channel, first: socket.socket) -> None:
        """`first`: the client's end of its first connection, until a client has it."""
        self.name = name
        self._loop = loop
        self.channel = channel
        self._first: socket.socket | None = first
        self.child: Child | None = None
        """Before it is born, the process that is to become it."""
        self.announced_on = channel
        """Where it is said first that there is a process."""
        self.is_born = False
        self.says_goodbye = False
        """Its end is a clean one."""

    def __repr__(self) -> str:
        return f"<WorkerEnd {self.name} {self.child}>"

    def tell(self, message: Message) -> None:
        if self.channel.send(message):
            self._nudge_later()

    def connection_for(self, attach: bytes) -> int:
        """The client's end of a connection, for the caller to close, on which the worker is told whom it serves: by the
        frame `attach`.

        Raises a ConnectionError if the worker is dead, and another OSError if it has too many connections that it has
        not taken, or there can be none.
        """
        if self._first is not None:
            first, self._first = self._first, None
            try:
                return _begun(first, attach)
            except ConnectionError:
                pass  # a worker may have closed it and live: an exception fell into its read
        ours, theirs = socket.socketpair()
        with theirs:
            begun = _begun(ours, attach)
            try:
                self.channel.send_now(Serve(), (theirs.fileno(),))
            except OSError:
                os.close(begun)
                raise
        self._nudge_later()
        return begun

    def _nudge_later(self) -> None:
        self._loop.call_later(NUDGE_AFTER, self._nudge)

    def _nudge(self) -> None:
        if self.child is not None and self.channel.has_unread():
            self.child.nudge()

    def close(self) -> None:
        self.channel.close()
        if self._first is not None:
            self._first.close()


def _begun(connection: socket.socket, attach: bytes) -> int:
    """The descriptor of a connection on which the first word is said. If it cannot be, the connection is closed."""
    try:
        if connection.send(attach, NOW) < len(attach):  # it is empty, so the machine's limit is small
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    except OSError:
        connection.close()
        raise
    return connection.detach()
