"""Which warmpool this is, for all floors of the house."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
