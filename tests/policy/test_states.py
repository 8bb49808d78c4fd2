"""All tables, for every state and event; and that all of each can be reached."""

from __future__ import annotations

import pytest

from warmpool.policy.pool import App, Pool, Worker
from warmpool.policy.sessions import Session
from warmpool.policy.states import (
    LEASE_STEPS,
    TEMPLATE_STEPS,
    WORKER_OF_LEASE,
    WORKER_STEPS,
    IllegalStepError,
    LeaseEvent,
    LeaseState,
    TemplateEvent,
    TemplateState,
    WorkerEvent,
    WorkerState,
    step,
)

# The whole of both lives, written out once more: rows are states, what is not here must not happen.

WORKER_LIFE = {
    "starting": {"ready": "warm", "stop": "stopping", "exit": "gone"},
    "warm": {"lease": "leased", "serve": "serving", "stop": "stopping", "exit": "gone"},
    "leased": {"stop": "stopping", "exit": "gone"},
    "serving": {"release": "spare", "stop": "stopping", "exit": "gone"},
    "spare": {"serve": "serving", "stop": "stopping", "exit": "gone"},
    "stopping": {"exit": "gone"},
    "gone": {},
}

LEASE_LIFE = {
    "active": {"window over": "expiring", "close": "closing", "worker gone": "closed"},
    "expiring": {"busy": "active", "close": "closing", "worker gone": "closed"},
    "closing": {"worker gone": "closed"},
    "closed": {},
}

TEMPLATE_LIFE = {
    "lost": {"start": "loading", "retire": "retired"},
    "loading": {"loaded": "ready", "lose": "lost", "retire": "retired"},
    "ready": {"lose": "lost", "retire": "retired"},
    "retired": {"retire": "retired"},
}

each_worker_step = pytest.mark.parametrize("event", WorkerEvent, ids=lambda e: e.value)
each_worker_state = pytest.mark.parametrize("state", WorkerState, ids=lambda s: s.value)
each_lease_step = pytest.mark.parametrize("event", LeaseEvent, ids=lambda e: e.value.replace(" ", "-"))
each_lease_state = pytest.mark.parametrize("state", LeaseState, ids=lambda s: s.value)
each_template_step = pytest.mark.parametrize("event", TemplateEvent, ids=lambda e: e.value)
each_template_state = pytest.mark.parametrize("state", TemplateState, ids=lambda s: s.value)


def worker_in(state: WorkerState) -> Worker:
    """A worker that has got there by legal steps, in a pool that counts it."""
    pool = Pool("p_1", App("/apps/counter.py", "counter"), 1, warm_target=1, max_workers=9)
    worker = Worker("w_1", pool, 0)
    pool.add(worker)
    for event in path(WORKER_STEPS, WorkerState.STARTING, state):
        worker.step(event)
    assert worker.state is state
    return worker


def session_in(state: LeaseState) -> Session:
    session = Session("s1", "/apps/counter.py", "counter", "v1", "w_1", 0, 101, 60.0, 0.0, "/home", {}, state)
    assert session.state is state
    return session


def path(table, start, goal):
    """Events that lead from one state to another. Raises KeyError if there are none."""
    paths = {start: []}
    for state in (queue := [start]):
        for event, after in table[state].items():
            if after not in paths:
                paths[after] = [*paths[state], event]
                queue.append(after)
    return paths[goal]


# --- the tables -------------------------------------------------------------------------------------------------


@each_worker_state
@each_worker_step
def test_a_worker_takes_the_steps_of_its_life_and_no_others(state, event):
    worker = worker_in(state)
    expected = WORKER_LIFE[state.value].get(event.value)
    if expected is None:
        before = repr(worker), repr(worker.pool)
        with pytest.raises(IllegalStepError, match=f"{event} in {state}"):
            worker.step(event)
        assert (repr(worker), repr(worker.pool)) == before, "an illegal step changes nothing"
    else:
        worker.step(event)
        assert worker.state.value == expected


@each_lease_state
@each_lease_step
def test_a_lease_takes_the_steps_of_its_life_and_no_others(state, event):
    session = session_in(state)
    expected = LEASE_LIFE[state.value].get(event.value)
    if expected is None:
        with pytest.raises(IllegalStepError, match=f"{event} in {state}"):
            session.step(event)
        assert session.state is state, "an illegal step changes nothing"
    else:
        session.step(event)
        assert session.state.value == expected


@each_template_state
@each_template_step
def test_a_template_takes_the_steps_of_its_life_and_no_others(state, event):
    pool = Pool("p_1", App("/apps/counter.py", "counter"), 1, warm_target=1, max_workers=9)
    for earlier in path(TEMPLATE_STEPS, TemplateState.LOST, state):
        pool.step_template(earlier)
    expected = TEMPLATE_LIFE[state.value].get(event.value)
    if expected is None:
        with pytest.raises(IllegalStepError, match=f"{event} in {state}"):
            pool.step_template(event)
        assert pool.template is state, "an illegal step changes nothing"
    else:
        pool.step_template(event)
        assert pool.template.value == expected


def test_the_tables_name_each_state_once():
    assert set(WORKER_STEPS) == set(WorkerState)
    assert set(TEMPLATE_STEPS) == set(TemplateState)
    assert set(LEASE_STEPS) == set(LeaseState)


def test_a_step_gives_the_state_and_leaves_the_table_alone():
    before = {state: dict(steps) for state, steps in WORKER_STEPS.items()}
    assert step(WORKER_STEPS, WorkerState.STARTING, WorkerEvent.READY) is WorkerState.WARM
    with pytest.raises(IllegalStepError):
        step(WORKER_STEPS, WorkerState.GONE, WorkerEvent.READY)
    assert before == WORKER_STEPS


# --- what can be reached ----------------------------------------------------------------------------------------


@each_worker_state
def test_each_state_of_a_worker_is_reached_from_starting_and_ends_in_gone(state):
    path(WORKER_STEPS, WorkerState.STARTING, state)
    path(WORKER_STEPS, state, WorkerState.GONE)


@each_lease_state
def test_each_state_of_a_lease_is_reached_from_active_and_ends_in_closed(state):
    path(LEASE_STEPS, LeaseState.ACTIVE, state)
    path(LEASE_STEPS, state, LeaseState.CLOSED)


@pytest.mark.parametrize("other", [WorkerState.WARM, WorkerState.SERVING, WorkerState.SPARE], ids=lambda s: s.value)
def test_the_worker_of_a_session_is_never_given_to_anybody_else(other):
    with pytest.raises(KeyError):
        path(WORKER_STEPS, WorkerState.LEASED, other)
    with pytest.raises(KeyError):
        path(WORKER_STEPS, WorkerState.SPARE, WorkerState.LEASED)


@each_worker_state
def test_every_process_that_is_not_gone_can_be_stopped_once_and_may_die_at_any_time(state):
    alive = state is not WorkerState.GONE
    assert (WorkerEvent.EXIT in WORKER_STEPS[state]) is alive
    assert (WorkerEvent.STOP in WORKER_STEPS[state]) is (alive and state is not WorkerState.STOPPING)


# --- both together ----------------------------------------------------------------------------------------------


def test_each_state_of_a_lease_has_its_state_of_the_worker():
    assert set(WORKER_OF_LEASE) == set(LeaseState)


STEPS_TOGETHER = {
    LeaseEvent.WINDOW_OVER: None,
    LeaseEvent.BUSY: None,
    LeaseEvent.CLOSE: WorkerEvent.STOP,
    LeaseEvent.WORKER_GONE: WorkerEvent.EXIT,
}
"""What the worker goes through when its lease takes a step."""


@each_lease_state
@each_lease_step
def test_the_joint_rule_holds_over_each_step_of_a_lease(state, event):
    if event not in LEASE_STEPS[state]:
        return
    before, after = WORKER_OF_LEASE[state], WORKER_OF_LEASE[LEASE_STEPS[state][event]]
    of_worker = STEPS_TOGETHER[event]
    assert (before if of_worker is None else WORKER_STEPS[before][of_worker]) is after


# --- the counts that a pool keeps -------------------------------------------------------------------------------


@each_worker_state
def test_a_pool_counts_its_workers_by_their_state(state):
    worker = worker_in(state)
    pool = worker.pool
    assert pool.starting == (state is WorkerState.STARTING)
    assert list(pool.warm.values()) == ([worker] if state is WorkerState.WARM else [])
    assert list(pool.spare.values()) == ([worker] if state is WorkerState.SPARE else [])
    assert pool.workers == ({} if state is WorkerState.GONE else {"w_1": worker})


def test_a_pool_and_its_workers_tell_their_state_in_a_line():
    worker = worker_in(WorkerState.WARM)
    assert repr(worker) == "<Worker w_1 warm of p_1>"
    assert repr(worker.pool) == "<Pool p_1 lost [workers: 1, 0 starting, 1 warm, 0 spare | waiting: 0]>"
    worker.session = session_in(LeaseState.ACTIVE)
    assert repr(worker) == "<Worker w_1 warm for s1 of p_1>"
    assert repr(worker.session) == "<Session s1 active counter@v1 on w_1>"
