"""Templates as the daemon has them: started, talked to and stopped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

from ..descriptors import close_all
from ..policy import events as ev
from ..wire.process_messages import (
    FROM_TEMPLATE,
    Describe,
    Described,
    Fork,
    Forked,
    ForkFailed,
    Loaded,
    LoadFailed,
    NotForked,
    SourceRead,
)
from ..wire.shapes import Message
from .catalog import Catalog
from .child import Channel, Child
from .children import Children
from .room import is_shortage, why_no_room
from .starter import Plan, Starter
from .zygote import NO_FORK


class TemplateEnd:
    """Our end of one template, from when it is asked for."""

    def __init__(self, app_key: str, plan: Plan, channel: Channel) -> None:
        self.app_key = app_key
        self.plan = plan
        self.channel = self.announced_on = channel
        self.child: Child | None = None
        """None: it is yet to be forked. It ends by itself then when its channel does."""
        self.describers: list[ev.Ticket] = []
        self._unsent: list[tuple[int, ...]] = []
        """The ends of workers that it was asked for when it was dying: they have not failed before it has."""

    def __repr__(self) -> str:
        return f"<TemplateEnd {self.plan.load.app} {self.child}>"

    def ask_for(self, fork: Fork, ends: tuple[int, ...]) -> None:
        """Sends it, and closes `ends` when they are no longer needed. Raises OSError if it has many others to fork
        first, or the machine has no room.
        """
        try:
            self.channel.send_now(fork, ends)
        except ConnectionError:
            self._unsent.append(ends)
            return
        except OSError:
            close_all(ends)
            raise
        close_all(ends)

    def close(self) -> None:
        self.channel.close()
        for ends in self._unsent:
            close_all(ends)


class Templates:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        board_fd: int,
        catalog: Catalog,
        children: Children,
        starter: Starter,
        *,
        report: Callable[[ev.Event], None],
        described: Callable[[ev.Ticket, list[Any] | None], None],
        not_made: Callable[[str, OSError, dict[str, Any]], None],
    ) -> None:
        """`described` is told what templates say (None: it died), `not_made` of a worker that could not be forked."""
        self._loop = loop
        self._board_fd = board_fd
        self._catalog = catalog
        self._children = children
        self._starter = starter
        self._report = report
        self._described = described
        self._not_made = not_made
        self._of_pool: dict[str, TemplateEnd] = {}

    def __iter__(self) -> Iterator[TemplateEnd]:
        return iter(self._of_pool.values())

    def of(self, pool: str) -> TemplateEnd:
        """That of a pool whose template is READY."""
        return self._of_pool[pool]

    def start(self, pool: str, app_key: str) -> None:
        plan = self._starter.plan_for(app_key)
        try:
            ours, child = self._starter.start(plan)
        except OSError as error:
            if is_shortage(error):
                self._report(ev.NoRoomForTemplate(pool, why_no_room(error)))
            else:
                self._report(ev.TemplateFailed(pool, plan.no_process(error)))
            return
        channel = Channel(ours, self._loop, FROM_TEMPLATE, lambda m: self._heed(pool, m), lambda: self._hung_up(pool))
        template = self._of_pool[pool] = TemplateEnd(app_key, plan, channel)
        if child is not None:
            self._born(pool, template, child)

    def stop(self, pool: str) -> None:
        """Its workers do not notice."""
        template = self._of_pool.pop(pool, None)
        if template is not None:
            self._close(template)
            if template.child is not None:
                template.child.kill()

    def lose(self, pool: str) -> None:
        """Kills it as a stranger would."""
        template = self._of_pool.get(pool)
        if template is not None and template.child is not None:
            template.child.lose()

    def describe(self, pool: str, ticket: ev.Ticket) -> None:
        template = self._of_pool.get(pool)
        if template is not None and template.channel.send(Describe()):
            template.describers.append(ticket)
        else:
            self._described(ticket, None)

    def imports(self, pid: int, app_key: str) -> bool:
        """Whether this process is a template of that app."""
        return any(one.app_key == app_key for one in self if one.child is not None and one.child.pid == pid)

    def _heed(self, pool: str, message: Message) -> None:
        template = self._of_pool[pool]
        app = self._catalog.by_key(template.app_key)
        match message:
            case Forked():
                self._forked(pool, template, message.pid)
            case SourceRead():
                app.note(message)
            case Loaded():
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
            case NotForked():
                self._never_born(pool, template, why_no_room(OSError(message.errno, os.strerror(message.errno))))
            case ForkFailed():
                cause = OSError(message.errno, os.strerror(message.errno))
                self._not_made(message.worker_id, cause, message.error)

    def _forked(self, pool: str, template: TemplateEnd, pid: int) -> None:
        """It exists, and is our child or about to be."""
        if template.child is None:  # it says so twice, lest once is lost
            try:
                child = self._children.watch(pid)
            except OSError as error:
                self._never_born(pool, template, why_no_room(error))
            else:
                self._born(pool, template, child)

    def _born(self, pool: str, template: TemplateEnd, child: Child) -> None:
        template.child = child
        child.on_exit = lambda end: self._exited(pool, template, template.plan.status(end.status))
        template.channel.send(template.plan.load, (self._board_fd,))

    def _hung_up(self, pool: str) -> None:
        """If it was ever born, its exit is about to be seen."""
        template = self._of_pool.get(pool)
        if template is not None and template.child is None:
            self._never_born(pool, template, NO_FORK)

    def _never_born(self, pool: str, template: TemplateEnd, why: str) -> None:
        del self._of_pool[pool]
        self._close(template)
        self._report(ev.NoRoomForTemplate(pool, why))

    def _exited(self, pool: str, template: TemplateEnd, status: str) -> None:
        template.channel.drain()  # what it said before it died comes first
        if self._of_pool.get(pool) is template:
            del self._of_pool[pool]
            self._report(ev.TemplateExited(pool, status))  # first: who is told by the next may be gone, and be reported
            self._close(template)

    def _close(self, template: TemplateEnd) -> None:
        template.close()
        for ticket in template.describers:
            self._described(ticket, None)
