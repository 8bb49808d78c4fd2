"""The floors: what two Python processes can do at best on this machine, with none of warmpool's semantics.

    call   one msgpack request and its reply over a Unix socket, both ends blocking
    open   connect, hello, hand-over of the connection to a ready process, first request and reply
    fork   os.fork() of a process that has imported our dependencies, to its child's first byte
    burst  many double forks of one process, each child's child alive, to the last one's first byte
    bytes  a length and that many bytes over a Unix socket, and a short answer

Each is a context manager that gives a function, which does the work once, and the pids at its other end. Other
benchmarks run it in turns with their own work, so that both see the same machine. Alone, this file prints what the
first three take.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgpack
import psutil  # noqa: F401  (for its weight in the fork floor)
import pydantic  # noqa: F401  (likewise)
import uvloop
from harness import Row, Work, arguments, median_of, report, sample

REQUEST = {"id": 1, "function": "add", "input": {"key": "n", "value": 1}}

_ORDER = struct.Struct("!BI")

Floor = tuple[Callable[[], object], list[int]]


def pack(message: object) -> bytes:
    body: bytes = msgpack.packb(message)
    return struct.pack("!I", len(body)) + body


def unpack(frame: bytes) -> Any:
    (size,) = struct.unpack_from("!I", frame)
    return msgpack.unpackb(frame[4 : 4 + size])


def add(frame: bytes, state: dict[str, int]) -> bytes:
    request = unpack(frame)
    key = request["input"]["key"]
    state[key] = state.get(key, 0) + request["input"]["value"]
    return pack({"id": request["id"], "ok": True, "output": {"value": state[key]}})


@contextmanager
def process(main: Callable[[], None]) -> Iterator[int]:
    """A forked process that runs `main`, killed at the end."""
    pid = os.fork()
    if pid == 0:
        try:
            main()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def call_floor() -> Iterator[Floor]:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        ours.close()
        state: dict[str, int] = {}
        while frame := theirs.recv(65536):
            theirs.sendall(add(frame, state))

    def once() -> None:
        ours.sendall(pack(REQUEST))
        unpack(ours.recv(65536))

    with ours, process(serve) as pid:
        theirs.close()
        yield once, [pid]


@contextmanager
def open_floor() -> Iterator[Floor]:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")
        to_worker, from_daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(128)

        def once() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(pack({"open": "new", "app": "counter"}))
                unpack(client.recv(65536))
                client.sendall(pack(REQUEST))
                unpack(client.recv(65536))

        with (
            process(lambda: _serve_handed_over(from_daemon)) as worker,
            process(lambda: _hand_over(listener, to_worker)) as daemon,
        ):
            for end in (to_worker, from_daemon, listener):
                end.close()
            yield once, [worker, daemon]


def _serve_handed_over(channel: socket.socket) -> None:
    loop = uvloop.new_event_loop()
    state: dict[str, int] = {}
    channel.setblocking(False)

    def on_request(connection: socket.socket) -> None:
        frame = connection.recv(65536)
        if frame:
            connection.send(add(frame, state))
        else:
            loop.remove_reader(connection.fileno())
            connection.close()

    def on_connection() -> None:
        _, fds, _, _ = socket.recv_fds(channel, 65536, 1)
        connection = socket.socket(fileno=fds[0])
        connection.setblocking(False)
        connection.send(pack({"opened": "s"}))
        loop.add_reader(connection.fileno(), on_request, connection)

    loop.add_reader(channel.fileno(), on_connection)
    loop.run_forever()


def _hand_over(listener: socket.socket, channel: socket.socket) -> None:
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    listener.setblocking(False)

    def on_hello(connection: socket.socket) -> None:
        hello = connection.recv(65536)
        loop.remove_reader(connection.fileno())
        socket.send_fds(channel, [hello], [connection.fileno()])
        connection.close()

    def on_connect() -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        loop.add_reader(connection.fileno(), on_hello, connection)

    loop.add_reader(listener.fileno(), on_connect)
    loop.run_forever()


@contextmanager
def fork_floor() -> Iterator[Floor]:
    gc.collect()
    gc.freeze()
    ours, theirs = socket.socketpair()

    def once() -> None:
        pid = os.fork()
        if pid == 0:
            theirs.sendall(b"r")
            os._exit(0)
        ours.recv(1)
        os.waitpid(pid, 0)

    with ours, theirs:
        yield once, []


@contextmanager
def double_fork_floor(prepare: Callable[[], None], count: int) -> Iterator[tuple[Callable[[], float], list[int]]]:
    """As `burst`; the function gives the seconds. `prepare` is run once, in the process that forks."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        ours.close()
        prepare()
        gc.collect()
        gc.freeze()
        theirs.send(b"p")
        while theirs.recv(1):
            _fork_many(theirs, count)

    def once() -> float:
        start = time.perf_counter()
        ours.send(b"f")
        for _ in range(count):
            ours.recv(1)
        taken = time.perf_counter() - start
        ours.send(b"e")
        ours.recv(1)
        return taken

    with ours, process(serve) as pid:
        theirs.close()
        ours.recv(1)
        yield once, [pid]


def _fork_many(told: socket.socket, count: int) -> None:
    """Children of children that say so and live on until all of them are let go."""
    held, letting_go = os.pipe()
    for _ in range(count):
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.close(letting_go)
                told.send(b"r")
                os.read(held, 1)
            os._exit(0)
        os.waitpid(middle, 0)
    told.recv(1)
    os.close(letting_go)
    os.close(held)
    told.send(b"d")


@contextmanager
def bytes_floor() -> Iterator[tuple[Callable[[int], Work], Callable[[int], Work], list[int]]]:
    """Two functions of a size: so many bytes to the other process, or so many from it. Both ends know nothing of the
    bytes, and put them where those before were.
    """
    ours, theirs = socket.socketpair()
    buffers: dict[int, bytearray] = {}

    def buffer_of(size: int) -> bytearray:
        if size not in buffers:
            buffers[size] = bytearray(size)
        return buffers[size]

    def serve() -> None:
        ours.close()
        while order := theirs.recv(_ORDER.size, socket.MSG_WAITALL):
            wants, size = _ORDER.unpack(order)
            if wants:
                theirs.sendall(buffer_of(size))
            else:
                receive(theirs, buffer_of(size))
                theirs.sendall(order)

    def send(size: int) -> None:
        ours.sendall(_ORDER.pack(0, size))
        ours.sendall(buffer_of(size))
        ours.recv(_ORDER.size, socket.MSG_WAITALL)

    def fetch(size: int) -> None:
        ours.sendall(_ORDER.pack(1, size))
        receive(ours, buffer_of(size))

    with ours, process(serve) as pid:
        theirs.close()
        yield lambda size: partial(send, size), lambda size: partial(fetch, size), [pid]


def receive(connection: socket.socket, space: bytearray) -> None:
    view = memoryview(space)
    while view:
        view = view[connection.recv_into(view) :]


if __name__ == "__main__":
    arguments(__doc__)
    rows = []
    for name, floor, count in (("call", call_floor, 5000), ("open", open_floor, 1000), ("fork", fork_floor, 200)):
        with floor() as (once, _):
            rows.append(Row(name, median_of(sample(once, count, warmup=count // 10))))
    report("The floors of this machine", rows)
