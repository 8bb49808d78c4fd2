"""What `warmpool serve` can be told, checked once. (Apart from `constants`, since no client needs it.)"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from .checks import check_number
from .constants import LOG_CAP_MIN, MIB, OPEN_TIMEOUT_MAX
from .errors import InvalidRequestError

BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "max_workers": (1, 100_000),
    "warm": (0, 10_000),
    "min_free_bytes": (0, 2**50),
    "open_timeout": (0, OPEN_TIMEOUT_MAX),
    "start_timeout": (1, 86_400),
    "call_frame_limit": (1024, 2**31 - 1),
    "call_memory_limit": (0, 2**31 - 1),
    "log_cap": (LOG_CAP_MIN, 2**40),
    "app_idle_timeout": (1, 86_400),
    "idle_exit": (0, 86_400 * 30),
}
"""Of each setting, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `warmpool serve` can be told. Raises INVALID_REQUEST on a value out of bounds."""

    max_workers: int = 256
    """Live worker processes of all apps together. Idle ones cost memory, not CPU."""
    warm: int = 1
    """Workers kept ready for an app that has been used; an app's own `warm` comes first."""
    min_free_bytes: int = 256 * MIB
    """No worker is forked while the machine has less memory available than this."""
    open_timeout: float = 30.0
    """How long an open waits in line when the client does not say."""
    start_timeout: float = 300.0
    """How long an app's import and `preload`, and again its `setup`, may take."""
    call_frame_limit: int = 16 * MIB
    """Largest call or result in the stream of a connection."""
    call_memory_limit: int = 1024 * MIB
    """Largest call or result at all: what is too large for the stream is passed as memory."""
    log_cap: int = 10 * MIB
    """Bytes of a session's log. On disk it takes twice as many at most; the oldest are lost."""
    app_idle_timeout: float = 600.0
    """An app without sessions for so long gives back its template and warm workers."""
    idle_exit: float = 0.0
    """The daemon leaves after this time without a session or a request; 0: never."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = check_number(field.name, getattr(self, field.name), *BOUNDS[field.name])
            if field.type == "int" and value != int(value):
                raise InvalidRequestError(f"{field.name} must be a whole number, not {value!r}")
