"""What an app says of itself in its class, checked in the template."""

from __future__ import annotations

from typing import Any

from ..app import BaseApp
from ..checks import shorten
from ..constants import CANCEL_GRACE_MAX, COUNT_MAX, MAX_LIFETIME_MAX


def options_of(app: type[BaseApp]) -> dict[str, Any]:
    """What the daemon needs to know. Raises ValueError that names what cannot be."""
    for option in ("max_calls", "max_private_bytes"):
        _count(app, option, least=1)
    return {
        "warm": _count(app, "warm", least=0),
        "max_workers": _count(app, "max_workers", least=1),
        "cancel_grace": _seconds(app, "cancel_grace", 0.0, CANCEL_GRACE_MAX),
        "max_lifetime": None if app.max_lifetime is None else _seconds(app, "max_lifetime", 0.001, MAX_LIFETIME_MAX),
    }


def _count(app: type[BaseApp], option: str, *, least: int) -> int | None:
    value = getattr(app, option)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= COUNT_MAX):
        return value
    raise ValueError(
        f"{app.__name__}.{option} must be a whole number from {least} to {COUNT_MAX}, or None, not {shorten(value)}"
    )


def _seconds(app: type[BaseApp], option: str, least: float, most: float) -> float:
    value = getattr(app, option)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise ValueError(
        f"{app.__name__}.{option} must be a number of seconds from {least:g} to {most:g}, not {shorten(value)}"
    )
