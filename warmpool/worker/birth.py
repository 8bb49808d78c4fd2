"""A process becomes a worker: what it must shed of the one it was forked from, and whom it belongs to.

The daemon is the parent of every worker. A template forks twice and the process in the middle exits, so the kernel
gives the worker to the daemon, which is the nearest subreaper. Only then may the worker arm its parent-death
signal: armed earlier, the middle's exit would kill it.

The worker is a subreaper itself. What its app leaves running is its own while it lives, and comes to the daemon when it
dies, as what an import has left does at once; so a child of the daemon that the daemon does not know is wanted by
nobody, or about to say that it exists.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ctypes
import faulthandler
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Final

from ..launch import is_gone

set_handler: Final[Callable[[int, object], object]] = _signal.signal
"""`signal.signal` makes enums of what it is given and gives: forty pages, which each worker would have to itself."""

_libc: Final = ctypes.CDLL(None)
_ZEROS: Final = bytes(mmap.PAGESIZE)
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BLOCK: Final = 1024 * 1024
_LARGEST_BLOCK: Final = 480
_BLOCKS_DIFFER: Final = 16
"""Bytes, in Python's allocator of small objects; a header comes on top."""
_HOLES: Final = 600
"""Of each size: of an app that has imported a lot there may be more, which are left."""
_STDERR: Final = 2
_OOM_SCORE: Final = "500"


def await_adoption(middle: int) -> None:
    """Returns when this process is no longer the child of `middle`, which is about to exit."""
    while os.getppid() == middle:
        is_gone(middle)


def forget_signals() -> None:
    """What the import of the app has done to signals is not the workers'. They inherit them from the template, which
    itself is not ended by a Ctrl-C at a terminal: that is for the daemon to handle.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.register(signal.SIGUSR1, _STDERR)  # shows where it is stuck, also in C with the interpreter's lock


def be_expendable() -> None:
    """The kernel, short of memory, takes this process or one that it forks rather than the daemon."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def shed_inheritance() -> None:
    """The session and the random streams of the template are not the worker's."""
    with suppress(OSError):  # a process that leads a session already
        os.setsid()
    set_handler(signal.SIGINT, signal.default_int_handler)
    vars(threading.main_thread())["_native_id"] = os.getpid()  # left out with `threading`'s own (`atfork`)
    reseed()


def reseed() -> None:
    """No two workers draw the same random numbers. Python sees to that for its own generator at each fork; one that the
    app made itself is the app's to seed, in `setup`.
    """
    with suppress(Exception):  # it is not there; or the app has a module of this name
        sys.modules["numpy"].random.seed()
    with suppress(Exception):
        sys.modules["torch"].seed()


def reseed_in_place() -> None:
    """Of a worker for which nothing was forked."""
    if (random := sys.modules.get("random")) is not None:
        random.seed()


def keep_freed_memory() -> None:
    """The C library gives large blocks back to the kernel as soon as they are free, and pays for zeroed pages when it
    wants them again. Up to a megabyte it need not.
    """
    _libc.mallopt(_M_TRIM_THRESHOLD, 4 * _KEPT_BLOCK)
    _libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)


def give_back_zeros(thing: object) -> None:
    """Those pages of an object that hold nothing but zeros go back to the kernel, which gives zeroed ones to whoever
    reads or writes there.
    """
    start = -(-id(thing) // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = range(start, id(thing) + sys.getsizeof(thing) - mmap.PAGESIZE + 1, mmap.PAGESIZE)
    for is_zero, run in groupby(pages, lambda page: ctypes.string_at(page, mmap.PAGESIZE) == _ZEROS):
        if is_zero:
            zeroed = list(run)
            size = len(zeroed) * mmap.PAGESIZE
            _libc.madvise(ctypes.c_void_p(zeroed[0]), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def fill_holes() -> list[bytes]:
    """Python gives away first what is free between things in use. Each worker would write to the pages around its own
    choice of these places; with them filled, what it makes lies together, on a few pages that nobody had.
    """
    return [bytes(size) for size in range(0, _LARGEST_BLOCK, _BLOCKS_DIFFER) for _ in range(_HOLES)]


def threads_besides_main() -> list[str]:
    """Names of the other threads of this process, as the kernel knows them. With any of them a fork is unsafe:
    a lock that one of them holds would stay locked in the child for ever.
    """
    names: list[str] = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            with suppress(OSError):
                names.append(Path("/proc/self/task", task, "comm").read_text().strip())
    return names
