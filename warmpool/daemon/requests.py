"""What clients ask of the daemon, opens and control requests: each is checked, then becomes an event for the broker, or
is answered at once from what is known.

A request that waits for more of a log than there is yet is held until there is: a follower asks again from where it
was, so one that reads slowly makes nobody wait and nothing pile up.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

from ..board import Board
from ..checks import check_whole, shorten
from ..constants import PAGE_DEFAULT, PAGE_MAX
from ..errors import InvalidRequestError
from ..paths import Places
from ..policy import events as ev
from ..policy.broker import Broker
from ..policy.history import Entry
from ..policy.listing import Query
from ..policy.sessions import Session, SessionView
from ..settings import Settings
from ..wire.messages import NEW, PROTOCOL_VERSION, Open, Request
from ..wire.references import parse
from .catalog import AppEntry, Catalog
from .clients import Client
from .log import is_written_to
from .parameters import (
    TESTING,
    Handler,
    arguments,
    check_choice,
    check_description,
    check_directory,
    check_if_exists,
    check_labels,
    check_name,
    check_place,
    check_strings,
    check_tags,
    check_timeouts,
    not_for_tests,
    waits_for_itself,
)
from .session_logs import LAST_LINES, Logs
from .views import WallTime, iso, memory_of, present, state_of, summary

_ANY_ID = 2**63 - 1
_STATUSES = ("active", "ended", "expired", "all")


class Requests:
    def __init__(
        self,
        broker: Broker,
        board: Board,
        catalog: Catalog,
        logs: Logs,
        places: Places,
        settings: Settings,
        *,
        report: Callable[[ev.Event], None],
        reply: Callable[[ev.Ticket, object], None],
        imports: Callable[[int, str], bool],
        more: dict[str, Handler],
        wall_time: Callable[[float], float] | None,
    ) -> None:
        """`imports`: whether the process with this pid imports the app with this key. `more`: what tests may ask
        beside; `wall_time` turns lease time into Unix time, where a test can move it.
        """
        self._broker = broker
        self._board = board
        self._catalog = catalog
        self._logs = logs
        self._places = places
        self._settings = settings
        self._report = report
        self._reply = reply
        self._imports = imports
        self._started_at = time.time()
        self._wall_time = wall_time or WallTime(board.now)
        self._methods: dict[str, Handler] = {
            "sessions.get": self._sessions_get,
            "sessions.list": self._sessions_list,
            "sessions.keepalive": self._sessions_keepalive,
            "sessions.end": self._sessions_end,
            "sessions.set_labels": self._sessions_set_labels,
            "sessions.why": self._sessions_why,
            "sessions.logs": self._sessions_logs,
            "calls.cancel": self._calls_cancel,
            "apps.list": self._apps_list,
            "apps.get": self._apps_get,
            "apps.describe": self._apps_describe,
            "apps.serve": self._apps_serve,
            "daemon.status": self._status,
            "daemon.stop": self._stop,
            **more,
        }

    def open(self, ticket: ev.Ticket, client: Client, wish: Open) -> None:
        """Raises the error to answer with."""
        memory_limit = self._settings.call_memory_limit if client.hello and client.hello.takes_memory else 0
        check_place(wish)
        cwd = check_directory(wish.cwd)
        reference = None if wish.app is None else parse(wish.app)
        if wish.session is not None and wish.session != NEW:
            key = None if reference is None else self._catalog.key_of(reference, cwd)
            version = None if reference is None else reference.version
            self._report(ev.AttachRequested(ticket, wish.session, wish.app, key, version, memory_limit))
            return
        if reference is None:
            raise InvalidRequestError("a new session, and a call without a session, need an app")
        entry = self._catalog.resolve(reference, cwd)
        if self._imports(client.pid, entry.key):
            raise waits_for_itself(entry.name)
        window, patience = check_timeouts(wish, self._settings.open_timeout)
        self._report(
            ev.OpenRequested(
                ticket=ticket,
                edition=(self._catalog.primed(entry) if reference.primed else entry).edition(),
                session_id=None if wish.session is None else new_session_id(),
                session_timeout=window,
                open_timeout=patience,
                version=reference.version,
                cwd=cwd,
                labels=check_labels(wish.labels),
                name=check_name(wish.name),
                if_exists=check_if_exists(wish.if_exists, wish.name),
                description=check_description(wish.description),
                tags=check_tags(wish.tags),
                worker=wish.worker,
                opened_by=client.pid,
                memory_limit=memory_limit,
            )
        )

    def handle(self, ticket: ev.Ticket, request: Request) -> None:
        """Raises the error to answer with."""
        self._broker.touch(self._board.now())
        method = self._methods.get(request.method)
        if method is None:
            if request.method.startswith(TESTING):
                raise not_for_tests(request.method)
            raise InvalidRequestError(
                f"there is no method {shorten(request.method)}; there are {', '.join(self._methods)}"
            )
        method(ticket, **arguments(request.method, method, request.params))

    def shown(self, view: SessionView) -> dict[str, Any]:
        return present(view, self._wall_time)

    # --- sessions ---------------------------------------------------------------------------------------------

    def _sessions_get(self, ticket: ev.Ticket, session_id: str, *, settle: bool = False, memory: bool = False) -> None:
        if settle:
            if memory:
                raise InvalidRequestError("sessions.get takes settle or memory, not both")
            self._report(ev.EndAwaited(ticket, session_id))
            return
        session = self._session(session_id)
        used = memory_of(session.pid if session.ended_at is None else None) if memory else {}
        self._reply(ticket, {**self.shown(self._broker.leases.view(session, self._board.now())), **used})

    def _sessions_list(
        self,
        ticket: ev.Ticket,
        app: str | None = None,
        cwd: str = "/",
        status: str | None = None,
        labels: dict[str, str] | None = None,
        name_prefix: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> None:
        check_directory(cwd)
        reference = None if app is None else parse(app)
        is_named = reference is None or not (reference.is_path or reference.is_module)
        query = Query(
            app=reference.target if reference and is_named else None,
            app_key=self._catalog.key_of(reference, cwd) if reference and not is_named else None,
            version=reference and reference.version,
            status=_STATUSES[0] if status is None else check_choice("status", status, _STATUSES),
            labels={} if labels is None else check_labels(labels),
            name_prefix=name_prefix,
            limit=PAGE_DEFAULT if limit is None else check_whole("limit", limit, 1, PAGE_MAX),
            before=_serial(cursor),
        )
        now = self._board.now()
        page = self._broker.leases.page(query, now)
        views = [summary(self._broker.leases.view(session, now), self._wall_time) for session in page.sessions]
        further = None if page.before is None else str(page.before)
        self._reply(ticket, {"sessions": views, "total": page.total, "cursor": further})

    def _sessions_keepalive(self, ticket: ev.Ticket, session_id: str) -> None:
        self._report(ev.KeepaliveRequested(ticket, session_id))

    def _sessions_end(self, ticket: ev.Ticket, session_id: str, *, force: bool = False) -> None:
        self._report(ev.EndRequested(ticket, session_id, force=force))

    def _sessions_set_labels(self, ticket: ev.Ticket, session_id: str, labels: dict[str, str]) -> None:
        self._report(ev.LabelsRequested(ticket, session_id, check_labels(labels)))

    def _sessions_why(self, ticket: ev.Ticket, session_id: str) -> None:
        session = self._session(session_id)
        view = self._broker.leases.view(session, self._board.now())
        entries = session.history.entries()
        if view.status == "active" and view.last_call_at is not None:
            doing = "one runs" if view.busy else "none runs"
            entries.append(Entry(view.last_call_at, f"calls so far: {view.call_count}, {doing}"))
            entries.sort(key=lambda entry: entry.at)
        told = [{"time": iso(self._wall_time(at)), "text": text, "count": times} for at, text, times in entries]
        shown = {"session_id": session.id, "status": view.status, "end_reason": view.end_reason, "entries": told}
        self._logs.catch_up(session.worker_id)
        self._reply(ticket, {**shown, "log": self._logs.last_lines(session.worker_id, LAST_LINES)})

    def _sessions_logs(self, ticket: ev.Ticket, session_id: str, offset: int = 0, *, wait: bool = False) -> None:
        check_whole("offset", offset, 0, _ANY_ID)
        self._logs.answer(ticket, self._session(session_id).worker_id, offset, wait=wait)

    def _session(self, session_id: str) -> Session:
        return self._broker.leases.known(session_id, self._board.now())

    # --- calls ------------------------------------------------------------------------------------------------

    def _calls_cancel(
        self,
        ticket: ev.Ticket,
        session_id: str | None = None,
        worker_id: str | None = None,
        call_id: int | None = None,
        *,
        force: bool = False,
    ) -> None:
        if call_id is not None:
            check_whole("call_id", call_id, 1, _ANY_ID)
        if worker_id is None:
            if session_id is None:
                raise InvalidRequestError("calls.cancel needs session_id, a string; or a worker_id and the call_id")
            self._report(ev.CancelRequested(ticket, session_id, call_id, force))
            return
        if session_id is not None or force:
            raise InvalidRequestError("calls.cancel with a worker_id does not take force, nor a session_id")
        if call_id is None:
            raise InvalidRequestError("calls.cancel with a worker_id needs the call_id: a worker has many callers")
        self._report(ev.StatelessCancelRequested(ticket, worker_id, call_id))

    # --- apps and the daemon ----------------------------------------------------------------------------------

    def _apps_list(self, ticket: ev.Ticket) -> None:
        self._reply(ticket, [self._view_of_app(name, entry) for name, entry in self._catalog.entries()])

    def _apps_get(self, ticket: ev.Ticket, app: str, cwd: str) -> None:
        entry = self._catalog.resolve(parse(app), check_directory(cwd))
        self._reply(ticket, self._view_of_app(entry.name, entry))

    def _view_of_app(self, name: str, entry: AppEntry) -> dict[str, Any]:
        return {
            "name": name,
            "source": entry.file or f"{entry.root} ({entry.module})",
            "python": entry.interpreter.python,
            **state_of(self._broker.fleet.editions.apps.get(entry.key)),
        }

    def _apps_describe(self, ticket: ev.Ticket, app: str, cwd: str) -> None:
        reference = parse(app)
        entry = self._catalog.resolve(reference, check_directory(cwd))
        self._report(ev.DescribeRequested(ticket, entry.edition(), reference.version))

    def _apps_serve(self, ticket: ev.Ticket, apps: list[str]) -> None:
        """As if the daemon had been started with these."""
        entries = self._catalog.serve(check_strings("apps", apps))
        for entry in entries:
            self._report(ev.WarmUpRequested(entry.edition()))
        self._reply(ticket, [entry.name for entry in entries])

    def _status(self, ticket: ev.Ticket) -> None:
        fleet = self._broker.fleet
        states: dict[str, int] = {}
        for worker in fleet.workers.values():
            states[worker.state.value] = states.get(worker.state.value, 0) + 1
        self._reply(
            ticket,
            {
                "pid": os.getpid(),
                "protocol": PROTOCOL_VERSION,
                "socket": str(self._places.socket),
                "log": str(self._places.log) if is_written_to(self._places.log) else None,
                "uptime": round(time.time() - self._started_at, 3),
                "sessions": sum(session.is_open for session in self._broker.leases.live.values()),
                "workers": len(fleet.workers),
                "workers_by_state": states,
                "max_workers": self._settings.max_workers,
                "waiting": len(self._broker.opens.waiting),
                "apps": len(self._catalog.entries()),
            },
        )

    def _stop(self, ticket: ev.Ticket) -> None:
        self._reply(ticket, {"pid": os.getpid()})
        self._report(ev.StopRequested())


def new_session_id() -> str:
    return f"sess_{urlsafe_b64encode(os.urandom(15)).decode()}"


def _serial(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal() or len(cursor) > 18:
        raise InvalidRequestError(f"cursor must be one that a list has given, not {shorten(cursor)}")
    return int(cursor)
