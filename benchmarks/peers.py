"""What would one use instead? The same work, a stateful `add` in one other process, done by warmpool and by its peers:
a call; and making what is called, with its first call. What is not installed is skipped (`pip install '.[peers]'`
installs all of them).

Each peer is measured in turns with the call floor and with warmpool, and its ratio is to warmpool in the same round.
For the calls, what is called is on the caller's core first, with all processes that a peer has, and then on another;
what is made is wherever the scheduler puts it. The clusters of Ray and Dask are running before, as warmpool's daemon
is; only actors are made.
"""

from __future__ import annotations

import importlib.util
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from alternatives import MAKE, PEERS, Entry, make_and_call, round_of
from daemon import INPUT, PLAIN, daemon
from floors import call_floor
from harness import PLACEMENTS, Maker, Row, Work, against, arguments, in_turns, report

from warmpool import Client, Session

Calls = Callable[[str], float]
Rounds = dict[str, list[float]]

PROGRAM = Path(__file__).with_name("alternatives.py")


def installed() -> list[Entry]:
    """Says which are not."""
    found = []
    for entry in PEERS:
        if importlib.util.find_spec(entry.module) is None:
            print(f"skipped: {entry.name}: {entry.module} is not installed", file=sys.stderr)
        else:
            found.append(entry)
    return found


def version_of(entry: Entry) -> str:
    try:
        return f"{entry.module} {version(entry.module)}"
    except PackageNotFoundError:
        return "of Python itself"


class NoPeerError(Exception):
    """It could not be started, or broke."""


Ask = Callable[[str], float]


@contextmanager
def running(entry: Entry) -> Iterator[Ask]:
    """A peer in a process of its own, which is asked as `alternatives` says."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, str(PROGRAM), entry.name, str(theirs.fileno())]
    with ours, tempfile.TemporaryFile("w+") as said:
        program = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=said, stderr=said)
        theirs.close()
        lines = ours.makefile("rw")

        def answer() -> str:
            line = lines.readline()
            if not line:
                said.seek(0)
                raise NoPeerError((said.read().splitlines() or ["it died"])[-1])
            return line

        def ask(what: str) -> float:
            print(what, file=lines, flush=True)
            return float(answer())

        try:
            answer()
            yield ask
            ours.shutdown(socket.SHUT_WR)
            program.wait(60)
        finally:
            program.kill()
            program.wait()


def session_of(client: Client) -> Session:
    return client.session(PLAIN)


def calls_of(session: Session) -> Work:
    return lambda: session.call("add", INPUT)


def making(client: Client) -> Maker:
    @contextmanager
    def a_session() -> Iterator[Work]:
        with session_of(client) as session:
            yield calls_of(session)

    return a_session


def measure(entry: Entry, floor: Calls, own: Calls, new: Maker, rounds: int, makings: int) -> dict[str, Rounds]:
    """Rounds of calls, by their placement, and of makings."""
    with running(entry) as ask:
        given = {
            placement: in_turns(
                {name: partial(calls, placement) for name, calls in (("floor", floor), ("own", own), ("peer", ask))},
                rounds,
            )
            for placement in PLACEMENTS
        }
        given[MAKE] = in_turns({"own": lambda: make_and_call(new), "peer": partial(ask, MAKE)}, makings)
    return given


def row_of(entry: Entry, given: Rounds, at_least: float | None) -> Row:
    ratio, note = against(given["own"], given["peer"])
    return Row(entry.name, statistics.median(given["peer"]), ratio, f"{note}; {version_of(entry)}", at_least=at_least)


def main() -> None:
    options = arguments(__doc__, rounds=15, makings=5)
    given: dict[Entry, dict[str, Rounds]] = {}
    with daemon("--warm", "4") as client, call_floor() as (floor, pids), session_of(client) as session:
        pid = session.info().pid
        works = round_of(floor, lambda: pids), round_of(calls_of(session), lambda: [pid])
        new = making(client)
        for entry in installed():
            try:
                given[entry] = measure(entry, *works, new, options.rounds, options.makings)
            except NoPeerError as error:
                print(f"skipped: {entry.name}: {error}", file=sys.stderr)
    for placement in PLACEMENTS:
        rounds = {entry: kinds[placement] for entry, kinds in given.items()}
        ratio, note = against(all_of(rounds, "floor"), all_of(rounds, "own"))
        rows = [
            Row("call floor", statistics.median(all_of(rounds, "floor"))),
            Row("warmpool", statistics.median(all_of(rounds, "own")), note=f"{ratio:.2f} of the floor, {note}"),
        ]
        rows += [row_of(entry, each, entry.call_bar) for entry, each in rounds.items()]
        report(f"A warm call (ratios to warmpool's), {placement}", rows)
    rounds = {entry: kinds[MAKE] for entry, kinds in given.items()}
    rows = [Row("warmpool: a session", statistics.median(all_of(rounds, "own")))]
    rows += [row_of(entry, each, entry.make_bar) for entry, each in rounds.items()]
    report("Making one, with its first call (ratios to opening a session)", rows)


def all_of(rounds: Mapping[Entry, Rounds], name: str) -> list[float]:
    return [value for each in rounds.values() for value in each[name]]


if __name__ == "__main__":
    main()
