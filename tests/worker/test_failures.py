"""Whose frames a traceback shows."""

from __future__ import annotations

import os

import pytest

from warmpool.launch import PACKAGE
from warmpool.worker.failures import own_traceback


def test_of_a_long_one_both_ends_are_kept():
    def fail() -> None:
        raise ValueError(f"begin {'x' * 100_000} end")

    with pytest.raises(ValueError, match="begin") as raised:
        fail()
    told = own_traceback(raised.value)
    assert len(told) < 20_000
    for words in ("Traceback (most recent call last)", "in fail", "ValueError: begin xxx", "…xxx", "xxx end\n"):
        assert words in told


@pytest.mark.parametrize(
    ("path", "is_shown"),
    [(f"{PACKAGE}{os.sep}app.py", False), (f"{PACKAGE}_apps{os.sep}app.py", True), (f"{PACKAGE}.py", True)],
)
def test_frames_of_what_lies_beside_warmpool_are_shown_and_its_own_are_not(path: str, is_shown: bool):
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile("1 / 0", path, "exec"))
    assert (path in own_traceback(raised.value)) is is_shown
