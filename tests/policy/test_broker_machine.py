"""The broker against a dict model, under everything that a daemon can report in any order, with a hand-moved clock.

The world is that of `story.py`, which checks each effect as it is performed. The model beside it knows what each
session should be and what each client may still wait for; the laws are looked at after every step. A longer hunt:
WARMPOOL_EXAMPLES=5000 pytest tests/policy/test_broker_machine.py
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from policy.story import BLINK, NOTHING, PLENTY, Client, Process, Story, broken, is_going

from warmpool.constants import (
    BACKOFF_FIRST,
    CANCEL_GRACE,
    DUMP_TIME,
    EXPIRE_ANSWER_TIMEOUT,
    EXPLAIN_TIMEOUT,
    QUICK_CANCEL,
    RECORDS_AGE,
    STOP_GRACE,
)
from warmpool.policy import effects as fx
from warmpool.policy import events as ev

EXAMPLES = int(os.environ.get("WARMPOOL_EXAMPLES", "300"))
TICK = 0.001
MAX_WORKERS = 4
OPTIONS = {"counter": (None, None), "chat": (0, 2), "poll": (2, 3)}
"""What each app says of its own `warm` and `max_workers`."""
GRACES = {"counter": CANCEL_GRACE, "chat": 1.0, "poll": 0.0}
LIFETIMES = {"counter": None, "chat": None, "poll": 200.0}

Thing = TypeVar("Thing")

picks = st.integers(0, 11)
apps = st.sampled_from(sorted(OPTIONS))
timeouts = st.sampled_from([1.0, 10.0, 60.0, 3600.0])
names = st.sampled_from([None, None, "vision", "text"])


@dataclass(eq=False)
class Lease:
    """What a session should be."""

    client: Client
    timeout: float
    last: float
    """When it was last used."""
    status: str = "active"
    reason: str | None = None
    busy: bool = False
    gone: bool = False
    """Its worker's exit was reported."""
    end_value: bytes | None = None
    over_at: float = 0.0
    app: str = "counter"
    name: str | None = None
    labels: dict[str, str] | None = None
    opened_at: float = 0.0
    call: int = 0
    stops_from: float | None = None
    """The call that runs was cancelled: from when on its process may be terminated for it."""
    stops_by: float = 0.0
    """And when it must have been."""

    def cancel(self, grace: float, now: float) -> None:
        if self.busy and (self.stops_from is None or now + grace + DUMP_TIME < self.stops_from):
            self.stops_from = self.stops_by = now + grace + DUMP_TIME

    @property
    def grace(self) -> float:
        return GRACES[self.app]

    @property
    def id(self) -> str:
        assert self.client.session is not None
        return self.client.session

    def decide(self, status: str, reason: str, now: float) -> None:
        if self.status == "active":
            self.status, self.reason, self.over_at = status, reason, now


@dataclass(eq=False)
class Wish:
    """What a client asked for, and until when it may be kept waiting."""

    client: Client
    kind: str
    until: float | None = None
    app: str = ""
    revision: int = 0
    version: str | None = None
    timeout: float = 0
    name: str | None = None
    patience: float = 0
    lease: Lease | None = None
    is_told: bool = False


class World(Story):
    """A story that also checks that what has failed is not tried again at once."""

    def __init__(self, **settings: float) -> None:
        super().__init__(**settings)
        self.edition_of: dict[str, tuple[str, int]] = {}
        self.failed_at: dict[tuple[str, int], float] = {}
        self.retried_at: dict[ev.Ticket, float] = {}
        """Those whose worker was found dead when they were handed to it."""

    def _check_and_do(self, effect: fx.Effect) -> None:
        super()._check_and_do(effect)
        match effect:
            case fx.StartTemplate(pool):
                known = self.broker.fleet.editions.pools.get(pool)
                if known is not None:
                    self.edition_of[pool] = known.app.name, known.revision
                    self.is_tried(pool)
            case fx.HandOver() if self.workers[effect.worker].is_dead:
                self.retried_at[effect.ticket] = self.now
            case fx.Fork(pool):
                self.is_tried(pool)
                app, _ = self.edition_of[pool]
                limit = OPTIONS[app][1]
                assert limit is None or len(self.of_app(app)) <= limit, "more workers than the app may have"

    def is_tried(self, pool: str) -> None:
        failed_at = self.failed_at.get(self.edition_of[pool])
        assert failed_at is None or self.now > failed_at + BACKOFF_FIRST - BLINK, f"{pool} is tried within its pause"

    def pauses(self, pool: str) -> bool:
        """The edition is not to be tried yet."""
        app, revision = self.edition_of[pool]
        return self.broker.fleet.editions.apps[self.edition(app).key].failing(revision, self.now) is not None

    @contextmanager
    def failure(self, pool: str) -> Iterator[None]:
        """What happens in here is a failure of the edition, if that is in use; within a pause, of the same try."""
        known = self.broker.fleet.editions.pools.get(pool)
        in_use = known is not None and known.template.value != "retired"
        same_try = self.pauses(pool)
        yield
        if in_use:
            assert self.pauses(pool), "no pause after a failure"
            if not same_try:
                self.failed_at[self.edition_of[pool]] = self.now

    def ready(self, *workers: str) -> None:
        for worker in workers:
            self.failed_at.pop(self.edition_of[self.workers[worker].pool], None)
        super().ready(*workers)


class BrokerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(max_workers=MAX_WORKERS, start_timeout=20, app_idle_timeout=60)
        self.leases: list[Lease] = []
        self.wishes: list[Wish] = []
        self.revisions = dict.fromkeys(OPTIONS, 1)
        self.versions: dict[str, str] = {}
        self.steps = 0

    @initialize(
        idle_exit=st.sampled_from([0, 0, 0, 300]),
        opened=st.lists(st.tuples(apps, st.booleans(), timeouts), max_size=5),
    )
    def begin(self, idle_exit: float, opened: list[tuple[str, bool, float]]) -> None:
        """Some sessions and stateless clients are there from the start."""
        self.world = World(max_workers=MAX_WORKERS, start_timeout=20, app_idle_timeout=60, idle_exit=idle_exit)
        for app, stateless, timeout in opened:
            self.opens(app, stateless, timeout, 30.0)
            self.rest()

    # --- helpers ----------------------------------------------------------------------------------------------

    def wish(self, client: Client, kind: str, patience: float | None = None, **what: object) -> Wish:
        until = None if patience is None else self.world.now + patience
        wish = Wish(client, kind, until, **what)
        self.wishes.append(wish)
        return wish

    @property
    def waiting(self) -> list[Wish]:
        return [wish for wish in self.wishes if wish.client.waits]

    @property
    def active(self) -> list[Lease]:
        return [lease for lease in self.leases if lease.status == "active"]

    def workers(self, *, ready: bool | None = None) -> list[Process]:
        return [w for w in self.world.workers.values() if ready in (None, w.is_ready)]

    # --- clients ----------------------------------------------------------------------------------------------

    @rule(
        app=apps,
        stateless=st.booleans(),
        timeout=timeouts,
        patience=st.sampled_from([0.0, 1.0, 20.0, 30.0, 300.0]),
        behind=st.sampled_from([None, None, None, None, 0, 1]),
    )
    def somebody_opens(self, app: str, stateless: bool, timeout: float, patience: float, behind: int | None) -> None:
        """`behind`: names a version, the newest or one that is no more."""
        version = None if behind is None else f"v{self.revisions[app] - behind}"
        self.opens(app, stateless, timeout, patience, version)

    @rule(app=apps, timeout=timeouts, name=names, if_exists=st.sampled_from(["error", "attach", "attach"]))
    def somebody_opens_by_a_name(self, app: str, timeout: float, name: str | None, if_exists: str) -> None:
        self.opens(app, False, timeout, 30.0, name=name, if_exists=if_exists)

    @precondition(lambda self: self.world.workers)
    @rule(app=apps, pick=picks, stateless=st.booleans())
    def somebody_opens_on_a_worker_by_its_id(self, app: str, pick: int, stateless: bool) -> None:
        """And is told at once whether it is free."""
        worker = choose(pick, self.workers())
        free = worker.is_ready and not worker.is_used and worker.stop is None and not worker.is_dead
        client = self.opens(app, stateless, 60.0, 30.0, worker=worker.id)
        assert not client.waits
        if isinstance(client.heard[0], fx.HandOver):
            assert client.worker == worker.id
            assert free

    @rule(app=apps, stateless=st.booleans(), timeout=timeouts)
    def somebody_opens_and_everybody_answers(self, app: str, stateless: bool, timeout: float) -> None:
        self.opens(app, stateless, timeout, 30.0)
        self.rest()
        self.everyone_who_waits_has_a_reason()

    def opens(
        self, app: str, stateless: bool, timeout: float, patience: float, version: str | None = None, **how: Any
    ) -> Client:
        client = self.world.client(request=1)
        revision = self.revisions[app]
        wish = self.wish(client, "open", patience, app=app, revision=revision, version=version, timeout=timeout)
        wish.patience, wish.name = patience, how.get("name")
        if how.get("if_exists") == "attach":
            wish.until = None  # its patience begins once it is clear that there is nobody to attach to
        self.world.open(
            app,
            revision,
            timeout=timeout,
            patience=patience,
            version=version,
            stateless=stateless,
            client=client,
            **how,
        )
        if self.world.stop_due is not None:
            assert not client.waits
        return client

    @precondition(lambda self: self.leases)
    @rule(pick=picks, app=st.sampled_from([None, None, "counter", "chat"]), version=st.sampled_from([None, None, "v1"]))
    def somebody_attaches(self, pick: int, app: str | None, version: str | None) -> None:
        lease = choose(pick, self.leases)
        client = self.world.client()
        self.wish(client, "attach", EXPIRE_ANSWER_TIMEOUT, lease=lease)
        self.world.attach(lease.id, app, version, client=client)
        view = self.world.look(lease.id)
        if lease.status != "active":
            assert client.error.code == self.code_of(lease)
        elif app not in (None, view.app):
            assert client.error.code == "APP_MISMATCH"
        elif version not in (None, view.version):
            assert client.error.code == "VERSION_MISMATCH"
        elif client.waits:
            worker = self.world.workers[lease.client.worker]
            assert worker.asked or worker.is_dead
            if worker.is_dead:
                self.wishes[-1].until = None  # until the exit is seen
        else:
            assert client.worker == lease.client.worker

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def somebody_keeps_alive(self, pick: int) -> None:
        lease = choose(pick, self.leases)
        status = lease.status
        client = self.world.keepalive(lease.id)
        self.wish(client, "keepalive", EXPIRE_ANSWER_TIMEOUT, lease=lease)
        if status != "active":
            assert client.error.code == self.code_of(lease)

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def somebody_looks(self, pick: int) -> None:
        lease = choose(pick, self.leases)
        view = self.world.look(lease.id)
        assert (view.status, view.end_reason) == (lease.status, lease.reason)
        assert view.busy == (lease.busy and lease.status == "active")
        assert view.call_id == (lease.call if view.busy else None)
        assert (view.name, view.labels) == (lease.name, lease.labels or {})

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def somebody_awaits_its_end(self, pick: int) -> None:
        lease = choose(pick, self.leases)
        client = self.world.await_end(lease.id)
        self.wish(client, "await end", EXPLAIN_TIMEOUT, lease=lease)
        assert client.waits == (not lease.gone)
        if not client.waits:
            assert (client.view.status, client.view.end_reason) == (lease.status, lease.reason)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")))
    def somebody_sets_labels(self, pick: int, labels: dict[str, str]) -> None:
        lease = choose(pick, self.leases)
        client = self.world.set_labels(lease.id, labels)
        if lease.status == "active":
            lease.labels = labels
            assert client.view.labels == labels
            assert self.world.workers[lease.client.worker].labels == labels
        else:
            assert client.error.code == self.code_of(lease)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, which=st.sampled_from(["any", "any", "this", "another"]), force=st.booleans())
    def somebody_cancels(self, pick: int, which: str, force: bool) -> None:
        lease = choose(pick, [lease for lease in self.active if lease.busy] or self.leases)
        call_id = {"any": None, "this": lease.call or 1, "another": 10**6}[which]
        client = self.world.cancel(lease.id, call_id, force=force)
        if lease.status != "active":
            assert client.error.code == self.code_of(lease)
        elif lease.busy and call_id in (None, lease.call):
            assert client.report == {"call_id": lease.call, "state": "running"}
            lease.cancel(0.0 if force else lease.grace, self.world.now)
        else:
            assert client.report == {"call_id": call_id, "state": "waiting" if call_id else "idle"}

    @precondition(lambda self: any(lease.busy for lease in self.active))
    @rule(pick=picks, times=st.integers(2, 5))
    def somebody_cancels_again_and_again(self, pick: int, times: int) -> None:
        for _ in range(times):
            self.somebody_cancels(pick, "any", force=False)
            self.world.wait(0.4)
            self.look()

    @precondition(lambda self: self.leases)
    @rule(pick=picks, force=st.sampled_from([False, False, True]))
    def somebody_ends(self, pick: int, force: bool) -> None:
        lease = choose(pick, self.leases)
        if lease.status == "active" and not force:
            lease.cancel(lease.grace, self.world.now)
        lease.decide("ended", "client", self.world.now)
        client = self.world.end(lease.id, force=force)
        self.wish(client, "end", lease=lease)
        assert client.waits != lease.gone
        assert lease.gone or not force or self.world.workers[lease.client.worker].killed

    @precondition(lambda self: self.leases)
    @rule()
    def the_last_opener_wants_its_session_no_more(self) -> None:
        lease = self.leases[-1]
        if lease.status == "active":
            lease.cancel(QUICK_CANCEL, self.world.now)
        lease.decide("ended", "client", self.world.now)
        self.world.happens(ev.OpenAbandoned(lease.client.ticket))

    @rule(app=apps)
    def somebody_asks_for_functions(self, app: str) -> None:
        client = self.world.client(request=1)
        self.wish(client, "describe", app=app)
        edition = self.world.edition(app, self.revisions[app])
        self.world.happens(ev.DescribeRequested(client.ticket, edition))

    @rule(what=st.sampled_from(["await_end", "keepalive", "end", "attach", "cancel", "set_labels"]))
    def somebody_asks_for_nobodys_session(self, what: str) -> None:
        assert getattr(self.world, what)("sess_nobody").error.code == "SESSION_NOT_FOUND"

    @precondition(lambda self: self.waiting)
    @rule(pick=picks)
    def somebody_leaves(self, pick: int) -> None:
        self.world.leave(choose(pick, self.waiting).client)

    @precondition(lambda self: any(w.kind in ("open", "attach") for w in self.waiting))
    @rule(pick=picks)
    def somebody_stops_waiting(self, pick: int) -> None:
        self.world.abandon(choose(pick, [w for w in self.waiting if w.kind in ("open", "attach")]).client)

    # --- apps and templates -----------------------------------------------------------------------------------

    @rule(app=apps)
    def somebody_edits(self, app: str) -> None:
        self.revisions[app] += 1

    @rule(app=apps)
    def somebody_names_an_app_to_serve(self, app: str) -> None:
        self.world.warm_up(app, self.revisions[app])

    def loads(self, pool: str) -> None:
        app, revision = self.world.edition_of[pool]
        self.versions[pool] = f"v{revision}"
        warm, max_workers = OPTIONS[app]
        self.world.loads(
            pool, version=f"v{revision}", warm=warm, max_workers=max_workers,
            cancel_grace=GRACES[app], max_lifetime=LIFETIMES[app],
        )  # fmt: skip

    @precondition(lambda self: self.world.loading())
    @rule(pick=picks)
    def a_template_loads(self, pick: int) -> None:
        self.loads(choose(pick, self.world.loading()))

    @precondition(lambda self: self.world.loading())
    @rule(pick=picks)
    def a_template_does_not_load(self, pick: int) -> None:
        pool = choose(pick, self.world.loading())
        with self.world.failure(pool):
            self.world.does_not_load(pool)

    @precondition(lambda self: self.world.loading())
    @rule(pick=picks)
    def a_template_has_no_room(self, pick: int) -> None:
        self.world.has_no_room_to_load(choose(pick, self.world.loading()))

    @precondition(lambda self: self.world.templates)
    @rule(pick=picks)
    def a_template_dies(self, pick: int) -> None:
        pool = choose(pick, self.world.templates)
        while_loading = not self.world.templates[pool]
        with self.world.failure(pool) if while_loading else nullcontext():
            self.world.template_dies(pool)

    # --- workers ----------------------------------------------------------------------------------------------

    @precondition(lambda self: any(not w.forked for w in self.workers()))
    @rule(pick=picks)
    def a_worker_is_forked(self, pick: int) -> None:
        self.world.forked(choose(pick, [w.id for w in self.workers() if not w.forked]))

    @precondition(lambda self: any(not w.forked for w in self.workers()))
    @rule(pick=picks)
    def a_worker_imports_the_app_as_it_is_now(self, pick: int) -> None:
        worker = choose(pick, [w for w in self.workers() if not w.forked])
        app, _ = self.world.edition_of[worker.pool]
        revision = self.revisions[app]
        self.world.imports(worker.id, f"v{revision}", app=app, revision=revision)

    @precondition(lambda self: self.world.unborn())
    @rule(pick=picks)
    def a_worker_is_ready(self, pick: int) -> None:
        self.world.ready(choose(pick, self.world.unborn()))

    @precondition(lambda self: self.world.unborn())
    @rule(pick=picks, born=st.booleans())
    def a_setup_fails(self, pick: int, born: bool) -> None:
        worker = self.world.workers[choose(pick, self.world.unborn())]
        if born and not worker.forked:
            self.world.forked(worker.id)
        with self.world.failure(worker.pool) if worker.stop is None else nullcontext():
            if worker.forked:
                self.world.setup_fails(worker.id)
            else:
                worker.failed = True
                self.world.happens(ev.WorkerFailed(worker.id, broken("fork: out of memory")))
        if not worker.forked:
            self.world.exits(worker.id, status="was never born")

    @precondition(lambda self: self.world.unborn())
    @rule(pick=picks)
    def a_fork_is_refused(self, pick: int) -> None:
        worker = self.world.workers[choose(pick, self.world.unborn())]
        if not worker.forked:
            self.world.refuse_fork(worker.id)

    @precondition(lambda self: self.world.workers)
    @rule(pick=picks)
    def a_worker_dies(self, pick: int) -> None:
        worker = choose(pick, self.workers())
        in_setup = worker.forked and not worker.is_ready and not worker.failed and worker.stop is None
        with self.world.failure(worker.pool) if in_setup else nullcontext():
            self.exits(worker)

    @precondition(lambda self: self.world.told_to_stop())
    @rule(pick=picks, goodbye=st.booleans(), value=st.sampled_from([None, b"\xc0"]))
    def a_worker_goes_as_it_was_told(self, pick: int, goodbye: bool, value: bytes | None) -> None:
        worker = self.world.workers[choose(pick, self.world.told_to_stop())]
        if goodbye and not worker.is_dead:
            if value is not None:
                self.world.happens(ev.WorkerEnded(worker.id, value))
                for lease in self.leases:
                    if lease.client.worker == worker.id:
                        lease.end_value = value
            self.world.leaves(worker.id)
        self.exits(worker)

    @precondition(lambda self: any(w.is_ready and not w.leaving for w in self.workers()))
    @rule(pick=picks)
    def a_worker_dies_and_nobody_sees_it(self, pick: int) -> None:
        self.world.dies_unseen(choose(pick, [w for w in self.workers(ready=True) if not w.leaving]).id)

    @precondition(lambda self: self.callable_leases(busy=False))
    @rule(pick=picks, reason=st.sampled_from(["app", "max_calls"]))
    def a_worker_leaves_of_itself(self, pick: int, reason: str) -> None:
        lease = choose(pick, self.callable_leases(busy=False))
        lease.decide("ended", reason, self.world.now)
        self.world.leaves(lease.client.worker, reason)

    def exits(self, worker: Process) -> None:
        for lease in self.leases:
            if lease.client.worker == worker.id:
                lease.decide("ended", "worker_lost", self.world.now)
                lease.gone = True
        self.world.exits(worker.id)

    @precondition(lambda self: any(w.asked for w in self.workers()))
    @rule(pick=picks, bytes_wait=st.booleans())
    def a_worker_answers(self, pick: int, bytes_wait: bool) -> None:
        self.answers(choose(pick, [w for w in self.workers() if w.asked]), bytes_wait=bytes_wait)

    def answers(self, worker: Process, *, bytes_wait: bool) -> None:
        """It answers when no call keeps it, and leaves only if it has had none since it was asked."""
        activity = self.world.board[worker.row]
        if activity.busy or worker.leaving or worker.is_dead:
            return
        assert worker.asked is not None
        if bytes_wait or activity.started != worker.asked.started:
            self.world.busy(worker.id)
        else:
            asked, worker.asked = worker.asked, None
            self.world.leaves(worker.id, asked.reason)

    @precondition(lambda self: any(w.serving and not w.is_dead for w in self.workers()))
    @rule(pick=picks)
    def a_stateless_client_goes(self, pick: int) -> None:
        self.world.released(choose(pick, [w.serving for w in self.workers() if w.serving and not w.is_dead]))

    @precondition(lambda self: self.world.dead)
    @rule(pick=picks, kind=st.sampled_from([ev.WorkerReady, ev.WorkerBusy, ev.WorkerLeaving, ev.WorkerReleased]))
    def something_late_is_heard_of_the_dead(self, pick: int, kind: type) -> None:
        self.world.happens(kind(choose(pick, self.world.dead).id))

    @precondition(lambda self: any(w.is_ready for w in self.workers()))
    @rule(pick=picks)
    def a_worker_says_twice_that_it_is_ready(self, pick: int) -> None:
        self.world.happens(ev.WorkerReady(choose(pick, self.workers(ready=True)).id))

    # --- calls ------------------------------------------------------------------------------------------------

    def callable_leases(self, *, busy: bool) -> list[Lease]:
        live = [lease for lease in self.leases if lease.busy is busy and not lease.gone]
        workers = [self.world.workers[lease.client.worker] for lease in live]
        return [lease for lease, w in zip(live, workers, strict=True) if not w.leaving and not w.is_dead]

    @precondition(lambda self: self.callable_leases(busy=False))
    @rule(pick=picks)
    def a_call_begins(self, pick: int) -> None:
        lease = choose(pick, self.callable_leases(busy=False))
        lease.busy, lease.last = True, self.world.now
        lease.call = self.world.begins(lease.client)

    @precondition(lambda self: self.callable_leases(busy=True))
    @rule(pick=picks)
    def a_call_ends(self, pick: int) -> None:
        lease = choose(pick, self.callable_leases(busy=True))
        lease.busy, lease.last, lease.stops_from = False, self.world.now, None
        self.world.finishes(lease.client)

    # --- the world --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0005, 0.001, 0.4, 0.5, 1.0, 2.0, 5.0, 30.0, 61.0, 90.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule()
    def time_goes_by_until_the_daemon_wakes(self) -> None:
        self.world.wake()

    @precondition(lambda self: self.active)
    @rule()
    def time_goes_by_until_a_worker_is_asked_whether_it_may_expire(self) -> None:
        for _ in range(100):
            if any(worker.asked for worker in self.workers()):
                return
            self.world.wake()

    @rule(seconds=st.sampled_from([0.01, 3.0, 25.0, 400.0, 7200.0]))
    def the_daemon_is_stalled(self, seconds: float) -> None:
        self.world.stall(seconds)
        for lease in self.leases:
            lease.stops_by = max(lease.stops_by, self.world.now + DUMP_TIME)

    @rule(short=st.booleans())
    def memory_changes(self, short: bool) -> None:
        self.world.free_memory = NOTHING if short else PLENTY

    @precondition(lambda self: self.steps > 30)
    @rule(really=picks)
    def the_daemon_is_told_to_stop(self, really: int) -> None:
        if really == 11:
            self.stop()

    def stop(self) -> None:
        for lease in self.active:
            lease.cancel(QUICK_CANCEL, self.world.now)
            lease.decide("ended", "daemon_stopped", self.world.now)
        self.world.stop()

    @rule()
    def everybody_answers(self) -> None:
        """As if all were well, until nobody owes an answer. Then who still waits has a reason to."""
        self.rest()
        self.everyone_who_waits_has_a_reason()

    def rest(self) -> None:
        world = self.world
        world.stall(0)
        self.look()
        for _ in range(500):
            if pools := world.loading():
                self.loads(pools[0])
            elif unborn := [w for w in world.unborn() if world.workers[w].stop is None]:
                world.ready(unborn[0])
            elif asked := [w for w in self.workers() if w.asked and not is_going(w) and not world.board[w.row].busy]:
                self.answers(asked[0], bytes_wait=False)
            elif going := [w for w in self.workers() if is_going(w) or w.failed]:
                self.exits(going[0])
            else:
                return
            self.look()
        raise AssertionError(f"the fleet never comes to rest: {world.broker}")

    def everyone_who_waits_has_a_reason(self) -> None:
        world = self.world
        if world.free_memory == NOTHING:
            return
        full = len(world.workers) == MAX_WORKERS
        nobody_idle = all(w.is_used for w in world.workers.values())
        for wish in self.waiting:
            if wish.kind == "open":
                mine = [w for w in world.workers.values() if w.id in world.of_app(wish.app)]
                app_is_full = len(mine) == OPTIONS[wish.app][1] and all(w.is_used for w in mine)
                pools = [pool for pool in world.broker.fleet.editions.pools.values() if pool.app.name == wish.app]
                is_refused = any(world.is_refused(pool.id) for pool in pools)
                has_reason = app_is_full or is_refused or (full and nobody_idle)
                assert has_reason, f"{wish} waits for nothing: {world.broker}"
            else:
                assert wish.kind in ("await end", "attach", "keepalive"), f"{wish} waits for nothing"
        for pool in world.broker.fleet.editions.pools.values():
            assert pool.surplus == 0, f"more warm workers than wanted: {pool}"
            quiet = world.now >= pool.refill_at and not self.waiting
            if (
                pool.lacking
                and quiet
                and not full
                and pool.app.live < pool.max_workers
                and not world.is_refused(pool.id)
            ):
                assert pool.template.value == "lost" or pool.failing(world.now), f"{pool} is not filled"

    # --- the laws ---------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Takes in what clients have been told, and checks that it is what they may be told."""
        for wish in self.wishes:
            if wish.client.has_opened and not wish.is_told:
                self.has_opened(wish)
        for wish in self.wishes:
            if wish.client.heard and not wish.is_told:
                wish.is_told = True
                self.is_told(wish, wish.client.heard[0])
            elif wish.until is not None and (retried := self.world.retried_at.get(wish.client.ticket)) is not None:
                wish.until = retried + wish.patience
        self.leases = [lease for lease in self.leases if not self.is_forgotten(lease)]
        for lease in self.leases:
            self.check_lease(lease)

    def is_forgotten(self, lease: Lease) -> bool:
        """What is over is remembered for a day, give or take the seconds in which its worker went."""
        return lease.gone and self.world.now > lease.over_at + RECORDS_AGE - STOP_GRACE - 1

    def has_opened(self, wish: Wish) -> None:
        now = wish.client.heard_at
        assert now is not None
        self.leases.append(Lease(wish.client, wish.timeout, now, app=wish.app, name=wish.name, opened_at=now))

    def is_told(self, wish: Wish, told: fx.Effect) -> None:
        now = wish.client.heard_at
        assert now is not None
        if isinstance(told, fx.Refuse) and told.error.code == "NAME_TAKEN":
            (holder,) = [lease for lease in self.leases if lease.id == told.error.session_id]
            assert holder.name == wish.name
            assert holder.status == "active" or holder.over_at >= now
        if isinstance(told, fx.Refuse) and told.error.code == "POOL_EXHAUSTED":
            assert wish.kind == "open" or "cannot be started" in told.error.message
            if wish.kind == "open" and wish.until is not None:
                assert now > wish.until - BLINK, "refused before its time"
        if wish.kind == "open" and isinstance(told, fx.HandOver) and not wish.client.has_opened and wish.client.session:
            (holder,) = [lease for lease in self.leases if lease.id == wish.client.session]
            assert holder.name == wish.name is not None
        elif wish.kind == "open" and isinstance(told, fx.HandOver):
            pool = self.world.workers[told.worker].pool if told.worker in self.world.workers else None
            if pool is not None:
                _, revision = self.world.edition_of[pool]
                assert wish.version in (None, self.versions[pool]), "another version than the one asked for"
                is_older = revision < wish.revision
                assert is_older == (told.opened.notice is not None), "an older edition comes with a notice, no other"
        if wish.kind == "keepalive" and isinstance(told, fx.Answer):
            assert told.view.status == "active"
            assert wish.lease is not None
            wish.lease.last = now

    def check_lease(self, lease: Lease) -> None:
        session = self.world.broker.leases.known(lease.id, self.world.now)
        if lease.status == "active" and session.status == "expired":
            assert not lease.busy, f"{session} expired while it was busy"
            assert session.ended_at is not None
            assert session.ended_at > lease.last + lease.timeout - BLINK, f"{session} expired early: {lease}"
            lease.decide("expired", "idle", session.ended_at)
        if lease.status == "active" and session.end_reason == "max_lifetime":
            lifetime = LIFETIMES[lease.app]
            assert not lease.busy, f"{session} ended in the middle of a call"
            assert session.ended_at is not None
            assert lifetime is not None
            assert session.ended_at > lease.opened_at + lifetime - BLINK
            lease.decide("ended", "max_lifetime", session.ended_at)
        if lease.status == "active" and session.end_reason == "unresponsive":
            assert lease.busy
            assert lease.stops_from is not None, "nobody has cancelled it"
            assert session.ended_at is not None
            assert session.ended_at > lease.stops_from - BLINK, "the call had more time"
            lease.decide("ended", "unresponsive", session.ended_at)
        assert (session.status, session.end_reason, session.end_value) == (lease.status, lease.reason, lease.end_value)
        worker = self.world.workers.get(lease.client.worker)
        assert (worker is None) == lease.gone
        if worker is not None and lease.busy and lease.stops_from is not None:
            assert worker.terminated or self.world.now < lease.stops_by + 3 * TICK, f"{lease} is left to itself"
        if lease.status == "active":
            assert worker is not None
            assert worker.stop is None, "a live lease has a live worker"
        elif worker is not None:
            assert worker.stop is not None, "a lease that is over holds its worker"

    def is_held_at_a_dead_worker(self, wish: Wish) -> bool:
        """One that attaches waits until the exit is seen."""
        worker = None if wish.lease is None else self.world.workers.get(wish.lease.client.worker)
        return wish.kind == "attach" and worker is not None and worker.is_dead

    @staticmethod
    def code_of(lease: Lease) -> str:
        if lease.status == "expired":
            return "SESSION_EXPIRED"
        return "WORKER_LOST" if lease.reason == "worker_lost" else "SESSION_ENDED"

    @invariant()
    def the_laws_hold(self) -> None:
        self.steps += 1
        self.look()
        world = self.world
        world.broker.check()
        assert len(world.sessions()) == len(self.active)
        for wish in self.waiting:
            if wish.until is not None and not self.is_held_at_a_dead_worker(wish):
                assert world.now < wish.until + 2 * TICK, f"{wish} waits for too long"
            if wish.kind == "describe":
                assert world.loading(wish.app), f"{wish} waits for no template"
            if wish.kind == "end":
                assert wish.lease is not None
                assert not wish.lease.gone
        for pool in world.broker.fleet.editions.pools.values():
            line = [waiter.arrived for waiter in pool.waiters]
            assert line == sorted(line), "first come, first served"
        deadline = world.broker.next_deadline()
        assert deadline is None or deadline > world.now, "a shell would spin"

    def teardown(self) -> None:
        """In the end the daemon stops: nothing is left, and everybody has been told."""
        self.look()
        self.stop()
        self.look()
        self.world.wait(STOP_GRACE + 1 + 2 * TICK)
        assert self.world.exited
        self.rest()
        left = self.waiting
        assert not left, f"{left} were never answered"
        assert self.world.workers == {}
        assert self.world.templates == {}


def choose(pick: int, things: Iterable[Thing]) -> Thing:
    found = list(things)
    return found[pick % len(found)]


BrokerMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.explain],  # it takes minutes to explain so little
)
TestBroker = BrokerMachine.TestCase
TestBroker.pytestmark = [
    pytest.mark.usefixtures("with_refill_pause"),
    pytest.mark.timeout(600),  # for the shrinking, should there be anything to shrink
]
