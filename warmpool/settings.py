"""What `warmpool serve` can be told, checked once. (Apart from `constants`, since no client needs it.)"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

from .checks import check_number
from .constants import LOG_CAP_MIN, MIB, OPEN_TIMEOUT_MAX
from .errors import InvalidRequestError


def _setting(default: float, low: float, high: float) -> Any:
    """With its bounds, both included."""
    return field(default=default, metadata={"bounds": (low, high)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Raises INVALID_REQUEST on a value out of bounds."""

    max_workers: int = _setting(256, 1, 100_000)
    """Live worker processes of all apps together. Idle ones cost memory, not CPU."""
    warm: int = _setting(1, 0, 10_000)
    """Workers kept ready for an app that has been used; an app's own `warm` comes first."""
    min_free_bytes: int = _setting(256 * MIB, 0, 2**50)
    """No worker is forked while the machine has less memory available than this."""
    open_timeout: float = _setting(30.0, 0, OPEN_TIMEOUT_MAX)
    """Seconds that an open waits in line when the client does not say."""
    start_timeout: float = _setting(300.0, 1, 86_400)
    """Seconds that an app's import and `preload`, and again its `setup`, may take."""
    call_frame_limit: int = _setting(16 * MIB, 1024, 2**31 - 1)
    """Bytes of the largest call or result in the stream of a connection."""
    call_memory_limit: int = _setting(1024 * MIB, 0, 2**31 - 1)
    """Bytes of the largest call or result at all: what is too large for the stream is passed as memory."""
    log_cap: int = _setting(10 * MIB, LOG_CAP_MIN, 2**40)
    """Bytes of a session's log. On disk it takes twice as many at most; the oldest are lost."""
    app_idle_timeout: float = _setting(600.0, 1, 86_400)
    """Seconds without a session after which an app's template and warm workers are let go."""
    idle_exit: float = _setting(0.0, 0, 86_400 * 30)
    """Seconds without a session or a request after which the daemon leaves; 0: never."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = check_number(one.name, getattr(self, one.name), *BOUNDS[one.name])
            if one.type == "int" and value != int(value):
                raise InvalidRequestError(f"{one.name} must be a whole number, not {value!r}")


BOUNDS: Final[dict[str, tuple[float, float]]] = {one.name: one.metadata["bounds"] for one in fields(Settings)}
