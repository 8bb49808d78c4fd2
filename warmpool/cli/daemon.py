"""`warmpool status` and `warmpool stop`."""

from __future__ import annotations

import argparse
import os
import select
import sys
from contextlib import suppress

from ..client.sync import Client
from ..errors import DaemonUnavailableError
from .output import print_fields, print_json

_STOP_LIMIT_MS = 10_000


def status(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        facts = client.status()
    if options.json:
        print_json(facts)
    else:
        print_fields(facts)


def stop(options: argparse.Namespace) -> int:
    """Returns when the daemon's process is gone."""
    with Client(options.socket, autostart=False) as client:
        try:
            pid = client.status().pid
            pidfd = os.pidfd_open(pid)
        except (DaemonUnavailableError, ProcessLookupError):
            print(f"no daemon runs at {client.places.socket}", file=sys.stderr)
            return 0
        try:
            with suppress(DaemonUnavailableError):  # somebody else has stopped it in this moment
                client.stop()
            gone = select.poll()
            gone.register(pidfd, select.POLLIN)
            if not gone.poll(_STOP_LIMIT_MS):
                print(f"the daemon, pid {pid}, still runs after 10 s; see {client.places.log}", file=sys.stderr)
                return 1
        finally:
            os.close(pidfd)
    return 0
