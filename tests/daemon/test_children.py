"""The daemon's end of its conversation with a process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from warmpool import packets
from warmpool.daemon.children import Channel
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


def test_it_is_known_whether_a_process_has_taken_what_it_was_sent(ends: Any):
    channel, theirs = ends
    assert not channel.has_unread()
    assert channel.send(Expire(0, "idle"))
    assert channel.has_unread()
    theirs.recv(1024)
    assert not channel.has_unread()
    channel.close()
    assert not channel.has_unread()
