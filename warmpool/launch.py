"""Starting Python processes that run warmpool, and whom they die with."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

_HOME: Final = str(Path(__file__).resolve().parent.parent)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc: Final = ctypes.CDLL(None, use_errno=True)  # in the template, whose workers would each make classes for it


def python_command(module: str, *arguments: str) -> list[str]:
    """A command line that calls `main()` of a module of warmpool, with this interpreter and this installation.

    Nothing is imported from the current directory (-P): a `msgpack.py` that lies there is not ours. Warmpool's own
    directory comes last on the path, so it is found also where it is not installed.
    """
    boot = f"import sys; sys.path.append(sys.argv.pop(1)); from {module} import main; sys.exit(main())"
    return [sys.executable, "-P", "-c", boot, _HOME, *arguments]


def foreign_command(python: str, *arguments: str) -> list[str]:
    """A command line that runs `worker/boot.py` under another interpreter, with the warmpool that is installed there:
    ours would bring libraries that were built for this one.
    """
    return [python, os.path.join(_HOME, "warmpool", "worker", "boot.py"), *arguments]


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
