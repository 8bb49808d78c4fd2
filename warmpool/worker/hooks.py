"""Hooks of an app, plain or async, where no loop runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def run_hook(hook: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns; of an async one, in a loop of its own."""
    result = hook(*arguments)
    if inspect.iscoroutine(result):
        import asyncio

        return asyncio.run(result)
    return result
