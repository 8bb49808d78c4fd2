"""Workers as processes: started, talked to, watched, killed and reaped. Decides nothing.

The daemon is the parent of each of them: as the nearest subreaper it is given what templates fork (`children.py`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from .. import packets
from ..board import Board
from ..constants import ATTACH_FRAME_LIMIT
from ..descriptors import close_all
from ..policy import effects as fx
from ..policy import events as ev
from ..policy.refusals import broken
from ..wire.frames import FrameWriter
from ..wire.process_messages import (
    FROM_WORKER,
    Attach,
    Busy,
    Cancel,
    Ended,
    Fork,
    Forked,
    HangsNext,
    Leaving,
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
from .lone_worker import LoneTemplate
from .room import check_room, is_shortage, why_no_room
from .session_logs import LAST_LINES, Logs
from .starter import Starter
from .templates import Templates
from .workers import WorkerEnd
from .zygote_process import ZygoteProcess

UNBORN_GRACE: Final = 0.1
"""Seconds in which a template's death is seen: until then nothing more is asked of it in place of what it did not make.
"""
HANGUP_GRACE: Final = 1.0
"""Seconds in which a worker that has closed its channel must be gone."""

Report = Callable[[ev.Event], None]


class Processes:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board: Board,
        logs: Logs,
        catalog: Catalog,
        zygote: ZygoteProcess | None,
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
        self._report = report
        self._hangs_next = hangs_next
        self._attaches = FrameWriter(ATTACH_FRAME_LIMIT)
        self._workers: dict[str, WorkerEnd] = {}
        self.children = Children(loop, self._hear_the_newborn)
        self._starter = Starter(
            loop, self.children, catalog, zygote, printed, frame_limit=frame_limit, open_files=open_files
        )
        self.templates = Templates(
            loop, self._board_fd, catalog, self.children, self._starter,
            report=report, described=described, not_made=self._not_made,
        )  # fmt: skip

    def fork(self, wish: fx.Fork) -> None:
        app_key, worker, row = wish.app_key, wish.worker, wish.row
        self._board.clear(row)
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
        if wish.alone:
            self._fork_alone(app_key, worker, row, ends)
        else:
            self._ask_for_fork(wish.pool, Fork(worker, row, in_place=False), ends)

    def _ask_for_fork(self, pool: str, fork: Fork, ends: tuple[int, ...]) -> None:
        try:
            self.templates.of(pool).ask_for(fork, ends)
        except BlockingIOError:
            self._no_room(fork.worker_id, "its template has many others to fork first")
        except OSError as error:
            self._no_room(fork.worker_id, why_no_room(error))

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
        plan = self._starter.plan_for(app_key)
        try:
            ours, child = self._starter.start(plan)
        except OSError as error:
            close_all(ends)
            self._not_made(worker, error, plan.no_process(error))
            return
        lone = LoneTemplate(
            ours, self._loop, plan, self._board_fd, Fork(worker, row, in_place=True), ends,
            watch=self.children.watch, begun=partial(self._begun_alone, worker),
            no_room=partial(self._no_room, worker), loaded=partial(self._loaded_alone, app_key, worker),
            failed=partial(self._never_born, worker),
        )  # fmt: skip
        self._workers[worker].announced_on = lone.channel
        if child is not None:
            lone.begin(child)

    def _begun_alone(self, worker: str, child: Child) -> None:
        known = self._workers.get(worker)
        if known is None:  # it took too long
            child.kill()
        else:
            known.child = child

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

    def close(self) -> None:
        """The last word: nothing is left of any of them."""
        self._starter.close()
        self.children.close()

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

    def _hear_the_newborn(self) -> None:
        """Those who have announced themselves are watched from here on."""
        for newborn in [*self.templates, *self._workers.values()]:
            if newborn.child is None:
                newborn.announced_on.drain()
