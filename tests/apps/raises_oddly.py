"""Errors that are hard to tell: raised while the input is read, and with words that cannot be sent."""

import asyncio

from pydantic import BaseModel, Field, computed_field, field_validator

from warmpool import BaseApp, BaseAppInput


class Checked(BaseAppInput):
    kind: str = "fine"
    items: list[int] = Field(default_factory=list)

    @field_validator("kind")
    @classmethod
    def check(cls, kind: str) -> str:
        if kind == "key error":
            raise KeyError("a bug in a validator")
        if kind == "exit":
            raise SystemExit(3)
        if kind == "no words":
            raise ValueError("\ud800")
        return kind


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("not even this")


class Nameless(type):
    @property
    def __name__(cls) -> str:
        raise RuntimeError("it has none")


class NamelessError(Exception, metaclass=Nameless):
    pass


class Speechless(BaseModel):
    kind: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def words(self) -> str:
        if self.kind == "interrupted":
            raise KeyboardInterrupt
        raise Unspeakable


def retry() -> None:
    try:
        raise ConnectionError("down")
    except ConnectionError:
        retry()


def raise_one(kind: str) -> None:
    if kind == "endless":
        retry()
    if kind == "nested":
        error: Exception = ValueError("the last one")
        for _ in range(2000):
            error = ExceptionGroup("more", [error])
        raise error
    if kind == "nameless":
        raise NamelessError("some words")
    if kind == "exit":
        raise SystemExit("and that was it")
    if kind == "cancelled":
        raise asyncio.CancelledError("what it waited for")
    raise SyntaxError("bad", ("file", "no number", 2, b"no text"))


class Plain(BaseApp):
    def raise_one(self, kind: str) -> None:
        raise_one(kind)

    def speak(self, kind: str) -> object:
        return Speechless(kind=kind)

    def take(self, input: Checked) -> str:
        return input.kind

    def raise_no_words(self) -> None:
        raise ValueError("caf\udce9 is no file name")

    def raise_unspeakable(self) -> None:
        raise Unspeakable

    def return_no_words(self) -> str:
        return "\udce9"

    def fine(self) -> str:
        return "fine"


class Async(BaseApp):
    async def raise_one(self, kind: str) -> None:
        raise_one(kind)

    async def speak(self, kind: str) -> object:
        return Speechless(kind=kind)

    async def take(self, input: Checked) -> str:
        return input.kind

    async def raise_no_words(self) -> None:
        raise ValueError("caf\udce9 is no file name")

    async def raise_unspeakable(self) -> None:
        raise Unspeakable

    async def return_no_words(self) -> str:
        return "\udce9"

    async def fine(self) -> str:
        return "fine"
