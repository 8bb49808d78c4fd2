"""What a worker sheds of memory."""

from __future__ import annotations

import mmap
import os
import sys

from warmpool.worker.birth import give_back_zeros

PAGES = 64
MARK = b"\1"


def pages_in_memory(thing: object) -> int:
    """How many whole pages of its content are there, as the kernel counts them (a bit of 64 a page)."""
    start = id(thing) + sys.getsizeof(b"")
    first, end = -(-start // mmap.PAGESIZE), (start + (PAGES - 1) * mmap.PAGESIZE) // mmap.PAGESIZE
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        entries = os.pread(pagemap.fileno(), 8 * (end - first), 8 * first)
    return sum(byte >> 7 for byte in entries[7::8])


def test_zeros_go_back_and_are_still_zeros():
    zeros = bytes(PAGES * mmap.PAGESIZE)
    zeros.count(0)  # who only reads is shown one page of zeros over and over; it counts as there
    assert pages_in_memory(zeros) > PAGES - 3
    give_back_zeros(zeros)
    assert pages_in_memory(zeros) == 0
    assert zeros == bytes(PAGES * mmap.PAGESIZE)


def test_what_is_no_zero_stays():
    half = PAGES * mmap.PAGESIZE // 2
    data = MARK * half + bytes(half)
    give_back_zeros(data)
    assert PAGES // 2 <= pages_in_memory(data) <= PAGES // 2 + 1
    assert data == MARK * half + bytes(half)
