"""Every message of a client's conversations with the daemon and with workers, and the version of the whole.

Bump PROTOCOL_VERSION if any of these change, those of `process_messages`, the board, or what one side relies on the
other to do. It is compared in the hello of a client, and before a template is made of an interpreter that is not the
daemon's: that one has an installation of its own.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..errors import ProtocolError
from .frames import decode, unpack
from .shapes import conversation_of, from_parts, new_tuple

PROTOCOL_VERSION: Final = 14
NEW: Final = "new"
"""In place of a session's id: one is to be opened."""

# --- client ↔ daemon ----------------------------------------------------------------------------------------


class Control(NamedTuple):
    """The hello: the first frame of a client's connection to the daemon. Its first field is the same in all versions:
    each can tell the other which is too old.
    """

    protocol: int
    takes_memory: bool = False
    """It can send and receive calls in memory that comes with their last byte (`frames`)."""
    wants_board: bool = False
    """With the first connection to a worker shall come the board as well, behind it."""


class Request(NamedTuple):
    id: int
    method: str
    params: dict[str, Any]


class Reply(NamedTuple):
    id: int
    value: object


class Failure(NamedTuple):
    """The answer to request or call `id`, or with id 0 the last word on a connection: an error in its wire form."""

    id: int
    error: dict[str, Any]


class Open(NamedTuple):
    """Give me a connection to a worker. Answered with Opened or Failure."""

    id: int
    """Of the same numbers as those of Requests."""
    app: str | None
    """A reference without a function; paths in it are absolute. None: whatever app the session has."""
    session: str | None
    """NEW, the id of a session, or None for a stateless call."""
    cwd: str
    """Where the client stands: modules are looked for there, and a new session's process works there."""
    session_timeout: float | None = None
    open_timeout: float | None = None
    labels: dict[str, str] = {}  # noqa: RUF012  (never written to)
    name: str | None = None
    """Of a new session: one living session at most has it."""
    if_exists: str = "error"
    """What to do if a living session has the name: "error", or "attach" to it."""
    description: str | None = None
    tags: list[str] = []  # noqa: RUF012
    worker: str | None = None
    """Id of the worker that is wanted, and no other."""


OF_A_NEW_SESSION: Final = ("session_timeout", "labels", "name", "if_exists", "description", "tags")
"""What may be said in an Open, and asked of a client, only where the session is NEW."""


class Abandon(NamedTuple):
    """Nobody wants any more what Open `id` has asked for. If it is a new session, and there by now, it ends."""

    id: int


class Opened(NamedTuple):
    """With this comes a connection to a worker, as a descriptor. What is said on it, the daemon does not hear."""

    id: int
    session_id: str | None
    app: str
    version: str
    worker_id: str
    row: int
    """The worker's, on the board."""
    frame_limit: int
    memory_limit: int
    """Bytes of a message: in the stream; and in memory that is passed along, or 0."""
    notice: str | None = None
    """Something that the opener should read: an edit of the app that does not import."""


# --- client ↔ worker: calls ---------------------------------------------------------------------------------


class Call(NamedTuple):
    id: int
    function: str | None
    """None: `run`, or what the input's `action` names."""
    input: object


class Stream(NamedTuple):
    """As Call, but what happens on the way is told too: answered by Events, then a Result or a Failure."""

    id: int
    function: str | None
    input: object


class Result(NamedTuple):
    """As Event and Failure, checked by hand where it arrives: `calls.OpenCalls.answer` is part of every call."""

    id: int
    output: object


class Event(NamedTuple):
    """Something that happened in stream `id`."""

    id: int
    number: int
    """1, 2, 3, … within its stream."""
    time: float
    """Unix time in seconds."""
    kind: str
    """"output", "progress" or "log"."""
    data: object
    """The item; `{"done", "total", "message"}`; or `{"level", "logger", "message"}`."""


HELLO: Final = conversation_of(Control)
CONTROL: Final = conversation_of(Request, Open, Abandon)
CONTROL_ANSWERS: Final = conversation_of(Reply, Opened, Failure)
CALLS: Final = conversation_of(Call, Stream)


def hello_of(body: bytes | memoryview) -> Control:
    """Raises PROTOCOL_ERROR if this is no Control, or of another version: that first, for it may have other fields."""
    parts = decode(body)
    if type(parts) is list and len(parts) > 1 and parts[0] == "Control" and type(parts[1]) is int:
        check_version(parts[1])
    hello = from_parts(parts, HELLO)
    assert isinstance(hello, Control)
    return hello


def call_from_wire(body: bytes | memoryview) -> Call | Stream:
    """As `from_wire` with CALLS, in a third of the time: it is part of every call."""
    try:
        parts = unpack(body)
    except Exception:
        parts = decode(body)
    if type(parts) is list and len(parts) == 4:
        name, call_id, function, _ = parts
        if name == "Call" and type(call_id) is int and (type(function) is str or function is None):
            return new_tuple(Call, parts[1:])
    message = from_parts(parts, CALLS)
    assert isinstance(message, Call | Stream)
    return message


def check_version(protocol: int) -> None:
    """Raises PROTOCOL_ERROR unless a peer that speaks `protocol` can be served."""
    if protocol == PROTOCOL_VERSION:
        return
    old = "client" if protocol < PROTOCOL_VERSION else "daemon"
    remedy = (
        "install the same warmpool for the client"
        if old == "client"
        else "run `warmpool stop` and start it again from the newer installation"
    )
    raise ProtocolError(
        f"the {old} is the older side: client speaks protocol {protocol}, daemon {PROTOCOL_VERSION}; {remedy}"
    )
