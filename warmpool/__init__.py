"""warmpool: a local runtime for stateful sessions.

The face of the package. Names are loaded when they are used, so that an app does not pay for the client, nor the
client for the app's pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .app import (
        AppContext,
        BaseApp,
        BaseAppInput,
        BaseAppOutput,
        CallCancelled,
    )
    from .client.aio import (
        AsyncClient,
    )
    from .client.decorator import (
        session,
    )
    from .client.requests import (
        Data,
        Page,
        SessionOptions,
    )
    from .client.sessions import (
        AsyncSession,
    )
    from .client.streams import (
        AsyncStream,
    )
    from .client.sync import (
        Client,
        Session,
        Stream,
    )
    from .errors import (
        AppBrokenError,
        AppBrokenWarning,
        AppError,
        AppFailure,
        AppMismatchError,
        AppNotFoundError,
        CallCancelledError,
        CallError,
        CallTimeoutError,
        DaemonUnavailableError,
        FunctionNotFoundError,
        InternalError,
        InvalidInputError,
        InvalidRequestError,
        NameTakenError,
        PayloadTooLargeError,
        PoolExhaustedError,
        ProtocolError,
        RequestError,
        SessionEndedError,
        SessionError,
        SessionExpiredError,
        SessionNotFoundError,
        UnavailableError,
        VersionMismatchError,
        WarmpoolError,
        WorkerLeasedError,
        WorkerLostError,
    )
    from .testing.embedded import (
        TestingClient,
        embedded,
        primed,
    )
    from .testing.embedded_async import (
        AsyncTestingClient,
    )
    from .testing.inprocess import (
        AppClient,
        AsyncAppClient,
    )

_HOMES = {
    ".app": (
        "AppContext",
        "BaseApp",
        "BaseAppInput",
        "BaseAppOutput",
        "CallCancelled",
    ),
    ".client.aio": ("AsyncClient",),
    ".client.decorator": ("session",),
    ".client.requests": ("Data", "Page", "SessionOptions"),
    ".client.sessions": ("AsyncSession",),
    ".client.streams": ("AsyncStream",),
    ".client.sync": (
        "Client",
        "Session",
        "Stream",
    ),
    ".errors": (
        "AppBrokenError",
        "AppBrokenWarning",
        "AppError",
        "AppFailure",
        "AppMismatchError",
        "AppNotFoundError",
        "CallCancelledError",
        "CallError",
        "CallTimeoutError",
        "DaemonUnavailableError",
        "FunctionNotFoundError",
        "InternalError",
        "InvalidInputError",
        "InvalidRequestError",
        "NameTakenError",
        "PayloadTooLargeError",
        "PoolExhaustedError",
        "ProtocolError",
        "RequestError",
        "SessionEndedError",
        "SessionError",
        "SessionExpiredError",
        "SessionNotFoundError",
        "UnavailableError",
        "VersionMismatchError",
        "WarmpoolError",
        "WorkerLeasedError",
        "WorkerLostError",
    ),
    ".testing.embedded_async": ("AsyncTestingClient",),
    ".testing.inprocess": ("AppClient", "AsyncAppClient"),
    ".testing.embedded": (
        "TestingClient",
        "embedded",
        "primed",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AppBrokenError",
    "AppBrokenWarning",
    "AppClient",
    "AppContext",
    "AppError",
    "AppFailure",
    "AppMismatchError",
    "AppNotFoundError",
    "AsyncAppClient",
    "AsyncClient",
    "AsyncSession",
    "AsyncStream",
    "AsyncTestingClient",
    "BaseApp",
    "BaseAppInput",
    "BaseAppOutput",
    "CallCancelled",
    "CallCancelledError",
    "CallError",
    "CallTimeoutError",
    "Client",
    "DaemonUnavailableError",
    "Data",
    "FunctionNotFoundError",
    "InternalError",
    "InvalidInputError",
    "InvalidRequestError",
    "NameTakenError",
    "Page",
    "PayloadTooLargeError",
    "PoolExhaustedError",
    "ProtocolError",
    "RequestError",
    "Session",
    "SessionEndedError",
    "SessionError",
    "SessionExpiredError",
    "SessionNotFoundError",
    "SessionOptions",
    "Stream",
    "TestingClient",
    "UnavailableError",
    "VersionMismatchError",
    "WarmpoolError",
    "WorkerLeasedError",
    "WorkerLostError",
    "__version__",
    "embedded",
    "primed",
    "session",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
