"""The life of one call, as its caller sees it, and the open calls of one connection.

A call is WAITING until a Result or a Failure with its id makes it DONE. A caller that stops waiting (Ctrl-C, a
time-out) makes it ABANDONED: the answer, when it comes, is dropped, and can never be taken for the answer to
another call. An answer to a call that nobody made, or that was answered before, is the peer's error.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from ..errors import ProtocolError, from_wire
from .frames import decode


class CallState(Enum):
    WAITING = "waiting"
    ABANDONED = "abandoned"
    DONE = "done"


class CallEvent(Enum):
    ANSWER = "answer"
    ABANDON = "abandon"


TRANSITIONS: Final[dict[CallState, dict[CallEvent, CallState]]] = {
    CallState.WAITING: {CallEvent.ANSWER: CallState.DONE, CallEvent.ABANDON: CallState.ABANDONED},
    CallState.ABANDONED: {CallEvent.ANSWER: CallState.DONE},
    CallState.DONE: {},
}


class OpenCalls:
    """The calls of one connection that are not DONE, by id."""

    __slots__ = ("_last_id", "_states")

    def __init__(self) -> None:
        self._last_id = 0
        self._states: dict[int, CallState] = {}

    def __repr__(self) -> str:
        return f"<OpenCalls last={self._last_id} { ({i: s.value for i, s in self._states.items()}) }>"

    def __len__(self) -> int:
        return len(self._states)

    def start(self) -> int:
        """The id of a new call, unique on this connection."""
        self._last_id = call_id = self._last_id + 1
        self._states[call_id] = CallState.WAITING
        return call_id

    def forget(self, call_id: int) -> None:
        """The call was never sent: no answer will come."""
        self._states.pop(call_id, None)

    def abandon(self, call_id: int) -> None:
        """Nobody waits for the answer any more. No matter if it has come already."""
        if (state := self._states.get(call_id)) is not None:
            self._states[call_id] = TRANSITIONS[state][CallEvent.ABANDON]

    def answer(self, frame: bytes | memoryview) -> list[Any] | None:
        """Takes note of the answer in a frame: `["Result", id, output]` or `["Failure", id, error]`, if somebody waits
        for it, else None. Plain parts and not a message, because this is part of every call.

        Raises PROTOCOL_ERROR if it is no answer, or to a call that is not open; and the error that a Failure with the
        id 0 carries: the peer's last word on the connection.
        """
        parts = decode(frame)
        if type(parts) is list and len(parts) == 3 and type(parts[1]) is int:
            kind, call_id, payload = parts
            if kind == "Result" or (kind == "Failure" and type(payload) is dict):
                state = self._states.pop(call_id, CallState.DONE)
                if state is CallState.WAITING:
                    return parts
                if state is CallState.ABANDONED:
                    return None
                if call_id == 0 and kind == "Failure":
                    raise from_wire(payload)
                raise ProtocolError(f"an answer came to call {call_id}, which is not open")
        raise ProtocolError("this is not the answer to a call")
