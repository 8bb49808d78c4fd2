"""How an app is named: by a registered name, a path, or a module and a class; with a version and a function.

counter                       registered by `serve`, or by an earlier use of its path
counter@1.0                   pinned to a version
counter:add  counter@1.0:add  with the function to call
examples/apps/counter.py      a path: it has a slash, ends with .py, or is . or ..; a file or a package directory
shop.py:Cart                  one class of several: it begins with a capital; Outer.Cart: one inside another
package.module:Class          a module to import; the first name behind its colon is always the class
counter#primed                its `setup` runs once, and each session is a copy of what that made
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Final, NamedTuple

from ..checks import shorten
from ..errors import InvalidRequestError

PRIMED: Final = "#primed"

_NAME = r"[A-Za-z_]\w*"
_FORM = re.compile(
    r"(?P<target> (?:.*/)?[^@:/]+? | .*/ )"
    rf"( : (?P<class> {_NAME}(?:\.{_NAME})* ) )?"
    r"( @ (?P<version> [^@:/\#]+ ) )?"
    rf"(?P<primed> {re.escape(PRIMED)} )?"
    rf"( : (?P<function> {_NAME} ) )?",
    re.DOTALL | re.VERBOSE,
)


class AppReference(NamedTuple):
    target: str
    """A registered name, a path, or a module."""
    class_name: str | None = None
    version: str | None = None
    function: str | None = None
    primed: bool = False
    """Its sessions are copies of one that has been set up."""

    @property
    def is_path(self) -> bool:
        return os.sep in self.target or self.target.endswith(".py") or self.target in (os.curdir, os.pardir)

    @property
    def is_module(self) -> bool:
        return self.class_name is not None and not self.is_path

    @property
    def qualified(self) -> str:
        """The target, with the class that is named in it."""
        return self.target if self.class_name is None else f"{self.target}:{self.class_name}"

    def without_function(self) -> str:
        text = self.qualified
        if self.version is not None:
            text += f"@{self.version}"
        return text + PRIMED if self.primed else text


@lru_cache(maxsize=128)
def parse(text: str) -> AppReference:
    """Reads a reference. Raises INVALID_REQUEST if it has none of the forms above."""
    match = None if "\0" in text else _FORM.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"{shorten(text)} does not name an app; write name, name@version, name:function, "
            "path.py or package.module:Class"
        )
    target, class_name, version, function = match["target"], match["class"], match["version"], match["function"]
    primed = match["primed"] is not None
    reference = AppReference(target, class_name, version, function, primed)
    if class_name is not None and not _is_class(reference):
        if function is not None or version is not None or primed:
            raise InvalidRequestError(f"{text!r} names two functions, or one before its version")
        if "." in class_name:
            raise InvalidRequestError(f"{text!r}: a class begins with a capital, and a function has no dots")
        reference = AppReference(target, None, None, class_name)
    return reference


def _is_class(reference: AppReference) -> bool:
    assert reference.class_name is not None
    dotted = "." in reference.target and not reference.is_path
    return dotted or reference.class_name[0].isupper()


def absolute(reference: AppReference, cwd: str) -> AppReference:
    """The same reference with a path in it made absolute, seen from `cwd`."""
    if not reference.is_path:
        return reference
    path = os.path.normpath(os.path.join(cwd, os.path.expanduser(reference.target)))
    return reference._replace(target=path)
