"""How moments are shown."""

from __future__ import annotations

import pytest

from warmpool.daemon.views import WallTime

BORN = 1_800_000_000.0


def test_a_moment_is_told_alike_however_the_two_clocks_are_read():
    unix = iter([BORN, BORN + 10.001, BORN + 19.998, BORN + 30.4])
    lease = iter([0.0, 10.0, 20.0, 30.0])
    wall_time = WallTime(lease.__next__, unix.__next__)
    assert [wall_time(5.0) for _ in range(3)] == [BORN + 5] * 3


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_is_set_shows(jump: float):
    unix = iter([BORN, BORN + 10 + jump, BORN + 20 + jump])
    lease = iter([0.0, 10.0, 20.0])
    wall_time = WallTime(lease.__next__, unix.__next__)
    assert [wall_time(5.0) for _ in range(2)] == [BORN + 5 + jump] * 2
