"""The zygote's process. The daemon's first is started as soon as it has its lock and before it imports what it is made
of itself, which takes as long as what a zygote imports.
"""

from __future__ import annotations

import os
import site
import sys
from contextlib import suppress
from typing import NamedTuple

from ..discovery import holds_packages
from ..launch import python_command
from .spawning import Spawned, spawn


class ZygoteProcess(NamedTuple):
    """`installed`: when something was installed last before it was started."""

    installed: list[int]
    spawned: Spawned


def start_zygote() -> ZygoteProcess:
    """Raises OSError if there can be none."""
    return ZygoteProcess(
        last_installed(), spawn(python_command("warmpool.worker.start", str(os.getpid()), function="zygote"))
    )


def last_installed() -> list[int]:
    """When the directories that packages are installed to were changed: installers add or rename something there. 0 for
    one that does not exist, as a user's own before its first package.
    """
    places = dict.fromkeys([*sys.path, *site.getsitepackages(), site.getusersitepackages()])
    return [_changed_at(place) for place in places if place.endswith("-packages") or holds_packages(place)]


def _changed_at(place: str) -> int:
    with suppress(OSError):
        return os.stat(place).st_mtime_ns
    return 0
