"""Deadlines in seconds over a wheel of milliseconds: never early, at most a tick late, met when it is said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool.policy.timers import TICKS_PER_SECOND, Timer, Timers, is_over

TICK = 1 / TICKS_PER_SECOND
LEASE, OPEN = Timer("lease", "s1"), Timer("open", (7, 0))

moments = st.floats(0, 1e7, allow_nan=False)
spans = st.floats(0, 1e5, allow_nan=False) | st.integers(0, 10**5).map(lambda n: n / 1000)


def due(timers: Timers, now: float) -> list[Timer]:
    return list(timers.due(now))


def due_at(timers: Timers) -> float:
    """When the one timer fires, for a shell that wakes at each `next_deadline` exactly."""
    for _ in range(100):
        moment = timers.next_deadline()
        assert moment is not None
        if due(timers, moment):
            return moment
    raise AssertionError("the timer is never met")


@pytest.mark.parametrize("deadline", [1000.0, 1000.001, 1000.0005, 1059.999, 1060, 4600.0, 1000.0000001])
def test_a_deadline_fires_at_its_tick_and_not_before(deadline):
    timers = Timers(999.0)
    timers.set(LEASE, deadline)
    tick = math.ceil(round(deadline * 1000, 6)) / 1000
    assert due(timers, tick - TICK) == []
    assert due(timers, tick - 1e-6) == []
    assert due(timers, math.nextafter(tick, math.inf)) == [LEASE]


@given(now=moments, span=spans)
def test_a_deadline_is_never_early_and_at_most_a_tick_late(now, span):
    timers = Timers(now)
    timers.set(LEASE, now + span)
    moment = due_at(timers)
    assert now + span <= moment + 1e-9
    assert moment <= now + span + 2 * TICK


@given(now=moments, span=spans, share=st.floats(0, 1, exclude_max=True))
def test_no_moment_before_the_deadline_fires_it(now, span, share):
    timers = Timers(now)
    deadline = now + span
    timers.set(LEASE, deadline)
    early = now + span * share
    if early < deadline - 1e-7:
        assert due(timers, early) == []
        assert LEASE in timers


@given(st.integers(1, 10**10))
def test_a_shell_that_wakes_at_the_next_deadline_has_something_to_do(tick):
    """Else it would be told the same moment again, which has come: it would spin."""
    timers = Timers((tick - 1) / 1000)
    timers.set(LEASE, tick / 1000)
    moment = timers.next_deadline()
    assert moment is not None
    assert due(timers, moment) == [LEASE]
    assert timers.next_deadline() is None


@pytest.mark.parametrize("moment", [1.001, 1.003, 2.003, 1000.5, 1001.001, 8.2, 4.35])
def test_a_tick_that_binary_fractions_cannot_say_is_met_all_the_same(moment):
    timers = Timers(0.0)
    timers.set(LEASE, moment)
    assert due_at(timers) == pytest.approx(moment, abs=1e-9)


@given(now=moments, past=spans)
def test_a_deadline_that_is_over_fires_at_the_next_tick(now, past):
    timers = Timers(now)
    timers.set(LEASE, now - past)
    assert due(timers, now) == []
    assert now <= due_at(timers) <= now + 2 * TICK


@given(st.lists(st.tuples(st.integers(0, 20), moments), max_size=30))
def test_timers_fire_in_the_order_of_their_deadlines(wanted):
    timers = Timers(0.0)
    deadlines = {}
    for about, deadline in wanted:
        timers.set(Timer("open", about), deadline)
        deadlines[Timer("open", about)] = deadline
    fired = due(timers, 2e7)
    assert set(fired) == set(deadlines)
    ticks = [math.ceil(deadlines[timer] * 1000) for timer in fired]
    assert all(before <= after + 1 for before, after in zip(ticks, ticks[1:], strict=False))


def test_there_is_one_timer_of_each_kind_about_each_thing():
    timers = Timers(0.0)
    timers.set(LEASE, 10)
    timers.set(OPEN, 20)
    timers.set(Timer("answer", "s1"), 30)
    timers.set(LEASE, 40)
    assert [due(timers, at) for at in (10.5, 20.5, 30.5, 40.5)] == [[], [OPEN], [Timer("answer", "s1")], [LEASE]]


def test_a_cancelled_timer_does_not_fire_and_may_be_cancelled_again():
    timers = Timers(0.0)
    timers.set(LEASE, 10)
    assert LEASE in timers
    timers.cancel(LEASE)
    timers.cancel(LEASE)
    assert LEASE not in timers
    assert timers.next_deadline() is None
    assert due(timers, 20) == []


def test_a_timer_that_has_fired_is_gone():
    timers = Timers(0.0)
    timers.set(LEASE, 10)
    assert due(timers, 10.5) == [LEASE]
    assert LEASE not in timers
    assert due(timers, 20) == []


def test_time_that_stands_still_or_seems_to_run_backwards_changes_nothing():
    timers = Timers(100.0)
    timers.set(LEASE, 110)
    assert due(timers, 100.0) == []
    assert due(timers, 50.0) == []
    assert due(timers, 105.0) == []
    assert due(timers, 104.0) == []
    assert due(timers, 110.001) == [LEASE]


def test_no_timers_no_deadline():
    timers = Timers(123.456)
    assert timers.next_deadline() is None
    assert due(timers, 1e6) == []


def test_a_repr_tells_how_many_there_are():
    timers = Timers(1.0)
    timers.set(LEASE, 2.0)
    assert repr(timers) == "<TimerWheel now=1000 timers=1 next=1984>"


@given(start=st.integers(0, 10**10), steps=st.lists(st.integers(1, 4 * 10**6), min_size=1, max_size=5))
def test_a_clock_that_stands_on_a_millisecond_meets_the_deadlines_that_lie_there(start, steps):
    """However its seconds are added up: sums of binary fractions may miss a millisecond by a hair, on either side."""
    timers = Timers(start / 1000)
    total = sum(steps) / 1000
    timers.set(LEASE, start / 1000 + total)
    now, ticks = start / 1000, start
    for step in steps[:-1]:
        now, ticks = now + step / 1000, ticks + step
        assert due(timers, now) == []
    assert due(timers, now + steps[-1] / 1000) == [LEASE]


@given(now=moments, span=spans)
def test_what_is_due_is_over(now, span):
    timers = Timers(now)
    timers.set(LEASE, now + span)
    moment = due_at(timers)
    assert is_over(now + span, moment)
    assert not is_over(now + span, now + span - 1e-6)
