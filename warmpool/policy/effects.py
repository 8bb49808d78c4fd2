"""What the broker may wish for. The daemon performs the effects of one event in their order and reports what came of
them as new events; no effect has a result.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from ..errors import WarmpoolError
from ..facts import fact
from ..wire.messages import Opened
from ..wire.process_messages import Attach
from ..wire.shapes import Message
from .events import AttachRequested, OpenRequested, Ticket
from .sessions import SessionView


@fact
class Answer:
    """Tell whoever holds the ticket about the session."""

    ticket: Ticket
    view: SessionView


@fact
class Tell:
    worker: str
    message: Message


@fact
class Reply:
    """Answer the ticket with a value: what has been done."""

    ticket: Ticket
    value: dict[str, Any]


@fact
class Refuse:
    """Answer the ticket with an error."""

    ticket: Ticket
    error: WarmpoolError


@fact
class HandOver:
    """Give whoever asked a connection to the worker."""

    request: OpenRequested | AttachRequested
    """What is answered with this, and asked again if the worker turns out to be dead."""
    attach: Attach
    """The worker is told."""
    opened: Opened
    """The client is told, with the connection."""

    @property
    def ticket(self) -> Ticket:
        return self.request.ticket

    @property
    def worker(self) -> str:
        return self.opened.worker_id


@fact
class Cancel:
    """Show the worker on the board that this call is to stop, and tell it."""

    worker: str
    row: int
    call_id: int


@fact
class DumpStack:
    """Have the worker write to its log where it is."""

    worker: str


@fact
class Terminate:
    """SIGTERM."""

    worker: str


OVERDUE: Final = "after it did not stop in time"


@fact
class Kill:
    """SIGKILL. Reported as WorkerExited like any other death."""

    worker: str
    why: str = OVERDUE


@fact
class ForgetLog:
    """Nobody can ask for this worker's log any more."""

    worker: str


@fact
class Fork:
    """Make a worker: of the pool's template, or by a process of its own that imports the app too (`alone`)."""

    pool: str
    app_key: str
    worker: str
    row: int
    alone: bool


@fact
class StartTemplate:
    pool: str
    app_key: str


@fact
class Describe:
    """Ask the template for the app's functions, for whoever holds the ticket."""

    pool: str
    ticket: Ticket


@fact
class StopTemplate:
    pool: str


@fact
class Log:
    """A line for people."""

    text: str


@fact
class Exit:
    """Nothing is left: the daemon may go."""


Effect: TypeAlias = (
    Answer
    | Reply
    | Refuse
    | HandOver
    | Tell
    | Cancel
    | DumpStack
    | Terminate
    | Kill
    | Fork
    | StartTemplate
    | Describe
    | StopTemplate
    | ForgetLog
    | Log
    | Exit
)
