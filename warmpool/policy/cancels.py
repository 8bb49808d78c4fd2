"""A call is to stop: asked first, then made to, each step a deadline.

The board shows at once which call is meant, also to code that blocks, and the worker is told. A call that has not
stopped within its grace is stuck: its process writes its stack to the log, is terminated, and at last killed, and its
session, if it has one, is over with the reason "unresponsive". Whether the call has stopped is read off the board: no
message is waited for, so a late answer can mislead nobody. A call id is unique, so a cancel that comes late finds
nothing to stop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..activity import Activity
from ..constants import DUMP_TIME, STOP_GRACE, TERM_GRACE
from ..wire.process_messages import Cancel
from . import effects as fx
from . import events as ev
from .fleet import Fleet
from .leases import Leases
from .pool import Worker
from .sessions import Session
from .timers import Timer, Timers


@dataclass(slots=True)
class Ladder:
    """How far one call has been taken, and when the next step is due."""

    call_id: int
    due: float = math.inf
    is_dumped: bool = False
    """Its process has been asked for its stack. What comes next is the end."""


class Cancels:
    def __init__(self, timers: Timers, effects: list[fx.Effect], fleet: Fleet, leases: Leases) -> None:
        self._timers = timers
        self._effects = effects
        self._fleet = fleet
        self._leases = leases
        self._ladders: dict[str, Ladder] = {}
        """By worker, of which one call runs at a time."""

    def __repr__(self) -> str:
        return f"<Cancels {self._ladders}>"

    def is_dumping(self) -> bool:
        """Whether some process is writing its stack to its log, as far as can be known."""
        return any(ladder.is_dumped for ladder in self._ladders.values())

    def ask(self, event: ev.CancelRequested, now: float) -> None:
        """Answered at once with what there was to stop: a call that runs, one that may wait, or none. Raises what has
        become of the session if it is not open.
        """
        worker = self._fleet.workers[self._leases.usable(event.session_id, now).worker_id]
        self._ask(event.ticket, worker, event.call_id, now, 0.0 if event.force else worker.pool.cancel_grace)

    def ask_stateless(self, event: ev.StatelessCancelRequested, now: float) -> None:
        """As `ask`. With its worker a call is over."""
        worker = self._fleet.workers.get(event.worker)
        if worker is None:
            self._effects.append(fx.Reply(event.ticket, {"call_id": event.call_id, "state": "idle"}))
        else:
            self._ask(event.ticket, worker, event.call_id, now, worker.pool.cancel_grace)

    def _ask(self, ticket: ev.Ticket, worker: Worker, call_id: int | None, now: float, grace: float) -> None:
        activity = self._leases.activity_of(worker.row)
        running = activity.call_id if activity.busy else None
        call_id = running if call_id is None else call_id
        if call_id is None:
            state = "idle"
        elif call_id != running:
            state = "waiting"
            self._effects.append(fx.Tell(worker.id, Cancel(call_id)))
        else:
            state = "running"
            self.begin(worker, activity, now, grace=grace)
        self._effects.append(fx.Reply(ticket, {"call_id": call_id, "state": state}))

    def begin(self, worker: Worker, activity: Activity, now: float, *, grace: float) -> None:
        """Has the call stop that runs. To ask once more can hurry it, and never gives it more time."""
        _note(worker, now, f"cancel of call {activity.started} asked for, {grace:g} s given")
        self._effects.append(fx.Cancel(worker.id, worker.row, activity.call_id))
        ladder = self._ladders.get(worker.id)
        if ladder is None or ladder.call_id != activity.call_id:
            ladder = self._ladders[worker.id] = Ladder(activity.call_id)
        if not ladder.is_dumped and now + grace < ladder.due:
            ladder.due = now + grace
            self._timers.set(Timer("cancel", worker.id), ladder.due)

    def end_session(self, session: Session, reason: str, now: float, *, grace: float) -> None:
        """Ends it. A call that runs is cancelled, and its worker goes when that has stopped."""
        if not session.is_open:
            return
        activity = self._leases.activity_of(session.row)
        self._leases.close(session, reason, now)  # told first, so that no call begins behind the one that stops
        if activity.busy:
            self.begin(self._fleet.workers[session.worker_id], activity, now, grace=grace)
            self._fleet.kill_at(session.worker_id, now + grace + STOP_GRACE)

    def forget(self, worker: Worker) -> None:
        """It is gone."""
        if self._ladders.pop(worker.id, None) is not None:
            self._timers.cancel(Timer("cancel", worker.id))

    def overdue(self, worker_id: str, now: float) -> None:
        """Looks whether the call has stopped; if not, the next step."""
        ladder = self._ladders.get(worker_id)
        if ladder is None or Timer("cancel", worker_id) in self._timers:
            return  # by what was due before it, another call has one
        worker = self._fleet.workers[worker_id]
        activity = self._leases.activity_of(worker.row)
        if not activity.busy or activity.call_id != ladder.call_id:
            del self._ladders[worker.id]
            return
        if not ladder.is_dumped:
            ladder.is_dumped = True
            _note(worker, now, f"call {activity.started} did not stop: its stack goes to the log")
            self._effects.append(fx.DumpStack(worker.id))
            self._timers.set(Timer("cancel", worker.id), now + DUMP_TIME)
            return
        del self._ladders[worker.id]
        _note(worker, now, f"call {activity.started} did not stop: SIGTERM, and SIGKILL {TERM_GRACE:g} s later")
        if worker.session is not None:
            self._leases.close(worker.session, "unresponsive", now)
        else:
            what = f"in a call without a session, did not stop: SIGTERM, and SIGKILL {TERM_GRACE:g} s later"
            self._effects.append(fx.Log(f"app {worker.pool.app.name}: {worker.id}, {what}"))
            self._fleet.stop_worker(worker, "unresponsive", now)
            worker.is_lost = True
        self._effects.append(fx.Terminate(worker.id))
        self._fleet.kill_at(worker.id, now + TERM_GRACE)


def _note(worker: Worker, now: float, text: str) -> None:
    if worker.session is not None:
        worker.session.history.add(now, text)
