"""Workers of the tests' own, to whom a test is the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from scripted import Worker, Zygote
from support import open_files


class StartWorker(Protocol):
    def __call__(self, app: Path, class_name: str, kind: type[Worker] = Worker) -> Worker: ...


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """No longer than a module: others have a `Children` of the tests' own, which would take it for an orphan."""
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def start_worker(zygote: Zygote) -> Iterator[StartWorker]:
    """Starts a worker of a class in the file of an app. `kind`: what the test does as its daemon when it begins."""
    files = open_files()
    workers: list[Worker] = []

    def start(app: Path, class_name: str, kind: type[Worker] = Worker) -> Worker:
        workers.append(kind(zygote, app, class_name))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()
    assert open_files() - files == set()
