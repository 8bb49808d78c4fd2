"""Under which Python an app runs: what its project names, else the virtual environment beside it, else the daemon's.

One daemon serves apps of different projects, each with its own libraries. It looks in one directory only, the one that
the app is imported from: `[tool.warmpool] python` in its `pyproject.toml`, then its `.venv`. (Refused: looking in the
directories above as well. What lies further up, in a home directory perhaps, is not known to be meant.)

That an interpreter cannot serve is no reason to take another: the app would miss its libraries and say so less
clearly. It is said here as far as a look at the files tells; the rest is found out by `worker/boot.py` in it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_VENV: Final = os.path.join(".venv", "bin", "python")


@dataclass(frozen=True, slots=True)
class Interpreter:
    python: str
    problem: str | None = None
    """Why nothing can run under it, and what to do."""

    @property
    def is_ours(self) -> bool:
        return self.python == sys.executable


def interpreter_for(root: str) -> Interpreter:
    """The interpreter of apps that are imported from the directory `root`. Asked at every open: a few stats."""
    settings = os.path.join(root, "pyproject.toml")
    try:
        status = os.stat(settings)
    except OSError:
        named, problem = None, None
    else:
        named, problem = _named_in(settings, status.st_mtime_ns, status.st_size)
    if problem is not None:
        return Interpreter(sys.executable, problem)
    if named is not None:
        return _look_at(os.path.normpath(os.path.join(root, named)), f"correct `python` in {settings}")
    venv = os.path.join(root, _VENV)
    if os.path.lexists(venv):
        return _look_at(venv, f"make {root}/.venv anew, or remove it")
    return Interpreter(sys.executable)


def _look_at(python: str, remedy: str) -> Interpreter:
    if os.path.realpath(os.path.dirname(python)) == os.path.realpath(os.path.dirname(sys.executable)):
        return Interpreter(sys.executable)  # a link to the interpreter of another environment leads out of this one
    if not os.path.exists(python):
        return Interpreter(python, f"its interpreter {python} does not exist; {remedy}")
    if not os.path.isfile(python) or not os.access(python, os.X_OK):
        return Interpreter(python, f"its interpreter {python} is not a program; {remedy}")
    return Interpreter(python)


@lru_cache(maxsize=1024)
def _named_in(settings: str, mtime_ns: int, size: int) -> tuple[str | None, str | None]:
    """What a `pyproject.toml` names, and what is wrong with it. The file is read again when its stat has changed."""
    import tomllib

    try:
        with open(settings, "rb") as file:
            tool = tomllib.load(file).get("tool", {})
    except (OSError, ValueError) as error:
        return None, f"its settings cannot be read: {settings}: {error}"
    own = tool.get("warmpool", {}) if isinstance(tool, dict) else {}
    named = own.get("python") if isinstance(own, dict) else None
    if named is not None and not (isinstance(named, str) and named and "\0" not in named):
        return None, f"`python` under [tool.warmpool] in {settings} must be the path of an interpreter"
    return named, None
