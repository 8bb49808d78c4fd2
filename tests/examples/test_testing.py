"""The suite in `examples/testing` is one that a user might have: it passes, and leaves nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import nothing_left
from support import MARK, ROOT


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one-process", "xdist"])
def test_it_passes(options, monkeypatch):
    monkeypatch.delenv("WARMPOOL_SOCKET", raising=False)
    with nothing_left() as mark:
        monkeypatch.setenv(MARK, mark)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "examples/testing"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 passed" in done.stdout
