"""Runs every benchmark and writes what came of it to RESULTS.md, with pictures beside it in `plots/`.

With names it runs only these and keeps the rest as it was: each benchmark's tables are kept in `results.json`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from plots import Bar, bars, curves

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
STORE = HERE / "results.json"
PLOTS = HERE / "plots"
ORDER = (
    "peers", "call", "steps", "jitter", "stream", "map", "payloads", "parallel", "open", "burst", "preload",
    "idle_memory", "many", "idle", "wheel", "cold", "load", "model", "test_suite", "virtual_time", "floors",
)  # fmt: skip
PACKAGES = ("uvloop", "msgpack", "pydantic", "psutil")
GIB = 1024**3

Table = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(there())}")
    chosen = parser.parse_args().names or there()
    store = json.loads(STORE.read_text()) if STORE.exists() else {}
    failed: list[str] = []
    for name in chosen:
        print(f"{name} …", end=" ", flush=True)
        started = time.monotonic()
        try:
            store[name] = run(name)
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"FAILED with status {error.returncode};", end=" ")
        print(f"{time.monotonic() - started:.0f} s", flush=True)
        STORE.write_text(json.dumps(store, indent=1) + "\n")
    write(store)
    if failed:
        sys.exit(f"failed, and left as before: {', '.join(failed)}")


def there() -> list[str]:
    return [name for name in ORDER if (HERE / f"{name}.py").exists()]


def run(name: str) -> dict[str, Any]:
    """Its tables, and under what they came to be. Raises if it fails."""
    facts = machine()
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), "--json"], stdout=subprocess.PIPE, check=True, text=True, cwd=HERE
    )
    tables = [json.loads(line) for line in done.stdout.splitlines()]
    return {"machine": facts, "tables": tables}


def machine() -> dict[str, str]:
    packages = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / GIB:.0f} GiB",
        "system": f"Linux {platform.release()}, {platform.python_implementation()} {platform.python_version()}",
        "packages": packages,
        "load": f"load {os.getloadavg()[0]:.1f} when it began",
        "warmpool": revision(),
    }


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(none)"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def revision() -> str:
    """Which code was measured, where git can tell."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)
    return f"{version('warmpool')} ({done.stdout.strip() or 'no repository'})"


# --- writing --------------------------------------------------------------------------------------------------


def write(store: dict[str, Any]) -> None:
    PLOTS.mkdir(exist_ok=True)
    names = [name for name in there() if name in store]
    parts = ["# Results", "", HEAD, "", *summary(store, names)]
    for name in names:
        parts += section(name, store[name])
    RESULTS.write_text("\n".join(parts) + "\n")
    print(f"written: {RESULTS}")


HEAD = """\
Written by `python benchmarks/report.py`; each part by the benchmark that it is named after, which alone prints the same
(`python benchmarks/call.py`). Ratios are medians of rounds in which a thing and what it is divided by were measured in
turns, so they mean more than the figures beside them. A *floor* is what two Python processes can do at best with none
of warmpool's semantics (`floors.py`). The *bar* is what was hoped for; it is for the ratio, where there is one."""


def summary(store: dict[str, Any], names: list[str]) -> list[str]:
    """All that has a bar, in one table."""
    lines = ["## What was hoped for", "", "| | measured | bar | |", "|---|---:|---:|---|"]
    for name in names:
        for table in store[name]["tables"]:
            for row in table["rows"]:
                if row["verdict"]:
                    met, bar = row["verdict"].split(": ")
                    lines.append(
                        f"| [{name}](#{name}): {table['title']}: {row['name']} | {judged(row)} | {bar} | {met} |"
                    )
    return [*lines, ""]


def judged(row: Table) -> str:
    return f"{figure(row['value'])} {row['unit']}" if row["ratio"] is None else f"{figure(row['ratio'])}×"


def section(name: str, result: dict[str, Any]) -> list[str]:
    parts = [f"## {name}", "", question_of(name), ""]
    for number, table in enumerate(result["tables"]):
        parts += [f"**{table['title']}**", "", *rows_of(table), ""]
        picture = draw(table)
        if picture is not None:
            path = PLOTS / f"{name}{number or ''}.svg"
            path.write_text(picture)
            parts += [f"![{table['title']}](plots/{path.name})", ""]
    facts = result["machine"]
    return [*parts, f"<sub>{'; '.join(facts.values())}</sub>", ""]


def question_of(name: str) -> str:
    """The head of its file."""
    return ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""


def rows_of(table: Table) -> list[str]:
    lines = ["| | | | ratio | bar | |", "|---|---:|---|---:|---|---|"]
    for row in table["rows"]:
        ratio = "" if row["ratio"] is None else f"{figure(row['ratio'])}×"
        cells = (row["name"], figure(row["value"]), row["unit"].replace("us", "µs"), ratio, row["verdict"], row["note"])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def figure(value: float) -> str:
    """Three figures that count, and all of a large number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw(table: Table) -> str | None:
    if table["plot"] is not None:
        return curves(x=table["plot"]["x"], y=table["plot"]["y"], lines=table["plot"]["curves"])
    rows = [row for row in table["rows"] if row["ratio"] is not None]
    if len(rows) < 2:
        return None
    return bars([Bar(row["name"], row["ratio"], row["at_most"] or row["at_least"], met(row)) for row in rows])


def met(row: Table) -> bool | None:
    return row["verdict"].startswith("met") if row["verdict"] else None


if __name__ == "__main__":
    main()
