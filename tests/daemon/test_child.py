"""The daemon's end of its conversation with a process."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Any

import pytest
from support import PATIENCE

from warmpool import packets
from warmpool.daemon.child import Channel, Child
from warmpool.wire.process_messages import FROM_WORKER, Busy, Ended, Expire
from warmpool.wire.shapes import Message


@pytest.fixture
def said() -> list[Message | None]:
    """What was heard; None at the end."""
    return []


@pytest.fixture
def ends(said: list[Any]) -> Any:
    """A channel, and the process's end of it."""
    with asyncio.Runner() as runner:
        ours, theirs = packets.pair()
        channel = Channel(ours, runner.get_loop(), FROM_WORKER, said.append, lambda: said.append(None))
        yield channel, theirs
        channel.close()
        theirs.close()


def test_the_last_words_of_a_process_are_heard_though_it_left_something_unread(ends: Any, said: list[Any]):
    channel, theirs = ends
    assert channel.send(Expire(0, "idle"))
    packets.send(theirs, Busy())
    packets.send(theirs, Ended(b"saved"))
    theirs.close()
    channel.drain()
    assert said == [Busy(), Ended(b"saved"), None]


def test_who_is_reaped_is_sent_no_signal():
    """The number of its pidfd may be another's."""
    with asyncio.Runner() as runner:
        told: list[str] = []
        bystander = subprocess.Popen(["sleep", "3600"])
        process = subprocess.Popen(["true"])
        child = Child(process.pid, runner.get_loop(), lambda _, end: told.append(end.status))
        child.wait(PATIENCE)
        another = os.pidfd_open(bystander.pid)
        try:
            child.kill()
            child.nudge()
            child.wait(PATIENCE)
            assert bystander.poll() is None
        finally:
            os.close(another)
            bystander.kill()
            bystander.wait()
            process.wait()
    assert told == ["exited with status 0"]


def test_it_is_known_whether_a_process_has_taken_what_it_was_sent(ends: Any):
    channel, theirs = ends
    assert not channel.has_unread()
    assert channel.send(Expire(0, "idle"))
    assert channel.has_unread()
    theirs.recv(1024)
    assert not channel.has_unread()
    channel.close()
    assert not channel.has_unread()
