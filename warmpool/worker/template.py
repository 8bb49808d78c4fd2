"""The template: imports one app once, runs its `preload`, and forks workers on request. It never serves.

One thread, no event loop: it reads one message at a time from the daemon. A fork of it shares the app's modules and
what `preload` loaded, copy on write; the garbage collector leaves those pages alone. If the import started threads a
fork would be unsafe: the template says so when it has loaded, and the daemon starts one per worker, to become it.

Forked from the zygote; or, if that is of no use or the app has an interpreter of its own, started afresh with its
channel to the daemon as descriptor 3.
"""

from __future__ import annotations

import gc
import inspect
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final, NoReturn

from .. import current_call
from ..app import AppContext, BaseApp
from ..board import Board
from ..descriptors import adopt, close_all
from ..errors import AppBrokenError
from ..launch import PATH_ENV, be_subreaper, die_with
from ..packets import expect_fds, receive, send
from ..signatures import Function, functions_of
from ..wire.process_messages import (
    TO_TEMPLATE,
    Describe,
    Described,
    Fork,
    Forked,
    ForkFailed,
    Load,
    Loaded,
    LoadFailed,
    SourceRead,
)
from .atfork import fork_alone
from .birth import (
    await_adoption,
    be_expendable,
    fill_holes,
    forget_signals,
    keep_freed_memory,
    reseed_in_place,
    shed_inheritance,
    threads_besides_main,
)
from .failures import app_broken
from .forks import ParentOnly
from .hooks import run_hook
from .loading import AppImporter
from .logs import flush_streams, replace_streams
from .options import options_of
from .priming import prime
from .rehearsal import acquaint, rehearse
from .runner import AppProcess, loop_for

CHANNEL_FD: Final = 3
REHEARSALS: Final = 10
"""Python fits its code to what it meets, in place, in the first eight runs. What the template has fitted its workers
share; otherwise each would write to pages of its own, 300 kB of them.
"""


class Template:
    def __init__(
        self,
        channel: socket.socket,
        load: Load,
        board: Board,
        app: type[BaseApp],
        functions: dict[str, Function],
        importer: AppImporter,
    ) -> None:
        self._channel = channel
        self._load = load
        self._app = app
        self._importer = importer
        self.version = importer.version(app)
        self._context = AppContext(load.app, self.version)
        self._functions = functions
        self.loop = loop_for(self._functions)
        self._board = board
        self._primed: BaseApp | None = None
        """Set up already: workers have a copy of it each."""
        self._filling: list[bytes] = []
        self._collects = True
        """Whether the app has left the garbage collector on."""

    def prime(self) -> None:
        self._primed = prime(self._app, self._functions, self._context)

    def prepare(self) -> None:
        """Makes its memory such that workers have to copy little of it: what they will do is done once, so that Python
        has fitted its code to it; then what is garbage goes, the gaps are filled, and the collector writes to nothing
        that is left.
        """
        with closing(Board.create(1)) as board:
            for _ in range(REHEARSALS):
                rehearse(self.loop, board, 0)
        acquaint(self._functions.values())
        forget_signals()
        gc.collect()
        self._filling = fill_holes()
        self._collects = gc.isenabled()
        gc.disable()
        gc.freeze()

    def serve(self) -> None:
        """Forks and describes until the daemon closes the channel."""
        while (received := receive(self._channel, TO_TEMPLATE)) is not None:
            message, fds = received
            match message:
                case Fork():
                    self._make_worker(message, *expect_fds(message, fds, 3))
                case Describe():
                    functions = [function.describe() for function in self._functions.values()]
                    send(self._channel, Described(functions))
                case _:
                    close_all(fds)

    def _make_worker(self, fork: Fork, worker_end: int, log: int, first: int) -> None:
        if fork.in_place:
            self._become_worker(fork, worker_end, log, first, None)
        flush_streams()
        try:
            threads = threads_besides_main()
            if threads:
                raise RuntimeError(f"it has threads now: {', '.join(threads)}")
            middle = fork_alone()
        except (OSError, RuntimeError) as error:
            self._refuse(fork, f"fork: {error}", getattr(error, "errno", None) or 0)
        else:
            if middle == 0:
                self._fork_again(fork, worker_end, log, first)
            _, status = os.waitpid(middle, 0)
            if status:
                failed = os.waitstatus_to_exitcode(status)  # an errno, unless it was killed
                self._refuse(fork, f"the second fork failed with status {failed}", max(0, failed))
        close_all((worker_end, log, first))

    def _fork_again(self, fork: Fork, worker_end: int, log: int, first: int) -> NoReturn:
        """In the middle process, which tells the daemon of its child before the daemon can become its parent."""
        middle = os.getpid()
        try:
            worker = fork_alone()
        except OSError as error:
            os._exit(error.errno or 1)
        if worker == 0:
            self._become_worker(fork, worker_end, log, first, middle)
        with suppress(OSError):
            channel = adopt(worker_end, socket.SOCK_SEQPACKET, blocking=False)  # left to the exit to close
            send(channel, Forked(worker))
        os._exit(0)

    def _become_worker(self, fork: Fork, worker_end: int, log: int, first: int, middle: int | None) -> NoReturn:
        status = 70
        try:
            self._channel.close()
            for standard in (1, 2):
                os.dup2(log, standard)
            os.close(log)
            shed_inheritance()
            if self._collects:
                gc.enable()
            if middle is None:
                reseed_in_place()
            else:
                await_adoption(middle)
            die_with(self._load.daemon_pid)
            be_subreaper()
            channel = adopt(worker_end, socket.SOCK_SEQPACKET, blocking=False)
            send(channel, Forked(os.getpid()))  # again: the middle may have been killed before it could
            self._importer.tell = teller(channel)
            rehearse(self.loop, self._board, fork.row)
            gc.collect(1)  # so that the worker's own has the understudy's place: of an async one 256 kB of loop
            acquaint(self._functions.values())
            self._context.worker_id = fork.worker_id
            process = AppProcess(
                channel, self._app, self._functions, self._board, self._context,
                row=fork.row, frame_limit=self._load.frame_limit, primed=self._primed,
            )  # fmt: skip
            os.register_at_fork(after_in_child=process.disown)
            process.inbox.watch_what_is_swallowed()
            current_call.session = process.session_of_call
            process.live(self.loop, adopt(first))
            status = 0
        except OSError as error:
            print(  # noqa: T201  (the session's log)
                f"{self._load.app}: {fork.worker_id} cannot go on: {error}; did the app close what it had not opened?",
                file=sys.stderr,
            )
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            flush_streams()
            os._exit(status)

    def _refuse(self, fork: Fork, why: str, errno: int) -> None:
        error = AppBrokenError(f"app {self._load.app}: no worker could be made: {why}", details={"message": why})
        send(self._channel, ForkFailed(fork.worker_id, error.to_wire(), errno))


def main() -> None:
    channel = adopt(os.dup(CHANNEL_FD), socket.SOCK_SEQPACKET)
    os.close(CHANNEL_FD)
    live(channel)


def live(channel: socket.socket) -> None:
    """A template's life, from the first word of the daemon's to its last."""
    forget_signals()
    received = None
    with suppress(ConnectionResetError):  # nobody wants it any more, or has read that it is there
        received = receive(channel, TO_TEMPLATE)
    if received is None:
        return
    load, fds = received
    assert isinstance(load, Load), load
    (board_fd,) = expect_fds(load, fds, 1)
    board = Board(board_fd)
    os.close(board_fd)
    os.chdir("/")
    be_expendable()
    die_with(load.daemon_pid)
    _limit_open_files(load.open_files)
    keep_freed_memory()
    sys.dont_write_bytecode = True
    sys.path += filter(None, os.environ.pop(PATH_ENV, "").split(os.pathsep))
    sys.argv = [load.file or load.module]
    replace_streams()
    template = _load_app(channel, load, board)
    if template is not None:
        template.serve()


def _limit_open_files(soft: int) -> None:
    """As whoever started the daemon has it: that has raised its own. Or as much as is allowed by now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bounds = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(bounds, default=resource.RLIM_INFINITY), hard))


def teller(channel: socket.socket) -> Callable[[SourceRead], None]:
    """Tells the daemon of each file of the app's before it runs."""

    def tell(source: SourceRead) -> None:
        with suppress(OSError):  # the daemon is gone or has no time; or we are a child of the app's that outlives both
            send(channel, source)

    return tell


def _load_app(channel: socket.socket, load: Load, board: Board) -> Template | None:
    importer = AppImporter(load, teller(channel))
    doing = "its import"
    try:
        with ParentOnly():
            app = importer.import_app()
            doing = "reading its functions"
            functions = functions_of(app)  # what `preload` puts into the class is none
            if (preload := getattr(app, "preload", None)) is not None:
                doing = "preload"
                _run_preload(preload)
            doing = "reading its options"
            template = Template(channel, load, board, app, functions, importer)
            options = options_of(app)
            if load.primed:
                doing = "its setup"
                template.prime()
    except BaseException as error:
        send(channel, LoadFailed(app_broken(load.app, doing, error).to_wire(), importer.sources()))
        return None
    template.prepare()
    send(channel, Loaded(template.version, importer.sources(), options, threads_besides_main()))
    return template


def _run_preload(preload: object) -> None:
    if not callable(preload):
        raise TypeError("preload is not callable: make it a classmethod")
    if inspect.isfunction(preload) and inspect.signature(preload).parameters:
        raise TypeError("preload runs before there is an instance: make it a classmethod")
    run_hook(preload)
