"""A session that is held, and the daemon's side of sessions, calls and apps: over either kind of core.

For an async client these are what its user has. A blocking client's user has their faces in `sync`, where each method
is told about.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import suppress
from typing import Any, Self, TypeVar

from ..errors import DaemonUnavailableError, InvalidRequestError, SessionNotFoundError, WarmpoolError
from ..paths import working_directory
from ..wire.messages import NEW, Opened
from .connections import FORKED
from .core import AnyCallLink, Core
from .requests import (
    Data,
    Page,
    RunRequest,
    app_reference,
    call_arguments,
    call_timeout,
    function_name,
    labels_or_none,
    map_window,
)
from .streams import AsyncStream, Served, map_over

A = TypeVar("A")


class AsyncSession(Served):
    """A session that is held. `await` it, `open()` it, or enter it; leaving it ends it if it was opened here, and only
    lets go of it if it was attached to. Not closed by garbage collection: it expires by its own window.
    """

    def __init__(self, core: Core[Any], request: RunRequest) -> None:
        self.link: Any = None
        """The connection for calls. None: a stream has it, or it is not open."""
        self._core = core
        self._reasons = core.readers.reasons()
        self._request = request
        self._opened: Opened | None = None
        self._is_ours = request.session == NEW and request.if_exists != "attach"
        self._turns = core.turns()

    def __repr__(self) -> str:
        if self._opened is None:
            return f"<{type(self).__name__} of {self._request.app}, not open>"
        return f"<{type(self).__name__} {self.id} {self.app}@{self.version}>"

    @property
    def opened(self) -> Opened:
        if self._opened is None:
            raise InvalidRequestError("the session is not open yet: await its open(), or enter it by `async with`")
        return self._opened

    @property
    def id(self) -> str:
        session_id = self._known_id or self.opened.session_id
        assert session_id is not None
        return session_id

    @property
    def _known_id(self) -> str | None:
        """Also of one that is to be attached to, and is not connected yet."""
        if self._opened is not None:
            return self._opened.session_id
        return None if self._request.session == NEW else self._request.session

    # --- holding ----------------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """As `Session.open`, awaited."""
        link = self.link  # once: another thread may borrow it meanwhile
        if self._opened is None or link is None or link.broken is not None:
            await self._reopen()
        return self

    async def close(self) -> None:
        """As `Session.close`, awaited."""
        if self._opened is None or self._core.broken is FORKED:
            return  # a child leaves the block; the session is the parent's
        if self._is_ours:
            with suppress(DaemonUnavailableError, SessionNotFoundError):  # it is over, and its daemon with it
                await self.end()
        self._let_go()

    async def end(self, *, force: bool = False) -> Data:
        """As `Session.end`, awaited."""
        info = await AsyncSessions(self._core).end(self.id, force=force)
        self._let_go()
        return info

    def __await__(self) -> Generator[Any, None, Self]:
        return self.open().__await__()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self.close()
        else:
            with suppress(WarmpoolError):
                await self.close()

    def _let_go(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()

    async def _reopen(self) -> AnyCallLink:
        """The link that others use too; a new one if there is none, or a broken one."""
        self._core.check()
        async with self._turns:
            link: AnyCallLink | None = self.link
            if link is None or link.broken is not None:
                request = self._request if self._opened is None else RunRequest(session=self.id)
                link = await self._core.open_link(request)
                if self._opened is None:
                    self._opened = link.opened
                self.link = link
            return link

    async def _borrow(self) -> AnyCallLink:
        """A link for oneself alone: ours, if nobody uses it."""
        if self._opened is None:
            await self._reopen()
        self._core.readers.refuse(self.id)
        link: AnyCallLink | None
        link, self.link = self.link, None  # first: interrupted in between, ours must not be left seized
        if link is not None:
            if link.seize():
                return link
            self.link = link
        link = await self._core.open_link(RunRequest(session=self.id))
        link.seize()
        return link

    def _give_back(self, link: AnyCallLink) -> None:
        """If there is another by now, this one is let go: it closes itself when no other thread has it any more."""
        link.release()
        if self.link is None and link.broken is None:
            self.link = link

    # --- calls ------------------------------------------------------------------------------------------------

    async def call(
        self,
        function: Any = None,
        input: Any = None,
        /,
        *,
        timeout: float | None = None,
        timeout_seconds: float | None = None,
        **fields: Any,
    ) -> Any:
        """As `Session.call`, awaited."""
        if fields or (function is not None and type(function) is not str):
            function, input = call_arguments(function, input, fields)
        if timeout is not None or timeout_seconds is not None:
            timeout = call_timeout(timeout, timeout_seconds)
        if self._reasons:
            self._core.readers.refuse(self._known_id)
        return await self._core.perform(function, input, timeout, self.link, self._reopen)

    def stream(
        self,
        function: Any = None,
        input: Any = None,
        /,
        *,
        timeout: float | None = None,
        timeout_seconds: float | None = None,
        **fields: Any,
    ) -> AsyncStream:
        """As `Session.stream`."""
        function, input = call_arguments(function, input, fields)
        call = RunRequest(function=function, input=input, timeout=call_timeout(timeout, timeout_seconds))
        return AsyncStream(self._core, call, self._borrow, self._give_back)

    def map(self, function: str | None, inputs: Iterable[Any], *, window: int = 64) -> AsyncGenerator[Any, None]:
        """As `Session.map`."""
        source = iter(inputs)
        return map_over(self._core, self._borrow, self._give_back, function_name(function), source, map_window(window))

    def proxy(self, app: type[A]) -> A:
        """As `Session.proxy`."""
        from .proxy import proxy_of

        return proxy_of(app, self)

    async def cancel(self, *, force: bool = False) -> Data:
        """As `Session.cancel`, awaited."""
        return await AsyncCalls(self._core).cancel(self.id, force=force)

    # --- the daemon's side ------------------------------------------------------------------------------------

    async def info(self) -> Data:
        """As `Session.info`, awaited."""
        return await AsyncSessions(self._core).get(self.id)

    async def why(self) -> Data:
        """As `Session.why`, awaited."""
        return await AsyncSessions(self._core).why(self.id)

    def logs(self, *, follow: bool = False) -> AsyncGenerator[str, None]:
        """As `Session.logs`."""
        return AsyncSessions(self._core).logs(self.id, follow=follow)

    async def keepalive(self) -> Data:
        """As `Session.keepalive`, awaited."""
        return await AsyncSessions(self._core).keepalive(self.id)

    async def set_labels(self, labels: Mapping[str, str]) -> Data:
        """As `Session.set_labels`, awaited."""
        return await AsyncSessions(self._core).set_labels(self.id, labels)

    async def get_labels(self) -> dict[str, str]:
        """As `Session.get_labels`, awaited."""
        return await AsyncSessions(self._core).get_labels(self.id)


class AsyncSessions:
    """`client.sessions`. An info answers both `info.status` and `info["status"]`."""

    def __init__(self, core: Core[Any]) -> None:
        self._core = core

    def attach(self, session_id: str) -> AsyncSession:
        """As `Sessions.attach`."""
        if not isinstance(session_id, str) or session_id in ("", NEW):
            raise InvalidRequestError("attach needs the id of a session")
        return AsyncSession(self._core, RunRequest(session=session_id))

    async def get(self, session_id: str, *, memory: bool = False) -> Data:
        """As `Sessions.get`, awaited."""
        return Data(await self._core.request("sessions.get", session_id=session_id, memory=memory))

    async def list(
        self,
        *,
        app: str | os.PathLike[str] | type | None = None,
        status: str | None = None,
        labels: Mapping[str, str] | None = None,
        name_prefix: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page:
        """As `Sessions.list`, awaited."""
        found = await self._core.request(
            "sessions.list", **({} if app is None else _named(app)),
            status=status, labels=labels, name_prefix=name_prefix, limit=limit, cursor=cursor,
        )  # fmt: skip
        return Page(found)

    async def keepalive(self, session_id: str) -> Data:
        """As `Sessions.keepalive`, awaited."""
        return Data(await self._core.request("sessions.keepalive", session_id=session_id))

    async def end(self, session_id: str, *, force: bool = False) -> Data:
        """As `Sessions.end`, awaited."""
        info = Data(await self._core.request("sessions.end", session_id=session_id, force=force))
        self._core.kept.let_go(session_id)
        return info

    async def set_labels(self, session_id: str, labels: Mapping[str, str]) -> Data:
        """As `Sessions.set_labels`, awaited."""
        checked = labels_or_none(labels)
        if checked is None:
            raise InvalidRequestError("set_labels needs a dict of labels; {} removes them all")
        return Data(await self._core.request("sessions.set_labels", session_id=session_id, labels=checked))

    async def get_labels(self, session_id: str) -> dict[str, str]:
        """As `Sessions.get_labels`, awaited."""
        return dict((await self.get(session_id)).labels)

    async def why(self, session_id: str) -> Data:
        """As `Sessions.why`, awaited."""
        story = Data(await self._core.request("sessions.why", session_id=session_id))
        return Data(story, entries=[Data(entry) for entry in story.entries])

    async def logs(self, session_id: str, *, follow: bool = False) -> AsyncGenerator[str, None]:
        """As `Sessions.logs`."""
        offset, rest = 0, ""
        while True:
            answer = await self._core.request("sessions.logs", session_id=session_id, offset=offset, wait=follow)
            offset = answer["offset"]
            if answer["lost"]:
                yield f"({answer['lost']} bytes of the log before this are gone)"
            *lines, rest = (rest + answer["text"]).split("\n")
            for line in lines:
                yield line
            if answer["end"] or not (follow or answer["text"]):
                break
        if rest:
            yield rest


class AsyncCalls:
    """`client.calls`."""

    def __init__(self, core: Core[Any]) -> None:
        self._core = core

    async def cancel(self, session_id: str, call_id: int | None = None, *, force: bool = False) -> Data:
        """As `Calls.cancel`, awaited."""
        told = await self._core.request("calls.cancel", session_id=session_id, call_id=call_id, force=force)
        return Data(told)


class AsyncApps:
    """`client.apps`."""

    def __init__(self, core: Core[Any]) -> None:
        self._core = core

    async def list(self) -> list[Data]:
        """As `Apps.list`, awaited."""
        return [Data(app) for app in await self._core.request("apps.list")]

    async def get(self, app: str | os.PathLike[str] | type) -> Data:
        """As `Apps.get`, awaited."""
        return Data(await self._core.request("apps.get", **_named(app)))

    async def describe(self, app: str | os.PathLike[str] | type) -> builtins.list[Data]:
        """As `Apps.describe`, awaited."""
        return [Data(function) for function in await self._core.request("apps.describe", **_named(app))]


def _named(app: object) -> dict[str, str]:
    """An app as it is told to the daemon, and from where it is seen."""
    cwd = working_directory()
    return {"app": app_reference(app, cwd)[0], "cwd": cwd}
