"""What workers print is kept, up to a cap, and told to whoever asks or follows; nobody else waits for it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import APPS, PATIENCE, Daemon, Raw, open_files, template_of, wait_for_exit

from warmpool import Client
from warmpool.constants import LOG_CAP_MIN, MIB
from warmpool.daemon import session_logs
from warmpool.daemon.printed import LINE_MAX, READ_SIZE
from warmpool.daemon.session_logs import PIECE_SIZE, LogFile, Logs

PRINTS = str(APPS / "prints.py")
COUNTER = str(APPS / "counter.py")
NOTE = re.compile(rb"\(the oldest \d+ bytes of this log are lost: it is longer than --log-cap-mb\)\n")
MARK = r"\d\d:\d\d:\d\d\.\d\d\d (#\d+|-) "


# --- one file -----------------------------------------------------------------------------------------------------


@contextmanager
def log_file(cap: int = MIB) -> Iterator[LogFile]:
    with tempfile.TemporaryDirectory() as directory:
        yield LogFile(Path(directory) / "w_1.log", cap)


def on_disk(file: LogFile) -> bytes:
    paths = (file._old_path, file._path)
    return b"".join(path.read_bytes() for path in paths if path.exists())


printed = st.lists(st.sampled_from([b"a", b"bc", b"\n"]), max_size=400).map(b"".join)


@given(cap=st.integers(128, 400), appends=st.lists(printed, max_size=12), size=st.integers(1, 300))
def test_the_last_bytes_are_kept_within_twice_the_cap_and_keep_their_positions(
    cap: int, appends: list[bytes], size: int
):
    """`known` is the log as it was read before, byte by byte; what is still there must be the same there."""
    said, known = b"", bytearray()
    with log_file(cap) as file:
        for data in appends:
            file.append(data)
            said += data
            kept = on_disk(file)
            assert len(kept) <= 2 * cap
            assert len(kept) == file.end - file.start
            assert said.endswith(NOTE.sub(b"", kept)), "each byte once and in its order"
            still = known[file.start :]
            assert kept.startswith(still), "what was at a position is there"
            known = bytearray(file.start) + kept
            assert bool(NOTE.search(kept)) == (file.start > 0), "what is lost is said to be"
            assert_all_of_it_can_be_read(file, bytes(known), size)


def assert_all_of_it_can_be_read(file: LogFile, known: bytes, size: int) -> None:
    offset = 0
    while (piece := file.read(offset, size)).text:
        assert piece.lost == max(0, file.start - offset)
        begin = offset + piece.lost
        assert piece.text.encode() == known[begin : piece.offset]
        assert 0 < piece.offset - begin <= size
        assert piece.text.endswith("\n") or "\n" not in piece.text, "whole lines, where there is one"
        offset = piece.offset
    assert offset == file.end


@given(texts=st.lists(st.text("aé€𝄞\n", max_size=12), max_size=12), cut=st.integers(1, 5), size=st.integers(4, 9))
def test_a_letter_that_is_cut_by_a_read_is_whole_for_who_follows(texts: list[str], cut: int, size: int):
    data, found, offset = "".join(texts).encode(), "", 0
    with log_file() as file:
        for begin in range(0, len(data), cut):
            file.append(data[begin : begin + cut])
            while (piece := file.read(offset, size)).text:
                found, offset = found + piece.text, piece.offset
    assert found == data.decode()


def test_what_is_no_utf_8_is_shown_and_holds_nobody_up():
    with log_file() as file:
        file.append(b"\xff\xfe good \xc3\n\xe2\x82")
        assert file.read(0, 100) == ("�� good �\n", 10, 0)
        assert file.read(10, 100) == ("", 10, 0), "it may become a letter"
        file.append(b"\n")
        assert file.read(10, 100).text == "�\n"


def test_a_position_that_nobody_has_given_is_the_end():
    with log_file() as file:
        assert file.read(5, 100) == ("", 0, 0)
        file.append(b"abc\n")
        assert file.read(10**15, 100) == ("", 4, 0)


@given(count=st.integers(1, 8), size=st.integers(10, 400), lines=st.integers(0, 90))
def test_the_last_lines_are_the_last_and_whole_wherever_the_file_was_cut(count: int, size: int, lines: int):
    with log_file(300) as file:
        for number in range(lines):
            file.append(b"line %d\n" % number)
        found = file.last_lines(count, size)
        kept = on_disk(file).decode().splitlines()
        assert found == kept[len(kept) - len(found) :]
        fit = len("\n".join(kept[-count:]).encode()) < size
        assert len(found) == min(count, len(kept)) or not fit


def test_only_a_newline_ends_a_line():
    """A bar that is drawn over itself is one."""
    with log_file() as file:
        file.append("10 %\r20 %\r30 %\na\x0cb\u2028c\n".encode())
        assert file.last_lines(5, 100) == ["10 %\r20 %\r30 %", "a\x0cb\u2028c"]
        assert file.last_lines(1, 100) == ["a\x0cb\u2028c"]


def test_an_end_without_a_newline_is_among_the_last_lines():
    with log_file() as file:
        file.append(b"one\ntwo\nthre")
        assert file.last_lines(2, 100) == ["two", "thre"]


def test_where_no_file_can_be_the_text_is_lost_and_nothing_else(tmp_path: Path):
    (tmp_path / "logs").write_text("no directory")
    file = LogFile(tmp_path / "logs" / "w_1.log", 4096)
    for _ in range(3):
        file.append(b"x" * 5000)
    assert file.read(0, 100) == ("", 0, 0)
    assert file.last_lines(3, 100) == []
    file.append(b"\n")


def test_what_could_not_be_written_is_told_of_when_something_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that was full for a while, in the middle of a line."""
    write, room = os.write, [4]

    def write_what_fits(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(fd, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", write_what_fits)
    file = LogFile(tmp_path / "w_1.log", 4096)
    file.append(b"one\ntwo\n")
    file.append(b"three\n")
    room[0] = 4096
    file.append(b"four\n")
    file.append(b"five\n")
    expected = "one\n\n(10 bytes of this log are lost: there was no room)\nfour\nfive\n"
    assert file.read(0, 4096).text == expected
    assert file.end == len(expected)


# --- pipes --------------------------------------------------------------------------------------------------------


class Kept:
    """Logs on a loop of their own, with all that they told."""

    def __init__(self, directory: Path, cap: int = MIB) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = directory / "logs"
        self.calls = 0
        self.replies: list[tuple[int, str, bool]] = []
        self.tailed: list[tuple[str, str]] = []
        self.logs = Logs(
            self.loop,
            self.directory,
            cap,
            calls_of=lambda _: self.calls,
            reply=self._reply,
            tail=lambda worker, line: self.tailed.append((worker, line)),
        )

    def _reply(self, ticket: tuple[int, int], value: Any) -> None:
        self.replies.append((ticket[0], value["text"][len("00:00:00.000 ") :], value["end"]))

    def turn(self) -> None:
        """What can be read now is."""
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    def say(self, fd: int, data: bytes) -> None:
        os.write(fd, data)
        self.turn()

    def text(self, worker: str = "w_1") -> str:
        found, offset = "", 0
        while (piece := self.logs.read(worker, offset)).text:
            found, offset = found + piece.text, piece.offset
        return found

    def lines(self, worker: str = "w_1") -> list[str]:
        """Without the time of each."""
        return [line[len("00:00:00.000 ") :] for line in self.text(worker).splitlines()]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    files = open_files()
    kept = Kept(tmp_path)
    yield kept
    kept.logs.close()
    kept.loop.close()
    assert open_files() - files == set()


def test_each_line_has_its_time_and_the_number_of_the_call(kept: Kept):
    with open(kept.logs.open("w_1", 0), "wb", buffering=0) as pipe:
        kept.say(pipe.fileno(), b"set up\n")
        kept.calls = 1
        kept.say(pipe.fileno(), b"one\n\ntwo\n")
        kept.calls = 12
        kept.say(pipe.fileno(), b"th")
        kept.say(pipe.fileno(), b"ree\nfour")
        kept.say(pipe.fileno(), b"\n")
    assert kept.lines() == ["- set up", "#1 one", "#1 ", "#1 two", "#12 three", "#12 four"]
    assert all(re.match(MARK, line) for line in kept.text().splitlines())


def test_the_tail_is_told_whole_lines_as_they_were_printed(kept: Kept):
    with open(kept.logs.open("w_1", 0), "wb", buffering=0) as pipe, open(kept.logs.open("w_2", 1), "wb") as other:
        kept.say(pipe.fileno(), b"one\ntw")
        kept.say(other.fileno(), b"other\n")
        kept.say(pipe.fileno(), "o é".encode()[:-1])
        kept.say(pipe.fileno(), "é".encode()[1:] + b"\nend")
        assert kept.tailed == [("w_1", "one"), ("w_2", "other"), ("w_1", "two é")]
        kept.say(other.fileno(), b"y" * (LINE_MAX + 1))
        kept.logs.finish("w_1")
    assert [(worker, len(line)) for worker, line in kept.tailed[3:]] == [("w_2", LINE_MAX + 1), ("w_1", 3)]


def test_what_a_dead_worker_has_left_is_taken_and_a_child_that_goes_on_is_not_waited_for(kept: Kept):
    with open(kept.logs.open("w_1", 0), "wb", buffering=0) as pipe:  # still open: a child has it
        kept.logs.answer((1, 1), "w_1", 0, wait=True)
        os.write(pipe.fileno(), b"x\n" * 30_000)
        kept.logs.finish("w_1")
        assert [(ticket, text[:4], end) for ticket, text, end in kept.replies] == [(1, "- x\n", False)]
        assert kept.text().count(" - x\n") == 30_000
        assert not kept.logs.is_open("w_1")
        with pytest.raises(BrokenPipeError):
            os.write(pipe.fileno(), b"nobody reads it\n")
        kept.logs.finish("w_1")


def test_of_logs_that_are_over_the_oldest_are_lost_when_they_are_too_many(kept: Kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_logs, "FINISHED_LOGS_LIMIT", 3000)

    def print_and_die(worker: str) -> None:
        with open(kept.logs.open(worker, 0), "wb", buffering=0) as pipe:
            kept.say(pipe.fileno(), b"x" * 900 + b"\n")
        kept.logs.finish(worker)

    with open(kept.logs.open("w_0", 0), "wb", buffering=0) as living:
        kept.say(living.fileno(), b"y" * 900 + b"\n")
        for number in range(1, 6):
            print_and_die(f"w_{number}")
        assert [bool(kept.text(f"w_{number}")) for number in range(6)] == [True, False, False, True, True, True]
        size = kept.logs.read("w_1", 0).offset
        assert size > 900
        assert kept.logs.read("w_1", 0) == ("", size, size), "whoever asks is told how much is gone"
        assert kept.logs.last_lines("w_1", 5) == []
        for worker in ("w_1", "w_4"):
            kept.logs.forget(worker)
        print_and_die("w_6")
        assert [bool(kept.text(f"w_{number}")) for number in (0, 3, 4, 5, 6)] == [True, True, False, True, True]
        assert len(list(kept.directory.iterdir())) == 4


def test_who_asks_is_told_of_all_that_was_printed_before(kept: Kept):
    with open(kept.logs.open("w_1", 0), "wb", buffering=0) as pipe:
        os.write(pipe.fileno(), b"one\n")
        assert kept.text() == "", "the loop has not turned"
        kept.logs.catch_up("w_1")
        assert kept.lines() == ["- one"]
        kept.logs.catch_up("w_1")
    kept.logs.catch_up("w_1")
    assert not kept.logs.is_open("w_1")
    for worker in ("w_1", "w_2"):
        kept.logs.catch_up(worker)


def test_an_end_of_all_that_write_is_told(kept: Kept):
    writable = kept.logs.open("w_1", 0)
    kept.logs.answer((1, 1), "w_1", 0, wait=True)
    assert kept.replies == []
    os.close(writable)
    kept.turn()
    assert kept.replies == [(1, "", True)]
    assert not kept.logs.is_open("w_1")
    kept.logs.finish("w_1")


def test_who_follows_is_told_as_soon_as_there_is_something(kept: Kept):
    with open(kept.logs.open("w_1", 0), "wb", buffering=0) as pipe:
        kept.logs.answer((1, 1), "w_1", 0, wait=False)
        assert kept.replies == [(1, "", False)]
        for connection in (2, 3, 4):
            kept.logs.answer((connection, 1), "w_1", 0, wait=True)
        kept.logs.drop_followers(3)
        assert kept.replies == [(1, "", False)]
        kept.say(pipe.fileno(), b"one\n")
        assert kept.replies[1:] == [(2, "- one\n", False), (4, "- one\n", False)]
        offset = kept.logs.read("w_1", 0).offset
        os.write(pipe.fileno(), b"two\n")
        kept.logs.answer((1, 2), "w_1", offset, wait=True)
        assert kept.replies[3:] == [(1, "- two\n", False)], "it was printed before"
        offset = kept.logs.read("w_1", offset).offset
        kept.logs.answer((1, 3), "w_1", offset, wait=True)
        kept.logs.answer((1, 4), "w_2", 0, wait=True)
        assert kept.replies[4:] == [(1, "", True)], "there is no such log"
    kept.turn()
    assert kept.replies[5:] == [(1, "", True)], "there is no more to come"
    kept.logs.answer((1, 5), "w_1", 0, wait=True)
    assert kept.replies[6:] == [(1, kept.text()[len("00:00:00.000 ") :], False)]
    kept.logs.answer((1, 6), "w_1", offset, wait=True)
    assert kept.replies[7:] == [(1, "", True)]
    kept.logs.finish("w_1")
    assert len(kept.replies) == 8


def test_one_read_at_a_time_so_that_others_come_in_between(kept: Kept):
    """A pipe that is always full and one that is not are read in turn."""
    with (
        open(kept.logs.open("w_1", 0), "wb", buffering=0) as flood,
        open(kept.logs.open("w_2", 1), "wb", buffering=0) as other,
    ):
        for number in range(20):
            os.write(flood.fileno(), b"x" * READ_SIZE)
            os.write(other.fileno(), b"%d\n" % number)
            kept.turn()
            assert kept.lines("w_2")[-1] == f"- {number}"


def test_a_log_is_of_our_eyes_only_and_forgotten_for_good(kept: Kept):
    fds = [kept.logs.open(worker, 0) for worker in ("w_1", "w_2")]
    for fd in fds:
        kept.say(fd, b"secret\n")
        os.close(fd)
    assert kept.directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in kept.directory.iterdir()] == [0o600] * 2
    kept.logs.forget("w_1")
    kept.logs.forget("w_1")
    assert kept.text("w_1") == ""
    assert kept.logs.last_lines("w_1", 3) == []
    assert [path.name for path in kept.directory.iterdir()] == ["w_2.log"]


def test_a_log_costs_one_descriptor_while_its_worker_lives_and_none_after(kept: Kept):
    before = len(open_files())
    fds = [kept.logs.open(f"w_{number}", number) for number in range(10)]
    for fd in fds:
        kept.say(fd, b"x\n" * 10_000)
    assert len(open_files()) == before + 10 + len(fds)
    for number, fd in enumerate(fds):
        kept.logs.finish(f"w_{number}")
        os.close(fd)
    assert len(open_files()) == before


def test_what_a_killed_daemon_has_left_is_removed(tmp_path: Path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "w_1.log").write_text("old")
    kept = Kept(tmp_path)
    assert kept.text() == ""
    assert not kept.directory.exists()
    kept.logs.close()
    kept.loop.close()


@pytest.mark.parametrize("cap", [LOG_CAP_MIN, 100_000])
def test_lines_that_marks_make_many_times_longer_stay_within_twice_the_cap(tmp_path: Path, cap: int):
    kept = Kept(tmp_path, cap)
    with open(kept.logs.open("w_1", 0), "wb", buffering=0) as pipe:
        for _ in range(5):
            kept.say(pipe.fileno(), b"\n" * READ_SIZE)
            assert sum(path.stat().st_size for path in kept.directory.iterdir()) <= 2 * cap
    assert all(re.fullmatch(MARK, line) for line in kept.text().splitlines()[1:5])
    kept.logs.close()
    kept.loop.close()


# --- a real daemon ------------------------------------------------------------------------------------------------


def log_of(client: Client, session_id: str, until: str = "") -> str:
    """All of a session's log; follows it until it tells `until`, or its end."""
    text, offset = "", 0
    while True:
        piece = client.request("sessions.logs", session_id=session_id, offset=offset, wait=bool(until))
        text, offset = text + piece["text"], piece["offset"]
        if piece["end"] or (until in text if until else not piece["text"]):
            return text


def without_times(text: str) -> list[str]:
    lines = text.splitlines()
    assert all(re.match(MARK, line) for line in lines), text
    return [line.split(" ", 1)[1] for line in lines]


def test_all_that_a_worker_prints_is_in_its_sessions_log_and_outlives_it(client: Client):
    with client.session(PRINTS) as session:
        session.call("in_every_way")
        log_of(client, session.id, "by the logger")  # a line is of the call that runs when it is read
        session.call("say", text="the second")
        text = log_of(client, session.id, "the second")
    said = ["by print", "by print to stderr", "by os.write", "by a child", "INFO warmpool.app.Prints: by the logger"]
    lines = ["- set up", *(f"#1 {line}" for line in said), "#2 the second"]
    assert without_times(text) == lines
    assert without_times(log_of(client, session.id)) == [*lines, "#2 on_end client"]
    piece = client.request("sessions.logs", session_id=session.id, offset=10**6, wait=True)
    assert (piece["text"], piece["lost"], piece["end"]) == ("", 0, True)


def test_the_log_of_a_worker_that_was_killed_is_whole(client: Client):
    session = client.session(PRINTS)
    session.call("write", text="no newline")
    psutil.Process(session.info().pid).kill()
    assert without_times(log_of(client, session.id, "never said"))[-1] == "#1 no newline"


def test_each_session_has_a_log_of_its_own(client: Client):
    with client.session(PRINTS) as one, client.session(PRINTS) as other:
        one.call("say", text="one's")
        other.call("say", text="other's")
        assert "other" not in log_of(client, one.id, "one's")
        assert "one" not in log_of(client, other.id, "other's")


# --- followers ----------------------------------------------------------------------------------------------------


class Follower(Raw):
    """Asks for more of a log, and waits."""

    session_id: str

    def ask(self, offset: int, number: int = 1) -> None:
        params = {"session_id": self.session_id, "offset": offset, "wait": True}
        self.say("Request", number, "sessions.logs", params)

    def answer(self) -> dict[str, Any]:
        answer = self.hear()
        assert answer is not None
        assert answer[0] == "Reply", answer
        return answer[2]

    def is_answered(self) -> bool:
        """By now: the daemon has done all that was asked before."""
        self.say("Request", 99, "daemon.status", {})
        answer = self.hear()
        assert answer is not None
        return answer[1] != 99


@pytest.fixture
def follow(client: Client) -> Iterator[Callable[[str], Follower]]:
    followers: list[Follower] = []

    def follow(session_id: str) -> Follower:
        followers.append(Follower.to(client.places.socket))
        followers[-1].session_id = session_id
        return followers[-1]

    yield follow
    for follower in followers:
        follower.close()


def test_a_follower_is_answered_when_there_is_more_and_at_the_end(client: Client, follow: Callable[[str], Follower]):
    session = client.session(PRINTS)
    follower = follow(session.id)
    follower.ask(0)
    piece = follower.answer()
    assert piece["text"].endswith("set up\n")
    follower.ask(piece["offset"])
    assert not follower.is_answered(), "there is nothing new"
    session.call("say", text="more")
    piece = follower.answer()
    assert (without_times(piece["text"]), piece["end"]) == (["#1 more"], False)
    follower.ask(piece["offset"])
    session.end()
    piece = follower.answer()
    assert (without_times(piece["text"]), piece["end"]) == (["#1 on_end client"], False)
    follower.ask(piece["offset"])
    assert follower.answer() == {"text": "", "offset": piece["offset"], "lost": 0, "end": True}


def test_a_follower_is_told_when_nothing_can_come_any_more(client: Client, follow: Callable[[str], Follower]):
    with client.session(PRINTS) as session:
        offset = len(log_of(client, session.id, "set up"))
        follower = follow(session.id)
        follower.ask(offset)
        assert not follower.is_answered()
        session.call("close_its_output")
        assert follower.answer()["end"]
        assert session.info().status == "active"


def test_all_who_follow_are_answered_each_from_where_it_is(client: Client, follow: Callable[[str], Follower]):
    with client.session(PRINTS) as session:
        offset = len(log_of(client, session.id, "set up"))
        followers = [follow(session.id) for _ in range(3)]
        for number, follower in enumerate(followers):
            follower.ask(offset + 100 * number)
            assert not follower.is_answered()
        session.call("say", text="more")
        texts = [follower.answer()["text"] for follower in followers]
        assert without_times(texts[0]) == ["#1 more"]
        assert texts[1:] == ["", ""], "a position that is not there yet"


def descriptors_at_rest(client: Client, daemon: Daemon) -> Callable[[], None]:
    """Counts the daemon's when its warm worker is there. What it gives waits until there are as many again."""

    def wait_until(is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not is_so():
            assert time.monotonic() < deadline
            client.status()

    process = psutil.Process(daemon.pid)
    wait_until(lambda: client.status().workers_by_state == {"leased": 1, "warm": 1})
    before = process.num_fds()
    return lambda: wait_until(lambda: process.num_fds() == before)


def test_a_follower_that_leaves_or_breaks_the_rules_leaves_nothing(
    client: Client, shared_daemon: Daemon, follow: Callable[[str], Follower]
):
    with client.session(PRINTS) as session:
        offset = len(log_of(client, session.id, "set up"))
        wait_for_descriptors = descriptors_at_rest(client, shared_daemon)
        for number in range(40):
            follower = follow(session.id)
            follower.ask(offset)
            if number % 2:
                follower.say("Nonsense")
                answer = follower.hear()
                assert answer is not None
                assert answer[2]["code"] == "PROTOCOL_ERROR"
            follower.close()
        wait_for_descriptors()
        session.call("say", text="more")
        assert "more" in log_of(client, session.id, "more")


# --- one who prints without end -----------------------------------------------------------------------------------


def peak_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def size_on_disk(daemon: Daemon) -> int:
    total = 0
    for path in daemon.client.places.logs.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_an_app_that_prints_without_end_blocks_nobody_and_stays_within_bounds(start_daemon: Callable[..., Daemon]):
    """WARMPOOL_FLOOD_MB=1000 for the whole of it. What others get done meanwhile is counted, not timed."""
    megabytes = int(os.environ.get("WARMPOOL_FLOOD_MB", "200"))
    daemon = start_daemon("--log-cap-mb", "1")
    client = daemon.client
    flooding, other = client.session(PRINTS), client.session(COUNTER)
    flooding.call("flood", megabytes=3)
    peak, calls, opens, sizes = peak_memory(daemon.pid), 0, 0, []
    thread = threading.Thread(target=flooding.call, args=("flood",), kwargs={"megabytes": megabytes})
    thread.start()
    while thread.is_alive():
        other.call("add")
        calls += 1
        if calls % 10 == 0:
            client.session(COUNTER).end()
            opens += 1
            sizes.append(size_on_disk(daemon))
    thread.join()
    assert calls > megabytes, "about one a millisecond"
    assert opens > megabytes / 10
    assert max(sizes) <= 2 * MIB
    assert peak_memory(daemon.pid) - peak < 4 * MIB
    first = client.request("sessions.logs", session_id=flooding.id)
    assert first["lost"] > (megabytes - 3) * MIB
    lines = log_of(client, flooding.id).splitlines()
    assert "bytes of this log are lost" in "".join(lines)
    assert lines[-1].endswith("#2 " + "x" * 99)


# --- the terminal -------------------------------------------------------------------------------------------------


def test_tail_shows_what_is_printed_with_the_name_of_its_worker_or_session(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon("--tail")
    first = daemon.client.session(PRINTS)
    first.end()
    while not re.search(rf"\[(?!{first.worker_id}\])w_\d+\] set up", daemon.text_of_log()):
        daemon.client.status()  # a warm one is about to be there, or is already
    session = daemon.client.session(PRINTS)
    session.call("say", text="hello é")
    session.call("write", text="no newline")
    pid = session.info().pid
    session.end()
    assert wait_for_exit(pid, PATIENCE)
    told = [line.split(" ", 1)[1] for line in daemon.text_of_log().splitlines() if "[" in line]
    mine = [line for line in told if session.id in line]
    assert mine == [f"[{session.id}] hello é", f"[{session.id}] no newlineon_end client"]
    assert f"[{session.worker_id}] set up" in told


def test_without_tail_the_daemons_log_has_nothing_of_what_is_printed(daemon: Daemon):
    with daemon.client.session(PRINTS) as session:
        session.call("say", text="hello")
        log_of(daemon.client, session.id, "hello")
    assert "hello" not in daemon.text_of_log()
    assert daemon.client.request("sessions.logs", session_id=session.id)["offset"] < PIECE_SIZE


def test_the_logs_of_a_daemon_go_with_it(daemon: Daemon):
    with daemon.client.session(PRINTS) as session:
        session.call("say", text="hello")
    logs = daemon.client.places.logs
    assert logs.is_dir()
    daemon.stop()
    assert not logs.exists()


def test_what_is_kept_of_a_templates_output_is_good_for_longer_than_that(daemon: Daemon):
    session = daemon.client.session(str(APPS / "prints_on_import.py"))
    template = template_of(daemon)
    template.kill()
    assert wait_for_exit(template.pid)
    assert session.call("by_what_was_kept") == len("\nlater\n")
    daemon.stop()
    assert "[prints_on_import] later\n" in daemon.text_of_log()
