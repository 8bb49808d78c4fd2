"""Large answers, from functions of both kinds in an app that has an event loop."""

from warmpool import BaseApp


class AnswersAtLength(BaseApp):
    async def large(self, size: int) -> bytes:
        return b"x" * size

    def large_at_once(self, size: int) -> bytes:
        return b"x" * size

    async def length(self, data: bytes) -> int:
        return len(data)

    async def fine(self) -> str:
        return "fine"
