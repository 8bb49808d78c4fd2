"""How soon does an app run that nobody has used yet, or that was just edited? From the wish for a session to the answer
of its first call, of the time that Python takes to start, to import the app and to call it once.

The daemon has loaded another app before: the first of all takes as long as Python does.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path

from daemon import INPUT, PLAIN, daemon
from harness import Row, against, arguments, in_turns, once, report

from warmpool import Client

SOURCE = Path(PLAIN).read_text()
FRESH = f"""
import sys; sys.path.insert(0, {str(Path(PLAIN).parent)!r})
import plain
app = plain.Plain(); app.setup(); app.add(plain.AddInput(**{INPUT!r}))
"""


def fresh() -> None:
    subprocess.run([sys.executable, "-c", FRESH], check=True)


def called(client: Client, app: Path, source: str) -> None:
    """Writes the app, opens a session and calls it."""
    app.write_text(source)
    with client.session(str(app)) as session:
        session.call("add", INPUT)


def main() -> None:
    options = arguments(__doc__, rounds=20)
    numbers = count()
    with tempfile.TemporaryDirectory() as directory, daemon() as client:
        apps = Path(directory)
        called(client, apps / "edited.py", SOURCE)
        works = {
            "python, from its start to its end": fresh,
            "a new app": lambda: called(client, apps / f"new_{next(numbers)}.py", SOURCE),
            "an edit": lambda: called(client, apps / "edited.py", f"{SOURCE}\n# {next(numbers)}\n"),
        }
        given = in_turns({name: partial(once, work) for name, work in works.items()}, options.rounds)
    floor, *others = given
    rows = [Row(floor, statistics.median(given[floor]) * 1e3, unit="ms")]
    for name in others:
        ratio, note = against(given[floor], given[name])
        rows.append(Row(name, statistics.median(given[name]) * 1e3, ratio, note, "ms"))
    report("The first call of an app that has to be loaded", rows)


if __name__ == "__main__":
    main()
