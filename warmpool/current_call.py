"""In which session's call this code runs. A client in an app asks, to refuse a call of that very session: calls run one
at a time, so it would wait for itself.
"""

from __future__ import annotations

from collections.abc import Callable


def outside() -> str | None:
    """In a process that is no worker, or whose worker is another."""
    return None


session: Callable[[], str | None] = outside
"""The session in whose call the code is that asks; None outside of calls. A worker puts its own in place of this."""
