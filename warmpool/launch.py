"""Starting Python processes that run warmpool, and whom they die with."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = Path(__file__).resolve().parent
INSTALLATION: Final = str(PACKAGE.parent)
"""The directory from which warmpool is imported."""
PATH_ENV: Final = "WARMPOOL_PATH"
"""Where templates are told of further places of modules, which come behind all others. It is for nobody else."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc: Final = ctypes.CDLL(None, use_errno=True)  # in the template, whose workers would each make classes for it


def python_command(module: str, *arguments: str, function: str = "main") -> list[str]:
    """A command line that calls a function of a module of warmpool, with this interpreter and this installation.

    Nothing is imported from the current directory (-P): a `msgpack.py` that lies there is not ours. Warmpool's own
    directory comes last on the path, so it is found also where it is not installed.
    """
    boot = f"import sys; sys.path.append(sys.argv.pop(1)); from {module} import {function}; sys.exit({function}())"
    return [sys.executable, "-P", "-c", boot, INSTALLATION, *arguments]


def foreign_command(python: str, *arguments: str) -> list[str]:
    """A command line that runs `worker/boot.py` under another interpreter, with the warmpool that is installed there:
    ours would bring libraries that were built for this one.
    """
    return [python, str(PACKAGE / "worker" / "boot.py"), *arguments]


def spawn_afresh(command: list[str], file_actions: Sequence[tuple[Any, ...]], *, setsid: bool = False) -> int:
    """Starts a process that has none of this one's handling of signals, and at its end does not wait for a person to
    inspect it; gives its pid. Raises OSError.
    """
    defaults = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONINSPECT"}
    return os.posix_spawn(
        command[0], command, environment, file_actions=file_actions, setsid=setsid, setsigmask=(), setsigdef=defaults
    )


def has_exited(pidfd: int, timeout: float | None = None) -> bool:
    """Whether the process has, after `timeout` seconds at most; None: waits for it. (Not `select`, which takes no
    descriptor beyond 1023.)
    """
    exits = select.poll()
    exits.register(pidfd, select.POLLIN)
    return bool(exits.poll(None if timeout is None else timeout * 1000))


def is_gone(pid: int, timeout: float | None = None) -> bool:
    """As `has_exited`, of whoever has this pid now, if anybody has."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return has_exited(pidfd, timeout)
    finally:
        os.close(pidfd)


def close_all_but(kept: Collection[int]) -> None:
    """What else this process has inherited of whoever started it: another one's locks, pipes that somebody reads to
    their end. A process that is to outlive its starter would hold them.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):  # the one that listed
                os.close(int(name))


def be_subreaper() -> None:
    """Orphaned descendants become children of this process. Not inherited by its own children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """SIGKILL for this process when `parent` dies, or exit at once if it has. Cleared by every fork."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
