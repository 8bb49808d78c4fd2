"""What the sessions of one test are up to: which it has left open, and what to tell of them when it fails.

What is told is asked over a connection of its own, in a thread that is given up after a while: the test may have
failed because its client, or the daemon, is stuck.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any, Final

from ..client.requests import Data
from ..client.sync import Client
from ..constants import PAGE_MAX
from ..errors import AppFailure, InvalidRequestError, WarmpoolError
from .embedded import TestingClient

_PATIENCE: Final = 5.0
_SHOWN_SESSIONS: Final = 8
_SHOWN_LINES: Final = 40

Section = tuple[str, str]


class Ledger:
    """Of one run: the client of its tests, and the sessions that belong to no single test.

    A daemon that is gone has no sessions. To say so is for those who use it, and not for every test that is watched.
    """

    def __init__(self, client: TestingClient, log: Path | None) -> None:
        """`log`: of a daemon that this run has for itself; None: the daemon may have other clients."""
        self.client = client
        self.log = log
        self.wider: set[str] = set()
        self.freezer: object | None = None
        """The fixture of a wider scope for which the clock stands."""
        self.watch = Watch(self)
        """Of the test that runs. It may be one that has asked for the client in its middle."""

    def begin_test(self) -> None:
        self.watch = Watch(self)

    def open_sessions(self) -> set[str]:
        """Ids of the open sessions that are this run's own."""
        with suppress(WarmpoolError):
            ids = {info["id"] for info in self.client.request("sessions.list", limit=PAGE_MAX)["sessions"]}
            return ids & self.client.opened if self.log is None else ids
        return set()

    def stands(self) -> bool:
        """Whether the clock does."""
        with suppress(WarmpoolError):
            return bool(self.client.request("testing.now")["stood"])
        return False

    def now(self) -> float:
        with suppress(WarmpoolError):
            if self.log is not None:
                return self.client.clock.now()
        return time.time()

    def log_size(self) -> int:
        with suppress(OSError):
            return 0 if self.log is None else self.log.stat().st_size
        return 0

    def log_from(self, begin: int) -> str:
        """What the daemon has written since its log had this size."""
        if self.log is None:
            return ""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(0 if os.fstat(file.fileno()).st_size < begin else begin)
            return file.read().decode(errors="replace")
        return ""


class Watch:
    """Of one test."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._before = ledger.open_sessions()
        self._began = ledger.now()
        self._log_begin = ledger.log_size()

    def end_what_is_left(self) -> list[str]:
        """Ends the sessions that the test has left open, and gives their names. Time goes on if it stood, unless it
        was a fixture of a wider scope that has stopped it.
        """
        client = self._ledger.client
        if self._ledger.freezer is None:
            with suppress(WarmpoolError):
                client.clock.thaw()
        left = sorted(self._ledger.open_sessions() - self._before - self._ledger.wider)
        shown = [f"{id} of {client.sessions.get(id).app}" for id in left]
        end_all(client, left)
        return shown

    def sections(self) -> list[Section]:
        """For the report of a failure: the test's sessions, and what its daemon has written meanwhile."""
        found: list[Section] = []
        teller = Thread(target=self._tell, args=(found,), name="warmpool-report", daemon=True)
        teller.start()
        teller.join(_PATIENCE)
        if teller.is_alive():
            found = [*found, ("warmpool", f"the daemon has not answered within {_PATIENCE:g} s")]
        if lines := self._ledger.log_from(self._log_begin).splitlines():
            found = [*found, ("warmpool daemon's log", "\n".join(lines[-_SHOWN_LINES:]))]
        return found

    def _tell(self, found: list[Section]) -> None:
        try:
            with Client(self._ledger.client.places.socket, autostart=False) as client:
                infos = [info for info in client.sessions.list(status="all", limit=PAGE_MAX) if self._is_ours(info)]
                found.extend((f"warmpool session {info.id}", _told(client, info)) for info in infos[:_SHOWN_SESSIONS])
        except WarmpoolError as error:
            found.append(("warmpool", f"nothing more can be told of the sessions: {error}"))

    def _is_ours(self, info: Data) -> bool:
        """Opened, called or ended since the test began, by this run as far as that can be known."""
        told = (info.created_at, info.last_call_at, info.ended_at)
        moments = [datetime.fromisoformat(text).timestamp() for text in told if text]
        ours = self._ledger.log is not None or info.id in self._ledger.client._core.met
        return ours and max(moments) >= self._began - 0.001


def traces_of(error: BaseException) -> Iterator[Section]:
    """Where apps have raised: this error, those that it was raised from, and those in a group."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    for one in waiting:
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, AppFailure) and one.traceback:
            yield "warmpool: raised in the app", one.traceback.rstrip()
        waiting += [one.__cause__, None if one.__suppress_context__ else one.__context__]
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def end_all(client: Client, ids: Iterable[str]) -> None:
    """Ends what is not over yet; a session that is stuck in a call, or was lost meanwhile, is no trouble."""
    for id in ids:
        with suppress(WarmpoolError):
            client.sessions.end(id)


def _told(client: Client, info: Data) -> str:
    """One session: how it stands, why, and what it has written."""
    state = info.status if info.end_reason is None else f"{info.status} ({info.end_reason})"
    if info.end_detail:
        state += f": its worker {info.end_detail}"
    busy = ", in a call" if info.busy else ""
    parts = [f"{info.app}@{info.version} on {info.worker_id}, pid {info.pid}: {state}, {info.call_count} calls{busy}"]
    why = _ask(client, "sessions.why", session_id=info.id)
    for entry in (why or {}).get("entries", ()):
        times = f" ({entry['count']} times)" if entry.get("count", 1) > 1 else ""
        parts.append(f"  {entry['time']} {entry['text']}{times}")
    log = _ask(client, "sessions.logs", session_id=info.id, offset=0, wait=False)
    if log and log["text"]:
        parts += ["its log:", *(f"  {line}" for line in log["text"].splitlines()[-_SHOWN_LINES:])]
    return "\n".join(parts)


def _ask(client: Client, method: str, **params: Any) -> Any:
    """None from a daemon that does not know the question: an older one, which goes on running."""
    with suppress(InvalidRequestError):
        return client.request(method, **params)
    return None
