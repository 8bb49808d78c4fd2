"""Errors that are hard to tell: raised while the input is read, and with words that cannot be sent."""

from pydantic import Field, field_validator

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


class Plain(BaseApp):
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
