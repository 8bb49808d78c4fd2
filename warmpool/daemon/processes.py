"""Templates and workers as processes: started, talked to, watched, killed and reaped. Decides nothing.

The daemon is the parent of each of them: it starts templates, and as the nearest subreaper it is given the workers
that templates fork (`children.py`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from .. import packets
from ..board import Board
from ..constants import ATTACH_FRAME_LIMIT
from ..descriptors import close_all
from ..launch import foreign_command, python_command
from ..policy import events as ev
from ..policy.refusals import broken
from ..version import __version__
from ..wire.frames import FrameWriter
from ..wire.messages import PROTOCOL_VERSION
from ..wire.process_messages import (
    FROM_TEMPLATE,
    FROM_WORKER,
    Attach,
    Busy,
    Cancel,
    Describe,
    Described,
    Ended,
    Fork,
    Forked,
    ForkFailed,
    HangsNext,
    Leaving,
    Load,
    Loaded,
    LoadFailed,
    Ready,
    Released,
    SetupFailed,
    SourceRead,
    Wake,
    WakeMe,
)
from ..wire.shapes import Message, to_wire
from .catalog import Catalog
from .child import Channel, Child, Exit
from .children import Children
from .interpreters import Interpreter, requirement
from .lone_worker import LoneTemplate
from .room import check_room, is_shortage, why_no_room
from .session_logs import LAST_LINES, Logs
from .workers import WorkerEnd

UNBORN_GRACE: Final = 0.1
"""Seconds in which a template's death is seen: until then nothing more is asked of it in place of what it did not make.
"""
HANGUP_GRACE: Final = 1.0
"""Seconds in which a worker that has closed its channel must be gone."""

Report = Callable[[ev.Event], None]


def _no_process(app: str, error: OSError) -> dict[str, Any]:
    return broken(app, f"no process could be started for it: {error}")


def _under(interpreter: Interpreter, status: str) -> str:
    return status if interpreter.is_ours else f"under {interpreter.python} {status}"


class _Template:
    def __init__(self, app_key: str, child: Child, channel: Channel) -> None:
        self.app_key = app_key
        self.child = child
        self.channel = channel
        self.can_fork = True
        self.describers: list[ev.Ticket] = []
        self.unsent: list[tuple[int, ...]] = []
        """The ends of workers that it was asked for when it was dying: they have not failed before it has."""


class Processes:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board: Board,
        logs: Logs,
        catalog: Catalog,
        *,
        frame_limit: int,
        open_files: int,
        report: Report,
        described: Callable[[ev.Ticket, list[Any] | None], None],
        printed: Callable[[str, str], None],
        hangs_next: Callable[[str], None],
    ) -> None:
        """`frame_limit`: the largest body in bytes of a call's message in the stream; `open_files`: the limit that apps
        get. `described` is told what templates say (None: it died), `printed` an app and a line that it prints as it is
        loaded, and `report` everything that the broker should know. What is read of an app goes to the catalog.
        """
        self._loop = loop
        assert board.fd is not None
        self._board, self._board_fd = board, board.fd
        self._logs = logs
        self._catalog = catalog
        self._frame_limit, self._open_files = frame_limit, open_files
        self._report = report
        self._described = described
        self._printed = printed
        self._hangs_next = hangs_next
        self._attaches = FrameWriter(ATTACH_FRAME_LIMIT)
        self._templates: dict[str, _Template] = {}
        self._workers: dict[str, WorkerEnd] = {}
        self.children = Children(loop, self._hear_the_newborn)

    # --- templates --------------------------------------------------------------------------------------------

    def start_template(self, pool: str, app_key: str) -> None:
        load, interpreter = self._load_of(app_key)
        try:
            child, ours = self._spawn(load.app, interpreter)
        except OSError as error:
            if is_shortage(error):
                self._report(ev.NoRoomForTemplate(pool, why_no_room(error)))
            else:
                self._report(ev.TemplateFailed(pool, _no_process(load.app, error)))
            return
        child.on_exit = lambda end: self._template_exited(pool, _under(interpreter, end.status))
        channel = Channel(ours, self._loop, FROM_TEMPLATE, lambda m: self._from_template(pool, m), lambda: None)
        self._templates[pool] = _Template(app_key, child, channel)
        channel.send(load, (self._board_fd,))

    def _load_of(self, app_key: str) -> tuple[Load, Interpreter]:
        """How to load it, and under which interpreter."""
        entry = self._catalog.by_key(app_key)
        load = Load(
            entry.name, entry.root, entry.module, entry.file, entry.class_name,
            self._frame_limit, os.getpid(), self._open_files, entry.primed,
        )  # fmt: skip
        return load, entry.interpreter

    def stop_template(self, pool: str) -> None:
        """Its workers do not notice."""
        template = self._templates.pop(pool, None)
        if template is not None:
            self._close_template(template)
            template.child.kill()

    def describe(self, pool: str, ticket: ev.Ticket) -> None:
        template = self._templates.get(pool)
        if template is not None and template.channel.send(Describe()):
            template.describers.append(ticket)
        else:
            self._described(ticket, None)

    def is_template_of(self, pid: int, app_key: str) -> bool:
        for template in self._templates.values():
            if template.child.pid == pid:
                return template.app_key == app_key
        return False

    def _from_template(self, pool: str, message: Message) -> None:
        template = self._templates[pool]
        app = self._catalog.by_key(template.app_key)
        match message:
            case SourceRead():
                app.note(message)
            case Loaded():
                template.can_fork = not message.threads
                app.remember(message.sources)
                self._report(
                    ev.TemplateLoaded(pool, message.version, **message.options, threads=tuple(message.threads))
                )
            case LoadFailed():
                app.remember(message.sources)
                app.watch_directories()
                self._report(ev.TemplateFailed(pool, message.error))
            case Described():
                self._described(template.describers.pop(0), message.functions)
            case ForkFailed():
                cause = OSError(message.errno, os.strerror(message.errno))
                self._not_made(message.worker_id, cause, message.error)

    def _template_exited(self, pool: str, status: str) -> None:
        template = self._templates.get(pool)
        if template is not None:
            template.channel.drain()
        template = self._templates.pop(pool, None)
        if template is not None:
            self._close_template(template)
            self._report(ev.TemplateExited(pool, status))

    def _close_template(self, template: _Template) -> None:
        template.channel.close()
        for ends in template.unsent:
            close_all(ends)
        for ticket in template.describers:
            self._described(ticket, None)

    # --- workers ----------------------------------------------------------------------------------------------

    def fork(self, pool: str, app_key: str, worker: str, row: int) -> None:
        self._board.clear(row)
        template = self._templates.get(pool)
        with ExitStack() as undo:
            try:
                check_room()
                ours, theirs = map(undo.enter_context, packets.pair())
                first, served = map(undo.enter_context, socket.socketpair())
                log = self._logs.open(worker, row)
            except OSError as error:
                self._report(ev.NoRoomForWorker(worker, why_no_room(error)))
                return
            undo.pop_all()
        channel = Channel(
            ours, self._loop, FROM_WORKER,
            lambda message: self._from_worker(app_key, worker, message), lambda: self._hung_up(worker),
        )  # fmt: skip
        self._workers[worker] = WorkerEnd(worker, self._loop, channel, first)
        ends = (theirs.detach(), log, served.detach())
        if template is not None and template.can_fork:
            self._ask_for_fork(template, Fork(worker, row, in_place=False), ends)
        else:
            self._fork_alone(app_key, worker, row, ends)

    def _ask_for_fork(self, template: _Template, fork: Fork, ends: tuple[int, ...]) -> None:
        try:
            template.channel.send_now(fork, ends)
        except ConnectionError:
            template.unsent.append(ends)
            return
        except BlockingIOError:
            self._no_room(fork.worker_id, "its template has many others to fork first")
        except OSError as error:
            self._no_room(fork.worker_id, why_no_room(error))
        close_all(ends)

    def _not_made(self, name: str, cause: OSError, error: dict[str, Any]) -> None:
        """There is no process for a worker. That is nobody's fault if the machine has no room, and else the `error`."""
        if is_shortage(cause):
            self._no_room(name, why_no_room(cause))
        else:
            self._never_born(name, error)

    def _no_room(self, name: str, why: str) -> None:
        self._strike_off(name, ev.NoRoomForWorker(name, why))

    def _fork_alone(self, app_key: str, worker: str, row: int, ends: tuple[int, ...]) -> None:
        """A process of its own imports the app and becomes the worker: for an app that cannot be forked."""
        load, interpreter = self._load_of(app_key)
        try:
            child, ours = self._spawn(load.app, interpreter)
        except OSError as error:
            close_all(ends)
            self._not_made(worker, error, _no_process(load.app, error))
            return
        self._workers[worker].child = child
        LoneTemplate(
            child, ours, self._loop, load, self._board_fd, Fork(worker, row, in_place=True), ends,
            under=partial(_under, interpreter), loaded=partial(self._loaded_alone, app_key, worker),
            failed=partial(self._never_born, worker),
        )  # fmt: skip

    def _loaded_alone(self, app_key: str, worker: str, version: str) -> None:
        self._report(ev.WorkerLoaded(worker, version, self._catalog.by_key(app_key).edition()))

    def tell(self, worker: str, message: Message) -> None:
        known = self._workers.get(worker)
        if known is not None:
            known.tell(message)

    def hand_over(self, worker: str, attach: Attach) -> int:
        """The client's end of a connection to the worker, for the caller to close. Raises a ConnectionError if the
        worker is dead, and another OSError if it has too many connections that it has not taken, or there can be none.
        """
        known = self._workers.get(worker)
        if known is None:
            raise BrokenPipeError
        return known.connection_for(self._attaches.frame(to_wire(attach)))

    def cancel(self, worker: str, row: int, call_id: int) -> None:
        """The board first: what blocks can see it there at once, and what does not is about to be told."""
        self._board.cancel(row, call_id)
        self.tell(worker, Cancel(call_id))

    def signal(self, worker: str, number: int) -> None:
        known = self._workers.get(worker)
        if known is not None and known.child is not None:
            known.child.signal(number)

    def kill(self, worker: str, why: str) -> None:
        known = self._workers.get(worker)
        if known is not None and known.child is not None:
            known.child.kill(why)
        elif known is not None:  # should its template still make it, it will find its channel closed
            self._never_born(worker, broken(worker, "its template did not make it in time"))

    def lose(self, worker: str) -> None:
        """Kills it as a stranger would."""
        known = self._workers.get(worker)
        if known is not None and known.child is not None:
            known.child.lose()

    def lose_template(self, pool: str) -> None:
        template = self._templates.get(pool)
        if template is not None:
            template.child.lose()

    def _from_worker(self, app_key: str, name: str, message: Message) -> None:
        match message:
            case Forked():
                self._born(name, message.pid)
            case Ready():
                self._report(ev.WorkerReady(name))
            case SetupFailed():
                self._report(ev.WorkerFailed(name, message.error))
            case Busy():
                self._report(ev.WorkerBusy(name))
            case Leaving():
                self._workers[name].says_goodbye = True
                self._report(ev.WorkerLeaving(name, message.reason))
            case Ended():
                self._report(ev.WorkerEnded(name, message.packed))
            case Released():
                self._report(ev.WorkerReleased(name))
            case SourceRead():
                self._catalog.by_key(app_key).note_late(message)
            case WakeMe():
                self.tell(name, Wake())
            case HangsNext():
                self._hangs_next(name)

    def _born(self, name: str, pid: int) -> None:
        """The worker exists. It is our child, or about to be: its pid is its own until we reap it."""
        worker = self._workers[name]
        if worker.is_born:  # it says so twice, lest once is lost
            return
        worker.is_born = True
        try:
            worker.child = self.children.watch(pid)
        except OSError as error:  # its channel closes, so it will go, and the sweep finds it
            self._no_room(name, why_no_room(error))
            return
        worker.child.on_exit = lambda end: self._worker_exited(name, end)
        self._report(ev.WorkerForked(name, pid))

    def _hung_up(self, name: str) -> None:
        """Its channel is closed. If it was ever born, its exit is about to be seen; or it is another program by now."""
        worker = self._workers.get(name)
        if worker is not None and worker.child is not None:
            self._loop.call_later(HANGUP_GRACE, self.kill, name, "after it had closed its channel")
        else:
            unborn = ev.WorkerExited(name, "was never born: its template died")
            self._loop.call_later(UNBORN_GRACE, self._strike_off, name, unborn)

    def _never_born(self, name: str, error: dict[str, Any]) -> None:
        self._strike_off(name, ev.WorkerFailed(name, error), ev.WorkerExited(name, "was never born"))

    def _strike_off(self, name: str, *events: ev.Event) -> None:
        """A worker without a process of ours; once."""
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.close()
            self._logs.finish(name)
            for event in events:
                self._report(event)

    def _worker_exited(self, name: str, end: Exit) -> None:
        worker = self._workers[name]
        worker.channel.drain()  # what it said before it died comes first
        worker.close()
        del self._workers[name]
        self._logs.finish(name)
        last_lines = () if worker.says_goodbye else tuple(self._logs.last_lines(name, LAST_LINES))
        self._report(ev.WorkerExited(name, end.status, end.peak_bytes, last_lines))

    def _spawn(self, app: str, interpreter: Interpreter) -> tuple[Child, socket.socket]:
        """A fresh template process, and our end of its channel. Raises OSError if there can be none."""
        if interpreter.problem is not None:
            raise OSError(interpreter.problem)
        if interpreter.is_ours:
            command = python_command("warmpool.worker.start")
        else:
            command = foreign_command(interpreter.python, app, str(PROTOCOL_VERSION), __version__, requirement())
        return self.children.spawn(command, partial(self._printed, app))

    def _hear_the_newborn(self) -> None:
        """Those who have announced themselves are watched from here on."""
        for worker in list(self._workers.values()):
            if worker.child is None:
                worker.channel.drain()
