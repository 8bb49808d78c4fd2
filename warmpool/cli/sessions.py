"""`warmpool session …`"""

from __future__ import annotations

import argparse
import os
import select
import sys
from typing import Any

from ..client.requests import Data, Page
from ..client.sync import Client
from .output import print_fields, print_json, print_table, tell

_COLUMNS = ("id", "app", "version", "status", "busy", "call_count", "session_timeout", "expires_at", "pid")
_COLUMNS_OVER = (*_COLUMNS[:4], "end_reason", "call_count", "session_timeout", "ended_at", "pid")
_CLEAR_SCREEN = "\x1b[H\x1b[2J"


def list_sessions(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        page = _page(client, options)
    if options.json:
        print_json(page)
    else:
        _print_page(page, options)
    if page.cursor is not None:
        tell(f"{len(page)} of {page.total}; the next page: --cursor {page.cursor}")


def top(options: argparse.Namespace) -> None:
    """The list, again and again, until Ctrl-C. Where there is no terminal, once."""
    with Client(options.socket, autostart=False) as client:
        while True:
            page = _page(client, options)
            is_live = sys.stdout.isatty()
            sys.stdout.write(_CLEAR_SCREEN if is_live else "")
            _print_page(page, options)
            sys.stdout.flush()
            if not is_live:
                return
            select.select([], [], [], options.interval)


def _page(client: Client, options: argparse.Namespace) -> Page:
    names = ("app", "status", "labels", "name_prefix", "limit", "cursor")
    return client.sessions.list(**{name: getattr(options, name, None) for name in names})


def _print_page(page: Page, options: argparse.Namespace) -> None:
    if not page:
        print("no sessions")
        return
    columns = _COLUMNS if options.status in (None, "active") else _COLUMNS_OVER
    named = tuple(name for name in ("name", "labels") if any(info.get(name) for info in page))
    print_table(page, (columns[0], *named, *columns[1:]))


def get(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        _show(client.sessions.get(options.id, memory=options.memory), as_json=options.json)


def keepalive(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        _show(client.sessions.keepalive(options.id), as_json=options.json)


def end(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        _show(client.sessions.end(options.id, force=options.force), as_json=options.json)


def cancel(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        _show(client.calls.cancel(options.id, options.call, force=options.force), as_json=options.json)


def labels(options: argparse.Namespace) -> None:
    """Shows them, or replaces them by those that are given."""
    with Client(options.socket, autostart=False) as client:
        if options.clear or options.label:
            found: dict[str, Any] = client.sessions.set_labels(options.id, dict(options.label)).labels
        else:
            found = client.sessions.get_labels(options.id)
    if options.json:
        print_json(found)
    elif found:
        print_fields(found)


def logs(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        for line in client.sessions.logs(options.id, follow=options.follow):
            if options.json:
                print_json({"line": line})
            else:
                print(line, flush=options.follow)


def why(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        story = client.sessions.why(options.id)
    if options.json:
        print_json(story)
        return
    reason = f" ({story.end_reason})" if story.end_reason else ""
    print(f"{story.session_id} is {story.status}{reason}")
    for entry in story.entries:
        times = f"  ({entry.count} times)" if entry.count > 1 else ""
        print(f"{entry.time}  {entry.text}{times}")
    if story.log:
        print("the end of its log:", *story.log, sep=os.linesep + "  ")


def _show(info: Data, *, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        print_fields(info)
