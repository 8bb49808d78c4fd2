"""`warmpool serve`: takes the lock, makes the files, starts the zygote, runs the loop, and removes the files again.

What the daemon is made of is imported while the zygote imports what all templates need: each of the two takes longer
than all else that comes before a first call.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..board import Board
from ..errors import InvalidRequestError
from ..launch import be_subreaper
from ..lock import AlreadyLockedError, LockFile
from ..paths import SOCKET_ENV, Places, address_of, make_private
from ..settings import Settings
from .catalog import Catalog
from .log import STDERR, Log, LogWriter, as_json, as_text, is_written_to, put_aside, tail_to
from .movable_board import MovableBoard
from .room import FOR_A_DAEMON, check_room, why_no_room
from .zygote_process import ZygoteProcess, start_zygote

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .server import Server

BACKLOG = 1024
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(
    places: Places,
    settings: Settings,
    apps: Sequence[str] = (),
    *,
    log_json: bool = False,
    tail: bool = False,
    ready: Callable[[], None] = lambda: None,
    owner: socket.socket | None = None,
) -> None:
    """Runs a daemon until it is told to stop, or `owner`, for whose tests it is, hangs up. `ready` is called when
    clients can connect; with `tail` the daemon's log has what workers print, too.

    Raises INVALID_REQUEST if one runs already on this socket, and APP_NOT_FOUND for a path that is no app.
    """
    catalog = Catalog()
    entries = catalog.serve(apps)
    make_private(places)
    with ExitStack() as stack:
        stack.enter_context(_signals_held())
        log = LogWriter(STDERR, as_json if log_json else as_text, places.log if is_written_to(places.log) else None)
        stack.callback(log.close)
        lock = _lock(places)
        stack.callback(lock.release)
        stack.callback(_clear, places, lock)
        _put_log_aside(places)
        open_files = _raise_open_files()
        _check_room_for_one()
        os.environ[SOCKET_ENV] = places.address  # where clients in apps find their own daemon
        be_subreaper()
        board, listener = _open(Board if owner is None else MovableBoard, settings.max_workers, places)
        stack.callback(board.close)
        zygote = _zygote()
        import uvloop

        from .server import Server

        loop = stack.enter_context(closing(uvloop.new_event_loop()))
        printed = tail_to(log) if tail else None
        server = Server(loop, places, settings, board, catalog, listener, zygote, open_files, log, printed)
        _heed_signals(loop, server, stack)
        stack.callback(server.close)
        _introduce(log, places, apps if not entries else ())
        catalog.log_to(log)
        server.warm_up(entries)
        if owner is not None:
            loop.add_reader(owner.fileno(), server.owner_has_gone)
        ready()
        loop.run_forever()
        log("stopped")


@contextmanager
def _signals_held() -> Iterator[None]:
    """None ends this process before it can leave nothing behind. `_heed_signals` lets them in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed_signals(loop: AbstractEventLoop, server: Server, stack: ExitStack) -> None:
    for number in STOP_SIGNALS:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:  # under nohup it stays so
            loop.add_signal_handler(number, server.stop)
            stack.callback(loop.remove_signal_handler, number)
    loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, STOP_SIGNALS)  # uvloop forgets what comes before it runs


def _introduce(log: Log, places: Places, without_apps: Sequence[str]) -> None:
    log(f"listening on {places.socket}, pid {os.getpid()}; whoever can open it can run code as you")
    if without_apps:
        where = ", ".join(without_apps)
        log(f"there is no app in {where} yet: no file or package with a subclass of warmpool.BaseApp")


def _open(kind: type[Board], rows: int, places: Places) -> tuple[Board, socket.socket]:
    """The board, and the listener. Raises INVALID_REQUEST if there can be none."""
    try:
        with ExitStack() as undo:
            board = kind.create(rows)
            undo.callback(board.close)
            listener = _listen(places.socket)
            undo.pop_all()
    except OSError as error:
        raise _cannot_serve(places, error) from error
    return board, listener


def _zygote() -> ZygoteProcess | None:
    """None: there can be none for now."""
    try:
        return start_zygote()
    except OSError:
        return None


def _check_room_for_one() -> None:
    """Rather than never to be able to make a worker."""
    try:
        check_room(FOR_A_DAEMON)
    except OSError as error:
        raise InvalidRequestError(f"no daemon can run here: {why_no_room(error)}") from error


def _lock(places: Places) -> LockFile:
    try:
        return LockFile(places.lock)
    except OSError as error:
        raise _cannot_serve(places, error) from error
    except AlreadyLockedError as error:
        end = "warmpool stop" if places.socket.exists() or not error.pid else f"kill {error.pid}"
        raise InvalidRequestError(
            f"a daemon is already running on {places.socket} (pid {error.pid or 'not known yet'}); "
            f"stop it with `{end}`, or give this one another --socket"
        ) from None


def _put_log_aside(places: Places) -> None:
    """That of a daemon before this one, or else it would be taken for this one's."""
    if not is_written_to(places.log):
        with suppress(OSError):
            put_aside(places.log)


def _clear(places: Places, lock: LockFile) -> None:
    """Leaves nothing behind, as far as that goes. Where somebody has removed our files, those that are there now are
    another daemon's.
    """
    if lock.is_still_there():
        with suppress(OSError):
            places.socket.unlink(missing_ok=True)
        shutil.rmtree(places.logs, ignore_errors=True)


def _cannot_serve(places: Places, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"no daemon can run at {places.socket}: {error}; name another --socket")


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, for our eyes only. The lock is ours, so what lies there is nobody's."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        with address_of(str(path)) as address:
            listener.bind(address)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


def _raise_open_files() -> int:
    """As many descriptors as we may have: a session costs three. Gives the limit from before, for the workers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft
