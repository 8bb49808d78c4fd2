"""Opens: what is said of them, and the connections that come with the answers."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import psutil
import pytest
from support import APPS, PATIENCE, Daemon, Raw, framed, look_again

from warmpool import AppNotFoundError, AsyncClient, Client, Session
from warmpool.client.aio_links import AsyncControlLink
from warmpool.client.bells import Bells
from warmpool.client.requests import RunRequest
from warmpool.wire.messages import Open, Opened

COUNTER = str(APPS / "counter.py")
LIMITED = str(APPS / "limited.py")
ENDS_SLOWLY = str(APPS / "ends_slowly.py")
MANY = 1000
"""More answers than a socket holds. The daemon reads some 300 opens at once."""


@pytest.fixture
def control(shared_daemon: Daemon, client: Client) -> Iterator[Raw]:
    """At the end the daemon has as many descriptors and sessions as before."""
    for app in (COUNTER, ENDS_SLOWLY, LIMITED):
        client.apps.describe(app)
    before = at_rest(client, shared_daemon)
    with Raw.to(shared_daemon.socket) as control:
        yield control
    for info in client.sessions.list():
        client.sessions.end(info.id)
    deadline = time.monotonic() + 5
    while (after := at_rest(client, shared_daemon))[:-1] != before[:-1] or after[-1] > before[-1]:
        assert time.monotonic() < deadline, f"{after}, before it was {before}"


def at_rest(client: Client, daemon: Daemon) -> tuple[Any, ...]:
    deadline = time.monotonic() + 5
    while (states := client.status().workers_by_state) != {"warm": 2} and time.monotonic() < deadline:
        look_again()  # of the apps above one has none
    return states, client.status().sessions, psutil.Process(daemon.pid).num_fds()


def ask(control: Raw, number: int, app: str | None = COUNTER, session: str | None = "new", **fields: Any) -> None:
    control.say("Open", *Open(number, app, session, "/", **fields))


def ask_much(control: Raw, sessions: Sequence[Session]) -> None:
    """All at once: who asks one by one is held up when nobody reads. In turns, since a worker is told of no more than
    some 280 connections that it has not taken yet.
    """
    turns = zip(range(MANY), cycle(sessions), strict=False)
    control.send(b"".join(framed(["Open", *Open(number + 1, None, session.id, "/")]) for number, session in turns))


def answer(control: Raw) -> list[Any]:
    heard = control.hear()
    assert heard is not None, "closed without a word"
    return heard


def count(worker: Raw) -> int:
    worker.say("Call", 1, "add", {})
    kind, _, output = answer(worker)
    assert kind == "Result", output
    return int(output["total"])


def test_a_connection_comes_with_the_answer_and_goes_to_the_worker(control: Raw, client: Client):
    ask(control, 1)
    opened = answer(control)
    assert opened[:2] == ["Opened", 1]
    with control.take() as worker:
        assert count(worker) == 1
    assert client.sessions.get(opened[2]).call_count == 1


def test_every_client_has_a_connection_of_its_own(control: Raw, client: Client):
    """The first of a worker was made with the worker, others are made for them."""
    ask(control, 1)
    ask(control, 2, None, answer(control)[2])
    assert answer(control)[:2] == ["Opened", 2]
    with control.take() as first, control.take() as second:
        assert (count(first), count(second)) == (1, 2)
        first.close()
        assert count(second) == 3


def test_several_at_once_are_told_apart(control: Raw, client: Client):
    """Each connection comes with the answer that it belongs to."""
    for number, app in enumerate([COUNTER, "nowhere", COUNTER, "nowhere"]):
        ask(control, number + 1, app)
    control.say("Request", 5, "daemon.status", {})
    answers = sorted((answer(control) for _ in range(5)), key=lambda heard: heard[1])
    assert [heard[0] for heard in answers] == ["Opened", "Failure", "Opened", "Failure", "Reply"]
    sessions = [heard[2] for heard in answers if heard[0] == "Opened"]
    for session, worker in zip(sessions, [control.take(), control.take()], strict=True):
        with worker:
            count(worker)
            assert client.sessions.get(session).call_count == 1


def test_who_closes_the_control_connection_keeps_the_session(control: Raw):
    ask(control, 1)
    answer(control)
    with control.take() as worker:
        control.close()
        assert count(worker) == 1


def test_a_refusal_ends_nothing_else(control: Raw):
    ask(control, 1, "nowhere")
    refusal = answer(control)
    assert (refusal[:2], refusal[2]["code"]) == (["Failure", 1], "APP_NOT_FOUND")
    ask(control, 2)
    assert answer(control)[:2] == ["Opened", 2]


def test_answers_that_are_not_read_come_later_with_their_connections(control: Raw, client: Client):
    with ExitStack() as stack:
        sessions = [stack.enter_context(client.session(COUNTER)) for _ in range(4)]
        ask_much(control, sessions)
        client.status()
        for number in range(MANY):
            assert answer(control)[:2] == ["Opened", number + 1]
            with control.take() as worker:
                if number % 100 == 0:
                    count(worker)
        assert sum(session.info().call_count for session in sessions) == MANY // 100


def test_who_does_not_read_and_leaves_leaves_nothing(shared_daemon: Daemon, control: Raw, client: Client):
    with client.session(COUNTER) as session, Raw.to(shared_daemon.socket) as other:
        ask_much(other, [session])
        client.status()


# --- those that are not waited for ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["closing", "saying so"])
def test_who_stops_waiting_leaves_the_line(control: Raw, client: Client, shared_daemon: Daemon, by: str):
    with client.session(LIMITED) as holder, Raw.to(shared_daemon.socket) as other:
        ask(other, 1, LIMITED, open_timeout=PATIENCE)
        client.status()
        ask(control, 1, LIMITED, open_timeout=PATIENCE)
        if by == "closing":
            other.close()
        else:
            other.say("Abandon", 1)
            other.say("Request", 2, "daemon.status", {})
            assert answer(other)[:2] == ["Reply", 2]
        holder.end()
        assert answer(control)[:2] == ["Opened", 1]
        assert client.status().sessions == 1


def test_what_was_answered_or_never_asked_can_be_abandoned_too(control: Raw):
    ask(control, 1)
    assert answer(control)[:2] == ["Opened", 1]
    control.say("Abandon", 1)
    control.say("Abandon", 99)
    control.say("Request", 2, "daemon.status", {})
    assert answer(control)[:2] == ["Reply", 2]


def test_a_new_session_that_nobody_wants_any_more_is_ended(control: Raw, client: Client):
    """And no other: not one that was only attached to."""
    ask(control, 1)
    session = answer(control)[2]
    ask(control, 2, None, session)
    assert answer(control)[:2] == ["Opened", 2]
    control.say("Abandon", 2)
    control.say("Request", 3, "daemon.status", {})
    assert answer(control)[2]["sessions"] == 1
    control.say("Abandon", 1)
    info = client.sessions.get(session)
    assert (info.status, info.end_reason) == ("ended", "client")


def test_a_new_session_of_which_its_client_has_not_read_is_ended_when_it_leaves(
    shared_daemon: Daemon, control: Raw, client: Client
):
    with Raw.to(shared_daemon.socket) as other:
        refused = framed(["Request", 1, "x", {}])  # the answer is twenty times as long
        other.send(refused * 400 + framed(["Open", *Open(2, COUNTER, "new", "/")]))
        while not client.sessions.list():
            look_again()
        other.close()
        while client.sessions.list():
            look_again()


def test_a_task_that_stops_waiting_leaves_the_line(client: Client, control: Raw):
    async def give_up() -> None:
        async with AsyncClient(client.places.socket, autostart=False) as impatient:
            await impatient.status()
            opening = asyncio.create_task(impatient.run(app=LIMITED, session="new", open_timeout=PATIENCE))
            await asyncio.sleep(0)  # it has asked
            await impatient.status()
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await impatient.status()  # the daemon knows
            holder.end()
            assert client.status().sessions == 0

    with client.session(LIMITED) as holder:
        asyncio.run(give_up())


@pytest.mark.parametrize("when", ["late", "at the same time"])
def test_a_connection_that_comes_to_a_task_that_was_cancelled_is_closed(when: str):
    async def cancel() -> None:
        ours, theirs = socket.socketpair()
        link, daemon = AsyncControlLink(ours, Bells()), Raw(theirs)
        opening = asyncio.create_task(link.open(RunRequest(app="counter", session="new")))
        await asyncio.sleep(0)
        assert [answer(daemon)[0], answer(daemon)[0]] == ["Control", "Open"]
        if when == "late":
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert answer(daemon) == ["Abandon", 1]
        given, worker = socket.socketpair()
        opened = framed(["Opened", *Opened(1, "sess_x", "counter", "1", "w_1", 0, 1024, 0)])
        socket.send_fds(theirs, [opened], [given.fileno()])
        given.close()
        link._readable()
        if when != "late":
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        worker.settimeout(PATIENCE)
        assert worker.recv(1) == b""
        assert link.broken is None
        if when != "late":
            assert answer(daemon) == ["Abandon", 1]
        worker.close()
        daemon.close()
        link.close()

    asyncio.run(cancel())


# --- the client that does it --------------------------------------------------------------------------------------


def test_opens_do_not_wait_for_another_threads_request(client: Client, control: Raw):
    """To end a session takes as long as its hooks do."""
    with Client(client.places.socket, autostart=False) as shared:
        slow = shared.session(ENDS_SLOWLY)
        ending = threading.Thread(target=slow.end)
        ending.start()
        try:
            while client.sessions.list():
                pass
            started = time.monotonic()
            assert shared.session(COUNTER).call("add") == {"total": 1}
            took = time.monotonic() - started
            assert ending.is_alive(), f"the open took {took:.1f} s"
        finally:
            ending.join()


def test_a_client_goes_on_with_the_daemon_that_comes_after(start_daemon: Callable[..., Daemon], daemon: Daemon):
    with Client(daemon.socket, autostart=False) as client:
        client.session(COUNTER)
        daemon.stop()
        successor = start_daemon()
        assert successor.socket == daemon.socket
        assert client.session(COUNTER).call("add") == {"total": 1}
        with pytest.raises(AppNotFoundError):
            client.session("nowhere")


def test_a_client_without_a_descriptor_for_its_connection_is_told(client: Client, control: Raw):
    """And goes on when it has one. The session that it cannot have is ended."""
    with Client(client.places.socket, autostart=False) as crowded:
        crowded.status()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir("/proc/self/fd"))) + 1
        opened: set[str] = set()
        fillers = [os.dup(0) for _ in range(used - len(os.listdir("/proc/self/fd")) + 1)]
        highest = max(used, *fillers)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    session = crowded.session(COUNTER)
                    fillers.append(session._twin.link._socket.detach())
                    opened.add(session.id)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                os.close(fd)
        crowded.status()
        assert {info.id for info in client.sessions.list()} == opened
        assert crowded.session(COUNTER).call("add") == {"total": 1}
