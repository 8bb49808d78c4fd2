"""The floors of the house: imports go down only, the pure parts stay pure, and no part loads more than it needs.

`packets` and `board` stand on `wire`'s side of `policy`, which may know the messages that it sends; a worker's `runner`
stands on `app` and `signatures`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from support import ROOT

PACKAGE = ROOT / "warmpool"
LONGEST = 400
"""Lines of a module. What grows past that is split by reason."""
LONGEST_FUNCTION = 50

FLOORS: Final[tuple[frozenset[str], ...]] = tuple(
    map(
        frozenset,
        (
            ["activity", "errors", "facts", "current_call", "version"],
            ["constants", "descriptors", "paths", "launch", "handshake", "lock", "discovery"],
            ["checks", "footprint"],
            ["board", "settings", "wire"],
            ["packets"],
            ["memfd", "outbox"],
            ["policy", "app", "methods"],
            ["inputs"],
            ["signatures"],
            ["daemon", "worker", "client"],
            ["testing"],
            ["cli", "pytest_plugin"],
            ["__init__", "__main__"],
        ),
    )
)
"""From the ground up. A part may import what is on a floor below, and itself; never a neighbour on its own floor."""

STRANGERS: Final = {
    ("signatures", "policy"),
    ("daemon", "app"),
    ("daemon", "inputs"),
    ("daemon", "signatures"),
    ("worker", "policy"),
    ("client", "policy"),
    ("client", "app"),
    ("client", "inputs"),
    ("client", "signatures"),
}
"""The first stands above the second, and must not know it all the same: the daemon knows nothing of apps but their
messages, workers and clients decide nothing, and a client does without pydantic.
"""

UPWARDS: Final = {("app", "testing")}
"""`BaseApp.test_client` opens a door to a floor above, which nobody passes who does not call it."""

FORBIDDEN: Final = frozenset(
    {"asyncio", "socket", "select", "threading", "subprocess", "signal", "os", "time", "logging", "random", "secrets"}
)
"""In the pure parts: clock readings, pids and fresh ids are arguments there."""

PURE: Final = ("wire", "policy", "activity", "checks", "constants", "errors", "facts", "settings")
"""They stand on one another, and on nothing else of ours."""

EXEMPT: Final = {("wire/references.py", "os")}
"""`os.path` looks up `~` in the environment, which is the client's business: `posixpath` would do for the rest."""


class Import(NamedTuple):
    path: Path
    line: int
    target: str
    """Dotted, `warmpool` first if it is ours."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.target}"

    @property
    def part(self) -> str:
        """Which part of the package the import stands in."""
        return part_of(self.path)

    @property
    def of_ours(self) -> str | None:
        """Which part of the package it imports."""
        words = self.target.split(".")
        if words[0] != "warmpool":
            return None
        return words[1] if len(words) > 1 else "__init__"


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 30
    return found


def imports_of(path: Path) -> Iterator[Import]:
    """All of them, also those inside functions; those for type checkers too."""
    package = ["warmpool", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import():
                for name in node.names:
                    yield Import(path, node.lineno, name.name)
            case ast.ImportFrom():
                base = package[: len(package) - node.level + 1] if node.level else []
                stem = [*base, *(node.module or "").split(".")] if node.module else base
                for name in node.names:
                    yield Import(path, node.lineno, ".".join([*stem, name.name]))


def floor_of(part: str) -> int:
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def is_allowed(part: str, imported: str) -> bool:
    return (
        part == imported
        or (part, imported) in UPWARDS
        or (floor_of(imported) < floor_of(part) and (part, imported) not in STRANGERS)
    )


def test_every_part_has_its_floor():
    parts = {part_of(path) for path in modules()}
    assert parts == frozenset().union(*FLOORS)


def test_imports_go_down_only():
    wrong = [
        str(one)
        for path in modules()
        for one in imports_of(path)
        if one.of_ours is not None and not is_allowed(one.part, one.of_ours)
    ]
    assert not wrong, "\n".join(["imports that do not go down:", *wrong])


def test_the_pure_parts_know_neither_clock_nor_system():
    wrong = [
        str(one)
        for path in modules()
        if part_of(path) in PURE
        for one in imports_of(path)
        if (one.of_ours is not None and one.of_ours not in PURE)
        or ((name := one.target.split(".")[0]) in FORBIDDEN and (str(path.relative_to(PACKAGE)), name) not in EXEMPT)
    ]
    assert not wrong, "\n".join(["imports that a pure part must not make:", *wrong])


def test_the_rules_find_what_breaks_them():
    assert is_allowed("daemon", "policy")
    assert is_allowed("policy", "wire")
    for part, imported in (("policy", "daemon"), ("daemon", "worker"), ("client", "daemon"), ("wire", "board"),
                           ("policy", "app"), ("signatures", "policy"), ("errors", "constants"), ("client", "__init__")):  # fmt: skip
        assert not is_allowed(part, imported)
    found = {str(one) for one in imports_of(PACKAGE / "policy" / "effects.py")}
    assert any(one.endswith(": warmpool.wire.process_messages.Attach") for one in found)
    assert any(one.endswith(": warmpool.policy.events.Ticket") for one in found)


def test_no_module_is_too_long():
    long = {str(path.relative_to(ROOT)): n for path in modules() if (n := len(path.read_text().splitlines())) > LONGEST}
    assert not long


def test_no_function_is_too_long():
    functions = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in functions.items() if lines > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import warmpool", ["asyncio", "uvloop", "pydantic", "psutil", "msgpack", "socket"]),
        ("import warmpool; warmpool.BaseApp", ["asyncio", "uvloop", "psutil"]),
        ("import warmpool; warmpool.Client", ["pydantic", "asyncio", "uvloop", "psutil"]),
        ("import warmpool; warmpool.WarmpoolError", ["pydantic", "asyncio", "uvloop", "psutil", "msgpack"]),
        ("import warmpool.cli.run", ["pydantic", "asyncio", "uvloop", "psutil"]),
        ("import warmpool.worker.runner, warmpool.worker.template", ["asyncio", "uvloop", "psutil"]),
    ],
)
def test_nobody_loads_what_he_does_not_need(statement: str, unwanted: list[str]):
    script = f"{statement}\nimport sys\nprint(*[name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
