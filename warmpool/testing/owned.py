"""A daemon that this process owns: in a directory of its own, gone within a second of its owner, however that dies.

The owner holds one end of a socket and passes it to nobody: it is closed by exec, and by hand in a child that is
forked. Its end is the daemon's end. So nothing has to be cleaned up by somebody else, no port is taken, and any
number run side by side.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from ..checks import shorten
from ..client.requests import app_reference
from ..client.sync import Client
from ..errors import InvalidRequestError, WarmpoolError
from ..handshake import READY, error_in
from ..launch import has_exited, python_command, spawn_afresh
from ..paths import Places

_OWNER_FD: Final = 3
_STOP_PATIENCE: Final = 6.0
"""Seconds for a daemon that was asked to stop, hooks and all; then it is made to."""
_LAST_PATIENCE: Final = 5.0
_APPENDING: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND

_owned: weakref.WeakSet[OwnedDaemon] = weakref.WeakSet()


def _let_go() -> None:
    for daemon in _owned:
        daemon._tie.close()
        daemon._end.detach()


os.register_at_fork(after_in_child=_let_go)


class OwnedDaemon:
    def __init__(
        self,
        apps: Sequence[Any] = (),
        settings: Mapping[str, Any] | None = None,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        """Starts it, and returns when clients can connect. `log`: where its log is kept, else it goes with the rest.

        Raises INVALID_REQUEST and APP_NOT_FOUND as `warmpool serve` does.
        """
        given = {
            "settings": {"app_idle_timeout": 86_400, **(settings or {})},
            "apps": references_of(apps),
            "path": [os.path.abspath(entry) for entry in sys.path],
        }
        with ExitStack() as undo:
            self.directory = Path(tempfile.mkdtemp(prefix="warmpool-"))
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.places = Places.of(self.directory / "daemon.sock")
            self.log = self.places.log if log is None else Path(log).absolute()
            _begin_log(self.log)
            self._tie, theirs = socket.socketpair()
            undo.callback(self._tie.close)
            with theirs:
                self.pid = _spawn({**given, "directory": str(self.directory)}, theirs.fileno(), self.log)
            self._pidfd = os.pidfd_open(self.pid)
            undo.pop_all()
        _owned.add(self)
        self._end = weakref.finalize(self, _end, self._tie, self.pid, self._pidfd, self.directory)
        try:
            self._await_ready()
        except BaseException:
            self._end()
            raise

    def __repr__(self) -> str:
        return f"<OwnedDaemon {self.pid} in {self.directory} {'running' if self._end.alive else 'stopped'}>"

    def _await_ready(self) -> None:
        with self._tie.makefile("rb", buffering=0) as file:
            said = b""
            while said != READY and (more := file.read(65_536)):
                said += more
        if said != READY:
            raise error_in(said, f":\n{self.text_of_log()}")

    def text_of_log(self) -> str:
        with suppress(OSError):
            return self.log.read_text(errors="replace")
        return ""

    def stop(self) -> None:
        """Stops it, the hooks of its sessions and all, and returns when nothing of it is left."""
        if not self._end.alive:
            return
        with suppress(WarmpoolError), Client(self.places.socket, autostart=False) as client:
            client.stop()
            has_exited(self._pidfd, _STOP_PATIENCE)
        self._end()


def references_of(apps: Sequence[str | os.PathLike[str] | type]) -> list[str]:
    """Classes by their files and names, and absolute paths."""
    if isinstance(apps, str | os.PathLike | type):
        raise InvalidRequestError(f"apps must be a list of them, not {shorten(apps)}")
    return [app_reference(app, "/")[0] if isinstance(app, type) else os.path.abspath(app) for app in apps]


def _begin_log(log: Path) -> None:
    """Or raises INVALID_REQUEST: of a file that it cannot open `posix_spawn` would say that there is no interpreter."""
    try:
        os.close(os.open(log, _APPENDING, 0o600))
    except OSError as error:
        raise InvalidRequestError(f"no log can be kept in {log}: {error.strerror}") from error


def _spawn(given: dict[str, Any], tie: int, log: Path) -> int:
    command = python_command("warmpool.daemon.embedded", json.dumps(given))
    ends = [
        (os.POSIX_SPAWN_DUP2, tie, _OWNER_FD),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), _APPENDING, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return spawn_afresh(command, ends, setsid=True)


def _end(tie: socket.socket, pid: int, pidfd: int, directory: Path) -> None:
    """Hangs up, and waits for the daemon to be gone; it is killed if it does not go, which it should."""
    tie.close()
    if not has_exited(pidfd, _LAST_PATIENCE):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        has_exited(pidfd)
    with suppress(ChildProcessError):  # somebody here reaps all children
        os.waitpid(pid, 0)
    os.close(pidfd)
    shutil.rmtree(directory, ignore_errors=True)
