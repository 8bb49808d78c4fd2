"""What a suite of 100 tests costs that need something which takes 2 seconds to set up.

Four suites, each a run of pytest of its own: a plain fixture per test; one per module, which the tests share; primed
sessions, a fresh and isolated copy per test; and primed sessions of a daemon that has stayed warm from a run before.
The setup waits instead of working, so that it is 2 seconds on every machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Row, arguments, report

SETUP_SECONDS = 2.0

APP = f"""
import time
from warmpool import BaseApp

class Table(BaseApp):
    def setup(self):
        time.sleep({SETUP_SECONDS})
        self.rows = list(range(10_000))

    def put(self, index: int, value: int) -> int:
        self.rows[index] = value
        return sum(self.rows[:3])
"""

PLAIN = """
import pytest
from table import Table

@pytest.fixture(scope="{scope}")
def table():
    table = Table()
    table.setup()
    return table

@pytest.mark.parametrize("turn", range({tests}))
def test_it(table, turn):
    assert table.put(turn, -1) is not None
"""

PRIMED = """
import pytest
from table import Table

@pytest.mark.parametrize("turn", range({tests}))
def test_it(warmpool_session, turn):
    table = warmpool_session(Table, primed=True)
    assert table.call("put", index=0, value=-1) == 2
"""


def main() -> None:
    tests = arguments(__doc__, tests=100).tests
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "pytest.ini").write_text("[pytest]\n")
        (directory / "table.py").write_text(APP)
        for file, text in {
            "test_per_test.py": PLAIN.format(scope="function", tests=tests),
            "test_per_module.py": PLAIN.format(scope="module", tests=tests),
            "test_primed.py": PRIMED.format(tests=tests),
        }.items():
            (directory / file).write_text(text)
        socket = directory / "daemon.sock"
        rows = {"plain fixture, each test its own": run(directory, "test_per_test.py")}
        rows["plain fixture, one per module, shared"] = run(directory, "test_per_module.py")
        rows["primed sessions, isolated"] = run(directory, "test_primed.py")
        try:
            run(directory, "test_primed.py", f"--warmpool-socket={socket}")
            rows["the same, second run on a warm daemon"] = run(
                directory, "test_primed.py", f"--warmpool-socket={socket}"
            )
        finally:
            subprocess.run([sys.executable, "-m", "warmpool", "stop", "--socket", str(socket)], check=True)
    slowest = max(rows.values())
    report(
        f"{tests} tests that need a setup of {SETUP_SECONDS:g} s",
        [Row(name, seconds, slowest / seconds, "times as fast", "s") for name, seconds in rows.items()],
    )


def run(directory: Path, *arguments: str) -> float:
    """Seconds that a whole run of pytest took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", *arguments]
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
