"""What a socket has yet to take of what is sent: bytes, and memory that goes with some of them. Never waits."""

from __future__ import annotations

import socket
from collections import deque
from itertools import islice, takewhile
from typing import cast

from .descriptors import IOV_MAX, NOW, carrying, take_off
from .wire.large import Frame, Memory


class Outbox:
    """Of one socket. `post` and `push` raise OSError when the other end is gone."""

    __slots__ = ("_send", "_socket", "size", "waiting")

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._send = connection.send
        self.waiting: deque[memoryview | Memory] = deque()
        """Parts that have not been taken. Memory goes with a byte of its own."""
        self.size = 0
        """Bytes that wait, but for those in memory."""

    def __repr__(self) -> str:
        return f"<Outbox fd={self._socket.fileno()} waiting={len(self.waiting)} size={self.size}>"

    def post(self, frame: Frame) -> bool:
        """Sends this, behind what waits. True if nothing waits any more."""
        if self.waiting or type(frame) is not bytes:
            self.put(frame)
            return self.push()
        try:
            sent = self._send(frame, NOW)
        except BlockingIOError:
            sent = 0
        if sent == len(frame):
            return True
        self._put(memoryview(frame)[sent:])
        return False

    def put(self, frame: Frame) -> None:
        """Behind what waits; it goes with the next push."""
        if isinstance(frame, bytes):
            if frame:
                self._put(memoryview(frame))
        elif isinstance(frame, list):
            for piece in frame:
                self._put(memoryview(piece))
        else:
            self._put(memoryview(frame.announcement)[:-1])
            self.waiting.append(frame.memory)

    def _put(self, part: memoryview) -> None:
        self.waiting.append(part)
        self.size += len(part)

    def push(self) -> bool:
        """Sends what the socket takes. True if nothing waits any more."""
        waiting = self.waiting
        try:
            while waiting:
                head = waiting[0]
                if isinstance(head, memoryview):
                    views = cast("list[memoryview]", list(takewhile(_is_bytes, islice(waiting, IOV_MAX))))
                    sent = self._socket.sendmsg(views, (), NOW)
                    self.size -= sent
                    take_off(waiting, sent)
                else:
                    self._socket.sendmsg([b"\0"], [carrying(head.fileno())], NOW)
                    waiting.popleft()
        except BlockingIOError:
            return False
        return True

    def move_to(self, other: Outbox) -> None:
        """What waits here is from now on the other one's to send, behind what waits there."""
        other.waiting.extend(self.waiting)
        other.size += self.size
        self.clear()

    def clear(self) -> None:
        """Nothing more is to be sent. (Another thread may be pushing: it goes on with what it has begun.)"""
        self.waiting, self.size = deque(), 0


def _is_bytes(part: memoryview | Memory) -> bool:
    return type(part) is memoryview
