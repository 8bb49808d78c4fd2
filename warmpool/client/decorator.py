"""`@warmpool.session("counter", session_timeout=60)`: a function that has a session for as long as it runs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, Unpack

from ..errors import InvalidRequestError
from ..paths import working_directory
from .requests import SessionOptions, session_request
from .sync import Client

R = TypeVar("R")


def session(
    app: str | os.PathLike[str] | type,
    *,
    socket: str | os.PathLike[str] | None = None,
    autostart: bool = True,
    **options: Unpack[SessionOptions],
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Calls the function with `session=`: a new session each time, which is ended when the function returns or raises.
    An `async def` function has an AsyncSession. Raises what is wrong with `options` at once.

    A type checker knows what the decorated function gives and not what it takes: no type says "all but `session`".
    """
    session_request(app, options, working_directory())

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidRequestError(
                f"{function.__qualname__} is a generator, and may never be run to its end: open a session inside it"
            )

        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            _refuse_session(function, keywords)
            with Client(socket, autostart=autostart) as client, client.session(app, **options) as held:
                return function(*arguments, session=held, **keywords)

        @wraps(function)
        async def call_async(*arguments: Any, **keywords: Any) -> Any:
            from .aio import AsyncClient

            _refuse_session(function, keywords)
            async with AsyncClient(socket, autostart=autostart) as client, client.session(app, **options) as held:
                return await function(*arguments, session=held, **keywords)

        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        decorated: Any = call_async if is_async else call
        decorated.__signature__ = _without_session(inspect.signature(function))
        return decorated  # type: ignore[no-any-return]

    return decorate


def _without_session(signature: inspect.Signature) -> inspect.Signature:
    """For whoever fills parameters by what a function shows, as pytest."""
    return signature.replace(parameters=[one for one in signature.parameters.values() if one.name != "session"])


def _refuse_session(function: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    if "session" in keywords:
        raise TypeError(f"{function.__qualname__}() is given its session by the decorator; call it without one")
