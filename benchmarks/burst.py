"""A burst: a hundred opens at once, when the template is there and no worker is. Of the rate at which a process like
that template can be forked twice, which is the least that a worker needs.

Fair is what is served in the order in which it came: then the nth of a hundred waits n hundredths of the whole.
"""

from __future__ import annotations

import importlib
import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from daemon import PLAIN, daemon, wait_until_warm
from floors import double_fork_floor
from harness import Row, against, arguments, report

from warmpool.client.bells import Bells
from warmpool.client.connections import Passed
from warmpool.constants import CONTROL_FRAME_LIMIT
from warmpool.wire.frames import FrameReader, FrameWriter
from warmpool.wire.messages import CONTROL_ANSWERS, PROTOCOL_VERSION, Control, Open, Opened
from warmpool.wire.shapes import from_wire, to_wire

ROUNDS = 5


def import_as_a_template_does() -> None:
    importlib.import_module("warmpool.worker.template")
    importlib.import_module("apps.plain")


def burst(path: Path, count: int) -> tuple[list[str], list[float]]:
    """The sessions that were opened, and the seconds after which each was: in the order of asking."""
    ids, waited = [""] * count, [0.0] * count
    pack = FrameWriter(CONTROL_FRAME_LIMIT).frame
    with socket.socket(socket.AF_UNIX) as control, ExitStack() as given:
        control.connect(str(path))
        control.sendall(pack(to_wire(Control(PROTOCOL_VERSION))))
        passed = Passed(control, Bells())
        reader = FrameReader(CONTROL_FRAME_LIMIT)
        start = time.perf_counter()
        for number in range(count):
            control.sendall(pack(to_wire(Open(number + 1, PLAIN, "new", "/", 60.0))))
        for _ in range(count):
            opened = _hear(reader, passed)
            given.enter_context(passed.take())
            waited[opened.id - 1] = time.perf_counter() - start
            ids[opened.id - 1] = str(opened.session_id)
    return ids, waited


def _hear(reader: FrameReader, passed: Passed) -> Opened:
    frame = None
    while frame is None:
        frame = reader.read(passed.receive_into)
    answer = from_wire(frame, CONTROL_ANSWERS)
    assert isinstance(answer, Opened), answer
    return answer


def out_of_turn(waited: list[float]) -> int:
    """By how many places one was served later than it had come, at most."""
    served = sorted(range(len(waited)), key=waited.__getitem__)
    return max(place - number for place, number in enumerate(served))


def main() -> None:
    options = arguments(__doc__, opens=100)
    count = options.opens
    forks, opens, firsts, places = [], [], [], []
    with (
        daemon("--warm", "0") as client,
        double_fork_floor(import_as_a_template_does, count) as (fork_all, _),
    ):
        client.session(PLAIN).end()
        for _ in range(ROUNDS):
            wait_until_warm(client, 0)
            forks.append(count / fork_all())
            ids, waited = burst(client.places.socket, count)
            opens.append(count / max(waited))
            firsts.append(min(waited) * 1e3)
            places.append(out_of_turn(waited))
            for session_id in ids:
                client.sessions.end(session_id)
    ratio, note = against(forks, opens)
    report(
        f"A burst of {count} opens on a template without workers",
        [
            Row("double forks", statistics.median(forks), unit="/s"),
            Row("opens", statistics.median(opens), ratio, note, unit="/s", at_least=0.4),
            Row("the first is served after", statistics.median(firsts), unit="ms"),
            Row("served out of turn", max(places), note="at most, of any open of any round", unit="places", at_most=2),
        ],
    )


if __name__ == "__main__":
    main()
