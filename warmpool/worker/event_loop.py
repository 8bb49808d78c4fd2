"""The serve loop of an app with async functions: one uvloop loop that never stops, so that what the app started in
the background lives on between calls.

Sockets are raw and non-blocking. Calls run one at a time, and of each connection one at most is taken ahead: those of
one connection run in the order in which they were made, who sends much takes turns with who sends little, and nothing
is read from a client that has not taken its last answer. Each async call is a task of its own; a plain function of
such an app runs on the loop and blocks it, as it would anywhere in asyncio.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import select
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import uvloop

from ..app import CallCancelled
from ..constants import HOOK_TIMEOUT
from ..errors import ProtocolError
from ..inputs import Arguments
from ..methods import Kind
from ..signatures import DEFAULT_FUNCTION, Function
from ..wire.large import Frame, MessageWriter
from ..wire.messages import Call, Stream, call_from_wire
from .birth import give_back_zeros
from .cancelling import NOTHING
from .connection import ENDS, Connection
from .failures import OUTSIDE, print_failure
from .forks import leave
from .hooks import awaited
from .loop import Loop
from .streams import AsyncItems, Items, Outlet, speaker
from .tasks import forget_cancels, outlast

if TYPE_CHECKING:
    from .runner import AppProcess

_AT_ONCE: Final = (Kind.PLAIN, Kind.GENERATOR)
"""What runs on the loop and blocks it."""
ITEMS_AT_ONCE: Final = 64
"""Of a generator that never waits: so often the loop looks at everything else."""


class EventLoop(Loop):
    def __init__(self, process: AppProcess) -> None:
        super().__init__(process)
        self._loop = uvloop.new_event_loop()
        give_back_zeros(self._loop)  # a buffer of 256 kB, of which nothing here makes use
        asyncio.set_event_loop(self._loop)
        self._context = copy_context()  # what `setup` puts into context variables is there in each call
        self._queue: deque[tuple[Connection, Call | Stream]] = deque()
        self._occupied: set[Connection] = set()  # its call waits or runs, or its answer is not taken
        self._paused: set[Connection] = set()  # of these, those that have sent more: not watched until they are free
        self._running: asyncio.Task[None] | None = None
        self._awaited = NOTHING  # id of the call whose code, the app's, the task that runs is in
        self._serves = False
        self._following: Connection | None = None  # whose call is a stream, and runs
        self._in_generator = False
        self._stuck: Outlet | None = None  # what it said is pushed when its socket takes more
        self._taken: asyncio.Future[None] | None = None  # done when it has taken what it was sent

    def run_hook(self, hook: Callable[..., Any], *arguments: Any, timeout: float | None) -> Any:
        running = self._loop.create_task(self._run_hook(timeout, hook, *arguments), context=self._context)
        return self._loop.run_until_complete(running)

    async def _run_hook(self, patience: float | None, hook: Callable[..., Any], *arguments: Any) -> Any:
        async with asyncio.timeout(patience):
            return await awaited(hook, *arguments)

    def serve(self) -> None:
        self._inbox.watch(lambda *_: self._inbox.on_signal())
        self._inbox.on_received = self.wake
        self._serves = True
        self._loop.call_soon(self._heed_daemon)  # before anything is read; and in the loop, where calls run
        self._loop.add_reader(self._process.channel, self._heed_daemon)
        while self._process.exit_reason is None:
            try:
                self._loop.run_forever()
            except BaseException as error:
                print_failure(OUTSIDE, error)
        self._serves = False
        self._loop.remove_reader(self._process.channel)
        for connection in list(self._connections.values()):
            self._close(connection)

    def add(self, connection: Connection) -> None:
        connection.socket.setblocking(False)
        self._connections[connection.socket.fileno()] = connection
        self._loop.add_reader(connection.socket.fileno(), self._on_bytes, connection)

    def is_calling(self) -> bool:
        return self._running is not None

    def is_in_call(self) -> bool:
        return self._running is not None and self._running is asyncio.current_task()

    def is_busy(self) -> bool:
        return bool(self._queue) or super().is_busy()

    def disown(self) -> None:
        with select.epoll() as another:
            os.dup2(another.fileno(), self._loop._get_backend_id(), inheritable=False)  # type: ignore[attr-defined]
        if self._serves:
            self._loop.call_soon(leave, None)

    def wake(self) -> None:
        if self._serves:  # it does not heed anything in the middle of `setup`, but right after it
            self._loop.call_soon_threadsafe(self._heed_daemon)

    def close(self) -> None:
        self._inbox.unwatch()
        asyncio.set_event_loop(None)  # these two would keep it
        self._loop.close()

    def _heed_daemon(self) -> None:
        if self._process.exit_reason is not None:
            return  # woken for what has been done: it stops once
        self._process.heed_daemon()
        if self._process.exit_reason is not None:
            self._loop.stop()
        elif self._awaited and self._inbox.claim_cancel(self._awaited):
            assert self._running is not None
            self._running.cancel()

    def _new_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What it does to context variables is its own."""
        return self._loop.create_task(work, context=self._context.copy())

    # --- calls ------------------------------------------------------------------------------------------------

    def _on_bytes(self, connection: Connection) -> None:
        if connection in self._occupied:
            if connection is self._following and not connection.is_open():
                self._lose_follower()
            self._paused.add(connection)
            self._loop.remove_reader(connection.socket.fileno())
            return
        try:
            frame = connection.reader.read(connection.socket.recv_into)
        except BlockingIOError:
            return
        except ENDS as error:
            self._give_up(connection, error)
            return
        if frame is not None:
            self._take(connection, frame)
            self._next_calls()

    def _take(self, connection: Connection, frame: memoryview) -> None:
        """A call joins the line, if it is one and not the first word on its connection."""
        try:
            if not connection.attached:
                self._process.attach(connection, frame)
                self._free(connection)
                return
            if self._inbox.has_mail or self._inbox.messages:
                self._process.see_labels()
            call = call_from_wire(frame)
        except BaseException as error:
            self._give_up(connection, error)
            return
        finally:
            frame.release()  # it may lie in memory that is passed, as large again as the call
        self._occupied.add(connection)
        self._queue.append((connection, call))

    def _next_calls(self) -> None:
        """Runs what waits, one after another, until a call has to be awaited."""
        caller, inbox = self._process.caller, self._inbox
        while self._queue and self._running is None and self._process.drain_reason is None:
            connection, call = self._queue.popleft()
            function = caller.functions.get(call.function or DEFAULT_FUNCTION)
            if inbox.must_check and inbox.forgoes(call.id):
                self._reply(connection, caller.forgo(call, connection.writer))
            elif function is not None and function.kind in _AT_ONCE and type(call) is Call:
                reply = self._context.run(caller.answer, call, connection.writer)
                if inbox.was_cancelled:
                    self._running = self._new_task(self._finish(connection, reply))
                else:
                    self._reply(connection, reply)
            else:
                self._running = self._new_task(self._run(connection, call))

    async def _run(self, connection: Connection, call: Call | Stream) -> None:
        caller, writer = self._process.caller, connection.writer
        speaker.set(call.id)
        outlet = None
        if type(call) is Stream:
            self._following, outlet = connection, self._process.follow(connection, call.id)
        try:
            caller.begin(call.id)
            function, arguments = caller.run(call.id, caller.decode, call)
        except BaseException as error:
            reply = caller.refuse(call.id, caller.undecoded(call, error), writer)
        else:
            self._awaited = call.id
            try:
                if outlet is not None and function.streams:
                    reply = await self._stream(outlet, function, arguments, writer)
                else:
                    value = caller.run(call.id, function.method, caller.app, *arguments)
                    if function.is_async:
                        value = await value
                    reply = caller.reply(call.id, function, value, writer)
            except BaseException as error:
                if self._inbox.was_cancelled and isinstance(error, asyncio.CancelledError):
                    error = CallCancelled()
                reply = caller.refuse(call.id, caller.raised(function.name, error), writer)
            self._awaited = NOTHING
        await self._finish(connection, reply)

    async def _finish(self, connection: Connection, reply: Frame) -> None:
        """The app's code has ended: its hook may be to run; then the reply is sent, and the next call begins."""
        if self._inbox.was_cancelled:
            self._inbox.was_cancelled = False
            forget_cancels()
            await outlast(self._new_task(self._run_on_cancel()))
        self._process.caller.end()
        self._running = None
        if self._following is not None:
            self._end_of_stream(self._following)
        self._reply(connection, reply)
        if self._process.drain_reason is not None:
            self._heed_daemon()
        self._next_calls()

    async def _run_on_cancel(self) -> None:
        try:
            if (hook := getattr(self._process.caller.app, "on_cancel", None)) is not None:
                await self._run_hook(HOOK_TIMEOUT, hook)
        except BaseException as error:
            print_failure("on_cancel", error)

    # --- streams ----------------------------------------------------------------------------------------------

    async def _stream(self, outlet: Outlet, function: Function, arguments: Arguments, writer: MessageWriter) -> Frame:
        """Sends the items of a generator, plain or async. Gives the frame with the answer; raises what it raises."""
        caller, call_id = self._process.caller, outlet.call_id
        made = caller.run(call_id, function.iterate, caller.app, *arguments)
        items = AsyncItems(made) if function.is_async else Items(caller, call_id, made)
        told: BaseException | None = None
        self._in_generator = True
        try:
            for count in itertools.count():
                try:
                    step = items.next() if told is None else items.throw(told)
                    item = await step if function.is_async else step
                except items.end as end:
                    value = getattr(end, "value", None)
                    return caller.reply_with(function.encode_return, call_id, function, value, writer)
                try:
                    outlet.item(function.encode(item))
                except Exception as error:
                    return caller.refuse_output(call_id, function, item, error, writer)
                told = None
                if outlet.unsent or count % ITEMS_AT_ONCE == 0:
                    told = await self._breathe(outlet, asyncio.CancelledError if function.is_async else CallCancelled)
                if outlet.gone:
                    break
        finally:
            self._in_generator = False
            if isinstance(items, AsyncItems):
                await items.close()
            else:
                items.close()
        return b""  # nobody is there to read it

    async def _breathe(self, outlet: Outlet, cancel: type[BaseException]) -> BaseException | None:
        """Between two items: waits until the client has taken what it was sent, and lets others run. Gives what is to
        be raised in the generator, if it is to stop.
        """
        try:
            if outlet.unsent:
                self._push_when_writable(outlet)
                self._taken = self._loop.create_future()
                await self._taken
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            return cancel()
        return None

    def unstick(self, outlet: Outlet) -> None:
        if outlet is not self._stuck:  # or else it is seen to already
            self._stuck = outlet
            self._loop.call_soon_threadsafe(self._push_when_writable, outlet)

    def _push_when_writable(self, outlet: Outlet) -> None:
        self._stuck = outlet
        if outlet is self._process.outlet:
            self._loop.add_writer(outlet.fileno(), self._push, outlet)

    def _push(self, outlet: Outlet) -> None:
        outlet.push()
        if not outlet.unsent:
            self._stuck = None
            self._loop.remove_writer(outlet.fileno())
            if self._taken is not None and not self._taken.done():
                self._taken.set_result(None)

    def _lose_follower(self) -> None:
        """The client of a stream has left: a generator is closed, wherever it waits; another function runs on."""
        outlet = self._process.outlet
        assert outlet is not None
        outlet.leave()
        if self._in_generator and self._running is not None:
            self._running.cancel()

    def _end_of_stream(self, connection: Connection) -> None:
        self._loop.remove_writer(connection.socket.fileno())
        self._following = self._taken = self._stuck = None
        self._process.unfollow()

    # --- answers ----------------------------------------------------------------------------------------------

    def _reply(self, connection: Connection, reply: Frame) -> None:
        """Sends what the socket takes, and the rest when it takes more; then it is the client's turn again."""
        if self._connections.get(connection.socket.fileno()) is not connection:
            return  # closed while its call ran
        try:
            all_taken = connection.outbox.post(reply)
        except OSError as error:
            self._give_up(connection, error)
            return
        if not all_taken:
            self._loop.add_writer(connection.socket.fileno(), self._send_more, connection)
        else:
            self._free(connection)
            self._process.caller.wait_awake()

    def _send_more(self, connection: Connection) -> None:
        try:
            all_taken = connection.outbox.push()
        except OSError as error:
            self._give_up(connection, error)
            return
        if all_taken:
            self._loop.remove_writer(connection.socket.fileno())
            self._free(connection)
            if self._process.drain_reason is not None:
                self._heed_daemon()
            self._next_calls()

    def _free(self, connection: Connection) -> None:
        """Its answer is on its way: takes its next call, if that is here, or reads it again."""
        try:
            frame = connection.reader.next_frame() if connection.reader.pending else None
        except ProtocolError as error:
            self._give_up(connection, error)
            return
        if frame is not None:
            self._take(connection, frame)
            return
        self._occupied.discard(connection)
        if connection in self._paused:
            self._paused.discard(connection)
            self._loop.add_reader(connection.socket.fileno(), self._on_bytes, connection)

    def _give_up(self, connection: Connection, end: BaseException) -> None:
        super()._give_up(connection, end)
        if self._process.drain_reason is not None:
            self.wake()

    def _close(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._occupied.discard(connection)
        self._paused.discard(connection)
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        connection.close()
