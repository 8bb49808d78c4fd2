"""Where a template and the zygote begin: with what must come before all imports."""

from __future__ import annotations

from .atfork import leave_out_where_alone

leave_out_where_alone()

from .template import main as main  # noqa: E402, PLC0414
from .zygote import main as zygote  # noqa: E402, F401
