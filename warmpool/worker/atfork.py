"""A fork by a process that has one thread.

In a forked child `threading` and `logging` renew their locks, since a thread that is not there any more may have held
one. Where there was no other thread none is held; and to renew them costs each worker a hundred pages that it would
share otherwise, a seventh of all that it has to itself. So in a fork of ours they are left out. In those of the app
they run, and what others have registered runs in all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

_RENEWERS: Final = {"threading", "logging"}

_alone = False


def leave_out_where_alone() -> None:
    """Once in a process, before anything of these is imported."""
    register = os.register_at_fork

    def register_at_fork(**handlers: Callable[[], object]) -> None:
        if _RENEWERS.isdisjoint(getattr(handler, "__module__", None) for handler in handlers.values()):
            register(**handlers)
        else:  # all or none: what one acquires another releases
            register(**{when: _unless_alone(handler) for when, handler in handlers.items()})

    os.register_at_fork = register_at_fork  # type: ignore[assignment]


def _unless_alone(handler: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        if not _alone:
            handler()

    return run


def fork_alone() -> int:
    """As `os.fork`, for a process whose only thread holds no lock."""
    global _alone  # noqa: PLW0603
    _alone = True
    try:
        return os.fork()
    finally:
        _alone = False
