"""Under which Python an app runs: what its project names, else the virtual environment beside it, else the daemon's.

One daemon serves apps of different projects, each with its own libraries. It looks in one directory only, the one that
the app is imported from: `[tool.warmpool] python` in its `pyproject.toml`, then its `.venv`. (Refused: looking in the
directories above as well. What lies further up, in a home directory perhaps, is not known to be meant.)

That an interpreter cannot serve is no reason to take another: the app would miss its libraries and say so less
clearly. It is said here as far as a look at the files tells; the rest is found out by `worker/boot.py` in it.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ..discovery import text_of
from ..launch import INSTALLATION
from ..version import __version__

_VENV: Final = ".venv/bin/python"


class Interpreter(NamedTuple):
    python: str
    problem: str | None = None
    """Why nothing can run under it, and what to do."""

    @property
    def is_ours(self) -> bool:
        return self.python == sys.executable


def interpreter_for(root: str) -> Interpreter:
    """The interpreter of apps that are imported from the directory `root`. Asked at every open: a few stats."""
    settings = f"{root}/pyproject.toml"
    try:
        named = _named_in(settings)
    except (OSError, ValueError, RecursionError) as error:
        return Interpreter(sys.executable, f"its settings cannot be used: {settings}: {error}")
    if named is not None:
        return _look_at(os.path.normpath(os.path.join(root, named)), f"correct `python` in {settings}")
    venv = f"{root}/{_VENV}"
    if os.access(venv, os.F_OK, follow_symlinks=False):
        return _look_at(venv, f"make {root}/.venv anew, or remove it")
    return Interpreter(sys.executable)


def requirement() -> str:
    """What `pip install` is to be told there, to get this warmpool: where it lies, or what it was installed from, if
    that is still to be found; else its name and version.
    """
    source = INSTALLATION if os.path.isfile(f"{INSTALLATION}/pyproject.toml") else _installed_from()
    return f"warmpool=={__version__}" if source is None else shlex.quote(source)


def _installed_from() -> str | None:
    """A local file or directory, as pip has noted it (PEP 610)."""
    from importlib.metadata import PackageNotFoundError, distribution

    with suppress(PackageNotFoundError, ValueError, KeyError):
        url = json.loads(distribution("warmpool").read_text("direct_url.json") or "{}")["url"]
        path = unquote(urlsplit(url).path)
        if url.startswith("file:") and os.path.exists(path):
            return path
    return None


def _look_at(python: str, remedy: str) -> Interpreter:
    try:
        status = os.stat(python)
        if _is_ours(python):
            return Interpreter(sys.executable)
    except OSError as error:
        return Interpreter(python, f"its interpreter {python} cannot be found: {error.strerror}; {remedy}")
    if not stat.S_ISREG(status.st_mode) or not os.access(python, os.X_OK):
        return Interpreter(python, f"its interpreter {python} is not a program; {remedy}")
    return Interpreter(python)


def _is_ours(python: str) -> bool:
    """The same file in the same directory: the file alone is that of all environments that were made with it."""
    directories = os.path.dirname(python), os.path.dirname(sys.executable)
    return os.path.samefile(*directories) and os.path.samefile(python, sys.executable)


def _named_in(settings: str) -> str | None:
    try:
        status = os.stat(settings)
    except OSError:
        return None
    return _read(settings, status.st_ctime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _read(settings: str, changed_ns: int, size: int) -> str | None:
    """What a `pyproject.toml` names. The file is read again when its stat has changed."""
    import tomllib

    tool = tomllib.loads(text_of(settings).decode()).get("tool")
    own = tool.get("warmpool") if isinstance(tool, dict) else None
    named = own.get("python") if isinstance(own, dict) else None
    if named is not None and not (isinstance(named, str) and named and "\0" not in named):
        raise ValueError("`python` under [tool.warmpool] must be the path of an interpreter")
    return named
