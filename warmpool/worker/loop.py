"""What the two loops of a worker have in common: their face to the process, and what they know of its connections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import ProtocolError
from ..wire.large import MessageWriter
from .connection import ENDS, LARGE_ATTACH, Connection
from .failures import OUTSIDE, print_failure
from .streams import Outlet

if TYPE_CHECKING:
    from .runner import AppProcess


class Loop(ABC):
    """A worker's way of waiting, and of running what is async."""

    def __init__(self, process: AppProcess) -> None:
        self._process = process
        self._inbox = process.inbox
        self._connections: dict[int, Connection] = {}

    @abstractmethod
    def run_hook(self, hook: Callable[..., Any], *arguments: Any, timeout: float | None) -> Any:
        """Calls a plain or async hook, while nothing is served. Raises TimeoutError when it takes longer than `timeout`
        seconds.
        """

    @abstractmethod
    def serve(self) -> None:
        """Serves calls, and has the process heed the daemon, until that has a reason to go."""

    @abstractmethod
    def add(self, connection: Connection) -> None:
        """Reads from this connection from now on. What comes first on it is for `AppProcess.attach`."""

    @abstractmethod
    def unstick(self, outlet: Outlet) -> None:
        """Not all of a stream was taken: sees to it that the rest is, without waiting. From any thread."""

    @abstractmethod
    def disown(self) -> None:
        """In a process that the app has forked: it must not go on with the loop."""

    @abstractmethod
    def wake(self) -> None:
        """Has the process heed the daemon, and itself, as soon as may be. From any thread."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what it has open."""

    @abstractmethod
    def _on_bytes(self, connection: Connection) -> None:
        """Reads what has come, if anything has, and serves it as far as that is possible now."""

    @abstractmethod
    def _close(self, connection: Connection) -> None:
        """Ends the connection, which is none of this loop's any more."""

    def _give_up(self, connection: Connection, end: BaseException) -> None:
        """The client has left, or talks nonsense and is told so; or the app has got in between."""
        if isinstance(end, ProtocolError):
            with suppress(OSError):
                connection.outbox.post(self._process.caller.refuse(0, end, connection.writer))
        self._close(connection)
        if not isinstance(end, ENDS):
            print_failure(OUTSIDE, end)
        end.__traceback__ = None  # it knows the frames that know it, and with them what could not be sent
        if connection.attached and not self._connections:
            self._process.release_if_stateless()

    def meet_newcomers(self) -> None:
        """Takes what has come first on connections that have yet to be attached."""
        for _ in LARGE_ATTACH:
            for connection in [one for one in self._connections.values() if not one.attached]:
                self._on_bytes(connection)

    def is_calling(self) -> bool:
        """Whether a call runs while the daemon is heeded. Where a call has the only thread, none does."""
        return False

    def is_in_call(self) -> bool:
        """Whether the task that asks is a call's. Without a loop under the app there are no tasks."""
        return False

    def is_busy(self) -> bool:
        """Whether a call runs, or any part of one is here."""
        return self.is_calling() or any(connection.has_bytes() for connection in self._connections.values())

    def owes(self) -> bool:
        """Whether a call runs, or a client has not taken all of an answer."""
        return self.is_calling() or any(connection.outbox.waiting for connection in self._connections.values())

    def writers(self) -> Iterable[MessageWriter]:
        """Of all connections."""
        return [connection.writer for connection in self._connections.values()]
