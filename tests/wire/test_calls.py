"""The life of one call: the table itself, and the open calls of a connection against a dict."""

from __future__ import annotations

from enum import Enum

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warmpool.errors import PayloadTooLargeError, ProtocolError
from warmpool.wire.calls import CallState, OpenCalls


class CallEvent(Enum):
    EVENT = "event"
    ANSWER = "answer"
    ABANDON = "abandon"


TRANSITIONS = {
    CallState.WAITING: {CallEvent.ANSWER: CallState.DONE, CallEvent.ABANDON: CallState.ABANDONED},
    CallState.STREAMING: {
        CallEvent.EVENT: CallState.STREAMING,
        CallEvent.ANSWER: CallState.DONE,
        CallEvent.ABANDON: CallState.ABANDONED,
    },
    CallState.ABANDONED: {
        CallEvent.EVENT: CallState.ABANDONED,
        CallEvent.ANSWER: CallState.DONE,
        CallEvent.ABANDON: CallState.ABANDONED,
    },
    CallState.DONE: {},
}
"""What may follow what."""

WAITING, STREAMING, ABANDONED, DONE = CallState.WAITING, CallState.STREAMING, CallState.ABANDONED, CallState.DONE
EVENT, ANSWER, ABANDON = CallEvent.EVENT, CallEvent.ANSWER, CallEvent.ABANDON


def answer(calls: OpenCalls, call_id: int) -> bool:
    """A Result for the call comes; whether somebody waits for it."""
    parts = calls.answer(msgpack.packb(["Result", call_id, "out"]))
    assert parts in (None, ["Result", call_id, "out"])
    return parts is not None


def event(calls: OpenCalls, call_id: int) -> bool:
    """An Event of the call comes; whether somebody waits for it."""
    message = ["Event", call_id, 1, 1.5, "output", "item"]
    parts = calls.answer(msgpack.packb(message))
    assert parts in (None, message)
    return parts is not None


def a_call(state: CallState) -> tuple[OpenCalls, int]:
    """One call in `state`, between two that wait."""
    calls = OpenCalls()
    calls.start()
    call_id = calls.start(STREAMING if state is STREAMING else WAITING)
    calls.start()
    if state is ABANDONED:
        calls.abandon(call_id)
    elif state is DONE:
        answer(calls, call_id)
    return calls, call_id


@pytest.mark.parametrize("what", CallEvent, ids=lambda e: e.name)
@pytest.mark.parametrize("state", CallState, ids=lambda s: s.name)
def test_each_event_in_each_state_does_what_the_table_says(state, what):
    calls, call_id = a_call(state)
    happen = {EVENT: event, ANSWER: answer, ABANDON: OpenCalls.abandon}[what]
    before = repr(calls)
    after = TRANSITIONS[state].get(what)
    if (state, what) == (DONE, ABANDON):
        assert calls.abandon(call_id) is False  # the answer was quicker than Ctrl-C
        assert repr(calls) == before
    elif after is None:
        with pytest.raises(ProtocolError):
            happen(calls, call_id)
        assert repr(calls) == before
    else:
        somebody_waits = happen(calls, call_id)
        assert somebody_waits is (what is ABANDON or state is not ABANDONED)
        assert (call_id in calls) is (after is not DONE)
        assert len(calls) == (2 if after is DONE else 3)
        assert after is DONE or f"{call_id}: '{after.value}'" in repr(calls)


def test_the_table_is_total_and_done_is_the_end():
    assert set(TRANSITIONS) == set(CallState)
    assert TRANSITIONS[DONE] == {}
    assert all(ANSWER in TRANSITIONS[state] for state in CallState if state is not DONE)


def test_the_late_answer_to_an_abandoned_call_is_dropped_and_is_never_anothers():
    calls = OpenCalls()
    first = calls.start()
    calls.abandon(first)
    second = calls.start()
    assert first != second
    assert answer(calls, first) is False
    assert answer(calls, second) is True
    assert len(calls) == 0


@pytest.mark.parametrize("call_id", [0, -1, 3, 2**64 - 1])
def test_an_answer_to_a_call_that_nobody_made_is_the_peers_error_and_changes_nothing(call_id):
    calls = OpenCalls()
    calls.start()
    calls.start()
    before = repr(calls)
    with pytest.raises(ProtocolError, match=f"call {call_id}, which is not open"):
        answer(calls, call_id)
    assert repr(calls) == before


@pytest.mark.parametrize("state", CallState, ids=lambda s: s.name)
def test_a_forgotten_call_is_gone_and_an_answer_to_it_is_the_peers_error(state):
    calls, call_id = a_call(state)
    calls.forget(call_id)
    assert len(calls) == 2
    with pytest.raises(ProtocolError):
        answer(calls, call_id)
    assert calls.start() == 4


def test_a_repr_tells_what_is_open():
    calls, call_id = a_call(ABANDONED)
    assert call_id == 2
    assert repr(calls) == "<OpenCalls last=3 {1: 'waiting', 2: 'abandoned', 3: 'waiting'}>"


class OpenCallsMachine(RuleBasedStateMachine):
    """Calls, answers and abandonments in any order, against a dict of states."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = OpenCalls()
        self.open: dict[int, CallState] = {}
        self.used: set[int] = set()

    @rule(state=st.sampled_from([WAITING, STREAMING]))
    def start(self, state):
        call_id = self.calls.start(state)
        assert call_id > 0
        assert call_id not in self.used
        self.used.add(call_id)
        self.open[call_id] = state

    @rule(call_id=st.integers(0, 12))
    def event(self, call_id):
        if self.open.get(call_id) in (STREAMING, ABANDONED):
            assert event(self.calls, call_id) is (self.open[call_id] is STREAMING)
        else:
            with pytest.raises(ProtocolError):
                event(self.calls, call_id)

    @rule(call_id=st.integers(0, 12))
    def abandon(self, call_id):
        assert self.calls.abandon(call_id) is (call_id in self.open)
        if call_id in self.open:
            self.open[call_id] = ABANDONED

    @rule(call_id=st.integers(0, 12))
    def forget(self, call_id):
        self.calls.forget(call_id)
        self.open.pop(call_id, None)

    @rule(call_id=st.integers(0, 12))
    def answer(self, call_id):
        if call_id in self.open:
            assert answer(self.calls, call_id) is (self.open.pop(call_id) is not ABANDONED)
        else:
            with pytest.raises(ProtocolError):
                answer(self.calls, call_id)

    @invariant()
    def the_same_calls_are_open(self):
        assert len(self.calls) == len(self.open)
        assert str({call_id: state.value for call_id, state in self.open.items()}) in repr(self.calls)


OpenCallsMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestOpenCalls = OpenCallsMachine.TestCase


def test_a_failure_is_an_answer_too():
    calls = OpenCalls()
    call_id = calls.start()
    assert calls.answer(msgpack.packb(["Failure", call_id, {"code": "X"}])) == ["Failure", call_id, {"code": "X"}]
    assert len(calls) == 0


def test_the_last_word_of_the_peer_is_its_error():
    calls = OpenCalls()
    calls.start()
    with pytest.raises(PayloadTooLargeError, match="too much"):
        calls.answer(msgpack.packb(["Failure", 0, {"code": "PAYLOAD_TOO_LARGE", "message": "too much"}]))


@pytest.mark.parametrize("parts", [None, [], ["Result"], ["Result", 1], ["Result", True, 2], ["Other", 1, 2],
                                   ["Event", 1, 1, 1.0, "output"], ["Event", 1, 1, 1.0, 5, "item"],
                                   ["Event", 1, "1", 1.0, "output", "item"], ["Event", 1, 1, None, "output", "item"],
                                   ["Event", "1", 1, 1.0, "output", "item"], ["Failure", 1, "text"], {"Result": 1}, ["Result", 1, 2, 3], [["Result"], 1, 2]])  # fmt: skip
def test_what_is_no_answer_is_the_peers_error_and_changes_nothing(parts):
    calls = OpenCalls()
    calls.start()
    before = repr(calls)
    with pytest.raises(ProtocolError):
        calls.answer(msgpack.packb(parts))
    assert repr(calls) == before


def test_ids_count_up_from_the_first():
    calls = OpenCalls(7 << 16)
    assert [calls.start(), calls.start()] == [7 << 16, (7 << 16) + 1]
