"""Results on stdout: one JSON document, or a table for people."""

from __future__ import annotations

import json
import math
import sys
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..client.sync import Client

_FRAMES: Final = 4096
"""For a value as deep as msgpack carries it, which is 1024: two of Python's a level."""


def print_json(value: Any) -> None:
    """One document. What JSON does not have: bytes become base64, NaN and infinity null, keys their text."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _FRAMES))
    is_unicode = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    sys.stdout.write(json.dumps(_plain(value), ensure_ascii=not is_unicode, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """To people, on stderr. If that takes nothing, the command goes on as if they had heard it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Something that people should know, beside the result."""
    say(f"warmpool: {text}")


def tell_if_started(client: Client) -> None:
    if client.started_daemon:
        tell(f"started a daemon in the background, which leaves after 10 idle minutes; log: {client.places.log}")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A line per row under the columns' names, as wide as the longest cell."""
    cells = [[name.upper().replace("_", " ") for name in columns]]
    cells += [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """A line per field."""
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return _visible(", ".join(f"{key}={item}" for key, item in value.items())) or "-"
    return f"{value:g}" if isinstance(value, float) else _visible(str(value))


def _visible(text: str) -> str:
    """Without what a terminal obeys, or would begin a line with."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return b2a_base64(value, newline=False).decode("ascii")
    return value if isinstance(value, str | int | None) else str(value)


def _key(value: Any) -> str:
    return b2a_base64(value, newline=False).decode("ascii") if isinstance(value, bytes) else str(value)
