"""What an app prints and logs. It goes to descriptors 1 and 2, which are the session's log; and while a call is
followed, each line is told to its follower as well.

The streams are replaced in the template, before the app is imported, so that whoever keeps a reference to
`sys.stdout` keeps the right one. What a library or a child process writes to the descriptors themselves is in the
log and not followed.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

LONGEST: Final = 16 * 1024
"""Of a message that is followed, in characters. The log has all of it."""

Listener = Callable[[str, str, str], None]
"""Told level, logger and message."""


class FollowedStream(io.TextIOWrapper):
    """A standard stream. Writes line by line."""

    listener: Listener | None = None

    def __init__(self, original: io.TextIOWrapper, title: str) -> None:
        encoding, errors = original.encoding, original.errors
        super().__init__(original.detach(), encoding, errors, line_buffering=True)
        self._title = title
        self._begun = ""  # a line that has no end yet

    def write(self, text: str) -> int:
        count = super().write(text)
        if self.listener is not None:
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                self.listener("INFO", self._title, line[:LONGEST])
            self._begun = self._begun[:LONGEST]
        return count

    def write_unfollowed(self, text: str) -> None:
        super().write(text)

    def follow(self, listener: Listener | None) -> None:
        """From now on it is told each line, or nobody if it is None. Who listened is told what there is of the last."""
        if self.listener is not None and self._begun:
            self.listener("INFO", self._title, self._begun)
        self._begun = ""
        self.listener = listener


class FollowedHandler(logging.Handler):
    """Of the logger of apps: writes to stderr as it is at the time."""

    listener: Listener | None = None

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._plain = logging.Formatter("%(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
            if isinstance(sys.stderr, FollowedStream):
                sys.stderr.write_unfollowed(text)
            else:
                sys.stderr.write(text)
            if self.listener is not None:
                self.listener(record.levelname, record.name, self._plain.format(record)[:LONGEST])
        except Exception:
            self.handleError(record)

    def follow(self, listener: Listener | None) -> None:
        self.listener = listener


_followed: list[FollowedStream | FollowedHandler] = []


def replace_streams() -> None:
    """Once in a process."""
    for name in ("stdout", "stderr"):
        stream = FollowedStream(getattr(sys, name), name)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        _followed.append(stream)
    handler = FollowedHandler()
    logger = logging.getLogger("warmpool.app")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    _followed.append(handler)


def follow(listener: Listener | None) -> None:
    """Tells this one, until it is None."""
    for source in _followed:
        source.follow(listener)


def sendable(text: str) -> str:
    """Without lone surrogates, which a file name can bring in and UTF-8 does not have."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def flush_streams() -> None:
    """What stands in a buffer at a fork would be written by both processes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
