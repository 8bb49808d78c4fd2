"""Which files hold apps, told by their texts alone: those that speak of BaseApp, and those with a class that derives
from one of theirs. And how a file of the user's is read, and which directories are none of the user's.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

Key = TypeVar("Key", bound=Hashable)

_BASE: Final = b"BaseApp"
_NAMES_BASE: Final = re.compile(rb"\bBaseApp\b")
_CLASS: Final = re.compile(rb"^[ \t]*class\s+(\w+)\s*\(([^)]*)\)", re.MULTILINE)
_WORD: Final = re.compile(rb"\w+")


def app_files(texts: Mapping[Key, bytes]) -> list[Key]:
    """Those of these texts, in their order."""
    names, found, rest = {_BASE}, set[Key](), dict(texts)
    while more := {key for key, text in rest.items() if _NAMES_BASE.search(text) or _derived(text, names)}:
        found |= more
        for key in more:
            names |= _derived(rest.pop(key), names)
    return [key for key in texts if key in found]


def is_for_tests(module: str) -> bool:
    """Whether pytest would take a module of this name for one of its own."""
    return module.startswith("test_") or module == "conftest"


def _derived(text: bytes, names: set[bytes]) -> set[bytes]:
    """The classes in a text that have one of these names among their bases."""
    return {name for name, bases in _CLASS.findall(text) if not names.isdisjoint(_WORD.findall(bases))}


def text_of(path: str) -> bytes:
    """What is in a file of the user's. Raises OSError for what is none: a pipe in its place would have the daemon wait,
    and everybody with it.
    """
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file", path)
        return file.read()


def texts_in(directory: Path) -> dict[Path, bytes]:
    """Of the modules right in a directory, those that can be read: an editor's locks are none."""
    texts: dict[Path, bytes] = {}
    for path in sorted(directory.glob("*.py")):
        if not path.name.startswith("."):
            with suppress(OSError):
                texts[path] = text_of(str(path))
    return texts


def holds_packages(directory: str) -> bool:
    """Whether pip has put some there."""
    return any(Path(directory).glob("*.dist-info"))
