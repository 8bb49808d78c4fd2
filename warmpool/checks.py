"""How numbers are checked, and how a value is shown in an error."""

from __future__ import annotations

from .constants import OPEN_TIMEOUT_MAX, SESSION_TIMEOUT_MAX, SESSION_TIMEOUT_MIN
from .errors import InvalidRequestError


def check_number(name: str, value: object, low: float, high: float) -> float:
    """`value` if it is a number within the closed range; else INVALID_REQUEST that names it and the bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidRequestError(f"{name} must be a number from {low:.16g} to {high:.16g}, not {shorten(value)}")
    return value


def check_whole(name: str, value: object, low: int, high: int) -> int:
    """As `check_number`, for a whole one."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequestError(f"{name} must be a whole number from {low} to {high}, not {shorten(value)}")
    return value


def check_session_timeout(value: object) -> float:
    """A sliding window in seconds, 1 to 3600."""
    return float(check_number("session_timeout", value, SESSION_TIMEOUT_MIN, SESSION_TIMEOUT_MAX))


def check_open_timeout(value: object) -> float:
    """How long to wait in line for a worker, in seconds, 0 to 3600."""
    return check_number("open_timeout", value, 0, OPEN_TIMEOUT_MAX)


def shorten(value: object) -> str:
    """A value in an error's text. Never the repr of a container: it may be deeper than Python can go."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of many digits"
    if isinstance(value, str | int | float | bytes | None):
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return f"a {type(value).__name__}"
