"""The blocking client: sessions to hold, and the daemon to talk to.

    with Client() as client, client.session("counter", session_timeout=300) as session:
        session.call("add", amount=2)

A call goes straight to the session's worker. When that connection breaks, the daemon is asked what became of the
session, and its answer is the error: so an expired session is never mistaken for a lost one.
"""

from __future__ import annotations

import builtins
import os
import socket
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import closing
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self

from ..errors import (
    AppBrokenWarning,
    DaemonUnavailableError,
    InvalidRequestError,
    SessionError,
    WarmpoolError,
    WorkerLostError,
)
from ..paths import Places
from .autostart import start_daemon
from .links import FORKED, CallLink, ControlLink, HangupError, belongs_here, connect
from .requests import NEW, Data, RunRequest, app_reference, call_arguments, run_request, run_result

_KEPT_LINKS: Final = 256
"""Connections that `run` keeps for sessions that it has used; the longest unused one goes first."""


class Client:
    """The way to a daemon. Thread-safe; connects when it is first used. After a fork, make a new one."""

    def __init__(self, socket: str | os.PathLike[str] | None = None, *, autostart: bool = True) -> None:
        """`socket`: of the daemon, else `$WARMPOOL_SOCKET`, else the user's default one. With `autostart` a daemon
        is started in the background if none runs.
        """
        self.places = Places.of(socket)
        self.sessions = Sessions(self)
        self.apps = Apps(self)
        self.started_daemon = False
        """Whether this client has started one."""
        self._autostart = autostart
        self._lock = Lock()
        self._control: ControlLink | None = None
        self._links: OrderedDict[str, tuple[CallLink, set[str]]] = OrderedDict()
        self._opened: weakref.WeakSet[CallLink] = weakref.WeakSet()
        self.broken: str | None = None
        """Why it cannot be used, if it cannot."""
        belongs_here(self)

    def __repr__(self) -> str:
        return f"<Client {self.places.socket} {self.broken or 'open'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Sessions live on until they are ended or expire."""
        with self._lock:
            self.broken = self.broken or "closed"
            control, self._control = self._control, None
            self._links.clear()
        for link in [control, *self._opened]:
            if link is not None:
                link.close()

    # --- calls ------------------------------------------------------------------------------------------------

    def run(self, params: Mapping[str, Any] = {}, /, **overrides: Any) -> Data:
        """One call: `{"app", "function", "input", "session", "session_timeout", "open_timeout", "labels"}`, as a dict,
        as keywords, or both.

        `session` is "new", the id of a session, or absent for a call without one. Gives `session_id`, `output`,
        `app`, `version` and `worker_id`. An error of the call leaves the session alive; its id is on the exception.
        """
        request = run_request(params, overrides, os.getcwd())
        if request.session is not None and request.session != NEW:
            return self._run_in_session(request, request.session)
        link = self.open_link(request)
        session_id = link.opened.session_id
        if session_id is not None:
            self._keep(session_id, link, request.app)
        try:
            return run_result(link.opened, link.call(request.function, request.input))
        except HangupError as hangup:
            raise self.explain(session_id, hangup) from None
        finally:
            if session_id is None:
                link.close()

    def session(
        self,
        app: str,
        *,
        session_timeout: float | None = None,
        open_timeout: float | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Session:
        """Opens a session. As a context manager it is ended on the way out."""
        given = {"session_timeout": session_timeout, "open_timeout": open_timeout, "labels": labels}
        request = run_request({"app": app, "session": NEW}, given, os.getcwd())
        return Session(self, self.open_link(request))

    def _run_in_session(self, request: RunRequest, session_id: str) -> Data:
        """Over the kept connection, if the daemon has agreed to this app on it; else over a new one."""
        link = self._kept(session_id, request.app)
        while True:
            fresh = link is None
            if link is None:
                link = self.open_link(request)
                self._keep(session_id, link, request.app)
            try:
                return run_result(link.opened, link.call(request.function, request.input))
            except HangupError as hangup:
                self._forget(session_id, link)
                if fresh or hangup.sent:
                    raise self.explain(session_id, hangup) from None
                link = None  # it broke while it was unused: the daemon knows why, or hands us over again

    def _kept(self, session_id: str, app: str | None) -> CallLink | None:
        with self._lock:
            link, agreed = self._links.get(session_id, (None, set[str]()))
            if link is not None:
                self._links.move_to_end(session_id)
            return link if app is None or app in agreed else None

    def _keep(self, session_id: str, link: CallLink, app: str | None) -> None:
        """For the next call of this session. A link that is replaced may be in the middle of another thread's call:
        it closes itself when nobody has it any more.
        """
        with self._lock:
            _, agreed = self._links.pop(session_id, (None, set[str]()))
            self._links[session_id] = link, agreed | ({app} if app is not None else set())
            if len(self._links) > _KEPT_LINKS:
                self._links.popitem(last=False)

    def _forget(self, session_id: str, link: CallLink) -> None:
        with self._lock:
            if self._links.get(session_id, (None,))[0] is link:
                del self._links[session_id]

    # --- the daemon -------------------------------------------------------------------------------------------

    def status(self) -> Data:
        """The daemon's pid, files, uptime and counts."""
        return Data(self.request("daemon.status"))

    def stop(self) -> int:
        """Stops the daemon and everything in it; gives its pid, which may live for some seconds more."""
        self._autostart = False
        return int(self.request("daemon.stop")["pid"])

    def request(self, method: str, **params: Any) -> Any:
        """One control request, once more over a new connection if the old one has broken."""
        try:
            return self._control_link().request(method, params)
        except HangupError:
            pass
        try:
            return self._control_link().request(method, params)
        except HangupError:
            raise DaemonUnavailableError(
                f"the daemon at {self.places.socket} hangs up; see {self.places.log}"
            ) from None

    def open_link(self, request: RunRequest) -> CallLink:
        """A connection to a worker: one that is passed to the daemon, which saves it a hello and an accept. If that is
        not answered (the daemon is another by now, or out of descriptors) nothing has happened: once more, knocking at
        the door.
        """
        hello = request.hello(os.getcwd())
        is_new = request.session in (None, NEW)  # any other session is gone with its daemon: why start another
        try:
            link = CallLink(self._control_link(start=is_new).pass_connection(hello))
        except HangupError:
            try:
                link = CallLink(self._connect(start=is_new), hello)
            except HangupError as hangup:
                raise self.explain(request.session if request.session != NEW else None, hangup) from None
        self._opened.add(link)
        if link.opened.notice:
            warnings.warn(link.opened.notice, AppBrokenWarning, stacklevel=3)
        return link

    def explain(self, session_id: str | None, hangup: HangupError) -> WarmpoolError:
        """The error that a broken connection means. Waits for a dying worker's exit status."""
        if session_id is None:
            return WorkerLostError("the worker died; a call that was under way may or may not have had its effects")
        try:
            with closing(ControlLink(self._connect(start=False))) as control:
                control.request("sessions.get", {"session_id": session_id, "settle": True})
            CallLink(self._connect(start=False), RunRequest(None, None, None, session_id).hello("/")).close()
        except SessionError as error:
            return error
        except (DaemonUnavailableError, HangupError):
            return DaemonUnavailableError(
                f"the daemon is gone, and session {session_id} with it; see {self.places.log}", session_id=session_id
            )
        return WorkerLostError(
            f"the connection to session {session_id} broke, though the session lives: try again, "
            "and note that the call may have had its effects",
            session_id=session_id,
        )

    def _control_link(self, *, start: bool = True) -> ControlLink:
        with self._lock:
            if self._control is None or (self._control.broken is not None and self.broken is None):
                self._control = ControlLink(self._connect(start=start))
            return self._control

    def _connect(self, *, start: bool = True) -> socket.socket:
        """A fresh connection; to a daemon that is started for it, if that is wanted."""
        if self.broken is not None:
            raise InvalidRequestError(f"this client cannot be used: {self.broken}")
        try:
            return connect(self.places)
        except DaemonUnavailableError:
            if not (start and self._autostart):
                raise
        if start_daemon(self.places, self._is_running):
            self.started_daemon = True
        return connect(self.places)

    def _is_running(self) -> bool:
        try:
            connect(self.places).close()
        except DaemonUnavailableError:
            return False
        return True


class Session:
    """A session that is held. Not closed by garbage collection: it expires by its own window."""

    def __init__(self, client: Client, link: CallLink) -> None:
        assert link.opened.session_id is not None
        self._client = client
        self._link = link
        self.id: str = link.opened.session_id
        self.app: str = link.opened.app
        self.version: str = link.opened.version
        self.worker_id: str = link.opened.worker_id

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.app}@{self.version}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client.broken is FORKED:
            return  # a child leaves the block; the session is the parent's
        try:
            self.end()
        except WarmpoolError:
            if kind is None:
                raise

    def call(self, function: Any = None, input: Any = None, /, **fields: Any) -> Any:
        """Calls a function and gives its output: `call("add", {"amount": 1})`, `call("add", amount=1)`, or
        `call({...})` for the app's default function.

        Raises APP_ERROR and the like if it fails, which the session survives, and a SessionError if the session is
        over.
        """
        if fields or (function is not None and type(function) is not str):
            function, input = call_arguments(function, input, fields)
        try:
            return self._link.call(function, input)
        except HangupError as hangup:
            return self._call_again(function, input, hangup)

    def _call_again(self, function: str | None, input: Any, hangup: HangupError) -> Any:
        """The call did not leave: over a new connection, if the session still lives."""
        if hangup.sent:
            raise self._client.explain(self.id, hangup) from None
        self._link = self._client.open_link(RunRequest(None, None, None, self.id))
        try:
            return self._link.call(function, input)
        except HangupError as second:
            raise self._client.explain(self.id, second) from None

    def info(self) -> Data:
        return self._client.sessions.get(self.id)

    def keepalive(self) -> Data:
        """Slides the window without a call."""
        return self._client.sessions.keepalive(self.id)

    def end(self) -> Data:
        """Ends the session and returns when its worker is gone. No error if it is over already."""
        info = self._client.sessions.end(self.id)
        self._link.close()
        return info


class Sessions:
    """`client.sessions`. An info answers both `info.status` and `info["status"]`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, session_id: str) -> Data:
        """Raises SESSION_NOT_FOUND. Looking does not slide the window."""
        return Data(self._client.request("sessions.get", session_id=session_id))

    def list(self, *, all: bool = False) -> list[Data]:
        """The open sessions, newest first; with `all` also those that are over and remembered."""
        status = "all" if all else "active"
        return [Data(info) for info in self._client.request("sessions.list", status=status, limit=1000)["sessions"]]

    def keepalive(self, session_id: str) -> Data:
        """Slides the window without a call."""
        return Data(self._client.request("sessions.keepalive", session_id=session_id))

    def end(self, session_id: str) -> Data:
        """Ends a session; returns when its worker is gone."""
        return Data(self._client.request("sessions.end", session_id=session_id))


class Apps:
    """`client.apps`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[Data]:
        """The apps that the daemon knows by name, and how they fare."""
        return [Data(app) for app in self._client.request("apps.list")]

    def get(self, app: str) -> Data:
        """How one app fares, where it lies and under which Python it runs. Does not load it."""
        cwd = os.getcwd()
        reference, _ = app_reference(app, cwd)
        return Data(self._client.request("apps.get", app=reference, cwd=cwd))

    def describe(self, app: str) -> builtins.list[Data]:
        """The functions of an app, with their JSON schemas. Loads it if need be."""
        cwd = os.getcwd()
        reference, _ = app_reference(app, cwd)
        return [Data(function) for function in self._client.request("apps.describe", app=reference, cwd=cwd)]
