"""What the app's code may do to the tasks in which ours runs around it."""

from __future__ import annotations

import asyncio
from contextlib import suppress


def forget_cancels() -> None:
    """What the app's code has swallowed must not be raised in ours."""
    task = asyncio.current_task()
    assert task is not None
    while task.uncancel():
        pass


async def outlast(task: asyncio.Task[None]) -> None:
    """Waits for a task of the app's code, though that cancels all tasks that there are, and among them who waits."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    forget_cancels()
