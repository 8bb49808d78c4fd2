"""`warmpool session …`"""

from __future__ import annotations

import argparse

from ..client.requests import Data
from ..client.sync import Client
from .output import print_fields, print_json, print_table

_COLUMNS = ("id", "app", "version", "status", "busy", "call_count", "session_timeout", "expires_at", "pid")
_COLUMNS_OVER = (*_COLUMNS[:4], "end_reason", "call_count", "session_timeout", "ended_at", "pid")


def list_sessions(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        sessions = client.sessions.list(all=options.all)
    if options.json:
        print_json(sessions)
    elif sessions:
        print_table(sessions, _COLUMNS_OVER if options.all else _COLUMNS)
    else:
        print("no sessions")


def get(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        _show(client.sessions.get(options.id), as_json=options.json)


def keepalive(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        _show(client.sessions.keepalive(options.id), as_json=options.json)


def end(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        _show(client.sessions.end(options.id), as_json=options.json)


def _show(info: Data, *, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        print_fields(info)
