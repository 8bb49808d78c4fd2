"""What the broker says when it says no: the error, in words that tell what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..checks import shorten
from ..errors import (
    AppBrokenError,
    AppMismatchError,
    DaemonUnavailableError,
    InvalidRequestError,
    NameTakenError,
    PoolExhaustedError,
    SessionEndedError,
    SessionError,
    SessionExpiredError,
    SessionNotFoundError,
    VersionMismatchError,
    WorkerLeasedError,
    WorkerLostError,
)
from .pool import Pool, Waiter, Worker
from .sessions import Session


def not_found(session_id: str, named: Session | None = None) -> SessionNotFoundError:
    """`named`: the session that has for its name what was given as an id."""
    if named is None:
        text = f'{session_id[:80]} is not known to this daemon; open one with session="new"'
    else:
        text = f"{session_id[:80]} is a name and no id; the session that has it is {named.id}"
    return SessionNotFoundError(f"session not found: {text}", session_id=session_id)


def over(session: Session) -> SessionError:
    """For whoever wants to use a session that is over."""
    kind: type[SessionError]
    if session.status == "expired":
        kind, text = SessionExpiredError, (
            f"session expired: {session.id} was idle for {session.timeout:g} s; open a new one, with a longer "
            "session_timeout or a keepalive if its pauses are longer"
        )  # fmt: skip
    elif session.end_reason == "worker_lost":
        kind, text = WorkerLostError, (
            f"session ended: {session.id} lost its worker, which {session.end_detail}; "
            "its state is gone, open a new one"
        )  # fmt: skip
    else:
        kind, text = SessionEndedError, f"session ended: {session.id} was ended ({session.end_reason}); open a new one"
    return kind(text, session_id=session.id, details={"end_reason": session.end_reason})


def check_match(session: Session, key: str | None, app: str | None, version: str | None) -> None:
    """Refuses whoever wants this session as one of another app or version. None stands for whatever it has."""
    if key not in (None, session.app_key):
        raise app_mismatch(session, app)
    if version not in (None, session.version):
        raise VersionMismatchError(
            f"session {session.id} runs version {session.version} of app {session.app}, not {version}; "
            f"name {session.app}@{session.version}, {session.app} or no app, or open a session of the other one",
            session_id=session.id,
            details={"version": session.version, "wanted": version},
        )


def app_mismatch(session: Session, wanted: str | None) -> AppMismatchError:
    other = "another one of that name" if wanted == session.app else wanted
    return AppMismatchError(
        f"session {session.id} belongs to app {session.app}, not to {other}; "
        f"name {session.app} or no app, or open a session of the other one",
        session_id=session.id,
        details={"app": session.app, "wanted": wanted},
    )


def version_mismatch(app: str, there: str, wanted: str | None) -> VersionMismatchError:
    return VersionMismatchError(
        f"app {app} is at version {there}, not {wanted}; ask for {app}@{there}, or for {app} to get the newest",
        details={"version": there, "wanted": wanted},
    )


def name_taken(session: Session) -> NameTakenError:
    return NameTakenError(
        f"session {session.id} of app {session.app} has the name {session.name}; take another, end that one, or "
        'attach to it with if_exists="attach" (--if-exists attach)',
        session_id=session.id,
    )


def not_free(worker: Worker) -> WorkerLeasedError:
    holder = None if worker.session is None else worker.session.id
    doing = worker.state.value if holder is None else f"leased to session {holder}"
    return WorkerLeasedError(
        f"worker {worker.id} is {doing}; name one that is free, or none",
        session_id=holder,
        details={"worker": worker.id},
    )


def outdated(worker: Worker) -> InvalidRequestError:
    return InvalidRequestError(
        f"worker {worker.id} has an edition of app {worker.pool.app.name} that another has taken over from; "
        "leave `workers` out to get one of the newest"
    )


def elsewhere(session: Session, wanted: str | None) -> InvalidRequestError:
    return InvalidRequestError(
        f"session {session.id}, which has the name {session.name}, is on worker {session.worker_id}, not on "
        f"{shorten(wanted)}; leave `workers` out to attach to it",
        session_id=session.id,
    )


def no_worker(name: str, app: str) -> InvalidRequestError:
    return InvalidRequestError(f"app {app} has no worker {name[:60]}; leave `workers` out to get any")


def broken(app: str, what: str) -> dict[str, Any]:
    """APP_BROKEN in wire form, where there is no traceback to show."""
    return AppBrokenError(f"app {app} is broken: {what}", details={"message": what}).to_wire()


def with_last_lines(what: str, lines: Sequence[str]) -> str:
    """How a process ended, and what it had written."""
    return "\n  ".join((f"{what}; it wrote last:", *lines)) if lines else what


def no_room(app: str, why: str) -> PoolExhaustedError:
    return PoolExhaustedError(f"app {app} cannot be started for now, ask again: {why}")


def no_room_for_edit(serving: Pool, why: str | None) -> str:
    """For whoever gets the version before an edit that cannot be loaded for now."""
    return f"the last edit of app {serving.app.name} cannot be loaded for now, version {serving.version} serves: {why}"


def notice(serving: Pool, error: dict[str, Any]) -> str:
    """For whoever gets the version before a broken edit."""
    what = f"{error['message']}\n{error['details'].get('traceback', '')}"
    return f"the last edit of app {serving.app.name} is broken, version {serving.version} serves: {what}"


def exhausted(pool: Pool, waiter: Waiter, why: str) -> PoolExhaustedError:
    return PoolExhaustedError(
        f"no worker of app {pool.app.name} was free within {waiter.request.open_timeout:g} s: {why}; end sessions "
        "that are not needed, wait longer (open_timeout), or raise the limit"
    )


def stopping() -> DaemonUnavailableError:
    return DaemonUnavailableError(
        "the daemon is stopping, and opens nothing any more; another one can be started when it has gone",
        details={"stopping": True},
    )
