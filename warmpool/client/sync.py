"""The blocking client: sessions to hold, and the daemon to talk to.

    with Client() as client, client.session("counter", session_timeout=300) as session:
        session.call("add", amount=2)

A call goes straight to the session's worker. Apart from that, each class here is the face of one that is told in
`sessions` or `streams`, over links that block.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from ..paths import Places, working_directory
from ..wire.messages import Opened
from .connections import HangupError
from .core import finish
from .requests import Data, Page, SessionOptions, call_arguments, run_request, session_request
from .sessions import AsyncApps, AsyncCalls, AsyncSession, AsyncSessions
from .streams import AsyncStream, Served, stream_of
from .sync_core import SyncCore, drive

A = TypeVar("A")


class Client:
    """The way to a daemon. Thread-safe; connects when it is first used. After a fork, make a new one."""

    _core_kind = SyncCore

    def __init__(self, socket: str | os.PathLike[str] | None = None, *, autostart: bool = True) -> None:
        """`socket`: of the daemon, else `$WARMPOOL_SOCKET`, else the user's default one. With `autostart` a daemon
        is started in the background if none runs.
        """
        self._core = self._core_kind(socket, autostart=autostart)
        self.sessions = Sessions(self._core)
        self.calls = Calls(self._core)
        self.apps = Apps(self._core)

    def __repr__(self) -> str:
        return f"<Client {self.places.socket} {self._core.broken or 'open'}>"

    @property
    def places(self) -> Places:
        """Where the daemon's files are: `socket`, `log`, …"""
        return self._core.places

    @property
    def started_daemon(self) -> bool:
        """Whether this client has started one."""
        return self._core.started_daemon

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Sessions live on until they are ended or expire."""
        self._core.close()

    @overload
    def run(self, params: Mapping[str, Any] = ..., /, *, stream: Literal[True], **overrides: Any) -> Stream: ...
    @overload
    def run(self, params: Mapping[str, Any] = ..., /, **overrides: Any) -> Data: ...
    def run(self, params: Mapping[str, Any] = {}, /, **overrides: Any) -> Data | Stream:
        """One call: `{"app", "function", "input", "session", "timeout", "stream"}` and, with `session="new"`, what
        `session` takes; as a dict, as keywords, or both.

        `session` is "new", the id of a session, or absent for a call without one. Gives `session_id`, `output`,
        `app`, `version` and `worker_id`; with `stream=True` a Stream. An error of the call leaves the session alive;
        its id is on the exception.
        """
        request = run_request(params, overrides, working_directory())
        if request.stream:
            return Stream(stream_of(self._core, request)).begin()
        return finish(self._core.run(request))

    def stream(self, params: Mapping[str, Any] = {}, /, **overrides: Any) -> Stream:
        """As `run` with `stream=True`, but it begins when it is first asked for an event, and not at the beginning of a
        `with` block: the handler of a signal could raise before that is entered.
        """
        return Stream(stream_of(self._core, run_request(params, overrides, working_directory())))

    def session(self, app: str | os.PathLike[str] | type, **options: Unpack[SessionOptions]) -> Session:
        """Opens a session of an app, given by its name, its path or its class. As a context manager it is ended on the
        way out.
        """
        return Session(self._core, AsyncSession(self._core, session_request(app, options, working_directory())))

    @contextmanager
    def proxy(self, app: type[A], **options: Unpack[SessionOptions]) -> Iterator[A]:
        """A session that looks like an instance of the app's class, for the length of a `with` block."""
        with self.session(app, **options) as session:
            yield session.proxy(app)

    def request(self, method: str, **params: Any) -> Any:
        """One control request, for what has no method of its own."""
        return finish(self._core.request(method, **params))

    def status(self) -> Data:
        """The daemon's pid, files, uptime and counts."""
        return Data(finish(self._core.request("daemon.status")))

    def stop(self) -> int:
        """Stops the daemon and everything in it; gives its pid, which may live for some seconds more. This client does
        not start another.
        """
        return finish(self._core.stop_daemon())


class Session(Served):
    """A session that is held. Not closed by garbage collection: it expires by its own window."""

    def __init__(self, core: SyncCore, twin: AsyncSession) -> None:
        self._core = core
        self._readers, self._reasons = core.readers, core.readers.reasons()
        self._twin = finish(twin.open())
        self.id: str = twin.id

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.app}@{self.version}>"

    @property
    def opened(self) -> Opened:
        """As it was told, when it was opened or attached to."""
        return self._twin.opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *how: object) -> None:
        finish(self._twin.__aexit__(*how))

    def open(self) -> Self:
        """Connects again, if it is not connected; raises what has become of the session if it is over."""
        finish(self._twin.open())
        return self

    def close(self) -> None:
        """As leaving the `with` block: ends a session that was opened here; one that was attached to, or opened with
        `if_exists="attach"`, it lets go of.
        """
        finish(self._twin.close())

    def end(self, *, force: bool = False) -> Data:
        """Ends the session and returns when its worker is gone. No error if it is over already. A call that runs is
        cancelled; with `force` it is killed at once.
        """
        return finish(self._twin.end(force=force))

    def call(
        self,
        function: Any = None,
        input: Any = None,
        /,
        *,
        timeout: float | None = None,
        timeout_seconds: float | None = None,
        **fields: Any,
    ) -> Any:
        """Calls a function and gives its output: `call("add", {"amount": 1})`, `call("add", amount=1)`, or
        `call({...})` for the app's default function. The output of a generator is the last item.

        Raises APP_ERROR and the like if it fails, which the session survives, and a SessionError if the session is
        over. After `timeout` seconds the call is cancelled: CALL_TIMEOUT. (An input that has a field `timeout` goes as
        a dict.)
        """
        link = self._twin.link
        if link is None or timeout is not None or timeout_seconds is not None:
            slow = self._twin.call(function, input, timeout=timeout, timeout_seconds=timeout_seconds, **fields)
            return finish(slow)
        if self._reasons:
            self._readers.refuse(self.id)
        if fields or type(function) is not str:
            function, input = call_arguments(function, input, fields)
        try:
            return link.call(function, input)
        except HangupError as hangup:
            if hangup.sent:
                raise finish(self._core.explain(self.id)) from None
        except BaseException:
            self._core.tell_interrupted(link)
            raise
        return finish(self._twin.call(function, input))  # it did not leave

    def stream(
        self,
        function: Any = None,
        input: Any = None,
        /,
        *,
        timeout: float | None = None,
        timeout_seconds: float | None = None,
        **fields: Any,
    ) -> Stream:
        """As `call`, but tells what happens on the way: the items of a generator, progress, log lines."""
        twin = self._twin.stream(function, input, timeout=timeout, timeout_seconds=timeout_seconds, **fields)
        return Stream(twin).begin()

    def map(self, function: str | None, inputs: Iterable[Any], *, window: int = 64) -> Generator[Any, None, None]:
        """The outputs of a call for each input, in order, as they come. Up to `window` calls are under way at once, so
        that the ways there and back overlap. The first error by position is raised, and ends it.
        """
        return drive(self._twin.map(function, inputs, window=window))

    def proxy(self, app: type[A]) -> A:
        """The session, looking like an instance of its app's class: methods, completion and types are the app's own."""
        from .proxy import proxy_of

        return proxy_of(app, self)

    def cancel(self, *, force: bool = False) -> Data:
        """Cancels the call that runs now, whoever has made it; with `force` its worker is killed, and the session over
        with it, if it does not stop at once. Gives `call_id` and `state`.
        """
        return finish(self._twin.cancel(force=force))

    def info(self) -> Data:
        """What is known of it, and was when it is over: `status`, `end_reason`, `busy`, `call_count`, `created_at`,
        `last_call_at`, `expires_at` (ISO 8601 with UTC), `session_timeout` (seconds), `app`, `version`, `worker_id`,
        `pid`, `labels` and more. Does not slide the window.
        """
        return finish(self._twin.info())

    def why(self) -> Data:
        """What has happened to it, as `Sessions.why` tells."""
        return finish(self._twin.why())

    def logs(self, *, follow: bool = False) -> Generator[str, None, None]:
        """The lines of its log; with `follow` until it is over."""
        return drive(self._twin.logs(follow=follow))

    def keepalive(self) -> Data:
        """Slides the window without a call."""
        return finish(self._twin.keepalive())

    def set_labels(self, labels: Mapping[str, str]) -> Data:
        """Replaces the session's labels."""
        return finish(self._twin.set_labels(labels))

    def get_labels(self) -> dict[str, str]:
        """The session's labels, as they are by now."""
        return finish(self._twin.get_labels())


class Stream(Served):
    """The events of one call, as they come: an iterator, and a context manager that closes it.

    Each event has `type`, `number` and `time`: `output` events have an `output`, `progress` events `done`, `total` and
    `message`, `log` events `level`, `logger` and `message`; `done` is the last one, with what the function returned as
    `output`, or `error`, after which the exception is raised. Closing it early stops the function.
    """

    def __init__(self, twin: AsyncStream) -> None:
        self._twin = twin

    def __repr__(self) -> str:
        return repr(self._twin).replace("Async", "", 1)

    def begin(self) -> Self:
        """Begins, if it has not."""
        finish(self._twin.begin())
        return self

    @property
    def has_begun(self) -> bool:
        """Whether it is known who serves it: `session_id`, `app`, `version` and `worker_id`."""
        return self._twin.has_begun

    @property
    def session_id(self) -> str | None:
        return self._twin.session_id

    @property
    def opened(self) -> Opened:
        """As it was told. Raises INVALID_REQUEST before it has begun."""
        return self._twin.opened

    @property
    def output(self) -> Any:
        """What the function returned; None before the end."""
        return self._twin.output

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Data:
        try:
            return finish(self._twin.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        finish(self._twin.leave(error))

    def close(self) -> None:
        """Nothing more is wanted: a generator is closed, its `finally` runs."""
        self._twin.close_now()


class Sessions:
    """`client.sessions`. An info answers both `info.status` and `info["status"]`."""

    def __init__(self, core: SyncCore) -> None:
        self._core = core
        self._twin = AsyncSessions(core)

    def attach(self, session_id: str) -> Session:
        """A session that lives already, of this process or another, to be held: leaving it does not end it."""
        return Session(self._core, self._twin.attach(session_id))

    def get(self, session_id: str, *, memory: bool = False) -> Data:
        """Raises SESSION_NOT_FOUND. Looking does not slide the window. With `memory` it is measured how many bytes
        are the worker's alone (`private_bytes`) and how many it shares (`shared_bytes`).
        """
        return finish(self._twin.get(session_id, memory=memory))

    def list(
        self,
        *,
        app: str | os.PathLike[str] | type | None = None,
        status: str | None = None,
        labels: Mapping[str, str] | None = None,
        name_prefix: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page:
        """A page of sessions, newest first, of at most `limit` (100), of this `app`, primed or not, with all of
        `labels`. `status`: "active", which is the default, "ended", "expired" or "all". Give the page's `cursor` for
        the next one. What `on_end` returned (`end_value`) only `get` tells.
        """
        return finish(
            self._twin.list(app=app, status=status, labels=labels, name_prefix=name_prefix, limit=limit, cursor=cursor)
        )

    def keepalive(self, session_id: str) -> Data:
        """Slides the window without a call."""
        return finish(self._twin.keepalive(session_id))

    def end(self, session_id: str, *, force: bool = False) -> Data:
        """Ends a session; returns when its worker is gone. A call that runs is cancelled; with `force` it is killed."""
        return finish(self._twin.end(session_id, force=force))

    def set_labels(self, session_id: str, labels: Mapping[str, str]) -> Data:
        """Replaces the session's labels."""
        return finish(self._twin.set_labels(session_id, labels))

    def get_labels(self, session_id: str) -> dict[str, str]:
        """A session's labels."""
        return finish(self._twin.get_labels(session_id))

    def why(self, session_id: str) -> Data:
        """What has happened to a session, and the last lines of its log: `entries` have `time`, `text` and `count`."""
        return finish(self._twin.why(session_id))

    def logs(self, session_id: str, *, follow: bool = False) -> Generator[str, None, None]:
        """The lines of a session's log; with `follow` until it is over."""
        return drive(self._twin.logs(session_id, follow=follow))


class Calls:
    """`client.calls`."""

    def __init__(self, core: SyncCore) -> None:
        self._twin = AsyncCalls(core)

    def cancel(self, session_id: str, call_id: int | None = None, *, force: bool = False) -> Data:
        """Cancels a call, or the one that runs now. Gives its `call_id` and what it was found to be: "running";
        "waiting", if another one runs or none, so that it will not be run if it is yet to come; or "idle", if none was
        named and none runs.
        """
        return finish(self._twin.cancel(session_id, call_id, force=force))


class Apps:
    """`client.apps`."""

    def __init__(self, core: SyncCore) -> None:
        self._twin = AsyncApps(core)

    def list(self) -> list[Data]:
        """The apps that the daemon knows by name, and how they fare."""
        return finish(self._twin.list())

    def get(self, app: str | os.PathLike[str] | type) -> Data:
        """How one app fares, where it lies and under which Python it runs. Does not load it."""
        return finish(self._twin.get(app))

    def describe(self, app: str | os.PathLike[str] | type) -> builtins.list[Data]:
        """The functions of an app, with their JSON schemas. Loads it if need be."""
        return finish(self._twin.describe(app))
