"""How a daemon tells whoever started it that clients can connect, or why they cannot."""

from __future__ import annotations

import json
from typing import Final

from .errors import InternalError, WarmpoolError, from_wire

READY: Final = b"ready"


def refusal(error: WarmpoolError) -> bytes:
    """What it says in place of READY."""
    return json.dumps(error.to_wire()).encode()


def error_in(said: bytes, otherwise: str) -> WarmpoolError:
    """The error that was told, or that it died without a word; `otherwise`: where to look then."""
    return from_wire(json.loads(said)) if said else InternalError(f"the daemon did not start{otherwise}")
