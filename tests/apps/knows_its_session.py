"""Says whose it is, while it serves and at the end; plain, async, and with a plain function in an async app."""

import asyncio

from warmpool import BaseApp


class Plain(BaseApp):
    def setup(self) -> None:
        self.run_times = 0

    def run(self) -> int:
        self.run_times += 1
        return self.run_times

    def labels(self) -> dict[str, str]:
        return self.context.labels

    def on_end(self, reason: str) -> None:
        print(f"{self.context.session_id} ended: {reason}", flush=True)


class Mixed(Plain):
    async def nap(self) -> None:
        print("begun", flush=True)
        await asyncio.sleep(3600)


class Async(Mixed):
    async def run(self) -> int:  # type: ignore[override]
        return super().run()

    async def labels(self) -> dict[str, str]:  # type: ignore[override]
        return super().labels()
