"""The life of a worker and the life of a lease, as tables, and the rule that joins them.

All that decides which step may follow which is in this file; it knows neither pools nor time. A step that is not in
a table is a bug of ours: it raises and changes nothing.

A worker is STARTING (forked, being set up), WARM (ready, has served nobody), then either LEASED to one session until
it dies, or it serves stateless calls for the rest of its life: SERVING while it has a client, SPARE while it has none.
STOPPING workers have been told to go. A session's worker is never given to anybody else.

A lease is ACTIVE; EXPIRING while its worker is asked whether it is really idle; CLOSING when the end is decided and
the worker runs its hooks; CLOSED when the worker is gone.
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
