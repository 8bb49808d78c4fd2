"""A worker goes once through the motions of a session before anybody waits for it.

A forked process shares its pages with the template until it writes to them, and Python writes to all that it uses: the
first open and the first call would meet some 150 page faults and take several times as long as the second. So the
worker first lives the short life of an understudy: the same loop and the same steps, with a channel, a client, a board
and an app of its own. Nothing of the user's app runs.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final

from pydantic import BaseModel

from .. import packets
from ..app import AppContext, BaseApp
from ..board import Board
from ..signatures import Function, functions_of
from ..wire.frames import encode
from ..wire.messages import Call
from ..wire.process_messages import Attach, Stop
from ..wire.shapes import to_wire
from .loop import Loop
from .runner import AppProcess, loop_for

_LIMIT = 1024 * 1024


class _Line(BaseModel):
    text: str = ""


_cues: Final[list[Callable[[], object]]] = []
"""What client and daemon do next, last first. A call of the understudy's is when they do it: it has but one thread."""


class _Part(BaseApp):
    def run(self, line: _Line) -> _Line:
        _cues.pop()()
        return _Line(text=line.text)


class _AsyncPart(BaseApp):
    async def run(self, line: _Line) -> _Line:
        _cues.pop()()
        return _Line(text=line.text)


_SESSION_ID = "sess_of-an-understudy-only"
_CALL_ID = 1 << 60
"""As large as they are: small numbers are not made anew."""
_LOOKED_UP = (
    "__class__",
    "__dict__",
    "__init__",
    "__setattr__",
    "__getattr__",
    "__getattribute__",
    "__pydantic_fields_set__",
    "__pydantic_extra__",
    "__pydantic_private__",
    "__pydantic_validator__",
    "__pydantic_serializer__",
)
"""Of a model, when an instance is made and read."""


def acquaint(functions: Iterable[Function]) -> None:
    """Makes a blank of each model and looks up what will be looked up of it, so that Python has that in its method
    cache: an entry that is made later takes the place of another, and the pages of both are copied. Takes hold of each
    function and of its code, whose counts of references lie in the objects. Runs none of the app's code.
    """
    models: set[Any] = set()
    for function in functions:
        for part in (function.method, function.iterate, function.decode, function.encode):
            with suppress(AttributeError):  # it may be any object that can be called
                object.__getattribute__(part, "__code__")
        models |= {function.input_model, function.output_model}
    for model in models:
        if model is None or hasattr(model, "__del__"):
            continue
        with suppress(TypeError):  # of an abstract one there is no instance
            blank = object.__new__(model)
            for name in (*_LOOKED_UP, *model.model_fields):
                with suppress(Exception):  # most are not set
                    object.__getattribute__(blank, name)


@cache
def _part_for(loop: type[Loop]) -> tuple[type[BaseApp], dict[str, Function]]:
    """The app that is served so, with its functions."""
    parts = ((part, functions_of(part)) for part in (_Part, _AsyncPart))
    return next((part, functions) for part, functions in parts if loop_for(functions) is loop)


def rehearse(loop: type[Loop], board: Board, row: int) -> None:
    """Opens, calls twice and stops. The understudy is of the very types that the worker is of: to Python, which notes
    at each step what it has met there, any other would be a stranger.
    """
    part, functions = _part_for(loop)
    daemon, worker = packets.pair()
    client, first = socket.socketpair()
    first.setblocking(True)  # as a worker's is
    with daemon, worker, client:
        understudy = AppProcess(
            worker, part, functions, board, AppContext(),
            row=row, frame_limit=_LIMIT,
        )  # fmt: skip
        call = encode(to_wire(Call(_CALL_ID, "run", {"text": "to be or not"})), _LIMIT)
        _cues[:] = partial(packets.send, daemon, Stop("rehearsed")), partial(client.sendall, call)
        client.sendall(encode(to_wire(Attach(_SESSION_ID, ".", {}, _LIMIT, 0.0)), _LIMIT) + call)
        understudy.live(loop, first)
    board.clear(row)
    understudy.caller.calls = 0
    understudy.caller.wait_awake()  # as before the first call
