"""A worker goes once through the motions of a session before anybody waits for it.

A forked process shares its pages with the template until it writes to them, and Python writes to all that it uses: the
first open and the first call would meet some 150 page faults and take several times as long as the second. So the
worker first lives the short life of an understudy: the same loop and the same steps, with a channel, a client, a board
and an app of its own. Nothing of the user's app runs; of that, `handle` touches what a first call would.
"""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterable
from contextlib import closing
from types import FunctionType

from pydantic import BaseModel

from .. import packets
from ..app import BaseApp
from ..board import Board
from ..signatures import Function, functions_of
from ..wire.frames import HEADER_SIZE, encode
from ..wire.messages import Call
from ..wire.processes import TO_WORKER, Attach, Stop
from ..wire.shapes import from_wire, to_wire
from .runner import AppProcess, Loop

_LIMIT = 1024 * 1024


class _Line(BaseModel):
    text: str = ""


class _Part(BaseApp):
    def run(self, line: _Line) -> _Line:
        return _Line(text=line.text)


_FUNCTIONS: dict[str, Function] = functions_of(_Part)

from_wire(encode(to_wire(Attach("", "", {}, 0)), _LIMIT)[HEADER_SIZE:], TO_WORKER)  # a session's, as none is below


class _Understudy(AppProcess):
    """Goes when its only client has gone."""

    partner: socket.socket

    def release_if_stateless(self) -> None:
        packets.send(self.partner, Stop("rehearsed"))


def handle(functions: Iterable[Function], board: Board, row: int) -> None:
    """Writes to the pages on which the app's own functions and inputs lie: to take a reference to something is to write
    to it. Runs none of the app's code.
    """
    board.clear(row)
    for function in functions:
        make_known(function)
        parts = gc.get_referents(*gc.get_referents(function), function.input_model.__mro__)
        code = [part.__code__ for part in parts if isinstance(part, FunctionType)]
        gc.get_referents(*code, *gc.get_referents(*code))


_NAMES = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__", "__getattribute__", "__getattr__", "__init__", "__new__", "__class__", "__pydantic_validator__", "__pydantic_serializer__", "__del__", "__setattr__")


def make_known(function: Function) -> None:
    models = [function.input_model]
    if function.output is not None and isinstance(function.output._type, type) and issubclass(function.output._type, BaseModel):
        models.append(function.output._type)
    for model in models:
        if hasattr(model, "__del__"):
            continue
        blank = object.__new__(model)
        for name in (*_NAMES, *model.model_fields):
            try:
                object.__getattribute__(blank, name)
            except AttributeError:
                pass


def rehearse(loop: type[Loop]) -> None:
    """Opens, calls, hangs up and stops, all from one thread: what is to be read is there before it is asked for."""
    daemon, worker = packets.pair()
    client, first = socket.socketpair()
    with daemon, worker, client, closing(Board.scratch()) as board:
        packets.send(daemon, Attach("sess_0123456789abcdefghijkl", ".", {}, 1 << 30))
        client.sendall(encode(to_wire(Call(1 << 60, "run", {"text": "to be or not"})), _LIMIT))
        client.shutdown(socket.SHUT_WR)
        understudy = _Understudy(
            worker, first, _Part, _FUNCTIONS, board,
            worker_id="", row=0, name="", version="", frame_limit=_LIMIT,
        )  # fmt: skip
        understudy.partner = daemon
        understudy.live(loop)
