"""`with warmpool.embedded(apps=[…]) as client:` a daemon for this block, and a client with a test's powers over it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..client.requests import Data, app_reference
from ..client.sync import Client, Session
from ..client.sync_calls import CallLink
from ..client.sync_core import SyncCore
from ..errors import InvalidRequestError
from ..paths import working_directory
from ..wire.references import PRIMED
from .clock import Clock
from .owned import OwnedDaemon, references_of
from .watched_core import WatchedCore

if TYPE_CHECKING:
    from .embedded_async import AsyncTestingClient


def _id_of(session: Session | str) -> str:
    return session if isinstance(session, str) else session.id


def primed(app: str | type) -> str:
    """Names an app so that its `setup` runs once, in its template: each session begins with a copy of what that has
    made, in milliseconds. `client.session(primed("counter"))` is `client.session("counter#primed")`. Memory is
    copied, and nothing else: files, sockets and child processes that `setup` opens would be shared.
    """
    reference, _ = app_reference(app, working_directory())
    return reference if reference.endswith(PRIMED) else reference + PRIMED


class _WatchedSyncCore(WatchedCore[CallLink], SyncCore):
    pass


class TestingClient(Client):
    """A client of a daemon that was started for tests. Each of these returns when its consequences are settled."""

    _core_kind = _WatchedSyncCore
    _core: _WatchedSyncCore
    __test__ = False  # no test case, whatever pytest thinks of its name

    def __init__(self, socket: str | os.PathLike[str], *, autostart: bool = False) -> None:
        super().__init__(socket, autostart=autostart)
        self.clock = Clock(self.request)

    @property
    def opened(self) -> set[str]:
        """Ids of the sessions that this client has opened: not of those that it has only attached to."""
        return {id for id, is_made in list(self._core.met.items()) if is_made}

    def kill_worker(self, session: Session | str) -> Data:
        """SIGKILL, as the kernel does when memory is short: the session is lost. Gives its info."""
        return Data(self.request("testing.kill_worker", session_id=_id_of(session)))

    def expire_now(self, session: Session | str) -> Data:
        """As if its window were over. INVALID_REQUEST while a call runs: that holds it open. Gives its info."""
        return Data(self.request("testing.expire_now", session_id=_id_of(session)))

    def hang_next_call(self, session: Session | str) -> None:
        """The next call never returns, whatever it calls: it has to be cancelled, timed out, or killed."""
        self.request("testing.hang_next_call", session_id=_id_of(session))

    def lose_template(self, app: str | type) -> None:
        """Kills the process from which workers of this app are made. Sessions go on; the next open makes it again."""
        cwd = working_directory()
        self.request("testing.lose_template", app=app_reference(app, cwd)[0], cwd=cwd)

    @contextmanager
    def fill_pool(self) -> Iterator[None]:
        """Inside of the block no worker is free: an open waits for `open_timeout`, then it is POOL_EXHAUSTED."""
        was_full = self.request("testing.fill_pool")["was_full"]
        try:
            yield
        finally:
            if not was_full:
                self.request("testing.free_pool")


class embedded:  # noqa: N801  (used as a function: `with embedded() as client`)
    """A daemon that lives as long as the block, and no longer than this process, however that dies.

    `apps` are classes, paths, or directories of apps; others can be used as well, by path or class. `log`: a file
    for the daemon's log and what apps print. `settings` are those of `warmpool serve`, as `max_workers=4`.
    """

    def __init__(
        self,
        apps: Sequence[str | os.PathLike[str] | type] = (),
        *,
        log: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self._apps = apps
        self._log = log
        self._settings = settings
        self._daemon: OwnedDaemon | None = None
        self._client: TestingClient | None = None
        self._async_client: AsyncTestingClient | None = None

    def __enter__(self) -> TestingClient:
        self._check_free()
        self._daemon = OwnedDaemon(self._apps, self._settings, self._log)
        self._client = TestingClient(self._daemon.places.socket)
        return self._client

    def __exit__(self, *_: object) -> None:
        assert self._client is not None
        assert self._daemon is not None
        self._client.close()
        self._daemon.stop()
        self._daemon = None

    def _check_free(self) -> None:
        if self._daemon is not None:
            raise InvalidRequestError("this has its daemon already: make another with warmpool.embedded()")

    async def __aenter__(self) -> AsyncTestingClient:
        from asyncio import to_thread

        from .embedded_async import AsyncTestingClient

        self._check_free()
        self._daemon = await to_thread(OwnedDaemon, self._apps, self._settings, self._log)
        self._async_client = AsyncTestingClient(self._daemon.places.socket)
        return self._async_client

    async def __aexit__(self, *_: object) -> None:
        from asyncio import to_thread

        assert self._async_client is not None
        assert self._daemon is not None
        await self._async_client.close()
        await to_thread(self._daemon.stop)
        self._daemon = None


@contextmanager
def lasting(
    socket: str | os.PathLike[str], apps: Sequence[str | os.PathLike[str] | type] = ()
) -> Iterator[TestingClient]:
    """A client of the daemon on this socket, which is started if none runs, and lives on. Its apps are loaded now, if
    they are not yet. It is not a test's alone, so its time cannot be moved, nor its processes broken.
    """
    with TestingClient(socket, autostart=True) as client:
        client.request("apps.serve", apps=references_of(apps))
        yield client
