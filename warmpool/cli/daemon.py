"""`warmpool status` and `warmpool stop`. Neither waits for ever for a daemon that is stuck."""

from __future__ import annotations

import argparse
import os
import signal
import time
from typing import Any

from ..client.bells import Bells
from ..client.connections import HangupError, connect
from ..client.sync_links import ControlLink
from ..errors import DaemonUnavailableError, ProtocolError
from ..launch import has_exited
from ..lock import holder
from ..paths import Places, peer_of
from .output import print_fields, print_json, say

PATIENCE = 10.0
"""Seconds."""


class _Daemon:
    """The one that listens there. Raises DAEMON_UNAVAILABLE if none does, or it does not answer."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._connection = connect(places, PATIENCE)
        self.pid, _ = peer_of(self._connection)

    def ask(self, method: str) -> Any:
        try:
            return ControlLink(self._connection, Bells()).request(method, {})
        except (HangupError, TimeoutError) as error:
            what = "hangs up" if isinstance(error, HangupError) else f"has not answered for {PATIENCE:g} s"
            raise DaemonUnavailableError(
                f"the daemon at {self._places.socket}, pid {self.pid}, {what}; see {self._places.log_in_words()}"
            ) from None
        finally:
            self._connection.close()


def status(options: argparse.Namespace) -> None:
    facts = _Daemon(Places.of(options.socket)).ask("daemon.status")
    if options.json:
        print_json(facts)
    else:
        print_fields(facts)


def stop(options: argparse.Namespace) -> int:
    """Returns when the daemon's process is gone."""
    places = Places.of(options.socket)
    try:
        daemon = _Daemon(places)
        pidfd = os.pidfd_open(daemon.pid)
    except (DaemonUnavailableError, ProcessLookupError):
        if (pid := holder(places.lock)) is not None:
            say(f"a daemon, pid {pid}, runs, but nobody listens at {places.socket} any more: end it with `kill {pid}`")
            return 1
        say(f"no daemon runs at {places.socket}")
        return 0
    latest = time.monotonic() + PATIENCE
    try:
        try:
            daemon.ask("daemon.stop")
        except DaemonUnavailableError:
            pass  # somebody else has stopped it in this moment, or it is stuck
        except ProtocolError:  # of another version: a signal is the same in all
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if has_exited(pidfd, max(0.0, latest - time.monotonic())):
            return 0
    finally:
        os.close(pidfd)
    say(
        f"the daemon, pid {daemon.pid}, still runs after {PATIENCE:g} s; see {places.log_in_words()}, "
        f"or end it and its workers with `kill -9 {daemon.pid}`"
    )
    return 1
