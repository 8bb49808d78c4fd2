"""Whether there are descriptors for one more process, and words for when the machine has no room for it.

A process is made only while there are some more descriptors than it takes, for whoever then asks for the status, ends a
session or stops the daemon. They are counted by taking them: the kernel gives the lowest number that is free, which
says nothing of how many there are, and a list of all that are open grows with the sessions.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

from ..constants import SPARE_DESCRIPTORS
from ..descriptors import close_all

_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS}


FOR_A_DAEMON: Final = 24
"""Descriptors of a daemon with one client, one template and one worker, and some to spare."""


def check_room(more: int = 0) -> None:
    """Raises OSError if there are fewer than SPARE_DESCRIPTORS left, and so many more."""
    taken: list[int] = []
    try:
        taken.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        while len(taken) < SPARE_DESCRIPTORS + more:
            taken.append(os.dup(taken[0]))
    finally:
        close_all(taken)


def is_shortage(error: OSError) -> bool:
    """Whether it is the machine that has no room, and not the program that cannot be run."""
    return error.errno in _SHORTAGES


def why_no_room(error: OSError) -> str:
    """What the machine lacks for a process, and what to do about it."""
    if error.errno != errno.EMFILE:
        return f"the machine cannot make another process ({error.strerror or error})"
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"the daemon is out of file descriptors: it may have {limit}, and begins no process with fewer than "
        f"{SPARE_DESCRIPTORS} left; "
        "start it with a higher `ulimit -Hn`"
    )
