"""What runs first under a foreign interpreter, and the one message that it can say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from warmpool import AppBrokenError, packets
from warmpool.errors import from_wire
from warmpool.wire.process_messages import FROM_TEMPLATE, LoadFailed
from warmpool.worker import boot


def said(packet: bytes) -> LoadFailed:
    ours, theirs = packets.pair()
    with ours, theirs:
        theirs.send(packet)
        received = packets.receive(ours, FROM_TEMPLATE)
    assert received is not None
    message, fds = received
    assert isinstance(message, LoadFailed)
    assert fds == []
    return message


@pytest.mark.parametrize("why", ["no warmpool", "", "ü ☃ 🙂", "a lone \udcff", "x" * 2000])
def test_a_refusal_is_a_message_like_any_other(tmp_path: Path, why: str):
    message = said(boot.load_failed("counter", why, str(tmp_path)))
    error = from_wire(message.error)
    assert type(error) is AppBrokenError
    shown = why.encode("utf-8", "replace").decode()
    assert error.message == f"app counter is broken: {shown}"
    assert (error.session_id, error.details) == (None, {"message": shown})
    status = os.stat(tmp_path)
    assert message.sources == [[str(tmp_path), status.st_ctime_ns, status.st_size, ""]]


def test_libraries_that_are_not_there_are_no_source(tmp_path: Path):
    assert said(boot.load_failed("counter", "no warmpool", str(tmp_path / "nowhere"))).sources == []


def test_an_interpreter_that_is_too_old_is_told_so(monkeypatch: pytest.MonkeyPatch):
    refusals: list[str] = []
    monkeypatch.setattr(boot, "OLDEST", (99, 0))
    monkeypatch.setattr(boot, "refuse", lambda _, why: refusals.append(why))
    boot.boot("counter", 1, "1.0", "warmpool")
    assert len(refusals) == 1
    assert f"{sys.executable} (Python {sys.version_info[0]}." in refusals[0]
    assert "is too old" in refusals[0]


def test_it_is_written_for_old_interpreters():
    ast.parse(Path(boot.__file__).read_text(), feature_version=(3, 6))


def test_nothing_is_imported_from_where_it_lies(tmp_path: Path):
    """Its neighbours are modules of warmpool's, whatever they are called."""
    script = tmp_path / "boot.py"
    script.write_bytes(Path(boot.__file__).read_bytes())
    (tmp_path / "socket.py").write_text("raise SystemExit('the wrong socket')\n")
    (tmp_path / "warmpool.py").write_text("raise SystemExit('the wrong warmpool')\n")
    ours, theirs = packets.pair()
    with ours:
        ours.send(b"Load, which it cannot read")
        with theirs:
            done = subprocess.run(
                [sys.executable, script, "counter", "-1", "0", "warmpool"],
                preexec_fn=lambda: os.dup2(theirs.fileno(), boot.CHANNEL_FD),
                close_fds=False,
                capture_output=True,
                text=True,
                check=False,
            )
        assert (done.returncode, done.stderr) == (0, "")
        received = packets.receive(ours, FROM_TEMPLATE)
    assert received is not None
    assert "the daemon 0 speaks -1" in received[0].error["message"]
