"""Lists of sessions: which are asked for, and a page of them that stays where it is while others come and go.

Each session has a serial number, so a page is "those before this number": what is opened meanwhile is newer, and what
ends meanwhile leaves no gap that would shift the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import NamedTuple

from ..constants import PAGE_DEFAULT
from ..facts import fact
from ..wire.references import PRIMED
from .sessions import Session


@fact
class Query:
    """`app`: by its name; `app_key`: where it lies. `status` "all": open ones and those that are over. `labels`: all of
    these, with these values.
    """

    app: str | None = None
    app_key: str | None = None
    version: str | None = None
    status: str = "active"
    labels: dict[str, str] = field(default_factory=dict)
    name_prefix: str | None = None
    limit: int = PAGE_DEFAULT
    before: int | None = None

    def matches(self, session: Session) -> bool:
        if self.status not in ("all", session.status):
            return False
        if self.app not in (None, session.app) or self.version not in (None, session.version):
            return False
        if self.app_key is not None and self.app_key != session.app_key.removesuffix(PRIMED):
            return False
        if self.name_prefix is not None and not (session.name or "").startswith(self.name_prefix):
            return False
        return self.labels.items() <= session.labels.items()


class Page(NamedTuple):
    sessions: list[Session]
    total: int
    """How many match, on all pages."""
    before: int | None
    """What to ask the next page with; None: this is the last."""


def page(query: Query, sessions: Iterable[Session]) -> Page:
    """Newest first."""
    found = sorted(filter(query.matches, sessions), key=lambda session: session.serial, reverse=True)
    rest = found if query.before is None else [s for s in found if s.serial < query.before]
    shown = rest[: query.limit]
    return Page(shown, len(found), shown[-1].serial if len(rest) > len(shown) else None)
