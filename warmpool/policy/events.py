"""What can happen, as the broker is told: facts, with all that was read from outside.

A ticket names who waits for an answer: (connection, request id).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ..constants import CANCEL_GRACE
from ..facts import fact

Ticket: TypeAlias = tuple[int, int]


@fact
class AppEdition:
    """An app as its files are now. `revision` grows with each edit."""

    key: str
    name: str
    revision: int


@fact
class OpenRequested:
    """A client asks for a worker: for the new session `session_id`, or, if that is None, a stateless one."""

    ticket: Ticket
    edition: AppEdition
    session_id: str | None
    session_timeout: float
    open_timeout: float
    version: str | None
    cwd: str
    labels: dict[str, str]
    name: str | None = None
    if_exists: str = "error"
    """"attach": to the living session that has the name, if there is one."""
    description: str | None = None
    tags: tuple[str, ...] = ()
    worker: str | None = None
    """Id of the worker that is wanted, and no other."""
    opened_by: int = 0
    """Pid of the client."""
    memory_limit: int = 0
    """Bytes of a message that the client and the worker may pass as memory."""


@fact
class AttachRequested:
    """A client asks for a connection to the worker of a session. `app_key` and `version` None: any."""

    ticket: Ticket
    session_id: str
    app: str | None
    app_key: str | None
    version: str | None
    memory_limit: int = 0
    """As of an open."""


@fact
class ConnectionClosed:
    """Nobody waits any more behind this connection's tickets."""

    connection: int


@fact
class OpenAbandoned:
    """Nobody wants any more what this ticket asked to be opened, whether or not it has been."""

    ticket: Ticket


@fact
class WarmUpRequested:
    """Load this app now and keep it for as long as the daemon lives."""

    edition: AppEdition


@fact
class DescribeRequested:
    """Tell the functions of this app, loading it if need be."""

    ticket: Ticket
    edition: AppEdition
    version: str | None = None
    """Of this version, and no other."""


@fact
class EndAwaited:
    """Tell about a session when it is over, or else after a while: a connection to it broke."""

    ticket: Ticket
    session_id: str


@fact
class KeepaliveRequested:
    ticket: Ticket
    session_id: str


Deferrable: TypeAlias = OpenRequested | AttachRequested | KeepaliveRequested
"""Requests that may have to wait until it is known what becomes of a session."""


@fact
class EndRequested:
    ticket: Ticket
    session_id: str
    reason: str = "client"
    force: bool = False
    """Kill the worker now: no call is finished, no hook runs."""


@fact
class LabelsRequested:
    """The session's labels are to be these."""

    ticket: Ticket
    session_id: str
    labels: dict[str, str]


@fact
class CancelRequested:
    """A session's call is to stop. `call_id` None: the one that runs."""

    ticket: Ticket
    session_id: str
    call_id: int | None
    force: bool = False
    """Do not wait for it to stop of itself."""


@fact
class StatelessCancelRequested:
    """A call without a session is to stop, which this worker was given for."""

    ticket: Ticket
    worker: str
    call_id: int


@fact
class HandOverFailed:
    """The worker that this request was given has died, and nobody has noticed before."""

    worker: str
    request: OpenRequested | AttachRequested


@fact
class StopRequested:
    """The daemon is to stop, everything with it."""


@fact
class TemplateLoaded:
    pool: str
    version: str
    warm: int | None
    max_workers: int | None
    cancel_grace: float = CANCEL_GRACE
    max_lifetime: float | None = None
    threads: tuple[str, ...] = ()
    """Names of those that keep it from forking."""


@fact
class NoRoomForTemplate:
    """The machine has no room for its process."""

    pool: str
    why: str


@fact
class TemplateFailed:
    """The app cannot be imported. `error` is APP_BROKEN in its wire form."""

    pool: str
    error: dict[str, Any]


@fact
class TemplateExited:
    pool: str
    status: str


@fact
class NoRoomForWorker:
    """The machine has no room for this worker now; `why` in words. It never was."""

    worker: str
    why: str


@fact
class WorkerLoaded:
    """One that is no fork has imported the app, and found this version. `edition`: of the files as they are now."""

    worker: str
    version: str
    edition: AppEdition


@fact
class WorkerForked:
    worker: str
    pid: int


@fact
class WorkerReady:
    worker: str


@fact
class WorkerFailed:
    """It could not be forked or set up."""

    worker: str
    error: dict[str, Any]


@fact
class WorkerBusy:
    """The answer to Expire: not now."""

    worker: str


@fact
class WorkerLeaving:
    """It has said goodbye: it serves no further call and runs its hooks."""

    worker: str
    reason: str = "idle"


@fact
class WorkerEnded:
    """Its `on_end` has returned this."""

    worker: str
    packed: bytes


@fact
class WorkerReleased:
    """A stateless worker is proven idle."""

    worker: str


@fact
class WorkerExited:
    """The process is gone. `status` in words."""

    worker: str
    status: str
    peak_bytes: int = 0
    """The most memory that it has ever had resident."""
    last_lines: tuple[str, ...] = ()
    """What it wrote before, if it has said no goodbye."""


Request: TypeAlias = (
    OpenRequested
    | AttachRequested
    | DescribeRequested
    | EndAwaited
    | KeepaliveRequested
    | EndRequested
    | LabelsRequested
    | CancelRequested
    | StatelessCancelRequested
)
"""Somebody waits for its answer, with a ticket."""

TemplateReport: TypeAlias = TemplateLoaded | NoRoomForTemplate | TemplateFailed | TemplateExited

WorkerReport: TypeAlias = (
    NoRoomForWorker
    | WorkerLoaded
    | WorkerForked
    | WorkerReady
    | WorkerFailed
    | WorkerBusy
    | WorkerLeaving
    | WorkerEnded
    | WorkerReleased
    | WorkerExited
)

Event: TypeAlias = (
    Request
    | ConnectionClosed
    | OpenAbandoned
    | WarmUpRequested
    | HandOverFailed
    | StopRequested
    | TemplateReport
    | WorkerReport
)
