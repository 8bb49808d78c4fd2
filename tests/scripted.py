"""A real worker with a test at the daemon's end of its channel: what the daemon says, and when, is the test's to choose.

All are forked from one zygote, which is real too.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import psutil
from support import PATIENCE, look_again

from warmpool import launch, packets
from warmpool.activity import Activity
from warmpool.board import Board
from warmpool.constants import MIB
from warmpool.daemon.workers import NUDGE_AFTER
from warmpool.daemon.zygote_process import start_zygote
from warmpool.launch import be_subreaper
from warmpool.wire.process_messages import (
    FROM_TEMPLATE,
    FROM_WORKER,
    FROM_ZYGOTE,
    Attach,
    Cancel,
    Fork,
    Forked,
    ForkTemplate,
    Load,
    Ready,
    Serve,
    SourceRead,
)
from warmpool.wire.shapes import Message, to_wire

FIRST_ID = 2**62
ATTACH = Attach("sess_1", "/", {}, 0, 0.0)


class Client:
    """A client's end of a connection to a worker."""

    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.socket.settimeout(PATIENCE)
        self._file = ours.makefile("rb")

    def send(self, *messages: list[Any]) -> None:
        """All in one write."""
        bodies = map(msgpack.packb, messages)
        self.socket.sendall(b"".join(struct.pack("!I", len(body)) + body for body in bodies))

    def hear(self) -> list[Any] | None:
        """The next message; None when the worker hangs up."""
        try:
            header = self._file.read(4)
        except ConnectionResetError:  # it had not read all that it was sent
            return None
        if not header:
            return None
        return msgpack.unpackb(self._file.read(*struct.unpack("!I", header)), strict_map_key=False)

    def call(self, number: int, function: str, **fields: Any) -> list[Any] | None:
        self.send(["Call", number, function, fields])
        return self.hear()

    def events(self) -> list[list[Any]]:
        """All that comes up to the answer, with it."""
        heard: list[list[Any]] = []
        while not heard or heard[-1][0] == "Event":
            message = self.hear()
            assert message is not None
            heard.append(message)
        return heard

    def is_answered(self, within: float = PATIENCE) -> bool:
        return bool(select.select([self.socket], [], [], within)[0])

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Zygote:
    """Whose templates are children of this process, as they would be of the daemon."""

    def __init__(self) -> None:
        self._pid, self._channel, self._printed = start_zygote().spawned
        self._channel.settimeout(PATIENCE)

    def template(self, log: int) -> tuple[socket.socket, psutil.Process]:
        """A new one, and our end of its channel. It prints to `log`."""
        ours, theirs = packets.pair()
        ours.settimeout(PATIENCE)
        assert packets.receive(self._channel, FROM_ZYGOTE) is not None  # it can fork
        with _orphans_are_ours():
            packets.send(self._channel, ForkTemplate(), (theirs.fileno(), log))
            theirs.close()
            for _ in ("the one in the middle", "the template, which is ours by now"):
                received = packets.receive(ours, FROM_TEMPLATE)
                assert received is not None
        assert isinstance(received[0], Forked)
        return ours, psutil.Process(received[0].pid)

    def close(self) -> None:
        """Hangs up, whether or not it has said more than was heard. It goes without a word."""
        self._channel.close()
        _, status = os.waitpid(self._pid, 0)
        with open(self._printed, "rb") as printed:
            assert (printed.read(), status) == (b"", 0)


@contextmanager
def _orphans_are_ours() -> Iterator[None]:
    """What is orphaned among our descendants becomes a child of this process, and not of the first of all."""
    be_subreaper()
    try:
        yield
    finally:
        launch._prctl(launch._PR_SET_CHILD_SUBREAPER, 0)


class Worker:
    """A template that has become a worker, and all that the daemon would hold of it."""

    attach_with = ATTACH

    def __init__(self, zygote: Zygote, app: Path, class_name: str | None = None) -> None:
        self.board = Board.create(1)
        self.began = self.board.now()
        """Its session, for the worker."""
        self._read_end, write_end = os.pipe()
        self.text = ""
        self._clients: list[Client] = []
        to_template, self.process = zygote.template(write_end)
        self.channel, worker_end = packets.pair()
        self.channel.settimeout(PATIENCE)
        load = Load(
            app.stem, str(app.parent), app.stem, str(app), class_name, MIB, os.getpid(), 256,
        )  # fmt: skip
        packets.send(to_template, load, (self.board.fd,))
        self.loaded = _loaded(to_template)
        ours, first = socket.socketpair()
        packets.send(to_template, Fork("w_1", 0, in_place=True), (worker_end.fileno(), write_end, first.fileno()))
        to_template.close()
        worker_end.close()
        first.close()
        os.close(write_end)
        self._closing = threading.Event()
        self._nudger = threading.Thread(target=self._nudge)
        self._nudger.start()
        assert isinstance(self.hear(), Forked)
        self.client = self._meet(ours)

    @property
    def activity(self) -> Activity:
        return self.board.read(0)

    def attach(self) -> Client:
        ours, theirs = socket.socketpair()
        client = self._attached(ours)
        self.say(Serve(), theirs)
        theirs.close()
        return client

    def _meet(self, ours: socket.socket) -> Client:
        """Its first client, once it is ready."""
        assert self.hear() == Ready()
        return self._attached(ours)

    def _attached(self, ours: socket.socket) -> Client:
        client = Client(ours)
        client.send([*to_wire(self.attach_with._replace(since=self.began))])
        self._clients.append(client)
        return client

    def say(self, message: Message, *passed: socket.socket) -> None:
        packets.send(self.channel, message, [one.fileno() for one in passed])

    def _nudge(self) -> None:
        """As the daemon does: the signal of a message may have come just before the worker blocked."""
        while not self._closing.wait(NUDGE_AFTER):
            if fcntl.ioctl(self.channel, termios.TIOCOUTQ, b"    ") != b"\0\0\0\0":
                with suppress(psutil.NoSuchProcess):
                    self.process.send_signal(signal.SIGURG)

    def cancel(self, call_id: int) -> None:
        self.board.cancel(0, call_id)
        self.say(Cancel(call_id))

    def hear(self) -> Message:
        received = packets.receive(self.channel, FROM_WORKER)
        assert received is not None
        return received[0]

    def wait_for_text(self, wanted: str) -> str:
        """Until the worker has written this to its stdout or stderr. Gives all that came since the last wait."""
        while wanted not in self.text:
            assert select.select([self._read_end], [], [], PATIENCE)[0], f"{wanted!r} is not in {self.text!r}"
            piece = os.read(self._read_end, 65536)
            assert piece, f"{wanted!r} is not in {self.text!r}"
            self.text += piece.decode()
        text, self.text = self.text, ""
        return text

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """For what only the board shows."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            look_again()

    def wait_for_exit(self) -> int | None:
        return self.process.wait(PATIENCE)

    def hang_up(self) -> None:
        self._closing.set()
        self._nudger.join()
        self.channel.close()

    def close(self) -> None:
        self.hang_up()
        with suppress(psutil.NoSuchProcess):
            self.process.kill()
        self.process.wait(PATIENCE)
        for client in self._clients:
            client.close()
        os.close(self._read_end)
        self.board.close()


def _loaded(channel: socket.socket) -> Message:
    """What a template says when it has read all its sources."""
    while True:
        received = packets.receive(channel, FROM_TEMPLATE)
        assert received is not None
        if not isinstance(received[0], SourceRead):
            return received[0]
