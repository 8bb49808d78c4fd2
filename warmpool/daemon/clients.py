"""The daemon's end of clients' connections: accepted, read and answered without ever blocking.

Raw sockets on the loop's readers, never transports: a transport reads ahead, and bytes that are meant for a worker
would stay here. A client sends nothing after its hello until it is answered, so whatever a connection holds when it
is handed over is the worker's. From a client that does not read its answers nothing more is read.

A client that has a control connection need not connect again for each session: it makes a pair of sockets and passes
one of them with its Open. That is a client like any other, whose hello has come before it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Final

from ..errors import ProtocolError
from ..packets import close_all, fds_in
from ..paths import peer_of
from ..settings import CONTROL_FRAME_LIMIT, MIB
from ..wire.frames import FrameReader, encode
from ..wire.messages import CONTROL, HELLO, Open, hello_from_wire
from ..wire.shapes import Conversation, Message, from_wire, to_wire

FRAME_MAX = 2**31
UNSENT_LIMIT = 4 * MIB
"""A client that has so much of its answers unread is dropped. One answer may be longer."""
ACCEPT_PAUSE = 1.0
"""Seconds without accepting after the process has run out of descriptors: trying on would take all of the CPU."""

_ONE_FD: Final = socket.CMSG_SPACE(4)
_AT_ONCE: Final = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_CUT: Final = int(socket.MSG_CTRUNC)


class Client:
    """One connection that is still the daemon's."""

    def __init__(self, number: int, connection: socket.socket, pid: int) -> None:
        self.number = number
        self.pid = pid
        self.socket = connection
        self.conversation: Conversation = HELLO
        self.watched = False
        """Whether the loop reads it. Most are handed over before that is needed."""
        self.unsent: memoryview | None = None
        """What it has not taken of its answers. Nothing more is read from it until it has."""
        self.passed: deque[int | None] = deque()
        """The connections that have come with its messages; None: one that we had no descriptor for."""

    @cached_property
    def reader(self) -> FrameReader:
        """Most of those that others have brought never say a word here."""
        return FrameReader(CONTROL_FRAME_LIMIT)

    def receive_into(self, space: memoryview) -> int:
        """`recv_into` that never blocks, and that keeps what is passed."""
        count, ancillary, came, _ = self.socket.recvmsg_into([space], _ONE_FD, _AT_ONCE)
        if ancillary:
            self.passed.extend(fds_in(ancillary))
        if came & _CUT:
            self.passed.append(None)
        return count

    def close(self) -> None:
        self.socket.close()
        close_all(fd for fd in self.passed if fd is not None)

    def __repr__(self) -> str:
        return f"<Client {self.number} fd={self.socket.fileno()}>"


class Clients:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        *,
        connected: Callable[[Client], None],
        received: Callable[[Client, Message], None],
        refused: Callable[[Client, ProtocolError], None],
        closed: Callable[[int], None],
    ) -> None:
        """`closed` is told the number of a client that left of itself, not of one that was handed over."""
        self._loop = loop
        self._listener = listener
        self._connected = connected
        self._received = received
        self._refused = refused
        self._closed = closed
        self._last = 0
        self.by_number: dict[int, Client] = {}
        loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for client in list(self.by_number.values()):
            self.drop(client)

    def greet(self, client: Client) -> None:
        """It has said hello, and stays for control requests."""
        client.conversation = CONTROL

    def expect_nothing(self, client: Client) -> None:
        """It waits in line: whatever it sends now is out of place."""
        client.conversation = {}

    def send(self, client: Client, message: Message) -> bool:
        """Sends what the client takes now, and the rest when it takes more. False: it has left."""
        data = encode(to_wire(message), FRAME_MAX)
        if client.unsent is not None:
            client.unsent = memoryview(bytes(client.unsent) + data)
            if len(client.unsent) > UNSENT_LIMIT:
                self.drop(client)
                self._closed(client.number)
            return True
        try:
            sent = client.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False  # its reader will say so too
        if sent < len(data):
            client.unsent = memoryview(data)[sent:]
            self._unwatch(client)
            self._loop.add_writer(client.socket.fileno(), self._send_more, client)
        return True

    def _send_more(self, client: Client) -> None:
        assert client.unsent is not None
        try:
            client.unsent = client.unsent[client.socket.send(client.unsent, socket.MSG_DONTWAIT) :] or None
        except BlockingIOError:
            return
        except OSError:
            self.drop(client)
            self._closed(client.number)
            return
        if client.unsent is None:
            self._loop.remove_writer(client.socket.fileno())
            self._watch(client)

    def make_blocking(self, client: Client) -> None:
        """For a worker, which waits in its reads. The loop makes non-blocking what it has watched."""
        if client.watched:
            os.set_blocking(client.socket.fileno(), True)

    def drop(self, client: Client) -> None:
        """Closes our copy of the connection; if it was handed over, the worker has its own."""
        if self.by_number.pop(client.number, None) is not None:
            self._unwatch(client)
            if client.unsent is not None:
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
        client = self._add(connection, pid)
        self._read(client)  # its hello may have come with it
        if client.conversation is HELLO and client.number in self.by_number:
            self._connected(client)

    def _add(self, connection: socket.socket, pid: int) -> Client:
        self._last += 1
        client = self.by_number[self._last] = Client(self._last, connection, pid)
        return client

    def _take(self, client: Client, frame: memoryview) -> None:
        if client.conversation is HELLO:
            message = hello_from_wire(frame)
            if isinstance(message, Open) and client.reader.pending:
                raise ProtocolError("bytes follow the hello; wait for its answer")
            self._received(client, message)
        elif isinstance(message := from_wire(frame, client.conversation), Open):
            self._take_passed(client, message)
        else:
            self._received(client, message)

    def _take_passed(self, passer: Client, hello: Open) -> None:
        """A client that another has brought."""
        if not passer.passed:
            raise ProtocolError("on a control connection an Open comes with the connection that is meant")
        fd = passer.passed.popleft()
        if fd is None:
            return  # the kernel has closed it, so its other end knows
        try:
            connection = socket.socket(fileno=fd)
        except OSError as error:
            os.close(fd)
            raise ProtocolError(f"what came with Open is no connection: {error.strerror}") from None
        client = self._add(connection, passer.pid)
        self._received(client, hello)
        self._watch(client)

    def _read(self, client: Client) -> None:
        """Reads what is there and has it handled."""
        try:
            frame = client.reader.read(client.receive_into)
            if not client.conversation:
                raise ProtocolError("nothing may be sent before the hello is answered")
            while frame is not None and client.number in self.by_number:
                self._take(client, frame)
                frame = client.reader.next_frame()
            if len(client.passed) > client.reader.pending:
                raise ProtocolError("a connection was passed without an Open")
        except BlockingIOError:
            pass
        except ProtocolError as error:
            self._refused(client, error)
        except (OSError, EOFError):
            self.drop(client)
            self._closed(client.number)
        self._watch(client)

    def _watch(self, client: Client) -> None:
        if client.number in self.by_number and not client.watched and client.unsent is None:
            client.watched = True
            self._loop.add_reader(client.socket.fileno(), self._read, client)

    def _unwatch(self, client: Client) -> None:
        if client.watched:
            client.watched = False
            self._loop.remove_reader(client.socket.fileno())
