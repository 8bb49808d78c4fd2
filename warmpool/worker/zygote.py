"""The zygote: imports once what all templates need, and forks them, each of which then imports its app.

To start Python and to import pydantic and what runs a worker takes ten times as long as the import of a small app. An
app is not imported here, and nothing that not every template imports: each of them begins as a fresh one would.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from contextlib import suppress

from ..descriptors import adopt, close_all
from ..launch import die_with
from ..packets import expect_fds, receive, send
from ..wire.process_messages import TO_ZYGOTE, CanFork, Forked, NotForked
from ..wire.shapes import Message
from . import template
from .birth import await_adoption, be_expendable, forget_signals, threads_besides_main


def main() -> None:
    daemon_pid = int(sys.argv[1])
    channel = adopt(os.dup(template.CHANNEL_FD), socket.SOCK_SEQPACKET)
    os.close(template.CHANNEL_FD)
    os.chdir("/")
    be_expendable()
    forget_signals()
    die_with(daemon_pid)
    if threads := threads_besides_main():
        print(f"this Python has threads before it runs anything of ours: {', '.join(threads)}")  # noqa: T201
        return
    gc.collect()
    gc.freeze()
    ends = None
    with suppress(ConnectionError):  # another one has its place by now
        ends = _fork(channel)
    channel.close()
    if ends is not None:
        _be_template(*ends)


def _fork(channel: socket.socket) -> tuple[int, int] | None:
    """Forks what is asked for until the daemon hangs up. In a template: its end of what it is told, and of what it
    prints to. Raises ConnectionError if the daemon hangs up on what it is told.
    """
    send(channel, CanFork())
    while (received := receive(channel, TO_ZYGOTE)) is not None:
        end, printed = expect_fds(*received, 2)
        if _fork_twice(end):
            return end, printed
        close_all((end, printed))
        send(channel, CanFork())
    return None


def _fork_twice(end: int) -> bool:
    """True in the template, when it is the daemon's child."""
    try:
        middle = os.fork()
    except OSError as error:
        _tell(end, NotForked(error.errno or 0))
        return False
    if middle:
        os.waitpid(middle, 0)
        return False
    middle = os.getpid()
    try:
        child = os.fork()
    except OSError as error:
        _tell(end, NotForked(error.errno or 0))
        os._exit(0)
    if child:
        _tell(end, Forked(child))
        os._exit(0)
    await_adoption(middle)
    _tell(end, Forked(os.getpid()))  # again: the middle may have been killed before it could
    return True


def _tell(end: int, message: Message) -> None:
    with suppress(OSError), adopt(os.dup(end), socket.SOCK_SEQPACKET, blocking=False) as channel:
        send(channel, message)


def _be_template(end: int, printed: int) -> None:
    os.setsid()
    vars(threading.main_thread())["_native_id"] = os.getpid()  # Python 3.11 leaves the one of before
    for standard in (1, 2):
        os.dup2(printed, standard)
    os.close(printed)
    template.live(adopt(end, socket.SOCK_SEQPACKET))
