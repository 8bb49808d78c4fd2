"""A client's connection, in the hands of its worker."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from typing import Final

from ..constants import ATTACH_FRAME_LIMIT
from ..errors import ProtocolError
from ..memfd import enclose, receive_memory
from ..outbox import Outbox
from ..wire.frames import FrameReader
from ..wire.large import MessageWriter

ENDS: Final = (OSError, EOFError, ProtocolError)
"""What ends a connection."""
LARGE_ATTACH: Final = range(2)
"""A large one is read in two steps: what a reader takes at once, and the rest."""


class Connection:
    __slots__ = ("attached", "outbox", "reader", "socket", "writer")

    def __init__(self, connection: socket.socket, frame_limit: int) -> None:
        self.socket = connection
        self.attached = False
        """Whether it is known whose it is: its Attach has been read."""
        self.outbox = Outbox(connection)
        """What the client has not taken of its last answer."""
        self.reader = FrameReader(ATTACH_FRAME_LIMIT)
        self.reader.take_memory = partial(receive_memory, connection, socket.MSG_DONTWAIT)
        self.writer = MessageWriter(frame_limit)

    def attach(self, memory_limit: int) -> None:
        """It is a client's. `memory_limit`: the largest message that the client and we may pass as memory."""
        self.attached = True
        self.reader.limit, self.reader.memory_limit = self.writer.limit, memory_limit
        self.writer.share(memory_limit, enclose)

    def close(self) -> None:
        """Ends the connection, also where a process that the app has forked holds a copy of it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.outbox.clear()

    def has_bytes(self) -> bool:
        """Whether part of a call is here, or all of it."""
        try:
            return self.reader.pending or bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def is_open(self) -> bool:
        """Whether the client is there, as far as can be seen."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def __repr__(self) -> str:
        return f"<Connection fd={self.socket.fileno()}{' inside a frame' if self.reader.pending else ''}>"
