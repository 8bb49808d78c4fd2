"""Has its own use for the name `context`."""

from typing import Any

from warmpool import BaseApp


class _Chat(BaseApp):
    ended = ""

    def _note(self, text: str) -> None:
        self.context.append(text)

    def fail(self) -> None:
        raise ValueError("as asked")

    def on_end(self, reason: str) -> Any:
        return [reason, self.context]


class Plain(_Chat):
    def setup(self) -> None:
        self.context = ["begin"]

    def say(self, text: str) -> list[str]:
        self._note(text)
        return self.context


class Async(_Chat):
    async def setup(self) -> None:
        self.context = ["begin"]

    async def say(self, text: str) -> list[str]:
        self._note(text)
        return self.context


class Late(_Chat):
    def say(self, text: str) -> list[str]:
        if not isinstance(self.context, list):
            self.context = ["begin"]
        self._note(text)
        return self.context


class OfTheClass(_Chat):
    context: list[str] = ["begin"]  # type: ignore[assignment]

    def say(self, text: str) -> list[str]:
        self._note(text)
        return self.context


class Method(_Chat):
    def context(self) -> str:  # type: ignore[override]
        return "a function"

    def say(self, text: str) -> list[str]:
        return ["begin", text]

    def on_end(self, reason: str) -> Any:
        return [reason, ["begin", "one"]]
