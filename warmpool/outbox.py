"""What a socket has yet to take of what is sent: bytes, and memory that goes with some of them. Never waits."""

from __future__ import annotations

import socket
from collections import deque
from itertools import islice, takewhile
from typing import Final, TypeGuard

from .packets import carrying
from .wire.large import Frame, Memory

_NOW: Final = int(socket.MSG_DONTWAIT)
_AT_ONCE: Final = 256
"""Parts that one `sendmsg` takes; Linux allows 1024."""


class Outbox:
    """Of one socket. All of it raises OSError when the other end is gone."""

    __slots__ = ("_send", "_socket", "waiting")

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._send = connection.send
        self.waiting: deque[memoryview | Memory] = deque()
        """Parts that have not been taken. Memory goes with a byte of its own."""

    def __repr__(self) -> str:
        return f"<Outbox fd={self._socket.fileno()} waiting={len(self.waiting)}>"

    def size(self) -> int:
        """Bytes that wait."""
        return sum(len(part) for part in self.waiting if isinstance(part, memoryview))

    def post(self, frame: Frame) -> bool:
        """Sends this, behind what waits. True if nothing waits any more."""
        if self.waiting or type(frame) is not bytes:
            self.put(frame)
            return self.push()
        try:
            sent = self._send(frame, _NOW)
        except BlockingIOError:
            sent = 0
        if sent == len(frame):
            return True
        self.waiting.append(memoryview(frame)[sent:])
        return False

    def put(self, frame: Frame) -> None:
        """Behind what waits; it goes with the next push."""
        if isinstance(frame, bytes):
            if frame:
                self.waiting.append(memoryview(frame))
        elif isinstance(frame, list):
            self.waiting.extend(map(memoryview, frame))
        else:
            self.waiting.append(memoryview(frame.announcement)[:-1])
            self.waiting.append(frame.memory)

    def push(self) -> bool:
        """Sends what the socket takes. True if nothing waits any more."""
        waiting = self.waiting
        try:
            while waiting:
                head = waiting[0]
                if isinstance(head, memoryview):
                    views = [part for part in takewhile(_is_bytes, islice(waiting, _AT_ONCE)) if _is_bytes(part)]
                    self._take_off(self._socket.sendmsg(views, (), _NOW))
                else:
                    self._socket.sendmsg([b"\0"], [carrying(head.fileno())], _NOW)
                    waiting.popleft()
        except BlockingIOError:
            return False
        return True

    def _take_off(self, sent: int) -> None:
        while sent:
            head = self.waiting[0]
            assert isinstance(head, memoryview)
            if sent < len(head):
                self.waiting[0] = head[sent:]
                return
            sent -= len(head)
            self.waiting.popleft()


def _is_bytes(part: memoryview | Memory) -> TypeGuard[memoryview]:
    return isinstance(part, memoryview)
