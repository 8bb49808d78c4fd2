"""Two times: lease time stands and jumps, real time goes on, and each deadline is met in its own."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool.policy.split_timers import EITHER, LEASE_TIME, WAITS, SplitTimers
from warmpool.policy.timers import Kind, Timer

LEASE, KILL, OPEN = Timer("lease", "s1"), Timer("kill", "w1"), Timer("open", (7, 0))


class World:
    def __init__(self, lease: float = 1000.0, real: float = 50.0) -> None:
        self.lease, self.real, self.stands = lease, real, False
        self.timers = SplitTimers(lease, lambda: self.real - self.lease, lambda: self.stands)

    def passes(self, seconds: float) -> list[Timer]:
        """Real time goes by, and lease time with it unless it stands."""
        self.real += seconds
        if not self.stands:
            self.lease += seconds
        return self.timers.due(self.lease)

    def jumps(self, seconds: float) -> list[Timer]:
        self.lease += seconds
        return self.timers.due(self.lease)


@pytest.fixture
def world():
    return World()


def test_where_nobody_moves_time_all_is_as_ever(world):
    for timer, deadline in ((LEASE, 1003), (KILL, 1001), (OPEN, 1002)):
        world.timers.set(timer, deadline)
    assert 1000 < world.timers.next_deadline() <= 1001.001
    assert [world.passes(1) for _ in range(4)] == [[KILL], [OPEN], [LEASE], []]
    assert world.timers.next_deadline() is None


def test_while_lease_time_stands_only_waiting_ends(world):
    world.stands = True
    for timer in (LEASE, KILL, OPEN):
        world.timers.set(timer, 1001)
    assert 1000 < world.timers.next_deadline() <= 1001.001
    assert set(world.passes(1.5)) == {KILL, OPEN}
    assert world.timers.next_deadline() is None
    assert 1000 < world.timers.next_lease_deadline() <= 1001.001
    assert world.passes(10_000) == []
    assert world.jumps(1) == [LEASE]


def test_a_jump_hurries_no_process(world):
    for timer in (LEASE, KILL, OPEN):
        world.timers.set(timer, 1001)
    assert set(world.jumps(3600)) == {LEASE, OPEN}
    assert world.passes(0.9) == []
    assert world.passes(0.2) == [KILL]


def test_either_time_ends_a_wait_once(world):
    world.timers.set(OPEN, 1001)
    assert world.jumps(1) == [OPEN]
    assert OPEN not in world.timers
    assert world.passes(5) == []
    world.timers.set(OPEN, world.lease + 1)
    assert world.passes(1.1) == [OPEN]
    assert world.jumps(5) == []


@pytest.mark.parametrize("timer", [LEASE, KILL, OPEN])
def test_what_is_cancelled_does_not_come(world, timer):
    world.timers.set(timer, 1001)
    assert timer in world.timers
    world.timers.cancel(timer)
    assert timer not in world.timers
    assert world.jumps(10) == world.passes(10) == []


def test_lease_time_is_met_to_the_millisecond_in_which_it_stands(world):
    world.timers.set(LEASE, 1059.9999)
    assert world.jumps(59.999) == []
    assert world.jumps(0.0009) == [LEASE]


def test_each_kind_of_deadline_has_its_time():
    assert sorted([*LEASE_TIME, *WAITS, *EITHER]) == sorted(get_args(Kind))


kinds = st.sampled_from([LEASE.kind, "idle app", *sorted(WAITS), *sorted(EITHER)])
steps = st.lists(
    st.tuples(st.sampled_from(["set", "passes", "jumps", "stand", "go on"]), kinds, st.integers(1, 5000)), max_size=60
)


@given(steps)
def test_each_deadline_comes_once_and_in_its_own_time(steps):
    """Against a plain dict of what is due when, in both times."""
    world, expected = World(), {}
    for number, (what, kind, ms) in enumerate(steps):
        seconds = ms / 1000
        if what == "set":
            timer = Timer(kind, number)
            world.timers.set(timer, world.lease + seconds)
            expected[timer] = (world.lease + seconds, world.real + seconds)
            continue
        if what in ("stand", "go on"):
            world.stands = what == "stand"
            continue
        came = set(world.passes(seconds) if what == "passes" else world.jumps(seconds))
        assert came <= expected.keys()
        for timer, (lease, real) in list(expected.items()):
            late_lease, late_real = world.lease - lease, world.real - real
            late = max(late_lease if timer.kind not in WAITS else -1, late_real if timer.kind in WAITS | EITHER else -1)
            if timer in came:
                assert late > -0.0015, "early"
                del expected[timer]
            else:
                assert late < 0.0015, "late"


def test_on_the_way_nothing_is_met_that_lies_behind(world):
    """A slot of the wheel begins at 19061.504 and holds a deadline of a moment later: met there, it would be early, and
    when it is filed again it would be late for the moment at which time comes to stand.
    """
    world.timers = SplitTimers(19001.0, lambda: 0.0, lambda: True)
    world.timers.set(LEASE, 19061.504891)
    assert world.timers.due(19061.504) == []
    assert world.timers.due(19061.504891) == [LEASE]
