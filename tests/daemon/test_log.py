"""The log waits for nobody, and what is missing in it is said in it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import PATIENCE, open_files

from warmpool.daemon.log import LogWriter, as_json, as_text, open_log

PAGES = 4


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """One that holds one page, and its ends."""
    readable, writable = os.pipe()
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, 4096)
    yield readable, writable
    os.close(readable)
    os.close(writable)


@pytest.fixture
def start_log() -> Iterator[Callable[..., LogWriter]]:
    started: list[LogWriter] = []

    def start(fd: int, form: Callable[[str], str] = as_text) -> LogWriter:
        started.append(LogWriter(fd, form))
        return started[-1]

    yield start
    for log in started:
        log.close()


def messages(data: bytes) -> list[str]:
    """Without their times."""
    return [line[len("00:00:00 ") :] for line in data.decode().splitlines()]


def refuse_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the pipe of another user does."""

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(path)

    monkeypatch.setattr(os, "open", refuse)


def test_a_file_that_is_too_long_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("warmpool.daemon.log.DAEMON_LOG_LIMIT", 100)
    path, old, other = tmp_path / "log", tmp_path / "log.old", tmp_path / "other"
    fd = open_log(path)
    try:
        log, elsewhere = LogWriter(fd, as_text, path), LogWriter(fd, as_text, other)
        other.touch()
        for index in range(50):
            log(f"line {index}")
            assert path.stat().st_size < 150
        assert messages(path.read_bytes())[-1] == "line 49"
        kept = messages(old.read_bytes() + path.read_bytes())
        assert kept == [f"line {index}" for index in range(50 - len(kept), 50)]
        for index in range(50):
            elsewhere(f"line {index}")
        assert path.stat().st_size > 500, "somebody else's file, for all we know"
    finally:
        os.close(fd)


@pytest.mark.parametrize("is_anothers", [False, True], ids=["ours", "another user's"])
def test_lines_that_a_full_pipe_does_not_take_are_counted(
    pipe: tuple[int, int], start_log: Callable[..., LogWriter], monkeypatch: pytest.MonkeyPatch, is_anothers: bool
):
    readable, writable = pipe
    fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, PAGES * 4096)
    os.write(writable, b"x" * PAGES * 4096)  # somebody else's
    with monkeypatch.context() as patch:
        if is_anothers:
            refuse_to_open(patch)
        log = start_log(writable)
    for index in range(3):
        log(f"lost {index}")
    assert os.get_blocking(writable), "it is not ours alone"
    os.read(readable, PAGES * 4096)
    for index in range(2):
        log(f"seen {index}")
    told = "lines missing or cut here: 3 (nobody read the log, or the disk was full)"
    assert messages(os.read(readable, 4096)) == [told, "seen 0", "seen 1"]


def test_a_file_that_cannot_be_put_aside_costs_no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("warmpool.daemon.log.DAEMON_LOG_LIMIT", 100)
    path = tmp_path / "log"
    (tmp_path / "log.old" / "of somebody").mkdir(parents=True)
    fd = open_log(path)
    try:
        log, before = LogWriter(fd, as_text, path), open_files()
        for index in range(50):
            log(f"line {index}")
        assert messages(path.read_bytes()) == [f"line {index}" for index in range(50)]
        assert open_files() == before
    finally:
        os.close(fd)


def test_a_line_that_was_cut_is_ended_and_counted(pipe: tuple[int, int], start_log: Callable[..., LogWriter]):
    readable, writable = pipe
    log = start_log(writable)
    log("x" * 5000)
    log("lost")
    assert messages(os.read(readable, 8192)) == ["x" * (4096 - len("00:00:00 "))]
    log("seen")
    told = "lines missing or cut here: 2 (nobody read the log, or the disk was full)"
    assert messages(b"00:00:00 " + os.read(readable, 4096)) == ["", told, "seen"]


def test_a_long_line_is_written_whole_where_there_is_room(start_log: Callable[..., LogWriter]):
    readable, writable = os.pipe()
    with open(readable, "rb") as reader, open(writable, "wb") as writer:
        log = start_log(writer.fileno())
        log("é" * 10_000)
        assert messages(os.read(reader.fileno(), 65536)) == ["é" * 10_000]


def test_lines_that_are_missing_are_told_as_json_too(pipe: tuple[int, int], start_log: Callable[..., LogWriter]):
    readable, writable = pipe
    log = start_log(writable, as_json)
    log("x" * 4050)  # a line that fits, after which there is no room for another
    log("y" * 4050)
    os.read(readable, 8192)
    log("seen")
    told, seen = map(json.loads, os.read(readable, 4096).splitlines())
    assert told["message"].startswith("lines missing or cut here: 1 ")
    assert seen["message"] == "seen"
    assert time.time() - PATIENCE < told["time"] <= seen["time"] <= time.time()


def test_a_socket_that_nobody_reads(start_log: Callable[..., LogWriter]):
    """As the journal of a service is one."""
    reader, writer = socket.socketpair()
    with reader, writer:
        log = start_log(writer.fileno())
        for index in range(10_000):
            log(f"{index} {'x' * 500}")
        assert os.get_blocking(writer.fileno())
        reader.setblocking(False)
        found = b""
        with pytest.raises(BlockingIOError):
            while True:
                found += reader.recv(65536)
        log("seen")
        *_, told, seen = messages(found + reader.recv(65536))
        assert told.startswith("lines missing or cut here: ")
        assert seen == "seen"


def test_where_nobody_reads_any_more_nothing_is_raised(start_log: Callable[..., LogWriter]):
    readable, writable = os.pipe()
    os.close(readable)
    with open(writable, "wb") as writer:
        log = start_log(writer.fileno())
        log("lost")
        log("lost")


def test_a_file_keeps_the_order_of_all_who_write_to_it(tmp_path: Path, start_log: Callable[..., LogWriter]):
    """Opened without O_APPEND, as `2>file` does: its place is shared."""
    with open(tmp_path / "log", "wb", buffering=0) as file:
        file.write(b"00:00:00 before\n")
        log = start_log(file.fileno())
        log("ours")
        file.write(b"00:00:00 after\n")
    assert messages((tmp_path / "log").read_bytes()) == ["before", "ours", "after"]
