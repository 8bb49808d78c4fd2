"""Facts: dataclasses that nobody writes to once they are made.

Their type checker holds that. A frozen dataclass would hold it at run time too, and set each of its fields by a call of
`object.__setattr__`: a twentieth of all that the daemon does to open a session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def fact(kind: type[T]) -> type[T]:
    """Makes a class one of facts."""
    return dataclass(slots=True, unsafe_hash=True)(kind)
