"""All children of the daemon: those that it knows, by their pidfds, and orphans.

The daemon is a subreaper, so what a dead worker has left running becomes its child, or an import at once. Any child
that it does not know is such an orphan, and is killed. They are looked for when a child that we know has died, and when
one has died that we do not know; but not after each of many, since a look takes longer the more children there are.

Some orphans end by themselves when they see that their worker is dead, and must: multiprocessing has a process that
removes then what shared memory is left, and a daemon that an app has embedded removes its files. So who is in the
kernel's session of one that has just died is spared for a moment, which is counted from the death; and so is every
orphan, for a moment that is counted from the first one's coming. What removes shared memory waits also for whatever
the app has forked, so it is spared for that moment once more, from when nothing else is left. Whatever an orphan forks
is found while that is there or when it has died, so it gains nothing by it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..constants import MEMORY_RECHECK
from .child import Child, Exit
from .printed import Lines, Pipe
from .room import check_room
from .spawning import Spawned, spawn

SWEEP_PAUSE: Final = 0.05
"""Seconds from one look for orphans to the next. With 3,000 children one takes 2 ms."""

ORPHAN_GRACE: Final = 0.5
"""Seconds from the death of a worker until what it has left is killed. Python takes a tenth of it to leave."""

REAP_TIMEOUT: Final = 2.0
"""Seconds that the daemon's end waits for what it has killed, and for what cleans up."""


class Children:
    def __init__(self, loop: asyncio.AbstractEventLoop, announced: Callable[[], None]) -> None:
        """`announced` has whoever has said that it exists be watched: it may be our child by now."""
        self._loop = loop
        self._announced = announced
        self._known: dict[int, Child] = {}
        self._orphans: dict[int, Child] = {}
        """Those of them that nobody has told us of."""
        self._recently_dead: dict[int, float] = {}
        """By the pid of a dead child that was no orphan, until when its session is spared."""
        self._spared_until: float | None = None
        """Until when all orphans are, whenever they come. None: the last look has found none."""
        self._cleaners_spared_until = 0.0
        self._pipes: set[Pipe] = set()
        """What those whom we have started print to. One is open for as long as anybody can write to it: that may be a
        worker, long after its template.
        """
        self._sweep_due = False
        self._swept_at = -SWEEP_PAUSE

    def __repr__(self) -> str:
        return f"<Children {list(self._known)}>"

    def spawn(self, command: list[str], printed: Callable[[str], None]) -> tuple[socket.socket, Child]:
        """A new process whose descriptor 3 is a channel, and our end of that. `printed` is told each line that it
        prints. Raises OSError if there can be none.
        """
        check_room()
        spawned = spawn(command)
        return spawned.channel, self.adopt(spawned, printed)

    def adopt(self, spawned: Spawned, printed: Callable[[str], None]) -> Child:
        """A process that was just started. Raises OSError if it cannot be watched; then it finds itself hung up on."""
        try:
            child = self.watch(spawned.pid)
        except OSError:
            spawned.close()
            raise
        self._follow(spawned.printed, printed)
        return child

    def pipe(self, printed: Callable[[str], None]) -> int:
        """What a process can print to, for the caller to close; `printed` is told each line. Raises OSError."""
        readable, writable = os.pipe2(os.O_CLOEXEC)
        self._follow(readable, printed)
        return writable

    def _follow(self, readable: int, printed: Callable[[str], None]) -> None:
        lines = Lines(printed)

        def ended() -> None:
            lines.end()
            self._pipes.discard(pipe)

        pipe = Pipe(self._loop, readable, lines.add, ended)
        self._pipes.add(pipe)

    def watch(self, pid: int) -> Child:
        """The child with this pid, from now on a known one. Raises OSError if it cannot be watched."""
        child = self._known.get(pid)
        if child is None:
            child = self._known[pid] = Child(pid, self._loop, self._reaped)
        return child

    def kill_all(self) -> None:
        """At once, and without a word."""
        for child in self._known.values():
            child.kill()

    def _reaped(self, child: Child, end: Exit) -> None:
        del self._known[child.pid]
        if self._orphans.pop(child.pid, None) is None:
            self._recently_dead[child.pid] = time.monotonic() + ORPHAN_GRACE
        child.on_exit(end)
        self._sweep_soon()

    def look_for_orphans(self) -> None:
        """Some child has died. One that we know is seen at its pidfd, and others are looked for when it is reaped."""
        with suppress(ChildProcessError):  # there is none left
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is not None and dead.si_pid not in self._known:
                self._sweep_soon()

    def _sweep_soon(self) -> None:
        if not self._sweep_due:
            self._sweep_due = True
            self._loop.call_later(max(0.0, self._swept_at + SWEEP_PAUSE - self._loop.time()), self.sweep)

    def sweep(self) -> None:
        """Watches the children that we do not know: what others have left behind. Kills those that are not spared."""
        self._sweep_due, self._swept_at = False, self._loop.time()
        try:
            children = children_of_this_process()
        except OSError:
            self._sweep_later()
            return
        self._announced()
        for pid in children:
            if pid not in self._known:
                try:
                    self._orphans[pid] = self.watch(pid)
                except ProcessLookupError:
                    pass  # reaped meanwhile
                except OSError:
                    self._sweep_later()
        spared = self._spared(time.monotonic())
        if spared:
            self._loop.call_later(ORPHAN_GRACE + SWEEP_PAUSE, self._sweep_soon)  # and not a moment too early
        for pid in self._orphans.keys() - spared:
            self._orphans[pid].kill()

    def _spared(self, now: float) -> set[int]:
        """The orphans that may live on for a while."""
        self._recently_dead = {pid: until for pid, until in self._recently_dead.items() if until > now}
        if not self._orphans:
            self._spared_until = None
        elif self._spared_until is None:
            self._spared_until = now + ORPHAN_GRACE
        if self._spared_until is not None and now < self._spared_until:
            return set(self._orphans)
        cleaners = {pid for pid in self._orphans if _is_a_cleaner(pid)}
        if cleaners != self._orphans.keys():
            self._cleaners_spared_until = now + ORPHAN_GRACE
        elif now >= self._cleaners_spared_until:
            cleaners.clear()
        return cleaners | {pid for pid in self._orphans if os.getsid(pid) in self._recently_dead}

    def close(self) -> None:
        """The last to die may have left something, and that again: sweeps until nothing is left, and waits for it."""
        latest = time.monotonic() + REAP_TIMEOUT
        self.sweep()
        while self._known and (now := time.monotonic()) < latest:
            for child in list(self._known.values()):
                child.wait(min(latest, now + ORPHAN_GRACE) - time.monotonic())
            self.sweep()
        for pipe in list(self._pipes):
            pipe.drain()

    def _sweep_later(self) -> None:
        """Clients have taken the last descriptor, and nothing can be looked at without one."""
        self._sweep_due = True
        self._loop.call_later(MEMORY_RECHECK, self.sweep)


def children_of_this_process() -> list[int]:
    """Pids of all children, dead ones too."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def _is_a_cleaner(pid: int) -> bool:
    """Whether it is multiprocessing's that removes shared memory, or joblib's."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
