"""What processes weigh, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil


def shared_out(pids: Iterable[int]) -> int:
    """Bytes of all of them together: a page that n processes share counts as an nth for each (PSS)."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


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
