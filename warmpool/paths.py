"""Where the daemon's files live: one directory of the user's own, and names beside the socket.

The socket is `$WARMPOOL_SOCKET`, else `warmpool/daemon.sock` in `$XDG_RUNTIME_DIR`, else
`/tmp/warmpool-UID/daemon.sock`. Every other file of that daemon is named after its socket, so that two daemons
never share one. The directory is created 0700 and refused if somebody else could have put files into it.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from .errors import InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

SOCKET_ENV: Final = "WARMPOOL_SOCKET"
ADDRESS_LIMIT: Final = 107
"""Bytes in a Unix socket's address on Linux, without the final zero."""


class Places(NamedTuple):
    """The files of one daemon. All are gone after it has stopped, except the log of one that ran detached."""

    address: str
    """The socket's path, absolute."""

    @classmethod
    def of(cls, socket_path: str | os.PathLike[str] | None = None) -> Places:
        """The places that belong to a socket, or to the default one: an empty path is none, as an empty variable is.
        Raises INVALID_REQUEST if the path is no UTF-8: it could not be told to anybody.
        """
        address = os.path.join(working_directory(), os.fsdecode(socket_path or default_socket()))
        if not is_text(address):
            raise InvalidRequestError(
                f"the path of a socket must be UTF-8, not {address!r}; name another --socket, or {SOCKET_ENV}"
            )
        return cls(address)

    @property
    def socket(self) -> Path:
        return _path(self.address)

    @property
    def lock(self) -> Path:
        """Held by the daemon as long as it lives; its text is the daemon's pid."""
        return _path(self.address + ".lock")

    @property
    def starting(self) -> Path:
        """Held by a client while it starts a daemon."""
        return _path(self.address + ".starting")

    @property
    def log(self) -> Path:
        """Of a daemon that runs detached; there as long as no other has come after it."""
        return _path(self.address + ".log")

    def log_in_words(self) -> str:
        """Where to read what the daemon has written: one in the foreground has no file for that."""
        return f"{self.address}.log" if os.path.exists(f"{self.address}.log") else "what it wrote to its stderr"

    @property
    def logs(self) -> Path:
        """The directory of the sessions' logs."""
        return _path(self.address + ".logs")


def _path(name: str) -> Path:
    from pathlib import Path  # not for a client that only connects: it takes a tenth of its start

    return Path(name)


def is_text(path: str) -> bool:
    """Whether this path can be told to others: what goes over the wire is UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def working_directory() -> str:
    """That of this process; the root if it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def default_socket() -> str:
    if given := os.environ.get(SOCKET_ENV):
        return given
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime) and _is_private(runtime):
        return os.path.join(runtime, "warmpool", "daemon.sock")
    return f"/tmp/warmpool-{os.getuid()}/daemon.sock"  # noqa: S108  (checked by make_private)


def _is_private(directory: str | Path) -> bool:
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def make_private(places: Places) -> None:
    """Makes the directory of `places`. Raises INVALID_REQUEST if a default directory is not the user's alone, or if
    something else than a socket lies there: a socket that nobody holds is left over.
    """
    directory = places.socket.parent
    chosen_by_user = bool(os.environ.get(SOCKET_ENV)) or places.address != default_socket()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if chosen_by_user or not isinstance(error, FileExistsError):
            raise InvalidRequestError(f"no socket can be made in {directory}: {error.strerror}") from error
    if not chosen_by_user and not _is_private(directory):
        raise InvalidRequestError(
            f"{directory} is not a directory of mode 0700 that belongs to you; remove it, or name a socket "
            f"elsewhere with --socket or {SOCKET_ENV}"
        )
    with suppress(OSError):  # nothing is there, or whoever makes the files will tell
        if not stat.S_ISSOCK(os.lstat(places.socket).st_mode):
            raise InvalidRequestError(f"{places.socket} is there, and is no socket; name another --socket")


@contextmanager
def address_of(path: str) -> Iterator[str]:
    """An address for `bind` or `connect`, also where the path is longer than a socket's address may be."""
    if len(os.fsencode(path)) <= ADDRESS_LIMIT:
        yield path
        return
    parent, name = os.path.split(path)
    directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The pid and the uid of the process at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("=iII", credentials)
    return pid, uid
