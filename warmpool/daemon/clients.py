"""The daemon's end of clients' connections: accepted, read and answered without ever blocking.

Raw sockets on the loop's readers. A client asks for any number of things over one connection; a connection to a worker
comes to it as a descriptor beside the answer that it belongs to. From a client that does not read its answers nothing
more is read.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..constants import CONTROL_FRAME_LIMIT, HELLO_TIMEOUT, MIB, REPLY_FRAME_LIMIT
from ..descriptors import NOW, carrying, close_all
from ..errors import ProtocolError
from ..paths import peer_of
from ..wire.frames import FrameReader, FrameWriter
from ..wire.messages import CONTROL, Control, Opened, hello_of
from ..wire.shapes import Message, from_wire, to_wire

UNSENT_LIMIT = 4 * MIB
"""A client that has so much of its answers unread is dropped. One answer may be longer."""
READS_AT_ONCE = 2
"""Mostly the second finds nothing, and the end of what is there is known."""
ACCEPT_PAUSE = 1.0
"""Seconds without accepting after the process has run out of descriptors: trying on would take all of the CPU."""


class Unsent(NamedTuple):
    """What a client has not taken of an answer. `passed`: descriptors that go with it, for Open `opened`."""

    data: memoryview
    passed: tuple[int, ...]
    opened: int | None


class Client:
    """One connection."""

    def __init__(self, number: int, connection: socket.socket, pid: int) -> None:
        self.number = number
        self.pid = pid
        self.socket = connection
        self.reader = FrameReader(CONTROL_FRAME_LIMIT)
        self.hello: Control | None = None
        self.wants_board = False
        """Until it has been sent."""
        self.unsent: deque[Unsent] = deque()
        """Nothing more is read from it until it has taken that."""
        self.unsent_size = 0

    def greet(self, hello: Control) -> None:
        self.hello, self.wants_board = hello, hello.wants_board

    def put(self, answer: Unsent) -> None:
        """It goes with the next push, behind what waits."""
        self.unsent.append(answer)
        self.unsent_size += len(answer.data)

    def push(self) -> None:
        """Sends what it takes. Raises BlockingIOError if that is not all, and another OSError if it cannot be sent."""
        unsent = self.unsent
        while unsent:
            data, passed, opened = unsent[0]
            sent = self.socket.sendmsg((data,), (carrying(*passed),) if passed else (), NOW)
            for fd in passed:
                os.close(fd)
            self.unsent_size -= sent
            if sent == len(data):
                unsent.popleft()
            else:
                unsent[0] = Unsent(data[sent:], (), opened)

    def close(self) -> None:
        self.socket.close()
        for answer in self.unsent:
            close_all(answer.passed)
        self.unsent.clear()

    def __repr__(self) -> str:
        return f"<Client {self.number} fd={self.socket.fileno()}>"


class Clients:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        *,
        received: Callable[[Client, Message], None],
        refused: Callable[[Client, ProtocolError], None],
        closed: Callable[[int, list[int]], None],
    ) -> None:
        """`closed` is told the number of a client that has left, and the opens of which it has not got the answers."""
        self._loop = loop
        self._listener = listener
        self._received = received
        self._refused = refused
        self._closed = closed
        self._writer = FrameWriter(REPLY_FRAME_LIMIT)
        self._last = 0
        self.by_number: dict[int, Client] = {}
        loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for client in list(self.by_number.values()):
            self._drop(client)

    def send(self, client: Client, message: Message, *passed: int) -> None:
        """Sends what the client takes now, and the rest when it takes more. `passed`: descriptors that go with it,
        which are ours to close.
        """
        is_first = not client.unsent
        opened = message.id if isinstance(message, Opened) else None
        client.put(Unsent(memoryview(self._writer.frame(to_wire(message))), passed, opened))
        if not is_first:
            if client.unsent_size > UNSENT_LIMIT:
                self.lose(client)
            return
        try:
            client.push()
        except BlockingIOError:
            self._loop.remove_reader(client.socket.fileno())
            self._loop.add_writer(client.socket.fileno(), self._send_more, client)
        except OSError:
            self.lose(client)

    def _send_more(self, client: Client) -> None:
        try:
            client.push()
        except BlockingIOError:
            return
        except OSError:
            self.lose(client)
            return
        self._loop.remove_writer(client.socket.fileno())
        self._watch(client)

    def lose(self, client: Client) -> None:
        """It has left, or is sent away."""
        if client.number in self.by_number:
            unopened = [answer.opened for answer in client.unsent if answer.opened is not None]
            self._drop(client)
            self._closed(client.number, unopened)

    def _drop(self, client: Client) -> None:
        del self.by_number[client.number]
        self._loop.remove_reader(client.socket.fileno())
        self._loop.remove_writer(client.socket.fileno())
        client.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause()
                return
            self._welcome(connection)

    def _pause(self) -> None:
        fd = self._listener.fileno()
        self._loop.remove_reader(fd)
        self._loop.call_later(ACCEPT_PAUSE, self._resume)

    def _resume(self) -> None:
        if self._listener.fileno() != -1:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _welcome(self, connection: socket.socket) -> None:
        pid, uid = peer_of(connection)
        if uid not in (0, os.getuid()):
            connection.close()
            return
        connection.setblocking(False)
        self._last += 1
        client = self.by_number[self._last] = Client(self._last, connection, pid)
        self._watch(client)
        self._read(client)  # its hello may have come with it
        if self._is_silent(client):
            self._loop.call_later(HELLO_TIMEOUT, self._hello_overdue, client)

    def _is_silent(self, client: Client) -> bool:
        return client.hello is None and client.number in self.by_number

    def _hello_overdue(self, client: Client) -> None:
        if self._is_silent(client):
            self._read(client)  # it may be the loop that is late
        if self._is_silent(client):
            self._refused(client, ProtocolError(f"no hello came within {HELLO_TIMEOUT:g} s of connecting"))

    def _watch(self, client: Client) -> None:
        self._loop.add_reader(client.socket.fileno(), self._read, client)

    def _read(self, client: Client) -> None:
        """Reads what is there and has it handled; to its end, with others in between. Of an error on a socket, as of a
        client that has gone without taking its answers, uvloop tells once, together with what has come before it.
        """
        try:
            for _ in range(READS_AT_ONCE):
                if client.number not in self.by_number or client.unsent:
                    return
                frame = client.reader.read(client.socket.recv_into)
                while frame is not None and client.number in self.by_number:
                    if client.hello is None:
                        client.greet(hello_of(frame))
                    else:
                        self._received(client, from_wire(frame, CONTROL))
                    frame = client.reader.next_frame()
        except BlockingIOError:
            pass
        except ProtocolError as error:
            self._refused(client, error)
        except (OSError, EOFError):
            self.lose(client)
        else:
            self._loop.call_soon(self._read, client)
