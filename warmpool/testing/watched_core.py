"""Which sessions a test's client has had to do with, and which of them it has made: over either kind of core."""

from __future__ import annotations

import os
from contextlib import suppress

from ..client.core import Core, L
from ..client.requests import RunRequest
from ..errors import NameTakenError
from ..wire.messages import NEW


class WatchedCore(Core[L]):
    """What a core is mixed with, for that to be known."""

    def __init__(self, socket: str | os.PathLike[str] | None, *, autostart: bool) -> None:
        super().__init__(socket, autostart=autostart)
        self.met: dict[str, bool] = {}
        """By their ids the sessions that it has been connected to, and whether it has made them."""

    async def open_link(self, request: RunRequest) -> L:
        """As a core does it. Where one may be made or attached to, it is tried to make one first: the answer does not
        tell which of the two it was.
        """
        if request.if_exists == "attach":
            with suppress(NameTakenError):
                return await self.open_link(request._replace(if_exists=None))
        link = await super().open_link(request)
        if link.opened.session_id is not None:
            self.met.setdefault(link.opened.session_id, request.session == NEW and request.if_exists != "attach")
        return link
