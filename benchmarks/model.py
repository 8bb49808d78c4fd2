"""What does it save to keep a model warm? Time: against a process that loads it and answers once, and against a bare
call within such a process. Memory: ten sessions against ten such processes.

The model, and what is asked of it, are those of `examples/apps/model_inference.py`, here and there: a process that
stands alone imports the same file and calls the same methods. All have answered once before their memory is read.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from daemon import daemon
from harness import Row, arguments, report, sample
from memory import children, shared_out

from warmpool import Client, Session
from warmpool.footprint import footprint_of

APP = Path(__file__).parent.parent / "examples" / "apps" / "model_inference.py"
CONTENT = APP.read_bytes()
ROUNDS = 9
COUNT = 10
MIB = 1024 * 1024

ALONE = """
import sys
from model_inference import ModelInference, PredictInput

ModelInference.preload()
app = ModelInference()
for path in sys.stdin:
    print(app.predict(PredictInput(path=path.strip())).model_dump_json(), flush=True)
"""


@contextmanager
def alone() -> Iterator[subprocess.Popen[str]]:
    """A process of its own that has loaded the model and answered once."""
    command = [sys.executable, "-c", ALONE]
    with subprocess.Popen(command, cwd=APP.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        ask(process)
        yield process
        process.communicate()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    print(APP, file=process.stdin, flush=True)
    return process.stdout.readline()


def cold() -> None:
    with alone():
        pass


def open_and_call(client: Client, sessions: ExitStack) -> Session:
    """Ends with `sessions`, which is not part of the time."""
    session = sessions.enter_context(client.session(str(APP)))
    session.call("predict", content=CONTENT)
    return session


def times(client: Client) -> dict[str, float]:
    """Medians in seconds, measured in turns."""
    taken: dict[str, list[float]] = {}
    with alone() as process, client.session(str(APP)) as session, ExitStack() as opened:
        works = {
            "cold: a process imports, loads, answers": (cold, 1),
            "a new session, with its first call": (lambda: open_and_call(client, opened), 1),
            "a warm call": (lambda: session.call("predict", content=CONTENT), COUNT),
            "the same in a process of its own": (lambda: ask(process), COUNT),
        }
        for _ in range(ROUNDS):
            for name, (work, count) in works.items():
                taken.setdefault(name, []).append(statistics.median(sample(work, count)))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def memory(client: Client) -> dict[str, dict[str, float]]:
    """MiB of ten processes, and of all that the daemon has running for ten sessions."""
    with ExitStack() as stack:
        processes = [stack.enter_context(alone()).pid for _ in range(COUNT)]
        of_processes = weigh(processes)
    with ExitStack() as stack:
        for _ in range(COUNT):
            open_and_call(client, stack)
        of_sessions = weigh(children(client.status()["pid"]))
    return {"ten processes": of_processes, "ten sessions, template, a warm worker": of_sessions}


def weigh(pids: Sequence[int]) -> dict[str, float]:
    """PSS counts a page that n processes share as an nth for each; private pages are those that nobody shares."""
    return {"pss": shared_out(pids) / MIB, "private": sum(footprint_of(pid).private for pid in pids) / MIB}


def main() -> None:
    arguments(__doc__)
    with daemon() as client:
        client.session(str(APP)).end()
        taken, weights = times(client), memory(client)
    first = next(iter(taken.values()))
    rows = [Row(name, seconds * 1e3, first / seconds, "times as fast", "ms") for name, seconds in taken.items()]
    report(f"Time to a prediction, medians of {ROUNDS} rounds", rows)
    first = weights["ten processes"]["pss"]
    rows = [
        Row(name, mib["pss"], mib["pss"] / first, f"{mib['private']:.0f} MiB of it private", "MiB")
        for name, mib in weights.items()
    ]
    report("Memory, all together (PSS)", rows)


if __name__ == "__main__":
    main()
