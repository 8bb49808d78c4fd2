"""A worker goes once through the motions of its first call, before anybody waits for it.

A forked process shares its pages with the template until it writes to them, and Python writes to all that it uses: the
first open and the first call would meet some 150 page faults and take several times as long as the second. So the
worker takes a connection from itself and answers a call to a function of ours. No code of the app runs, and its row of
the board is not touched.
"""

from __future__ import annotations

import socket

from pydantic import BaseModel

from .. import packets
from ..app import BaseApp
from ..board import COLUMNS, HEADER
from ..signatures import Function, functions_of
from ..wire.frames import FrameWriter
from ..wire.messages import TO_WORKER, Attach, Call, Opened, call_from_wire, to_wire
from .runner import Caller, Connection


class _Note(BaseModel):
    text: str = ""


class _Rehearsal(BaseApp):
    def run(self, note: _Note) -> _Note:
        return _Note(text=note.text)


_FUNCTIONS: dict[str, Function] = functions_of(_Rehearsal)
_LIMIT = 1024 * 1024


def rehearse() -> None:
    cells = memoryview(bytearray((HEADER + COLUMNS) * 8)).cast("q")
    caller = Caller(_Rehearsal(), _FUNCTIONS, cells, 0, "rehearsal")
    ours, theirs = packets.pair()
    near, far = socket.socketpair()
    with ours, theirs, near:
        with far:
            packets.send(ours, Attach("rehearsal", "/", {}), (far.fileno(),))
        received = packets.receive(theirs, TO_WORKER)
        assert received is not None
        _, (fd,) = received
        connection = Connection(fd, _LIMIT)
        with connection.socket:
            opened = Opened("rehearsal", "rehearsal", "", "", _LIMIT)
            connection.socket.sendall(connection.writer.frame(to_wire(opened)))
            near.sendall(FrameWriter(_LIMIT).frame(to_wire(Call(1, None, {"text": "once"}))))
            frame = connection.reader.read(connection.socket.recv_into)
            assert frame is not None
            connection.socket.sendall(caller.answer(call_from_wire(frame), connection.writer))
