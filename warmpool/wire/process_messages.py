"""What the daemon and its processes say to one another. An edit of any of these is one of the protocol (`messages`)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from .shapes import conversation_of

# --- daemon → template --------------------------------------------------------------------------------------


class Load(NamedTuple):
    """Import this app. With this comes the board. Answered by Loaded or LoadFailed, after a SourceRead for each of its
    files.
    """

    app: str
    root: str
    """The directory to import from."""
    module: str
    file: str | None
    """Where the module is, if it is not to be searched for."""
    class_name: str | None
    frame_limit: int
    daemon_pid: int
    open_files: int
    """The soft limit of open files that the daemon was started with: it raised its own."""
    primed: bool = False
    """Set the app up, once: workers are copies of that."""


class Fork(NamedTuple):
    """Make a worker of yourself. With this come its end of its control channel, the pipe to its log, and its end of the
    connection that its first client will have.
    """

    worker_id: str
    row: int
    in_place: bool
    """Become the worker instead of forking it: for an app whose import started threads."""


class Describe(NamedTuple):
    """Tell the functions of the app with their schemas. Answered by Described."""


# --- template → daemon --------------------------------------------------------------------------------------


class SourceRead(NamedTuple):
    """Said of each source file before it runs: it may never end, or end the process, and an edit of it is the cure. By
    a worker too, of what it imports later.
    """

    path: str
    changed_ns: int
    """Its ctime."""
    size: int
    digest: str
    """Its SHA-256, in hex."""


class Loaded(NamedTuple):
    version: str
    sources: list[Any]
    """All of the app's source files: the fields of a SourceRead for each."""
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
    errno: int
    """Of the system call that failed, or 0: the machine may be short of something."""


class NotForked(NamedTuple):
    """Said by the zygote, in the place of the template that it could not fork."""

    errno: int


# --- daemon → worker ----------------------------------------------------------------------------------------


class Serve(NamedTuple):
    """Serve the connection that comes with this, as the one that came with Fork. The first frame on it is an Attach."""


class Expire(NamedTuple):
    """May your session expire? Answered by Busy, or by Leaving."""

    started: int
    """How many calls the daemon saw begun: with more than that, the window has been slid."""
    reason: str
    """"idle", or "max_lifetime"."""


class Stop(NamedTuple):
    """Run the hooks and exit, as soon as no call runs. Answered by Leaving."""

    reason: str


class Cancel(NamedTuple):
    """Stop the call with this id, if it runs or waits; if its bytes are yet to be read, do not run it."""

    call_id: int


class Relabel(NamedTuple):
    """The session's labels are these now."""

    labels: dict[str, str]


class Wake(NamedTuple):
    """There is something for you that is not in a message. Sent in answer to WakeMe."""


class HangNext(NamedTuple):
    """A test wants the next call to hang. Answered by HangsNext."""


# --- daemon → worker, on a connection that a client is about to have ------------------------------------------


class Attach(NamedTuple):
    """The first frame, before any call: whom you serve here. The first of a session makes the worker its own."""

    session_id: str | None
    cwd: str
    labels: dict[str, str]
    memory_limit: int
    """As the client was told in Opened."""
    since: float
    """When the session began, in lease time: its lifetime counts from there. Without one: when this was said."""


# --- daemon → zygote ------------------------------------------------------------------------------------------


class ForkTemplate(NamedTuple):
    """Comes with the template's end of its channel to the daemon, and with what it prints to."""


# --- zygote → daemon ------------------------------------------------------------------------------------------


class CanFork(NamedTuple):
    """Sent once it has imported everything, and again after each ForkTemplate."""


# --- worker → daemon ----------------------------------------------------------------------------------------


class Forked(NamedTuple):
    """Sent before the daemon can have become the parent of `pid`. Templates that are forked say it too."""

    pid: int


class Ready(NamedTuple):
    """Constructed and set up: can be leased."""


class SetupFailed(NamedTuple):
    error: dict[str, Any]


class Busy(NamedTuple):
    """A call runs, or bytes wait on a connection: the session cannot expire now."""


class Released(NamedTuple):
    """A stateless worker has no connection left and no call running: it can serve the next."""


class WakeMe(NamedTuple):
    """There is something for the worker's main thread, which may be about to block where only a message of the daemon's
    is heard. Answered by Wake.
    """


class HangsNext(NamedTuple):
    """The next call will not return."""


class Leaving(NamedTuple):
    """The clean goodbye: no further call is served. An exit without it is a loss."""

    reason: str
    """What it was told, or the worker's own: "app", "max_calls", "max_lifetime", "max_private_bytes"."""


class Ended(NamedTuple):
    """What the app's `on_end` returned."""

    packed: bytes
    """As it is kept until somebody asks: unpacked it may take seventy times as much."""


TO_ZYGOTE: Final = conversation_of(ForkTemplate)
FROM_ZYGOTE: Final = conversation_of(CanFork)
TO_TEMPLATE: Final = conversation_of(Load, Fork, Describe)
FROM_TEMPLATE: Final = conversation_of(Forked, SourceRead, Loaded, LoadFailed, Described, ForkFailed, NotForked)
TO_WORKER: Final = conversation_of(Serve, Expire, Stop, Cancel, Relabel, Wake, HangNext)
TO_CONNECTION: Final = conversation_of(Attach)
FROM_WORKER: Final = conversation_of(
    Forked, Ready, SetupFailed, Busy, Released, Leaving, Ended, WakeMe, HangsNext, SourceRead
)
