"""How much memory a process has, by the kernel's own account: asking takes milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .constants import KIB


class Footprint(NamedTuple):
    """In bytes."""

    private: int
    """Goes when the process goes."""
    shared: int
    """With the template that it was forked from, or with whoever has mapped the same files."""


def footprint_of(pid: int) -> Footprint:
    """Raises OSError if there is no such process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) * KIB for name, _, rest in (line.partition(":") for line in lines)}
    return Footprint(
        sizes["Private_Clean"] + sizes["Private_Dirty"],
        sizes["Shared_Clean"] + sizes["Shared_Dirty"],
    )
