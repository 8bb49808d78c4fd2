"""Whom a worker serves on a connection is the first thing that it hears there, and what the daemon says beside it
comes after.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted import Client, Worker
from support import APPS, open_files

from warmpool.wire.processes import Leaving, Relabel, Stop

APP = APPS / "knows_its_session.py"

plain_and_async = pytest.mark.parametrize("kind", ["Plain", "Async"])


class Hesitant(Worker):
    """Hears of its first client only after `words` of the daemon's, and all of that at once."""

    words: tuple[Stop | Relabel, ...] = ()

    def _attached(self, ours: socket.socket) -> Client:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        for word in self.words:
            self.say(word)
        client = super()._attached(ours)
        self.process.send_signal(signal.SIGCONT)
        return client


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Worker]]:
    files = open_files()
    workers: list[Worker] = []

    def start(kind: str, *words: Stop | Relabel) -> Worker:
        workers.append(type("Told", (Hesitant,), {"words": words})(APP, directory, kind))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()
    assert open_files() - files == set()


@plain_and_async
def test_a_session_that_is_ended_as_soon_as_it_is_opened_has_its_hook(start: Callable[..., Worker], kind: str):
    worker = start(kind, Stop("client"))
    assert worker.hear() == Leaving("client")
    worker.wait_for_text("sess_1 ended: client")
    assert worker.client.hear() is None
    assert worker.wait_for_exit() == 0


@plain_and_async
def test_labels_that_are_set_as_soon_as_a_session_is_opened_are_its_labels(start: Callable[..., Worker], kind: str):
    worker = start(kind, Relabel({"of": "later"}))
    assert worker.client.call(1, "labels") == ["Result", 1, {"of": "later"}]
