"""The lease board: one file, many mappings, rows that do not touch each other, and a clock that can be moved."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest
from support import open_fds

from warmpool import board as board_module
from warmpool.activity import IDLE, Activity
from warmpool.board import COLUMNS, FINISHED, OFFSET_NS, STARTED, USED_NS, Board

ROWS = 5


@pytest.fixture
def path(tmp_path):
    return tmp_path / "daemon.board"


@pytest.fixture
def board():
    made = Board.create(ROWS)
    yield made
    made.close()


@pytest.fixture
def other(board):
    """A second mapping of the same memory, as a worker has it."""
    opened = Board(board.fd)
    yield opened
    opened.close()


def write(board: Board, row: int, used: float, started: int, finished: int) -> None:
    start = board.start_of(row)
    board.cells[start + USED_NS] = int(used * 1e9)
    board.cells[start + STARTED] = started
    board.cells[start + FINISHED] = finished


def test_a_new_board_is_all_zero_and_has_its_rows(board):
    assert board.rows == ROWS
    assert set(board.cells) == {0}
    assert [board.read(row) for row in range(ROWS)] == [IDLE] * ROWS


def test_it_is_a_header_and_one_row_of_eight_64_bit_integers_a_worker(board):
    assert os.fstat(board.fd).st_size == (ROWS + 1) * COLUMNS * 8
    assert COLUMNS == 8


def test_rows_do_not_touch_each_other_nor_the_header(board):
    for row in range(ROWS):
        write(board, row, used=row + 1, started=10 * row + 1, finished=10 * row)
    assert [board.read(row) for row in range(ROWS)] == [
        Activity(used=float(row + 1), started=10 * row + 1, finished=10 * row) for row in range(ROWS)
    ]
    assert board.cells[OFFSET_NS] == 0


def test_to_clear_a_row_leaves_the_others(board):
    for row in range(ROWS):
        start = board.start_of(row)
        for column in range(COLUMNS):
            board.cells[start + column] = row + 1
    board.clear(2)
    for row in range(ROWS):
        start = board.start_of(row)
        expected = 0 if row == 2 else row + 1
        assert list(board.cells[start : start + COLUMNS]) == [expected] * COLUMNS
    assert board.read(2) == IDLE


def test_a_row_beyond_the_last_is_an_error(board):
    with pytest.raises(IndexError):
        board.read(ROWS)
    with pytest.raises(IndexError):
        board.clear(ROWS)


@pytest.mark.parametrize(("started", "finished", "busy"), [(0, 0, False), (1, 0, True), (1, 1, False), (9, 8, True)])
def test_a_worker_is_busy_while_calls_are_begun_and_not_finished(board, started, finished, busy):
    write(board, 0, 1.0, started, finished)
    assert board.read(0).busy is busy


def test_two_mappings_of_one_file_see_each_other(board, other):
    assert other.rows == board.rows
    write(other, 3, used=2.5, started=4, finished=3)
    assert board.read(3) == Activity(2.5, 4, 3)
    board.clear(3)
    assert other.read(3) == IDLE


def test_another_process_writes_its_row(board):
    program = (
        "import sys\n"
        "from warmpool.board import Board, STARTED\n"
        "board = Board(int(sys.argv[1]))\n"
        "board.cells[board.start_of(4) + STARTED] = 41\n"
        "board.cells[board.start_of(4) + STARTED] += 1\n"
    )
    command = [sys.executable, "-c", program, str(board.fd)]
    subprocess.run(command, pass_fds=[board.fd], check=True, timeout=20)
    assert board.read(4).started == 42


def test_lease_time_is_the_monotonic_clock(board):
    before = time.monotonic()
    now = board.now()
    assert before <= now <= time.monotonic()


@pytest.mark.parametrize("seconds", [3600, -3600, 10**8])
def test_the_offset_moves_the_time_of_every_mapping_at_once(board, other, monkeypatch, seconds):
    monkeypatch.setattr(board_module.time, "monotonic_ns", lambda: 5_000_000_000_000)
    assert board.now() == other.now() == 5000.0
    board.cells[OFFSET_NS] = seconds * 10**9
    assert board.now() == other.now() == 5000.0 + seconds


def test_numbers_keep_all_their_64_bits(board, other):
    board.cells[board.start_of(0) + STARTED] = 2**63 - 1
    board.cells[OFFSET_NS] = -(2**63)
    assert other.read(0).started == 2**63 - 1
    assert other.cells[OFFSET_NS] == -(2**63)


def test_a_board_of_no_rows_has_a_clock():
    board = Board.create(0)
    assert board.rows == 0
    assert board.now() > 0
    board.close()


def test_it_keeps_the_descriptor_that_it_made_and_can_be_closed_twice():
    before = open_fds()
    board = Board.create(ROWS)
    opened = Board(board.fd)
    kept = open_fds() - before
    board.close()
    board.close()
    opened.close()
    assert open_fds() == before
    assert kept <= 3, "mmap may keep one of its own for each"


def test_its_room_is_taken_when_it_is_made():
    """A page that there is no room for is a SIGBUS where it is first touched."""
    board = Board.create(1000)
    status = os.fstat(board.fd)
    assert status.st_blocks * 512 >= status.st_size == (1000 + 1) * COLUMNS * 8
    board.close()


@pytest.mark.parametrize("step", ["os.posix_fallocate", "mmap.mmap"])
def test_of_one_that_cannot_be_made_nothing_is_left(step, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = open_fds()
    monkeypatch.setattr(step, refuse)
    with pytest.raises(OSError, match="No space left"):
        Board.create(ROWS)
    assert open_fds() == before
