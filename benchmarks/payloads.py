"""What do bytes cost? 1 kB, 1 MB and 100 MB in and out, as a rate of a plain socket's, and for the largest, which are
passed as memory, of one copy; and beside a block of shared memory that both processes have open, which is what one
would use else. Each end has a core of its own. (The socket's other end puts all bytes where those before were; here
they are new ones each time.)
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.shared_memory import SharedMemory

from daemon import APPS, daemon
from floors import bytes_floor, process
from harness import TWO_CORES, Row, Work, against, arguments, in_turns, placed, report, sample, times_a_round

from warmpool import Session

KB = 1000
MB = 1000 * KB
GB = 1000 * MB
SIZES = {"1 kB": KB, "1 MB": MB, "100 MB": 100 * MB}


@contextmanager
def shared_memory_peer(size: int) -> Iterator[tuple[Work, Work, int]]:
    """As much into a shared block as there is, a byte to say so, and the other process makes bytes of it; and back."""
    ours, theirs = socket.socketpair()
    block = SharedMemory(create=True, size=size)
    view = block.buf
    assert view is not None
    data = b"\x5a" * size

    def serve() -> None:
        ours.close()
        while order := theirs.recv(1):
            if order == b"t":
                bytes(view[:size])
            else:
                view[:size] = data
            theirs.send(b"d")

    def put() -> None:
        view[:size] = data
        ours.send(b"t")
        ours.recv(1)

    def get() -> bytes:
        ours.send(b"g")
        ours.recv(1)
        return bytes(view[:size])

    try:
        with ours, process(serve) as pid:
            theirs.close()
            yield put, get, pid
    finally:
        block.close()
        block.unlink()


def rate_of(work: Work, size: int) -> Callable[[], float]:
    """Gives the rate in GB/s of a round."""
    count = times_a_round(work)
    return lambda: size * count / sum(sample(work, count)) / GB


def measure(
    session: Session, label: str, size: int, floors: tuple[Callable[[int], Work], ...], pids: list[int], rounds: int
) -> list[Row]:
    data = b"\x5a" * size
    block = bytearray(data)
    send, fetch = floors
    session.call("keep", size=size)

    def copy() -> None:
        block[:] = data

    with shared_memory_peer(size) as (put, get, peer_pid), placed([*pids, peer_pid], TWO_CORES):
        works: dict[str, tuple[Work, Work, Work]] = {
            "in": (send(size), partial(session.call, "take", {"data": data}), put),
            "out": (fetch(size), partial(session.call, "give"), get),
        }
        rows = []
        for way, (floor, own, peer) in works.items():
            rates = {"socket": floor, "warmpool": own, "shared memory": peer, "copy": copy}
            given = in_turns({name: rate_of(work, size) for name, work in rates.items()}, rounds)
            rows += _rows(f"{label} {way}", given, of_copy=size >= 100 * MB)
    return rows


def _rows(label: str, given: dict[str, list[float]], *, of_copy: bool) -> list[Row]:
    ratio, note = against(given["socket"], given["warmpool"])
    rows = [
        Row(f"{label}: plain socket", statistics.median(given["socket"]), unit="GB/s"),
        Row(label, statistics.median(given["warmpool"]), ratio, note, "GB/s", at_least=None if of_copy else 0.7),
    ]
    if of_copy:
        ratio, note = against(given["copy"], given["warmpool"])
        rows.append(Row(f"{label}: of one memcpy", statistics.median(given["copy"]), ratio, note, "GB/s", at_least=0.5))
    ratio, note = against(given["socket"], given["shared memory"])
    rows.append(Row(f"{label}: shared memory", statistics.median(given["shared memory"]), ratio, note, "GB/s"))
    return rows


def main() -> None:
    options = arguments(__doc__, rounds=7)
    rows = []
    with (
        bytes_floor() as (send, fetch, floor_pids),
        daemon() as client,
        client.session(str(APPS / "payloads.py")) as session,
    ):
        pids = [session.info().pid, *floor_pids]
        for label, size in SIZES.items():
            rows += measure(session, label, size, (send, fetch), pids, options.rounds)
    report("Bytes in and out, of a plain socket's rate", rows)


if __name__ == "__main__":
    main()
