"""Setting an app up once, in its template, for all the workers that are forked from it.

Each worker has a copy of what `setup` has made, in its memory: what one session changes no other sees. What is not
memory is not copied by a fork: files, sockets and child processes that `setup` has opened would be shared, and a loop's
tasks would be gone, so tasks are refused. Threads need no check here: the template looks for them before each fork.
"""

from __future__ import annotations

from collections.abc import Callable

from ..app import AppContext, BaseApp
from ..signatures import Function
from .hooks import awaited, run_hook
from .runner import any_async, constructed


def prime(app_class: type[BaseApp], functions: dict[str, Function], context: AppContext) -> BaseApp:
    """An instance that has been set up. Raises what `setup` raises, and RuntimeError if that leaves tasks behind which
    would live on in a worker.
    """
    app = constructed(app_class, context)
    setup = getattr(app, "setup", None)
    if setup is None:
        return app
    if any_async(functions):
        run_hook(_set_up, setup)
    else:
        run_hook(setup)
    return app


async def _set_up(setup: Callable[[], object]) -> None:
    import asyncio

    await awaited(setup)
    if left := len(asyncio.all_tasks()) - 1:
        raise RuntimeError(f"setup leaves {left} tasks running, which a copy would not have: start them in a call")
