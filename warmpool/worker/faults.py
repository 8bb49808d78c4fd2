"""A fault that a test asks of a worker: its next call never returns."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..signatures import Function

if TYPE_CHECKING:
    from .caller import Caller

_LONG = 3600.0


class _Hanging(dict[str, Function]):
    """Functions of which the next that is called hangs."""


def hang_once(caller: Caller) -> None:
    """The next function that is called hangs; then they are as they were. It hangs where the app's code would: signals
    and cancels reach it as they would reach that.
    """
    functions = caller.functions
    if isinstance(functions, _Hanging):
        return

    def hang(*_: Any) -> None:
        caller.functions = functions
        while True:
            time.sleep(_LONG)

    async def hang_async(*_: Any) -> None:
        import asyncio

        caller.functions = functions
        await asyncio.get_running_loop().create_future()

    async def iterate_async(*_: Any) -> AsyncIterator[None]:
        await hang_async()
        yield

    caller.functions = _Hanging(
        (name, replace(function, method=hang_async, iterate=iterate_async))
        if function.is_async
        else (name, replace(function, method=hang, iterate=hang))
        for name, function in functions.items()
    )
