"""Where a template begins: with what must come before all imports."""

from __future__ import annotations

from .atfork import leave_out_where_alone

leave_out_where_alone()

from .template import main as main  # noqa: E402, PLC0414
