"""Every error that warmpool raises, and its form on the wire. Knows nothing else in the package.

WarmpoolError
├── RequestError                 you: the request cannot be served as it was made
│   ├── InvalidRequestError      INVALID_REQUEST    400
│   ├── InvalidInputError        INVALID_INPUT      422
│   ├── AppNotFoundError         APP_NOT_FOUND      404
│   ├── FunctionNotFoundError    FUNCTION_NOT_FOUND 404
│   └── ProtocolError            PROTOCOL_ERROR     400
│       └── PayloadTooLargeError PAYLOAD_TOO_LARGE  413
├── SessionError                 the session is not, or no longer, what you asked for
│   ├── SessionNotFoundError     SESSION_NOT_FOUND  404
│   ├── SessionExpiredError      SESSION_EXPIRED    410
│   ├── SessionEndedError        SESSION_ENDED      410
│   ├── WorkerLeasedError        WORKER_LEASED      409
│   ├── AppMismatchError         APP_MISMATCH       400
│   ├── VersionMismatchError     VERSION_MISMATCH   400
│   ├── NameTakenError           NAME_TAKEN         409
│   └── WorkerLostError          WORKER_LOST        500
├── CallError                    one call was stopped before its end; its session lives
│   ├── CallCancelledError       CALL_CANCELLED     499
│   └── CallTimeoutError         CALL_TIMEOUT       504
├── AppFailure                   the app: its code raised
│   ├── AppError                 APP_ERROR          500
│   └── AppBrokenError           APP_BROKEN         500
├── UnavailableError             the world: no room, no daemon
│   ├── PoolExhaustedError       POOL_EXHAUSTED     503
│   └── DaemonUnavailableError   DAEMON_UNAVAILABLE 503
└── InternalError                INTERNAL           500    a bug in warmpool: please report it

On the wire an error is a map `{"code", "message", "session_id", "details"}`, where details hold only what
msgpack can carry. `from_wire` gives back the same class with the same fields.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from typing import Any, ClassVar


class WarmpoolError(Exception):
    """Base of all. `code` and `status_code` are stable: key your handling on them or on the class."""

    code: ClassVar[str] = "INTERNAL"
    status_code: ClassVar[int] = 500

    def __init__(
        self, message: str, *, session_id: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.session_id = session_id
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        new = copyreg.__newobj__  # type: ignore[attr-defined]
        return new, (type(self), self.message), {**vars(self), "details": dict(self.details)}  # a user's class too

    def to_wire(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "session_id": self.session_id,
            "details": self.details,
        }


class RequestError(WarmpoolError):
    """The request cannot be served as it was made; nothing has changed."""


class InvalidRequestError(RequestError):
    """A parameter of the request is missing, unknown or out of its bounds."""

    code = "INVALID_REQUEST"
    status_code = 400


class InvalidInputError(RequestError):
    """The input does not fit the function's signature. `errors` are pydantic's, as plain data."""

    code = "INVALID_INPUT"
    status_code = 422

    @property
    def errors(self) -> list[dict[str, Any]]:
        return list(self.details.get("errors", ()))


class AppNotFoundError(RequestError):
    """No app is called so: no file, no module, no name that the daemon knows."""

    code = "APP_NOT_FOUND"
    status_code = 404


class FunctionNotFoundError(RequestError):
    """The app has no such function. `functions` are the names that it has."""

    code = "FUNCTION_NOT_FOUND"
    status_code = 404

    @property
    def functions(self) -> list[str]:
        return list(self.details.get("functions", ()))


class ProtocolError(RequestError):
    """Bytes or messages that are not of the protocol, or of another version of it."""

    code = "PROTOCOL_ERROR"
    status_code = 400


class PayloadTooLargeError(ProtocolError):
    """A frame is larger than its conversation allows; it was not sent, or not read."""

    code = "PAYLOAD_TOO_LARGE"
    status_code = 413


class SessionError(WarmpoolError):
    """About one session. `end_reason` says why it ended, where it has."""

    @property
    def end_reason(self) -> str | None:
        reason = self.details.get("end_reason")
        return None if reason is None else str(reason)


class SessionNotFoundError(SessionError):
    """The daemon knows no such session, or knows it no more: 10,000 that are over are remembered, for 24 h."""

    code = "SESSION_NOT_FOUND"
    status_code = 404


class SessionExpiredError(SessionError):
    """Its window has passed without a call: `end_reason` is "idle"."""

    code = "SESSION_EXPIRED"
    status_code = 410


class SessionEndedError(SessionError):
    """It was ended: by a client, by its app, by a limit of that, or with the daemon."""

    code = "SESSION_ENDED"
    status_code = 410


class WorkerLeasedError(SessionError):
    """The worker that was asked for serves another session."""

    code = "WORKER_LEASED"
    status_code = 409


class AppMismatchError(SessionError):
    """The session is of another app than the one that was named."""

    code = "APP_MISMATCH"
    status_code = 400


class VersionMismatchError(SessionError):
    """The session, or the app as it is now, has another version than the one that was named."""

    code = "VERSION_MISMATCH"
    status_code = 400


class NameTakenError(SessionError):
    """A living session, `session_id`, has the name already."""

    code = "NAME_TAKEN"
    status_code = 409


class WorkerLostError(SessionError):
    """The session's process died. A call that was under way may or may not have had its effects."""

    code = "WORKER_LOST"
    status_code = 500


class CallError(WarmpoolError):
    """One call was stopped before its end. What it had done until then is done. Its session lives, unless the call did
    not stop when it was told to: the message says so.
    """


class CallCancelledError(CallError):
    """Somebody cancelled the call."""

    code = "CALL_CANCELLED"
    status_code = 499


class CallTimeoutError(CallError):
    """The call took longer than its `timeout`, and was cancelled for that."""

    code = "CALL_TIMEOUT"
    status_code = 504


class AppFailure(WarmpoolError):
    """The app's own code raised. `traceback` shows the app's frames and none of ours."""

    @property
    def remote_type(self) -> str:
        return str(self.details.get("type", ""))

    @property
    def remote_message(self) -> str:
        return str(self.details.get("message", ""))

    @property
    def traceback(self) -> str:
        return str(self.details.get("traceback", ""))


class AppError(AppFailure):
    """A function raised, or returned what cannot be sent. The session lives on."""

    code = "APP_ERROR"
    status_code = 500


class AppBrokenError(AppFailure):
    """The app cannot be imported or set up. Tried again after a growing pause, at once after an edit."""

    code = "APP_BROKEN"
    status_code = 500


class UnavailableError(WarmpoolError):
    """Nothing is wrong with the request: there was no room, or no daemon, to serve it."""


class PoolExhaustedError(UnavailableError):
    """No worker was free within `open_timeout`; the message says what was missing."""

    code = "POOL_EXHAUSTED"
    status_code = 503


class DaemonUnavailableError(UnavailableError):
    """No daemon listens, it is leaving, or it could not be started; the message names its log."""

    code = "DAEMON_UNAVAILABLE"
    status_code = 503


class InternalError(WarmpoolError):
    """A bug in warmpool. The daemon's log has more."""


class AppBrokenWarning(UserWarning):
    """An app's last edit does not work: the session runs on the version before it."""


def _leaves(root: type[WarmpoolError]) -> dict[str, type[WarmpoolError]]:
    found: dict[str, type[WarmpoolError]] = {}
    for child in root.__subclasses__():
        if "code" in vars(child):
            found[child.code] = child
        found |= _leaves(child)
    return found


BY_CODE: dict[str, type[WarmpoolError]] = _leaves(WarmpoolError) | {InternalError.code: InternalError}


def from_wire(fields: Mapping[str, Any]) -> WarmpoolError:
    """The exception that `fields` describe. A code that we do not know (a newer peer's) keeps its words."""
    code = fields.get("code")
    message = fields.get("message")
    if not isinstance(message, str):
        message = "the peer gave no message"
    kind = BY_CODE.get(code) if isinstance(code, str) else None
    if kind is None:
        kind, message = InternalError, f"{code if isinstance(code, str) else type(code).__name__}: {message}"
    session_id, details = fields.get("session_id"), fields.get("details")
    return kind(
        message,
        session_id=session_id if isinstance(session_id, str) else None,
        details=details if isinstance(details, dict) else None,
    )
