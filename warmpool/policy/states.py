"""The lives of a worker, of a lease and of a template, as tables, and the rule that joins the first two.

All that decides which step may follow which is in this file; it knows neither pools nor time. A step that is not in
a table is a bug of ours: it raises and changes nothing.

A worker is STARTING (forked, being set up), WARM (ready, has served nobody), then either LEASED to one session until
it dies, or it serves stateless calls for the rest of its life: SERVING while it has a client, SPARE while it has none.
STOPPING workers have been told to go. A session's worker is never given to anybody else.

A lease is ACTIVE; EXPIRING while its worker is asked whether it is really idle; CLOSING when the end is decided and
the worker runs its hooks; CLOSED when the worker is gone.

A template is LOADING the app; READY to fork workers; LOST when there is none, before the first as after one has died,
and the next open, or who waits, has one started. RETIRED: another edition has taken over, it is broken, nobody used the
app, or the daemon stops, and no worker is made any more.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeVar


class _Named(Enum):
    """Known by its identity. An Enum's own hash is that of its name, by a function in Python."""

    __hash__ = object.__hash__


class WorkerState(_Named):
    STARTING = "starting"
    WARM = "warm"
    LEASED = "leased"
    SERVING = "serving"
    SPARE = "spare"
    STOPPING = "stopping"
    GONE = "gone"


class WorkerEvent(_Named):
    READY = "ready"
    LEASE = "lease"
    SERVE = "serve"
    RELEASE = "release"
    STOP = "stop"
    EXIT = "exit"


class LeaseState(_Named):
    ACTIVE = "active"
    EXPIRING = "expiring"
    CLOSING = "closing"
    CLOSED = "closed"


class LeaseEvent(_Named):
    WINDOW_OVER = "window over"
    BUSY = "busy"
    CLOSE = "close"
    WORKER_GONE = "worker gone"


class TemplateState(_Named):
    LOST = "lost"
    LOADING = "loading"
    READY = "ready"
    RETIRED = "retired"


class TemplateEvent(_Named):
    START = "start"
    LOADED = "loaded"
    LOSE = "lose"
    RETIRE = "retire"


_STOP_OR_EXIT: Final = {WorkerEvent.STOP: WorkerState.STOPPING, WorkerEvent.EXIT: WorkerState.GONE}

WORKER_STEPS: Final[dict[WorkerState, dict[WorkerEvent, WorkerState]]] = {
    WorkerState.STARTING: {WorkerEvent.READY: WorkerState.WARM, **_STOP_OR_EXIT},
    WorkerState.WARM: {
        WorkerEvent.LEASE: WorkerState.LEASED,
        WorkerEvent.SERVE: WorkerState.SERVING,
        **_STOP_OR_EXIT,
    },
    WorkerState.LEASED: {**_STOP_OR_EXIT},
    WorkerState.SERVING: {WorkerEvent.RELEASE: WorkerState.SPARE, **_STOP_OR_EXIT},
    WorkerState.SPARE: {WorkerEvent.SERVE: WorkerState.SERVING, **_STOP_OR_EXIT},
    WorkerState.STOPPING: {WorkerEvent.EXIT: WorkerState.GONE},
    WorkerState.GONE: {},
}

LEASE_STEPS: Final[dict[LeaseState, dict[LeaseEvent, LeaseState]]] = {
    LeaseState.ACTIVE: {
        LeaseEvent.WINDOW_OVER: LeaseState.EXPIRING,
        LeaseEvent.CLOSE: LeaseState.CLOSING,
        LeaseEvent.WORKER_GONE: LeaseState.CLOSED,
    },
    LeaseState.EXPIRING: {
        LeaseEvent.BUSY: LeaseState.ACTIVE,
        LeaseEvent.CLOSE: LeaseState.CLOSING,
        LeaseEvent.WORKER_GONE: LeaseState.CLOSED,
    },
    LeaseState.CLOSING: {LeaseEvent.WORKER_GONE: LeaseState.CLOSED},
    LeaseState.CLOSED: {},
}

TEMPLATE_STEPS: Final[dict[TemplateState, dict[TemplateEvent, TemplateState]]] = {
    TemplateState.LOST: {TemplateEvent.START: TemplateState.LOADING, TemplateEvent.RETIRE: TemplateState.RETIRED},
    TemplateState.LOADING: {
        TemplateEvent.LOADED: TemplateState.READY,
        TemplateEvent.LOSE: TemplateState.LOST,
        TemplateEvent.RETIRE: TemplateState.RETIRED,
    },
    TemplateState.READY: {TemplateEvent.LOSE: TemplateState.LOST, TemplateEvent.RETIRE: TemplateState.RETIRED},
    TemplateState.RETIRED: {TemplateEvent.RETIRE: TemplateState.RETIRED},
}

WORKER_OF_LEASE: Final[dict[LeaseState, WorkerState]] = {
    LeaseState.ACTIVE: WorkerState.LEASED,
    LeaseState.EXPIRING: WorkerState.LEASED,
    LeaseState.CLOSING: WorkerState.STOPPING,
    LeaseState.CLOSED: WorkerState.GONE,
}
"""The joint rule: in which state the worker of a lease is, after each event has been handled."""

State = TypeVar("State", bound=Enum)
Event = TypeVar("Event", bound=Enum)


class IllegalStepError(Exception):
    """A bug in the broker: an event that cannot happen in this state."""


def step(table: dict[State, dict[Event, State]], state: State, event: Event) -> State:
    """The state that follows. Raises IllegalStepError if the table has none."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalStepError(f"{event} in {state}") from None
