"""Where in an app its code runs. Clients ask, which an app may have: a call of the very session that is in a call would
wait for itself.
"""

from __future__ import annotations

from collections.abc import Callable


def nowhere() -> str | None:
    """In a process that is no worker, or whose worker is another."""
    return None


session_of_call: Callable[[], str | None] = nowhere
"""The session in whose call the code is that asks; None outside of calls. A worker puts its own in place of this."""
