"""A daemon that belongs to one process and dies with it, however that dies.

Its owner holds the other end of a socket, which nobody else has; at its end all processes here are killed at once,
no hook is run, and the files are removed. (Refused: a parent-death signal. It comes when the owner's *thread* ends,
and leaves the files.)

Started as `python -P -c …` with a JSON document as its argument and that socket as descriptor 3.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from ..errors import InternalError, InvalidRequestError, WarmpoolError
from ..handshake import READY, refusal
from ..launch import PATH_ENV, close_all_but
from ..paths import Places
from ..settings import Settings
from .main import serve

OWNER_FD: Final = 3


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the owner to handle
    close_all_but({0, 1, 2, OWNER_FD})
    owner = socket.socket(fileno=os.dup(OWNER_FD))
    os.close(OWNER_FD)
    given = json.loads(sys.argv[1])
    _add_to_path(given["path"])
    try:
        _serve(given, owner)
    except Exception as error:
        told = error if isinstance(error, WarmpoolError) else InternalError(f"the daemon did not start: {error!r}")
        with suppress(OSError):  # the owner is gone, or was told that we are ready
            owner.sendall(refusal(told))
        raise
    finally:
        shutil.rmtree(given["directory"], ignore_errors=True)


def _serve(given: dict[str, Any], owner: socket.socket) -> None:
    serve(
        Places.of(Path(given["directory"], "daemon.sock")),
        _settings(given["settings"]),
        given["apps"],
        ready=lambda: owner.sendall(READY),
        owner=owner,
    )


def _settings(given: dict[str, Any]) -> Settings:
    known = {field.name for field in fields(Settings)}
    for name in given:
        if name not in known:
            raise InvalidRequestError(f"there is no setting {name!r}; there are {', '.join(sorted(known))}")
    return Settings(**given)


def _add_to_path(entries: list[str]) -> None:
    """The owner's places of modules are its apps' too, behind what this interpreter has of itself and was given. Here
    they are looked for by their names. (Refused: to tell templates of them by PYTHONPATH. What that names comes first,
    so a file of a test's that is called as a module of Python's, and which its owner never imports, would be theirs.)
    """
    added = [entry for entry in entries if entry not in sys.path]
    sys.path.extend(added)
    os.environ[PATH_ENV] = os.pathsep.join(added)
