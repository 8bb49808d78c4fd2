"""What processes weigh, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

MIB = 1024 * 1024
KIB = 1024


def shared_out(pids: Iterable[int]) -> int:
    """Bytes of all of them together: a page that n processes share counts as an nth for each (PSS)."""
    return sum(_rollup(pid)["Pss"] for pid in pids)


def private(pid: int) -> int:
    """Bytes that nobody else has, and that would be free without it."""
    rollup = _rollup(pid)
    return rollup["Private_Dirty"] + rollup["Private_Clean"]


def children(pid: int) -> list[int]:
    """The daemon's processes: templates and workers."""
    return [child.pid for child in psutil.Process(pid).children()]


def context_switches(pid: int) -> int:
    """How often its threads have been run, of their own will or not."""
    switches = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        switches += int(lines["voluntary_ctxt_switches"]) + int(lines["nonvoluntary_ctxt_switches"])
    return switches


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) * KIB for name, size in (line.split(":", 1) for line in lines)}
