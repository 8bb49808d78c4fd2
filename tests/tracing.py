"""The system calls of another process, one by one, by ptrace: a small strace that needs nothing but Python.

(Refused: strace, which a bare machine does not have; `/proc/PID/io` and context switches, which do not see a `recv`
or an `epoll_ctl`; perf, which needs leave of the kernel that a container does not have.)
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

_PR_SET_PTRACER: Final = 0x59616D61
_ANYBODY: Final = 2**64 - 1
_SYSCALL, _DETACH, _SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 24, 17, 0x4206, 0x4207, 0x420E
_MARK_SYSCALLS: Final = 1
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_ANY_CHILD: Final = 0x40000000
_ENTRY: Final = 1

NAMES: Final[dict[str, dict[int, str]]] = {
    "x86_64": {
        0: "read",
        1: "write",
        24: "sched_yield",
        44: "send",
        45: "recv",
        232: "epoll_wait",
        233: "epoll_ctl",
        281: "epoll_wait",
    },
    "aarch64": {
        21: "epoll_ctl",
        22: "epoll_wait",
        63: "read",
        64: "write",
        124: "sched_yield",
        206: "send",
        207: "recv",
    },
}
"""Of the calls that are expected; others are shown by their number."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class SystemCall(NamedTuple):
    name: str
    result: int


class CannotTraceError(Exception):
    """This machine does not let it be done. Says why."""


class _Info(ctypes.Structure):
    """`struct ptrace_syscall_info`, up to what is read of it."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("value", ctypes.c_int64),
        ("rest", ctypes.c_uint64 * 6),
    )
    """`value`: at the entry the number of the call, at the exit its result."""


def allow_tracing() -> None:
    """Lets any process of this user trace this one, where only its parent could."""
    _libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(_ANYBODY))


@contextmanager
def traced(pid: int) -> Iterator[Iterator[SystemCall]]:
    """Gives the system calls of a process of one thread, as each returns; the process stands still until the next is
    asked for, and goes on unhindered at the end. For use by one thread. Raises CannotTraceError.
    """
    if platform.machine() not in NAMES:
        raise CannotTraceError(f"the numbers of system calls on {platform.machine()} are not written down here")
    try:
        _ptrace(_SEIZE, pid, _MARK_SYSCALLS)
    except PermissionError as error:
        raise CannotTraceError(f"this machine does not let a process be traced: {error}") from error
    _ptrace(_INTERRUPT, pid)
    os.waitpid(pid, _ANY_CHILD)
    calls = _calls(pid)
    try:
        yield calls
    finally:
        calls.close()
        _ptrace(_DETACH, pid)


def _calls(pid: int) -> Iterator[SystemCall]:
    names = NAMES[platform.machine()]
    entered: str | None = None  # unknown of the one in which the process was found
    pending = 0
    while True:
        _ptrace(_SYSCALL, pid, pending)
        _, status = os.waitpid(pid, _ANY_CHILD)
        assert os.WIFSTOPPED(status), f"process {pid} died"
        stopped_by, is_event = os.WSTOPSIG(status), bool(status >> 16)
        pending = 0 if is_event or stopped_by == _SYSCALL_STOP else stopped_by
        if stopped_by != _SYSCALL_STOP:
            continue
        info = _Info()
        _ptrace(_GET_SYSCALL_INFO, pid, ctypes.addressof(info), ctypes.sizeof(info))
        if info.op == _ENTRY:
            entered = names.get(info.value, f"number {info.value}")
        elif entered is not None:
            yield SystemCall(entered, info.value)


def _ptrace(request: int, pid: int, data: int = 0, address: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
