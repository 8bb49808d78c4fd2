"""Says whose it is, while it serves and at the end."""

from warmpool import BaseApp


class Plain(BaseApp):
    def labels(self) -> dict[str, str]:
        return self.context.labels

    def on_end(self, reason: str) -> None:
        print(f"{self.context.session_id} ended: {reason}", flush=True)


class Async(Plain):
    async def labels(self) -> dict[str, str]:  # type: ignore[override]
        return self.context.labels
