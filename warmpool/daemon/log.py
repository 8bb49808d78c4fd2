"""The daemon's log: a line for people, or one JSON document, per event, on stderr.

One write per line and no more: a line is written while a client's first call is on its way.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

Log = Callable[[str], None]

_STDERR: Final = 2


def text_log(text: str) -> None:
    _write(f"{time.strftime('%H:%M:%S')} {text}")


def json_log(text: str) -> None:
    _write(json.dumps({"time": round(time.time(), 6), "message": text}))


def _write(line: str) -> None:
    with suppress(OSError):  # a full disk or a closed terminal must not decide over leases
        os.write(_STDERR, f"{line}\n".encode(errors="replace"))
