"""Each function is stopped in another place, plain and async, and says when it is there."""

import asyncio
import ctypes
import socket
import threading
import time
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, computed_field

from warmpool import BaseApp, CallCancelled


def spin():
    while True:
        pass


class Base(BaseApp):
    def setup(self):
        self.hooks: list[bool] = []
        self.cleaned = 0

    def on_cancel(self):
        self.hooks.append(self.context.cancel_requested)

    def _say(self):
        print("begun", flush=True)


def hang() -> None:
    print("begun", flush=True)
    time.sleep(3600)


class Validated(BaseModel):
    host: Annotated[str, AfterValidator(lambda host: hang() or host)] = Field("here", validate_default=True)


class Computed(BaseModel):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> None:
        hang()


class Serialised(BaseModel):
    total: Annotated[int, PlainSerializer(lambda total: hang() or total)] = 1


class _Slow:
    def __del__(self) -> None:
        print("begun", flush=True)
        time.sleep(60)


class Plain(Base):
    def seen(self) -> list[object]:
        return [self.hooks, self.cleaned]

    def fine(self, value: int = 1) -> int:
        return value

    def spin(self) -> None:
        self._say()
        spin()

    def blink(self) -> None:
        time.sleep(0.2)

    def sleep(self) -> None:
        self._say()
        time.sleep(3600)

    def validate(self, given: Validated) -> str:
        return given.host

    def compute(self) -> Computed:
        return Computed()

    def serialise(self) -> Serialised:
        return Serialised()

    def sleep_lazily(self):
        self._say()
        return (time.sleep(seconds) for seconds in [3600])

    def read_a_socket(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._say()
            ours.recv(1)

    def wait_for_a_lock(self) -> None:
        self._say()
        threading.Event().wait()

    def run_asyncio(self) -> None:
        async def main():
            self._say()
            await asyncio.sleep(3600)

        asyncio.run(main())

    def swallow_exceptions(self) -> None:
        self._say()
        while True:
            try:
                time.sleep(3600)
            except Exception:
                self.cleaned += 100

    def clean_up(self) -> None:
        try:
            self._say()
            spin()
        finally:
            time.sleep(0.05)
            self.cleaned += 1

    def finalize(self) -> None:
        try:
            _Slow()
            spin()
        finally:
            self.cleaned += 1

    def swallow(self) -> str:
        try:
            self._say()
            spin()
        except CallCancelled:
            self.cleaned += 1
        return "swallowed"

    def raise_instead(self) -> None:
        try:
            self._say()
            spin()
        except CallCancelled as error:
            raise ValueError("no, this") from error

    def look(self) -> str:
        """In C, where nothing can be raised for a while, and then between two steps of its own."""
        self._say()
        while not self.context.cancel_requested:
            pass
        return "seen"

    def ignore(self) -> None:
        while True:
            try:
                self._say()
                spin()
            except BaseException:
                print("ignored", flush=True)

    def hold_the_gil(self) -> None:
        mutex = ctypes.create_string_buffer(64)
        libc = ctypes.PyDLL(None)
        self._say()
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)


class Impatient(Plain):
    cancel_grace = 0.1


class BrokenHook(Plain):
    def on_cancel(self):
        raise ValueError("no hook")


class SlowHook(Plain):
    def on_cancel(self):
        time.sleep(3600)


class Async(Base):
    async def on_cancel(self):
        self.hooks.append(self.context.cancel_requested)
        await asyncio.sleep(0.01)
        self.cleaned = 10 * (self.cleaned + 1)

    async def seen(self) -> list[object]:
        return [self.hooks, self.cleaned]

    async def fine(self, value: int = 1) -> int:
        return value

    def spin(self) -> None:
        self._say()
        spin()

    def sleep(self) -> None:
        self._say()
        time.sleep(3600)

    async def validate(self, given: Validated) -> str:
        return given.host

    def serialise(self) -> Serialised:
        return Serialised()

    async def wait(self) -> None:
        self._say()
        await asyncio.sleep(3600)

    async def swallow(self) -> str:
        try:
            self._say()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cleaned += 1
        await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return "swallowed"

    async def clean_up(self) -> None:
        try:
            self._say()
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            self.cleaned += 1

    async def cancel_itself(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
