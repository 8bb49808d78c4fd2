"""The bell: a client that waits awake tells its worker by a store on the board that it has sent a call."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from support import APPS, Daemon, Raw, framed, open_files

from warmpool import AsyncClient, Client
from warmpool.app import AppContext, BaseApp
from warmpool.board import BELL, CALL_ID, STARTED, Board
from warmpool.client import aio_calls, sync_calls
from warmpool.client.bells import UNHEARD, Bells
from warmpool.wire.messages import Open
from warmpool.worker.caller import DEAF, LOOKS, Caller

COUNTER = str(APPS / "counter.py")
ROW = 2
LAST = 7


class Watched(list[int]):
    """Cells of a board. In the one that is rung something appears when it has been looked at so many times."""

    def __init__(self, rung_after: int) -> None:
        board = Board.create(ROW + 1)
        super().__init__(board.cells)
        board.close()
        self.looks = 0
        self._rung_after = rung_after

    def __getitem__(self, index: Any) -> Any:
        if index == Board.start_of(ROW) + BELL:
            self.looks += 1
            if self.looks > self._rung_after:
                self[index] = LAST + 1
        return super().__getitem__(index)


def caller_over(cells: list[int]) -> Caller:
    """Of a worker whose last call was LAST, and was rung for."""
    cells[Board.start_of(ROW) + CALL_ID] = cells[Board.start_of(ROW) + BELL] = LAST
    board: Any = SimpleNamespace(cells=cells)
    return Caller(BaseApp(), {}, board, ROW, AppContext(), SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [0, 1, len(LOOKS) - 1])
def test_a_worker_hears_the_bell_at_once(after: int):
    cells = Watched(after)
    caller_over(cells).wait_awake()
    assert cells.looks == max(after + 1, 2)


def test_a_worker_does_not_listen_for_ever():
    cells = Watched(10**9)
    caller_over(cells).wait_awake()
    assert cells.looks == 1 + len(LOOKS)


def test_a_worker_waits_for_no_bell_of_a_client_that_does_not_ring():
    cells = Watched(10**9)
    caller = caller_over(cells)
    cells[Board.start_of(ROW) + BELL] = 0
    caller.wait_awake()
    assert cells.looks == 1


@pytest.mark.parametrize("rings", [True, False])
def test_a_worker_listens_again_as_long_as_it_hears_something_and_else_after_some_calls(rings: bool):
    cells = Watched(0 if rings else 10**9)
    caller = caller_over(cells)
    listened = []
    for caller.calls in range(2 * DEAF):
        cells[Board.start_of(ROW) + BELL] = LAST
        cells.looks = 0
        caller.wait_awake()
        listened.append(cells.looks > 0)
    assert listened == [rings or not number % DEAF for number in range(2 * DEAF)]


# --- the client ---------------------------------------------------------------------------------------------------


def test_a_client_that_waits_awake_rings_for_each_call(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sync_calls, "threads", lambda: 0)
    with client.session(COUNTER) as session:
        link: Any = session._twin.link
        for _ in range(3):
            link._backoff = 0
            session.call("add")
            cells, place = link._bell
            assert cells[place] == cells[place - BELL + CALL_ID] != 0


def test_a_client_that_sleeps_at_once_does_not_ring(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sync_calls, "threads", lambda: 1)
    with client.session(COUNTER) as session:
        session.call("add")
        cells, place = session._twin.link._bell
        assert (cells[place], cells[place - BELL + STARTED]) == (0, 1)


def test_an_async_client_rings_too(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aio_calls, "threads", lambda: 0)

    async def main() -> None:
        async with AsyncClient(shared_daemon.socket, autostart=False) as client, client.session(COUNTER) as session:
            link: Any = session.link
            cells, place = link._bell
            for rounds in (0, aio_calls.AT_ONCE + 1):
                link._backoff, link._rounds = 0, rounds
                await session.call("add")
                assert (cells[place] == cells[place - BELL + CALL_ID]) == (rounds > 0)

    asyncio.run(main())


def test_what_is_closed_lets_go_of_the_board(shared_daemon: Daemon):
    files = open_files()
    client = Client(shared_daemon.socket, autostart=False)
    session = client.session(COUNTER)
    link: Any = session._twin.link
    assert link._bell is not UNHEARD
    session.end()
    client.close()
    assert link._bell is UNHEARD
    assert open_files() == files


# --- how the board comes ------------------------------------------------------------------------------------------


def opened(daemon: Daemon, count: int, **hello: bool) -> list[tuple[list[Any], list[int]]]:
    """What is said to Opens over one connection, each with the descriptors that have come with it."""
    given = []
    with Raw.to(daemon.socket, **hello) as control:
        for number in range(count):
            control.send(framed(["Open", *Open(number + 1, COUNTER, None, "/")]))
            data, fds, flags, _ = socket.recv_fds(control.socket, 65536, 4)
            assert not flags & socket.MSG_CTRUNC
            control._held = data
            answer = control.hear()
            assert answer is not None
            given.append((answer, fds))
    return given


def test_the_board_comes_once_to_whoever_asks_for_it(shared_daemon: Daemon):
    given = [*opened(shared_daemon, 1), *opened(shared_daemon, 2, wants_board=True)]
    targets = [[os.readlink(f"/proc/self/fd/{fd}") for fd in fds] for _, fds in given]
    for _, fds in given:
        for fd in fds:
            os.close(fd)
    assert [len(those) for those in targets] == [1, 2, 1]
    assert [those[0].partition(":")[0] for those in targets] == ["socket"] * 3
    assert "memfd:warmpool-board" in targets[1][1]


def test_the_row_is_that_of_the_worker(shared_daemon: Daemon):
    ((answer, fds),) = opened(shared_daemon, 1, wants_board=True)
    with Raw(socket.socket(fileno=fds[0])) as worker:
        board = Board(fds[1])
        os.close(fds[1])
        row = answer[6]
        before = board.read(row).started
        worker.say("Call", 99, "add", None)
        reply = worker.hear()
        assert reply is not None
        assert reply[:2] == ["Result", 99]
        assert (board.read(row).started, board.read(row).call_id) == (before + 1, 99)
        board.close()


def test_without_a_descriptor_to_spare_the_bells_are_unheard():
    bells = Bells()
    board = Board.create(1)
    assert board.fd is not None
    given = os.dup(board.fd)
    files = open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        bells.hang(given)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert bells.of(0) is UNHEARD
    assert open_files() == files
    os.close(given)
    board.close()


def test_a_bell_that_the_board_has_not_is_unheard():
    bells = Bells()
    board = Board.create(1)
    assert board.fd is not None
    bells.hang(board.fd)
    assert bells.of(0)[0] is not UNHEARD[0]
    assert bells.of(1) is UNHEARD
    bells.close()
    board.close()


def test_what_a_handler_raises_while_a_worker_waits_awake_is_told_and_ends_nothing(capsys: pytest.CaptureFixture[str]):
    class Rings(Watched):
        def __getitem__(self, index: Any) -> Any:
            if index == Board.start_of(ROW) + BELL:
                raise ValueError("by a handler")
            return super().__getitem__(index)

    caller_over(Rings(0)).wait_awake()
    assert "ValueError: by a handler" in capsys.readouterr().err
