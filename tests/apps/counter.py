"""Behaves."""

import os

from warmpool import BaseApp, BaseAppInput


class AddInput(BaseAppInput):
    amount: int = 1


class Counter(BaseApp):
    seen: list[int] = []

    def __init__(self):
        self.total = 0

    def add(self, input: AddInput) -> dict[str, int]:
        self.total += input.amount
        self.seen.append(input.amount)
        return {"total": self.total}

    def plain(self, amount: int, times: int = 1, *, label: str = "none") -> list[object]:
        return [amount * times, label]

    def history(self) -> list[int]:
        return self.seen

    def where(self) -> dict[str, object]:
        return {"pid": os.getpid(), "cwd": os.getcwd()}

    def who(self) -> dict[str, object]:
        context = self.context
        return {
            "session_id": context.session_id,
            "app": context.app,
            "version": context.version,
            "worker_id": context.worker_id,
            "labels": context.labels,
            "logger": self.logger.name,
        }

    def fail(self, message: str = "no") -> None:
        raise ValueError(message)
