"""Whose frames a traceback shows."""

from __future__ import annotations

import os

import pytest

from warmpool.launch import PACKAGE
from warmpool.worker.failures import own_traceback


@pytest.mark.parametrize(
    ("path", "is_shown"),
    [(f"{PACKAGE}{os.sep}app.py", False), (f"{PACKAGE}_apps{os.sep}app.py", True), (f"{PACKAGE}.py", True)],
)
def test_frames_of_what_lies_beside_warmpool_are_shown_and_its_own_are_not(path: str, is_shown: bool):
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile("1 / 0", path, "exec"))
    assert (path in own_traceback(raised.value)) is is_shown
