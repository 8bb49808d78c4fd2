"""What would one use instead? The same work, a stateful `add` in one other process, done by warmpool and by its peers:
a call; and making what is called, with its first call. What is not installed is skipped (`pip install '.[peers]'`
installs all of them).

Each peer is measured in turns with the call floor and with warmpool, and its ratio is to warmpool in the same round.
The clusters of Ray and Dask are running before, as warmpool's daemon is; only actors are made.
"""

from __future__ import annotations

import importlib.util
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from alternatives import PEERS, Entry, Peer, Work, make_and_call, round_of
from daemon import APPS, daemon
from floors import call_floor
from harness import Row, against, arguments, in_turns, report

from warmpool import Client

INPUT = {"key": "n", "value": 1}
Float = Callable[[], float]
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
    """A peer in a process of its own: asked to `call` or to `make`, it answers with microseconds."""
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


def warmpool_session(client: Client) -> Peer:
    @contextmanager
    def a_session() -> Iterator[Work]:
        with client.session(str(APPS / "plain.py")) as session:
            yield lambda: session.call("add", INPUT)

    return a_session


def measure(entry: Entry, floor: Float, own: Float, session: Peer, rounds: int, makings: int) -> tuple[Rounds, Rounds]:
    """Rounds of calls and of makings."""
    with running(entry) as ask:
        calls = in_turns({"floor": floor, "own": own, "peer": lambda: ask("call")}, rounds)
        made = in_turns({"own": lambda: make_and_call(session), "peer": lambda: ask("make")}, makings)
    return calls, made


def row_of(entry: Entry, given: Rounds, at_least: float | None) -> Row:
    ratio, note = against(given["own"], given["peer"])
    return Row(entry.name, statistics.median(given["peer"]), ratio, f"{note}; {version_of(entry)}", at_least=at_least)


def main() -> None:
    options = arguments(__doc__, rounds=15, makings=5)
    calls: dict[str, Rounds] = {}
    made: dict[str, Rounds] = {}
    peers = installed()
    with daemon("--warm", "4") as client, call_floor() as (floor, _), ExitStack() as stack:
        session = warmpool_session(client)
        works = round_of(floor), round_of(stack.enter_context(session()))
        for entry in peers:
            try:
                calls[entry.name], made[entry.name] = measure(entry, *works, session, options.rounds, options.makings)
            except NoPeerError as error:
                print(f"skipped: {entry.name}: {error}", file=sys.stderr)
    peers = [entry for entry in peers if entry.name in made]
    floors, own, opened = all_of(calls, "floor"), all_of(calls, "own"), all_of(made, "own")
    ratio, note = against(floors, own)
    rows = [
        Row("call floor", statistics.median(floors)),
        Row("warmpool", statistics.median(own), note=f"{ratio:.2f} of the floor, {note}"),
    ]
    report("A warm call (ratios to warmpool's)", rows + [row_of(one, calls[one.name], one.call_bar) for one in peers])
    rows = [Row("warmpool: a session", statistics.median(opened))]
    report(
        "Making one, with its first call (ratios to opening a session)",
        rows + [row_of(one, made[one.name], one.make_bar) for one in peers],
    )


def all_of(given: dict[str, Rounds], name: str) -> list[float]:
    return [value for rounds in given.values() for value in rounds[name]]


if __name__ == "__main__":
    main()
