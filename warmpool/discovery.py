"""Which files hold apps, told by their texts alone: those that speak of BaseApp, and those with a class that derives
from one of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

Key = TypeVar("Key", bound=Hashable)

_BASE: Final = b"BaseApp"
_CLASS: Final = re.compile(rb"^[ \t]*class\s+(\w+)\s*\(([^)]*)\)", re.MULTILINE)
_WORD: Final = re.compile(rb"\w+")


def app_files(texts: Mapping[Key, bytes]) -> list[Key]:
    """Those of these texts, in their order."""
    names, found, rest = {_BASE}, set[Key](), dict(texts)
    while more := {key for key, text in rest.items() if _BASE in text or _derived(text, names)}:
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
