"""A fault that a test asks of a worker: its next call never returns."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..signatures import Function

if TYPE_CHECKING:
    from .caller import Caller

_LONG = 3600.0


def hanging_once(caller: Caller) -> dict[str, Function]:
    """The functions of `caller`, of which the first that is called hangs; then they are as they were. It hangs where
    the app's code would: signals and cancels reach it as they would reach that.
    """
    functions = caller.functions

    def hang(*_: Any) -> None:
        caller.functions = functions
        while True:
            time.sleep(_LONG)

    async def hang_async(*_: Any) -> None:
        import asyncio

        caller.functions = functions
        await asyncio.get_running_loop().create_future()

    return {
        name: replace(function, method=hang_async if function.is_async else hang)
        for name, function in functions.items()
    }
