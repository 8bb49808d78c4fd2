"""Would never be made."""

from warmpool import BaseApp


class AsyncInit(BaseApp):
    async def __init__(self):
        self.value = 1

    def get(self) -> int:
        return self.value
