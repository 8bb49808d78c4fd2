"""Hooks of an app, plain or async."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


async def awaited(hook: Callable[..., Any], *arguments: Any) -> Any:
    """What a hook returns, in a loop that runs."""
    result = hook(*arguments)
    return await result if inspect.isawaitable(result) else result


def run_hook(hook: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, where no loop runs; an async one has a loop of its own."""
    result = hook(*arguments)
    if not inspect.isawaitable(result):
        return result
    import asyncio

    return asyncio.run(awaited(lambda: result))
