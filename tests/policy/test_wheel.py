"""The timer wheel against a dict: never early, never lost, in order; and exhaustively at the borders of its slots."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warmpool.policy.wheel import BITS, LEVELS, SLOTS, SPAN, TimerWheel


class Checked:
    """A wheel and the dict that it must agree with. Each step checks the laws."""

    def __init__(self, now: int) -> None:
        self.wheel: TimerWheel[int] = TimerWheel(now)
        self.deadlines: dict[int, int] = {}
        self.now = now

    def schedule(self, key: int, deadline: int) -> None:
        self.wheel.schedule(key, deadline)
        self.deadlines[key] = max(deadline, self.now + 1)
        self.check(key)

    def cancel(self, key: int) -> None:
        assert self.wheel.cancel(key) is (self.deadlines.pop(key, None) is not None)
        self.check(key)

    def advance(self, now: int) -> None:
        due = self.wheel.advance(now)
        self.now = now
        expected = {key: deadline for key, deadline in self.deadlines.items() if deadline <= now}
        assert len(due) == len(expected), "one was lost, was early or fired twice"
        assert set(due) == set(expected)
        order = [expected[key] for key in due]
        assert order == sorted(order)
        for key in due:
            del self.deadlines[key]
        self.check()

    def check(self, key: int = 0) -> None:
        assert self.wheel.now == self.now
        assert len(self.wheel) == len(self.deadlines)
        assert self.wheel.deadline_of(key) == self.deadlines.get(key)
        wake = self.wheel.next_deadline()
        if self.deadlines:
            assert wake is not None
            assert self.now < wake <= min(self.deadlines.values())
        else:
            assert wake is None


def fire(wheel: TimerWheel[str]) -> tuple[list[str], int, int]:
    """Goes from one `next_deadline` to the next until something fires: what, when, and after how many steps."""
    steps = 0
    while True:
        wake = wheel.next_deadline()
        assert wake is not None
        assert wake > wheel.now
        steps += 1
        if due := wheel.advance(wake):
            return due, wake, steps


# --- against the model ------------------------------------------------------------------------------------------

REACHES = {
    "within-a-slot-of-level-1": SLOTS - 1,
    "seconds": SLOTS**2,
    "hours": SLOTS**4,
    "beyond-the-span": 3 * SPAN,
}


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES.keys())
@pytest.mark.parametrize("start", [0, 7 * SPAN - 1000], ids=["from-0", "from-before-a-multiple-of-the-span"])
def test_a_hundred_thousand_random_steps_agree_with_a_dict(start, reach):
    draw = random.Random(f"{start} {reach}")
    checked = Checked(start)

    def distance() -> int:
        return int(reach ** draw.random()) - 1 if draw.random() < 0.7 else draw.randrange(reach)

    for _ in range(12_500):
        choice, key = draw.random(), draw.randrange(30)
        if choice < 0.55:
            checked.schedule(key, checked.now + distance())
        elif choice < 0.70:
            checked.cancel(key)
        elif choice < 0.85:
            checked.advance(checked.now + distance() // 8)
        elif (wake := checked.wheel.next_deadline()) is not None:
            checked.advance(wake - draw.randrange(2))
    while checked.deadlines:
        checked.advance(checked.wheel.next_deadline())


class WheelMachine(RuleBasedStateMachine):
    """The same laws, with steps that hypothesis can shrink."""

    ticks = st.integers(0, 200) | st.integers(0, LEVELS + 1).flatmap(
        lambda n: st.integers(max(0, 64**n - 2), 64**n + 2)
    )

    def __init__(self) -> None:
        super().__init__()
        self.checked = Checked(SPAN - 100)

    @rule(key=st.integers(0, 4), ticks=ticks)
    def schedule(self, key, ticks):
        self.checked.schedule(key, self.checked.now + ticks)

    @rule(key=st.integers(0, 4), ticks=ticks)
    def schedule_in_the_past(self, key, ticks):
        self.checked.schedule(key, self.checked.now - ticks)

    @rule(key=st.integers(0, 5))
    def cancel(self, key):
        self.checked.cancel(key)

    @rule(ticks=ticks)
    def advance(self, ticks):
        self.checked.advance(self.checked.now + ticks)

    @rule(before=st.integers(0, 1))
    def advance_to_the_next_deadline(self, before):
        if (wake := self.checked.wheel.next_deadline()) is not None:
            self.checked.advance(wake - before)

    @invariant()
    def the_laws_hold(self):
        self.checked.check()


WheelMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestWheel = WheelMachine.TestCase


# --- at the borders ---------------------------------------------------------------------------------------------

STARTS = [
    0,
    1,
    62,
    63,
    64,
    64**2 - 1,
    64**3 + 17,
    SPAN - 65,
    SPAN - 1,
    SPAN,
    SPAN + 1,
    5 * SPAN - 64,
    5 * SPAN + 4096,
]


@pytest.mark.parametrize("level", range(LEVELS + 1))
def test_one_before_at_and_one_after_each_slot_fires_exactly_then(level):
    """From each start, each slot of the level; the level after the last one does not exist: it is beyond the span."""
    for start in STARTS:
        for slot in range(1, SLOTS + 1):
            for ticks in (slot * 64**level - 1, slot * 64**level, slot * 64**level + 1):
                if ticks > 0:
                    wheel: TimerWheel[str] = TimerWheel(start)
                    wheel.schedule("key", start + ticks)
                    due, when, steps = fire(wheel)
                    assert (due, when) == (["key"], start + ticks)
                    assert steps <= LEVELS + 1 + ticks // SPAN, "filed again once a level, and once a turn"
                    assert wheel.next_deadline() is None


@pytest.mark.parametrize("start", STARTS)
def test_one_jump_to_the_deadline_fires_and_one_tick_less_does_not(start):
    for ticks in {64**n + d for n in range(LEVELS + 2) for d in (-1, 0, 1)} - {0}:
        wheel: TimerWheel[str] = TimerWheel(start)
        wheel.schedule("key", start + ticks)
        assert wheel.advance(start + ticks - 1) == []
        assert len(wheel) == 1
        assert wheel.advance(start + ticks) == ["key"]
        assert len(wheel) == 0
        assert wheel.advance(start + ticks) == []


def test_a_jump_over_everything_fires_all_in_the_order_of_their_deadlines():
    ticks = sorted({n**p + d for n in range(1, 65) for p in range(LEVELS + 1) for d in (0, 1)})
    wheel: TimerWheel[int] = TimerWheel(0)
    for tick in random.Random(1).sample(ticks, len(ticks)):
        wheel.schedule(tick, tick)
    assert wheel.advance(2 * SPAN * SLOTS) == ticks
    assert len(wheel) == 0


def test_many_keys_of_one_tick_fire_together():
    wheel: TimerWheel[int] = TimerWheel(3)
    for key in range(100):
        wheel.schedule(key, 5000)
    assert wheel.advance(4999) == []
    assert sorted(wheel.advance(5000)) == list(range(100))


def test_a_deadline_beyond_the_span_waits_in_the_wheel_as_long_as_it_must():
    wheel: TimerWheel[str] = TimerWheel(12345)
    deadline = 12345 + 10 * SPAN + 1
    wheel.schedule("far", deadline)
    assert wheel.deadline_of("far") == deadline
    due, when, steps = fire(wheel)
    assert (due, when) == (["far"], deadline)
    assert steps < 40, "it is filed again about once a turn, not once a slot"


# --- to move, to cancel, to be late -----------------------------------------------------------------------------


@pytest.mark.parametrize("first", [10, 64, 5000, 64**3, SPAN + 5])
@pytest.mark.parametrize("second", [1, 63, 64, 4097, 64**4, 2 * SPAN])
def test_to_schedule_again_moves_the_deadline_earlier_or_later(first, second):
    wheel: TimerWheel[str] = TimerWheel(100)
    wheel.schedule("key", 100 + first)
    wheel.schedule("key", 100 + second)
    assert len(wheel) == 1
    assert wheel.deadline_of("key") == 100 + second
    assert fire(wheel)[:2] == (["key"], 100 + second)
    assert wheel.advance(100 + first + second + SPAN) == []


def test_to_cancel_one_of_a_slot_leaves_the_others():
    wheel: TimerWheel[str] = TimerWheel(0)
    for key in "abc":
        wheel.schedule(key, 5000)
    assert wheel.cancel("b") is True
    assert wheel.cancel("b") is False
    assert wheel.deadline_of("b") is None
    assert sorted(wheel.advance(5000)) == ["a", "c"]


@pytest.mark.parametrize("ticks", [1, 63, 64, 64**2, 64**5 + 1, SPAN])
def test_to_cancel_the_last_of_a_slot_leaves_nothing_to_wake_for(ticks):
    wheel: TimerWheel[str] = TimerWheel(9)
    wheel.schedule("key", 9 + ticks)
    assert wheel.cancel("key")
    assert wheel.next_deadline() is None
    assert wheel.advance(9 + 2 * ticks) == []


def test_what_was_never_scheduled_cannot_be_cancelled():
    wheel: TimerWheel[str] = TimerWheel(0)
    assert wheel.cancel("key") is False
    assert wheel.deadline_of("key") is None


def test_what_has_fired_cannot_be_cancelled_and_may_be_scheduled_again():
    wheel: TimerWheel[str] = TimerWheel(0)
    wheel.schedule("key", 5)
    assert wheel.advance(5) == ["key"]
    assert wheel.cancel("key") is False
    wheel.schedule("key", 6)
    assert wheel.advance(6) == ["key"]


@pytest.mark.parametrize("deadline", [1000, 999, 0, -5, -SPAN])
def test_an_overdue_deadline_fires_at_the_next_tick(deadline):
    wheel: TimerWheel[str] = TimerWheel(1000)
    wheel.schedule("late", deadline)
    assert wheel.deadline_of("late") == wheel.next_deadline() == 1001
    assert wheel.advance(1000) == []
    assert wheel.advance(1001) == ["late"]


def test_to_advance_by_nothing_changes_nothing():
    wheel: TimerWheel[str] = TimerWheel(64)
    assert wheel.advance(64) == []
    wheel.schedule("key", 65)
    assert wheel.advance(64) == []
    assert (len(wheel), wheel.now, wheel.next_deadline()) == (1, 64, 65)


def test_time_that_runs_backwards_is_a_bug_and_changes_nothing():
    wheel: TimerWheel[str] = TimerWheel(100)
    wheel.schedule("key", 200)
    with pytest.raises(AssertionError, match="time runs backwards: 99 < 100"):
        wheel.advance(99)
    assert (wheel.now, len(wheel), wheel.deadline_of("key")) == (100, 1, 200)


def test_an_empty_wheel_has_nothing_to_wake_for_however_far_it_goes():
    wheel: TimerWheel[str] = TimerWheel(0)
    assert wheel.next_deadline() is None
    assert wheel.advance(100 * SPAN) == []
    assert wheel.next_deadline() is None


def test_the_next_deadline_is_exact_within_the_first_level():
    wheel: TimerWheel[str] = TimerWheel(1000 * SLOTS)
    for ticks in range(SLOTS - 1, 0, -1):
        wheel.schedule(str(ticks), 1000 * SLOTS + ticks)
        assert wheel.next_deadline() == 1000 * SLOTS + ticks


def test_a_sliding_window_that_is_renewed_at_each_wake_never_fires():
    wheel: TimerWheel[str] = TimerWheel(0)
    for _ in range(1000):
        wheel.schedule("lease", wheel.now + 60_000)
        due, when, _ = fire(wheel)
        assert due == ["lease"]
        assert when == wheel.now
    assert wheel.now == 1000 * 60_000


@pytest.mark.parametrize("key", [("lease", 1), "text", 7, frozenset([1]), None], ids=repr)
def test_keys_are_opaque(key):
    wheel: TimerWheel[object] = TimerWheel(0)
    wheel.schedule(key, 3)
    assert wheel.deadline_of(key) == 3
    assert wheel.advance(3) == [key]


def test_a_repr_tells_the_time_the_timers_and_the_next_wake():
    wheel: TimerWheel[str] = TimerWheel(5)
    assert repr(wheel) == "<TimerWheel now=5 timers=0 next=None>"
    wheel.schedule("key", 9)
    assert repr(wheel) == "<TimerWheel now=5 timers=1 next=9>"


def test_the_geometry_is_what_the_docstring_says():
    assert (LEVELS, SLOTS, BITS) == (6, 64, 6)
    assert SLOTS**LEVELS == SPAN
    assert 2.1 < SPAN / 1000 / 86_400 / 365 < 2.3
