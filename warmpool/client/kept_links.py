"""The connections that `run` keeps for the sessions that it has used, for their next calls."""

from __future__ import annotations

from _thread import RLock
from collections import OrderedDict
from typing import Final, Generic, TypeVar

KEPT_LINKS: Final = 256
"""The longest unused one goes first."""

L = TypeVar("L")


class KeptLinks(Generic[L]):
    """By the ids of their sessions. One that is let go may be in the middle of another thread's call: it closes itself
    when nobody has it any more.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # the handler of a signal may come for it while it is held
        self._links: OrderedDict[str, tuple[L, set[str]]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<KeptLinks for {len(self._links)} sessions>"

    def get(self, session_id: str, app: str | None) -> L | None:
        """That of a session, if the daemon has agreed to this app on it."""
        with self._lock:
            link, agreed = self._links.get(session_id, (None, set[str]()))
            if link is not None:
                self._links.move_to_end(session_id)
            return link if app is None or app in agreed else None

    def keep(self, session_id: str, link: L, app: str | None) -> None:
        with self._lock:
            _, agreed = self._links.pop(session_id, (None, set[str]()))
            self._links[session_id] = link, agreed | ({app} if app is not None else set())
            if len(self._links) > KEPT_LINKS:
                self._links.popitem(last=False)

    def let_go(self, session_id: str, link: L | None = None) -> None:
        """Of this link, if it is still that one; of whatever there is, if None is given."""
        with self._lock:
            if link is None or self._links.get(session_id, (None,))[0] is link:
                self._links.pop(session_id, None)

    def let_all_go(self) -> bool:
        """False if there was none."""
        with self._lock:
            links, self._links = self._links, OrderedDict()
        return bool(links)
