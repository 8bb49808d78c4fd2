"""Whom a worker serves on a connection is the first thing that it hears there, and what else the daemon says comes after
that, as soon and as often as it may be said.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scripted import ATTACH, Client, Worker
from support import APPS

from warmpool.wire.messages import Call
from warmpool.wire.process_messages import Cancel, Leaving, Ready, Relabel, Stop
from warmpool.wire.shapes import Message

APP = APPS / "knows_its_session.py"
LARGE = {f"label {number}": "x" * 250 for number in range(60)}
"""More than a worker reads at once."""

Start = Callable[..., Worker]
every_kind = pytest.mark.parametrize("kind", ["Plain", "Mixed", "Async"])
at_any_time = pytest.mark.parametrize("when", ["before it is ready", "while it waits"])
of_any_size = pytest.mark.parametrize("labels", [{}, LARGE], ids=["small", "large"])


class Told(Worker):
    """Hears of its first client, of all `words` and calls at once."""

    words: tuple[Message, ...] = ()
    is_early = False

    def _meet(self, ours: socket.socket) -> Client:
        if not self.is_early:
            assert self.hear() == Ready()
        with self.stopped():
            client = self._attached(ours)
            self.tell(client, *self.words)
        if self.is_early:
            assert self.hear() == Ready()
        return client

    def tell(self, client: Client, *words: Message) -> None:
        for word in words:
            if isinstance(word, Call):
                client.send(["Call", *word])
            elif isinstance(word, Cancel):
                self.cancel(word.call_id)
            else:
                self.say(word)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        yield
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def start(start_worker: Start) -> Start:
    def start(kind: str, when: str, labels: dict[str, str], *words: Message) -> Worker:
        facts: dict[str, Any] = {"words": words, "is_early": when == "before it is ready"}
        told = type("Told", (Told,), {**facts, "attach_with": ATTACH._replace(labels=labels)})
        return start_worker(APP, kind, told)

    return start


@every_kind
@at_any_time
@of_any_size
def test_a_session_that_is_ended_as_soon_as_it_is_opened_has_its_hook(
    start: Start, kind: str, when: str, labels: dict[str, str]
):
    worker = start(kind, when, labels, Stop("client"))
    assert worker.hear() == Leaving("client")
    worker.wait_for_text("sess_1 ended: client")
    assert worker.client.hear() is None
    assert worker.wait_for_exit() == 0


@every_kind
@at_any_time
@of_any_size
def test_a_call_knows_the_labels_that_were_set_before_it(start: Start, kind: str, when: str, labels: dict[str, str]):
    worker = start(kind, when, labels, Relabel({"of": "later"}), Call(1, "labels", {}))
    assert worker.client.hear() == ["Result", 1, {"of": "later"}]
    with worker.stopped():
        other = worker.attach()
        worker.tell(other, Relabel({"of": "latest"}), Call(2, "labels", {}))
    assert other.hear() == ["Result", 2, {"of": "latest"}]
    assert worker.client.call(3, "labels") == ["Result", 3, {"of": "latest"}]


@every_kind
@at_any_time
def test_a_call_that_is_cancelled_before_it_is_read_is_not_run(start: Start, kind: str, when: str):
    worker = start(kind, when, {}, Call(1, "run", {}), Cancel(1))
    answer = worker.client.hear()
    assert answer is not None
    assert answer[:2] == ["Failure", 1]
    assert worker.client.call(2, "run") == ["Result", 2, 1]


def test_labels_that_are_set_while_a_call_waits_are_known_to_the_next(start: Start):
    """And a cancel that comes with them is not lost."""
    worker = start("Mixed", "while it waits", {})
    other = worker.attach()
    worker.client.send(["Call", 1, "nap", {}])
    worker.wait_for_text("begun")
    with worker.stopped():
        worker.tell(other, Relabel({"of": "later"}), Call(2, "labels", {}), Cancel(1))
    answer = worker.client.hear()
    assert answer is not None
    assert answer[:2] == ["Failure", 1]
    assert other.hear() == ["Result", 2, {"of": "later"}]
