"""One edition of an app: its template, its workers, and the opens that wait for one; and the app over its editions.

A pool knows its own counts and what it lacks; whether there is room for more is the fleet's to say. Warm workers are
given out last in, first out: the youngest has the freshest pages in the cache, and what stays at the bottom shows
that there are too many.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..constants import BACKOFF_FIRST, BACKOFF_LIMIT, CANCEL_GRACE, REFILL_LATEST, REFILL_QUIET
from ..facts import fact
from .events import DescribeRequested, OpenRequested
from .sessions import Session
from .states import TEMPLATE_STEPS, WORKER_STEPS, TemplateEvent, TemplateState, WorkerEvent, WorkerState, step


@fact
class Failure:
    """Why an edition does not work, and when it may be tried again."""

    error: dict[str, Any]
    delay: float
    retry_at: float


@dataclass(slots=True, eq=False)
class App:
    """An app over its edits: the edition that serves, and the one that may take over."""

    key: str
    name: str
    current: Pool | None = None
    candidate: Pool | None = None
    failures: dict[int, Failure] = field(default_factory=dict)
    """By revision: the edition that serves may fail as well as the one that should take over."""
    keep: bool = False
    """Named to `serve`: stays loaded."""
    revision: int = 0
    """Of its files as they are now. An edition can be loaded only as long as its files are these."""
    live: int = 0
    """Workers of all its editions that are not GONE."""
    going: int = 0
    """Those of them that are STOPPING."""
    used_at: float = 0.0

    def __repr__(self) -> str:
        return f"<App {self.name} current={self.current} candidate={self.candidate} failure={self.failure is not None}>"

    def failing(self, revision: int, now: float) -> Failure | None:
        """The failure of this edition, while it must not be tried again."""
        failure = self.failures.get(revision)
        return failure if failure is not None and now < failure.retry_at else None

    @property
    def failure(self) -> Failure | None:
        """Of its newest edition."""
        return self.failures.get(self.revision)


@dataclass(slots=True, eq=False)
class Worker:
    id: str
    pool: Pool
    row: int
    attempt: int = 0
    """How many attempts in a row to make any had come to nothing when it was asked for."""
    state: WorkerState = WorkerState.STARTING
    pid: int | None = None
    session: Session | None = None
    is_lost: bool = False
    """It did not stop when it was told to, and had no session to remember that."""

    def step(self, event: WorkerEvent) -> None:
        """Raises IllegalStepError."""
        self.pool.step(self, event)

    def __repr__(self) -> str:
        holder = f" for {self.session.id}" if self.session else ""
        return f"<Worker {self.id} {self.state.value}{holder} of {self.pool.id}>"


@dataclass(slots=True, eq=False)
class Waiter:
    """An open in line."""

    request: OpenRequested
    arrived: int
    """Place in the line over all pools."""
    since: float
    notice: str | None = None
    waits: list[tuple[float, str]] = field(default_factory=list)
    """What it has waited for, and since when."""


@dataclass(slots=True, eq=False)
class Pool:
    id: str
    app: App
    revision: int
    warm_target: int
    max_workers: int
    cancel_grace: float = CANCEL_GRACE
    max_lifetime: float | None = None
    template: TemplateState = TemplateState.LOST
    version: str = ""
    workers: dict[str, Worker] = field(default_factory=dict)
    """All that are not GONE."""
    starting: int = 0
    warm: dict[str, Worker] = field(default_factory=dict)
    """Oldest first, as `spare`."""
    spare: dict[str, Worker] = field(default_factory=dict)
    waiters: deque[Waiter] = field(default_factory=deque)
    stillborn: int = 0
    """Attempts in a row to make workers of which none came to be. Those that were asked for at once, and die with their
    template, are one.
    """
    forks: bool = True
    """Whether its workers are forked from its template: each has its own if the app has threads."""
    no_room: str | None = None
    """Why the machine had no room for a process of it, until there was some."""
    refill_at: float = 0.0
    """When warm workers may be made, for nobody in particular."""
    refill_set: float = 0.0
    """The `refill_at` that its deadline was set for: since then that may have moved."""
    idle_delay: float = 0.0
    """The back-off before a warm worker is replaced that died before anybody had it; 0 after one was taken."""
    drained_since: float | None = None
    """When the first worker was taken that has not been made up for."""
    takes_any_version: bool = False
    """Made for an edit that a worker of the edition before it has found. If its own find another again, the app writes
    its files itself.
    """
    describers: list[DescribeRequested] = field(default_factory=list)
    """Wait to be told the functions, until the template has loaded."""

    def __repr__(self) -> str:
        return (
            f"<Pool {self.id} {self.template.value} [workers: {len(self.workers)}, {self.starting} starting, "
            f"{len(self.warm)} warm, {len(self.spare)} spare | waiting: {len(self.waiters)}]>"
        )

    def add(self, worker: Worker) -> None:
        self.workers[worker.id] = worker
        self.starting += 1
        self.app.live += 1

    def step_template(self, event: TemplateEvent) -> None:
        self.template = step(TEMPLATE_STEPS, self.template, event)

    def step(self, worker: Worker, event: WorkerEvent) -> None:
        """Moves a worker to its next state, and with it the counts."""
        before, after = worker.state, step(WORKER_STEPS, worker.state, event)
        if before is WorkerState.STARTING:
            self.starting -= 1
        elif before is WorkerState.WARM:
            del self.warm[worker.id]
        elif before is WorkerState.SPARE:
            del self.spare[worker.id]
        elif before is WorkerState.STOPPING:
            self.app.going -= 1
        worker.state = after
        if after is WorkerState.WARM:
            self.warm[worker.id] = worker
        elif after is WorkerState.SPARE:
            self.spare[worker.id] = worker
        elif after is WorkerState.STOPPING:
            self.app.going += 1
        elif after is WorkerState.GONE:
            del self.workers[worker.id]
            self.app.live -= 1

    def free_for(self, waiter: Waiter) -> Worker | None:
        """The youngest that is ready to serve this one."""
        ready = self.ready_for(waiter.request.session_id)
        return ready[next(reversed(ready))] if ready else None

    def ready_for(self, session_id: str | None) -> dict[str, Worker]:
        """Those that are ready to serve a session, or a call without one (None)."""
        return self.spare if session_id is None and self.spare else self.warm

    def taken(self, now: float) -> None:
        """A worker has been given out: refilling waits for a quiet moment, but not for ever."""
        if self.drained_since is None:
            self.drained_since = now
        self.idle_delay = 0.0
        self.refill_at = min(now + REFILL_QUIET, self.drained_since + REFILL_LATEST)

    def wasted(self, now: float) -> None:
        """A warm worker has died that nobody had: the next one may do the same. Those that die together count once."""
        if self.idle_delay and now < self.refill_at:
            return
        self.idle_delay = min(BACKOFF_LIMIT, 2 * self.idle_delay or BACKOFF_FIRST)
        self.refill_at = now + self.idle_delay

    def failing(self, now: float) -> Failure | None:
        """As `App.failing`, of this edition."""
        return self.app.failing(self.revision, now)

    @property
    def has_unborn(self) -> bool:
        """Whether its template was asked for workers of which nothing is known yet."""
        return self.forks and any(w.state is WorkerState.STARTING and w.pid is None for w in self.workers.values())

    @property
    def unserved(self) -> int:
        """Waiters for whom no worker is on its way."""
        return max(0, len(self.waiters) - self.starting)

    @property
    def lacking(self) -> int:
        """Workers that are missing, for waiters and for the warm target together."""
        return max(0, len(self.waiters) + self.warm_target - self.starting - len(self.warm))

    @property
    def surplus(self) -> int:
        """Warm workers more than wanted, once nobody waits."""
        return 0 if self.waiters else max(0, len(self.warm) - self.warm_target)

    @property
    def is_serving(self) -> bool:
        """Whether a session, or a stateless client, has one of its workers."""
        return any(w.state in (WorkerState.LEASED, WorkerState.SERVING) for w in self.workers.values())
