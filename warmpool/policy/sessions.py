"""A session: one lease with its sliding window, and what is remembered of it when it is over.

The window restarts when a call begins, when it ends, and at a keepalive. Calls are not reported to the daemon: they
are read off the board, when somebody asks or when the window could be over.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..activity import IDLE, Activity
from ..constants import END_VALUES_LIMIT, RECORDS_AGE, RECORDS_LIMIT
from ..wire.frames import FrameWriter
from .events import Deferrable, Ticket
from .history import History
from .states import LEASE_STEPS, LeaseEvent, LeaseState, step

NO_LONGER_KEPT: Final = FrameWriter(1000).body("a value that is no longer kept: later ones have its place")


class SessionView(NamedTuple):
    """What can be told of a session. Times are seconds of lease time."""

    id: str
    status: str
    """"active", "ended" or "expired"."""
    end_reason: str | None
    end_detail: str | None
    app: str
    version: str
    worker_id: str
    pid: int | None
    session_timeout: float
    created_at: float
    expires_at: float | None
    """The earliest moment at which it can expire; for a busy one, if its call ended now."""
    last_call_at: float | None
    ended_at: float | None
    call_count: int
    busy: bool
    call_id: int | None
    """Of the call that runs."""
    cwd: str
    name: str | None
    labels: dict[str, str]
    description: str | None
    tags: tuple[str, ...]
    end_value: bytes | None
    """What the app's `on_end` returned, packed."""


@dataclass(slots=True, eq=False)
class Session:
    id: str
    app_key: str
    app: str
    version: str
    worker_id: str
    row: int
    pid: int | None
    timeout: float
    created_at: float
    cwd: str
    labels: dict[str, str]
    state: LeaseState = LeaseState.ACTIVE
    opener: Ticket | None = None
    """Of the open that it was made for."""
    serial: int = 0
    """Grows from session to session."""
    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    slid_at: float = 0.0
    """When the window was last slid by other than a call."""
    end_reason: str | None = None
    end_detail: str | None = None
    ended_at: float | None = None
    end_value: bytes | None = None
    final: Activity = IDLE
    history: History = field(default_factory=History)
    watchers: list[Ticket] = field(default_factory=list)
    """Told about the session when it is CLOSED."""
    held: list[Deferrable] = field(default_factory=list)
    """Came while EXPIRING, and are served if the worker is busy after all (an open would attach by name); or found the
    worker dead, and wait to be told how it died.
    """
    outlived: bool = False
    """Its `max_lifetime` is over: it ends as soon as it is idle."""
    asked_at_call: int = 0
    """How many calls had begun when the worker was asked whether the session may expire."""

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.state.value} {self.app}@{self.version} on {self.worker_id}>"

    def step(self, event: LeaseEvent) -> None:
        self.state = step(LEASE_STEPS, self.state, event)

    @property
    def is_open(self) -> bool:
        return self.state in (LeaseState.ACTIVE, LeaseState.EXPIRING)

    @property
    def status(self) -> str:
        """As a client sees it. A session that has ended for being idle has expired."""
        if self.end_reason is None:
            return "active"
        return "expired" if self.end_reason == "idle" else "ended"

    @property
    def reason_to_go(self) -> str:
        """Why it would end now, being idle."""
        return "max_lifetime" if self.outlived else "idle"

    def window_end(self, activity: Activity, now: float) -> float:
        """The earliest moment at which the window can be over."""
        last = now if activity.busy else max(self.slid_at, activity.used)
        return last + self.timeout

    def decide_end(self, reason: str, detail: str | None, now: float) -> None:
        """The first decision stands: how a session ended does not change while its worker goes."""
        if self.end_reason is None:
            self.end_reason, self.end_detail, self.ended_at = reason, detail, now

    def view(self, activity: Activity, now: float) -> SessionView:
        return SessionView(
            id=self.id,
            status=self.status,
            end_reason=self.end_reason,
            end_detail=self.end_detail,
            app=self.app,
            version=self.version,
            worker_id=self.worker_id,
            pid=self.pid,
            session_timeout=self.timeout,
            created_at=self.created_at,
            expires_at=self.window_end(activity, now) if self.is_open else None,
            last_call_at=activity.used if activity.started else None,
            ended_at=self.ended_at,
            call_count=activity.started,
            busy=self.is_open and activity.busy,
            call_id=activity.call_id if self.is_open and activity.busy else None,
            cwd=self.cwd,
            name=self.name,
            labels=self.labels,
            description=self.description,
            tags=self.tags,
            end_value=self.end_value,
        )


class Records:
    """Sessions that are over: the last 10,000, for 24 hours. What their ends have returned may take END_VALUES_LIMIT
    bytes; the oldest goes first.
    """

    def __init__(self, forgotten: Callable[[Session], None]) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._valued: deque[tuple[Session, int]] = deque()
        """Those whose value is kept, and its bytes. Oldest end first, as all."""
        self._value_bytes = 0
        self._forgotten = forgotten

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        self._sessions[session.id] = session
        if session.end_value is not None:
            self._valued.append((session, len(session.end_value)))
            self._value_bytes += len(session.end_value)
        while self._value_bytes > END_VALUES_LIMIT:
            self._let_go_of_a_value().end_value = NO_LONGER_KEPT
        if len(self._sessions) > RECORDS_LIMIT:
            self._forget_oldest()

    def get(self, session_id: str, now: float) -> Session | None:
        self._forget(now)
        return self._sessions.get(session_id)

    def all(self, now: float) -> list[Session]:
        """Oldest end first."""
        self._forget(now)
        return list(self._sessions.values())

    def _forget(self, now: float) -> None:
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            assert oldest.ended_at is not None
            if oldest.ended_at > now - RECORDS_AGE:
                return
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, session = self._sessions.popitem(last=False)
        if self._valued and self._valued[0][0] is session:
            self._let_go_of_a_value()
        self._forgotten(session)

    def _let_go_of_a_value(self) -> Session:
        session, size = self._valued.popleft()
        self._value_bytes -= size
        return session
