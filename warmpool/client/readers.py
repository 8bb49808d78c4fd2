"""Who is in the middle of reading a stream, or of a call.

Calls of a session run one at a time, so a call that is made from where a stream of it is read would wait for its own
reader, and one that an app makes in a call of its own session for that: they are refused. (A task that has another one
call for it, as `asyncio.wait_for` does before Python 3.12, is not known for who does.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING
from weakref import ref

from .. import current_call
from ..errors import InvalidRequestError

if TYPE_CHECKING:
    from .streams import AsyncStream


class Readers:
    def __init__(self, me: Callable[[], object]) -> None:
        """`me`: the thread or task that asks."""
        self._me = me
        self.begun: dict[int, ref[AsyncStream]] = {}
        """Streams that are not over. (Weak: who drops one closes it. No lock: each step is one of Python's own.)"""

    def __repr__(self) -> str:
        return f"<Readers of {len(self.begun)} streams>"

    def add(self, stream: AsyncStream) -> None:
        self.begun[id(stream)] = ref(stream)

    def discard(self, stream: AsyncStream) -> None:
        self.begun.pop(id(stream), None)

    def reasons(self) -> Collection[object]:
        """True, as a bool, while `refuse` must be asked before a call; in a worker it always must.

        A session keeps this, so a call pays one look.
        """
        return self.begun if current_call.session is current_call.outside else (current_call,)

    def refuse(self, session_id: str | None) -> None:
        """Raises INVALID_REQUEST if who asks for a call of this session is one of them, or in one of its calls."""
        if session_id is None:
            return
        if session_id == current_call.session():
            raise InvalidRequestError(
                f"this code is in a call of session {session_id}, and calls run one at a time: another one, from in "
                "here, would wait for itself; call the method on `self`"
            )
        if not self.begun:
            return
        me = self._me()
        if any(stream is not None and stream.is_read_by(me, session_id) for stream in self._all()):
            raise InvalidRequestError(
                "a stream of this session is being read here, and calls run one at a time: read it to its end, or "
                "close it, before the next call"
            )

    def _all(self) -> list[AsyncStream | None]:
        return [known() for known in list(self.begun.values())]
