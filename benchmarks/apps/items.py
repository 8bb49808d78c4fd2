"""Small items, as many as are wanted."""

from collections.abc import AsyncIterator, Iterator

from warmpool import BaseApp


class Plain(BaseApp):
    def count(self, to: int) -> Iterator[int]:
        yield from range(to)


class Async(BaseApp):
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number
