"""The locked file: whose it is, and that it is nobody's when it could not be taken."""

from __future__ import annotations

import builtins
import errno
import io
import os

import pytest
from support import open_files

from warmpool.lock import AlreadyLockedError, LockFile, holder


def test_it_says_who_holds_it_and_goes_with_its_release(tmp_path):
    path = tmp_path / "lock"
    lock = LockFile(path)
    with pytest.raises(AlreadyLockedError) as raised:
        LockFile(path)
    assert raised.value.pid == os.getpid()
    lock.release()
    assert not path.exists()
    LockFile(path).release()


def test_of_one_that_cannot_be_signed_nothing_is_left(tmp_path, monkeypatch):
    """On a disk that is full. Held on, it would have everybody wait, its own process too."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = open_files()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "pwrite", full)
        LockFile(tmp_path / "lock", wait=True)
    assert open_files() == files
    assert list(tmp_path.iterdir()) == []
    LockFile(tmp_path / "lock", wait=True).release()


def test_who_holds_it_can_be_asked_without_taking_it(tmp_path):
    path = tmp_path / "lock"
    assert holder(path) is None
    lock = LockFile(path)
    assert holder(path) == os.getpid()
    os.truncate(path, 0)
    assert holder(path) == os.getpid(), "it need not say"
    lock.release()
    path.write_text("4711")
    assert holder(path) is None, "left over"


def test_who_has_locked_another_file_of_that_number_does_not_hold_it(tmp_path, monkeypatch):
    """On each device there may be one, and it is a stranger who would be told to go."""
    path = tmp_path / "lock"
    path.write_text("4711")
    table = f"1: FLOCK  ADVISORY  WRITE {os.getpid()} 00:7f:{path.stat().st_ino} 0 EOF\n"
    real = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda name, *how: io.StringIO(table) if name == "/proc/locks" else real(name, *how)
    )
    assert holder(path) is None
    with path.open():
        assert holder(path) == os.getpid()
