"""Every message of every conversation, and the version of the whole.

A message is a named tuple; on the wire it is an array, its name first, then its fields in order. A field with
a default may be missing at the end. Each conversation accepts its own set of messages and no others, so that a
message in the wrong place is an error of the peer and not a surprise for us.

Bump PROTOCOL_VERSION if any of these change, or the board, or what one side relies on the other to do. It is compared
in the hello of a client, and before a template is made of an interpreter that is not the daemon's: that one has an
installation of its own.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Final, ForwardRef, NamedTuple, TypeAlias

from ..errors import ProtocolError
from ..settings import shorten
from .frames import decode, unpack

PROTOCOL_VERSION: Final = 4

# --- client → daemon: the first frame, which says what a connection is for -----------------------------------


class Open(NamedTuple):
    """Hand a connection to a worker: this one, or, on a control connection, the one that comes with this. Answered on
    it with Opened or Failure, the daemon's last word on it.
    """

    protocol: int
    app: str | None
    """A reference without a function; paths in it are absolute. None: whatever app the session has."""
    session: str | None
    """"new", the id of a session, or None for a stateless call."""
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
    takes_memory: bool = False
    """It can send and receive messages in memory that comes with their last byte (`frames`)."""


class Control(NamedTuple):
    """Keep this connection at the daemon; Requests follow, and Opens of connections that come with them."""

    protocol: int


# --- client ↔ daemon: control -------------------------------------------------------------------------------


class Request(NamedTuple):
    id: int
    method: str
    params: dict[str, Any]


class Reply(NamedTuple):
    id: int
    value: object


class Failure(NamedTuple):
    """The answer to request or call `id`, or with id 0 to the hello: an error in its wire form."""

    id: int
    error: dict[str, Any]


class Opened(NamedTuple):
    """A worker has the connection: calls may follow, and are the worker's to read."""

    session_id: str | None
    app: str
    version: str
    worker_id: str
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


# --- daemon → template --------------------------------------------------------------------------------------


class Load(NamedTuple):
    """Import this app. Answered by Loaded or LoadFailed."""

    app: str
    root: str
    """The directory to import from."""
    module: str
    file: str | None
    """Where the module is, if it is not to be searched for."""
    class_name: str | None
    board: str
    frame_limit: int
    daemon_pid: int
    open_files: int
    """The soft limit of open files that the daemon was started with: it raised its own."""
    primed: bool = False
    """Set the app up, once: workers are copies of that."""


class Fork(NamedTuple):
    """Make a worker of yourself. With this come its end of its control channel, and the pipe to its log."""

    worker_id: str
    row: int
    in_place: bool
    """Become the worker instead of forking it: for an app whose import started threads."""


class Describe(NamedTuple):
    """Tell the functions of the app with their schemas. Answered by Described."""


# --- template → daemon --------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    version: str
    sources: list[Any]
    """[path, mtime in ns, size, SHA-256] of each of the app's source files, as they were read."""
    options: dict[str, Any]
    """The app's own `warm`, `max_workers`, `cancel_grace` and `max_lifetime`."""
    threads: list[Any]
    """Names of the threads that the import left running: with any, the template cannot fork."""


class LoadFailed(NamedTuple):
    error: dict[str, Any]
    sources: list[Any]


class Described(NamedTuple):
    functions: list[Any]


class ForkFailed(NamedTuple):
    worker_id: str
    error: dict[str, Any]


# --- daemon → worker ----------------------------------------------------------------------------------------


class Attach(NamedTuple):
    """Serve the connection that comes with this. The first one of a session makes the worker its own."""

    session_id: str | None
    cwd: str
    labels: dict[str, str]
    memory_limit: int
    """As the client was told in Opened."""


class Expire(NamedTuple):
    """May your session expire? Answered by Busy, or by Leaving."""

    started: int
    """How many calls the daemon saw begun: with more than that, the window has been slid."""


class Stop(NamedTuple):
    """Run the hooks and exit, as soon as no call runs. Answered by Leaving."""

    reason: str


class Cancel(NamedTuple):
    """Stop the call with this id, if it runs or waits; if its bytes are yet to be read, do not run it."""

    call_id: int


class Relabel(NamedTuple):
    """The session's labels are these now."""

    labels: dict[str, str]


class HangNext(NamedTuple):
    """A test wants the next call to hang. Answered by HangsNext."""


# --- worker → daemon ----------------------------------------------------------------------------------------


class Forked(NamedTuple):
    """Sent before the daemon can have become the parent of `pid`."""

    pid: int


class Ready(NamedTuple):
    """Constructed and set up: can be leased."""


class SetupFailed(NamedTuple):
    error: dict[str, Any]


class Busy(NamedTuple):
    """A call runs, or bytes wait on a connection: the session cannot expire now."""


class Released(NamedTuple):
    """A stateless worker has no connection left and no call running: it can serve the next."""


class HangsNext(NamedTuple):
    """The next call will not return."""


class Leaving(NamedTuple):
    """The clean goodbye: no further call is served. An exit without it is a loss."""

    reason: str
    """What it was told, or the worker's own: "app", "max_calls", "max_private_bytes"."""


class Ended(NamedTuple):
    """What the app's `on_end` returned."""

    value: object


Message: TypeAlias = tuple[Any, ...]


class Shape(NamedTuple):
    """A kind of message, as it is checked: the types that each field may have."""

    kind: type[Message]
    required: int
    fields: tuple[tuple[type, ...], ...]
    accepted: set[tuple[type, ...]]
    """Types of all fields that have been found right before. Not many: what msgpack can carry has nine."""


Conversation: TypeAlias = dict[str, Shape]

_WORDS: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "dict": (dict,),
    "list": (list,),
    "None": (NoneType,),
    "object": (object,),
}


def _accepted(annotation: ForwardRef) -> tuple[type, ...]:
    words = [word.strip().partition("[")[0] for word in annotation.__forward_arg__.split("|")]
    return tuple(kind for word in words for kind in _WORDS[word])


def _shape(kind: type[Message]) -> Shape:
    fields = tuple(map(_accepted, vars(kind)["__annotations__"].values()))
    return Shape(kind, len(fields) - len(vars(kind)["_field_defaults"]), fields, set())


def _conversation(*kinds: type[Message]) -> Conversation:
    return {kind.__name__: _shape(kind) for kind in kinds}


HELLO: Final = _conversation(Open, Control)
CONTROL: Final = _conversation(Request, Open)
CONTROL_ANSWERS: Final = _conversation(Reply, Failure)
CALLS: Final = _conversation(Call, Stream)
CALL_ANSWERS: Final = _conversation(Opened, Result, Event, Failure)
TO_TEMPLATE: Final = _conversation(Load, Fork, Describe)
FROM_TEMPLATE: Final = _conversation(Loaded, LoadFailed, Described, ForkFailed)
TO_WORKER: Final = _conversation(Attach, Expire, Stop, Cancel, Relabel, HangNext)
FROM_WORKER: Final = _conversation(Forked, Ready, SetupFailed, Busy, Released, Leaving, Ended, HangsNext)

_new_tuple: Final = tuple.__new__
"""What a named tuple's own `__new__` comes to, without a Python function on the way."""


def to_wire(message: Message) -> Message:
    """What to pack for `message`."""
    return (type(message).__name__, *message)


def from_wire(body: bytes | memoryview, conversation: Conversation) -> Message:
    """The message in the body of a frame. Raises PROTOCOL_ERROR, and nothing else, if it is none of these."""
    return _from_parts(decode(body), conversation)


def hello_from_wire(body: bytes | memoryview) -> Message:
    """As `from_wire` with HELLO. Looks at the version first: a hello of another one may have other fields."""
    parts = decode(body)
    if type(parts) is list and len(parts) > 1 and parts[0] in ("Open", "Control") and type(parts[1]) is int:
        check_version(parts[1])
    return _from_parts(parts, HELLO)


def call_from_wire(body: bytes | memoryview) -> Call | Stream:
    """As `from_wire` with CALLS, in a third of the time: it is part of every call."""
    try:
        parts = unpack(body)
    except Exception:
        parts = decode(body)
    if type(parts) is list and len(parts) == 4:
        name, call_id, function, _ = parts
        if name == "Call" and type(call_id) is int and (type(function) is str or function is None):
            return _new_tuple(Call, parts[1:])
    message = _from_parts(parts, CALLS)
    assert isinstance(message, Call | Stream)
    return message


def _from_parts(parts: Any, conversation: Conversation) -> Message:
    if type(parts) is not list or not parts or type(parts[0]) is not str:
        raise ProtocolError(f"a message is an array that begins with its name, not {shorten(parts)}")
    name, *values = parts
    shape = conversation.get(name)
    if shape is None:
        raise ProtocolError(f"{shorten(name)} is not one of {', '.join(conversation)}")
    kind, required, fields, accepted = shape
    types_of = tuple(map(type, values))
    if types_of in accepted:
        return _new_tuple(kind, values)
    if not required <= len(values) <= len(fields):
        raise ProtocolError(f"{name} has {len(fields)} fields, not {len(values)}")
    for field, value, types in zip(kind.__annotations__, values, fields, strict=False):
        if type(value) not in types and object not in types:  # not isinstance: True is no number
            raise ProtocolError(f"{name}.{field} cannot be {shorten(value)}")
    if len(values) == len(fields):
        accepted.add(types_of)
    return kind(*values)


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
