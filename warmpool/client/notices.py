"""What the daemon has to say of an app to whoever opens a session of it: a warning at the user's own line."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from ..errors import AppBrokenWarning


def warn(notice: str) -> None:
    """Raises the warning where warnings are errors."""
    warnings.warn(notice, AppBrokenWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """How far up the first frame is that is not warmpool's, `warn` being 1: others stand on the client, as the fixtures
    of tests. A client's context manager is entered by way of contextlib.
    """
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(("warmpool.", "contextlib")):
        frame = frame.f_back
        level += 1
    return level
