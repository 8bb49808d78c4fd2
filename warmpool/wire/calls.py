"""The life of one call, as its caller sees it, and the open calls of one connection.

A call is WAITING, and a stream STREAMING, until a Result or a Failure with its id makes it DONE; only a stream may be
told Events before. A caller that stops waiting (Ctrl-C, a time-out) makes it ABANDONED: what comes for it then is
dropped, and can never be taken for the answer to another call. An answer to a call that nobody made, or that was
answered before, is the peer's error.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from ..errors import ProtocolError, from_wire
from .frames import decode, unpack


class CallState(Enum):
    WAITING = "waiting"
    STREAMING = "streaming"
    ABANDONED = "abandoned"
    DONE = "done"


_WAITING: Final = CallState.WAITING
_STREAMING: Final = CallState.STREAMING
_DONE: Final = CallState.DONE


class OpenCalls:
    """The calls of one connection that are not DONE, by id."""

    __slots__ = ("_last_id", "_states")

    def __init__(self, first_id: int = 1) -> None:
        """`first_id`: from where ids count up. A random one, 16 bits of zeros at its end, makes the ids unique over
        all connections.
        """
        self._last_id = first_id - 1
        self._states: dict[int, CallState] = {}

    def __repr__(self) -> str:
        return f"<OpenCalls last={self._last_id} { ({i: s.value for i, s in self._states.items()}) }>"

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, call_id: int) -> bool:
        return call_id in self._states

    def awaited(self) -> list[int]:
        """Ids of the calls that an answer is waited for."""
        return [call_id for call_id, state in self._states.items() if state is not CallState.ABANDONED]

    def start(self, state: CallState = _WAITING) -> int:
        """The id of a new call; `state` says whether it is a stream."""
        self._last_id = call_id = self._last_id + 1
        self._states[call_id] = state
        return call_id

    def forget(self, call_id: int) -> None:
        """The call was never sent: no answer will come."""
        self._states.pop(call_id, None)

    def abandon(self, call_id: int) -> bool:
        """Nobody waits for the answer any more, which may be said twice. False if it has come already."""
        if call_id not in self._states:
            return False
        self._states[call_id] = CallState.ABANDONED
        return True

    def answer(self, frame: bytes | memoryview) -> list[Any] | None:
        """Takes note of what a frame tells of a call: `["Result", id, output]`, `["Failure", id, error]` or `["Event",
        id, number, time, kind, data]`, if somebody waits for it, else None. Plain parts and not a message, because
        this is part of every call.

        Raises PROTOCOL_ERROR if it is no answer, or to a call that is not open; and the error that a Failure with the
        id 0 carries: the peer's last word on the connection.
        """
        try:
            parts = unpack(frame)
        except (ValueError, TypeError):  # not what a signal's handler may raise here
            parts = decode(frame)
        if type(parts) is list and len(parts) == 3:
            kind, call_id, payload = parts
            if type(call_id) is int and (kind == "Result" or (kind == "Failure" and type(payload) is dict)):
                state = self._states.pop(call_id, _DONE)
                if state is _WAITING or state is _STREAMING:
                    return parts
                if state is CallState.ABANDONED:
                    return None
                if call_id == 0 and kind == "Failure":
                    raise from_wire(payload)
                raise ProtocolError(f"an answer came to call {call_id}, which is not open")
        elif type(parts) is list and len(parts) == 6 and parts[0] == "Event":
            return self._event(parts)
        raise ProtocolError("this is not the answer to a call")

    def _event(self, parts: list[Any]) -> list[Any] | None:
        _, call_id, number, time, kind, _ = parts
        if type(call_id) is int and type(number) is int and type(time) in (float, int) and type(kind) is str:
            state = self._states.get(call_id, _DONE)
            if state is _STREAMING:
                return parts
            if state is CallState.ABANDONED:
                return None
            raise ProtocolError(f"an event came for call {call_id}, which is not an open stream")
        raise ProtocolError("this is not an event of a stream")
