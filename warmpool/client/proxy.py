"""A session that looks like an instance of its app: the methods, completion and types are the app's own.

    with client.proxy(Counter) as counter:
        counter.add(AddInput(amount=2)).total

What is called goes to the worker, what comes back is made into what the method is annotated to return. The types stay
true: a plain client calls plain functions, an async client `async` ones, and a generator gives its items as they come.
For anything else there is `session.call`. Needs pydantic; an app's class is all that is looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial, wraps
from types import NoneType
from typing import Any, Self, TypeVar, cast

from ..checks import shorten
from ..errors import AppError, FunctionNotFoundError, InvalidRequestError
from ..methods import Kind, hints_of, is_function, kind_of, results_of, whole_input, why_no_function
from .sessions import AsyncSession
from .streams import AsyncStream
from .sync import Session

A = TypeVar("A")
Bind = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""The arguments of a call into its input."""
Made = Callable[[Any], Any]
"""An output into what the method gives."""


def proxy_of(app: type[A], session: Session | AsyncSession) -> A:
    """Methods of `app`, called in `session`."""
    if not isinstance(app, type):
        raise InvalidRequestError(f"a proxy is made of the app's class, not of {shorten(app)}")
    proxy: Any = Proxy(app, session)
    return cast("A", proxy)


class _NoFunction(FunctionNotFoundError, AttributeError):
    """As `hasattr` and the like expect it."""


class Proxy:
    _app: type
    _session: Session | AsyncSession

    def __init__(self, app: type, session: Session | AsyncSession) -> None:
        vars(self).update(_app=app, _session=session)

    def __repr__(self) -> str:
        return f"<{self._app.__name__} in {self._session!r}>"

    def __dir__(self) -> list[str]:
        names = dir(self._app)
        return [name for name in names if is_function(name, inspect.getattr_static(self._app, name, None))]

    def __setattr__(self, name: str, value: object) -> None:
        raise InvalidRequestError(
            f"{name} cannot be set from here: {self._app.__name__} is in another process; call a function that sets it"
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__") or "_app" not in vars(self):  # what Python looks for; `copy`, in one yet to be filled
            raise AttributeError(name)
        method = inspect.getattr_static(self._app, name, None)
        if not is_function(name, method):
            why = why_no_function(self._app, name) or "of an app in another process there are only those"
            raise _NoFunction(f"{self._app.__name__} has no function {name!r}: {why}; it has {', '.join(dir(self))}")
        assert callable(method)
        hints = hints_of(self._app, method)
        kind = kind_of(method, hints.get("return"))
        result, returned = results_of(kind, hints.get("return", Any))
        bind, made = _binder(method, hints), _maker(self._session, name, result)
        made_at_end = None if returned in (None, NoneType) else _maker(self._session, name, returned)
        if isinstance(self._session, AsyncSession):
            call = _async_method(self._session, name, kind, bind, made)
        else:
            call = _plain_method(self._session, name, kind, bind, made, made_at_end)
        self.__dict__[name] = call = _like(method, call)
        return call


def _like(method: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, which looks to people and their tools like the method, bound."""
    signature = inspect.signature(method)
    shown: Any = wraps(method, updated=())(call)
    shown.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    return call


def _refusing(why: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise InvalidRequestError(why)

    return refuse


def _plain_method(
    session: Session, name: str, kind: Kind, bind: Bind, made: Made, made_at_end: Made | None
) -> Callable[..., Any]:
    """`made_at_end`: of a generator that is annotated to return something, makes that."""
    if kind.is_async:
        return _refusing(f"{name} is async: use AsyncClient.proxy, or session.call({name!r}), which waits")

    def call(*arguments: Any, **keywords: Any) -> Any:
        return made(session.call(name, bind(arguments, keywords)))

    def stream(*arguments: Any, **keywords: Any) -> Generator[Any, None, Any]:
        return items(bind(arguments, keywords))

    def items(input: Any) -> Generator[Any, None, Any]:
        with session.stream(name, input) as events:
            yield from (made(event.output) for event in events if event.type == "output")
            return None if made_at_end is None else made_at_end(events.output)

    return stream if kind.streams else call


def _async_method(session: AsyncSession, name: str, kind: Kind, bind: Bind, made: Made) -> Callable[..., Any]:
    if not kind.is_async:
        return _refusing(f"{name} is not async: use Client.proxy, or await session.call({name!r})")

    async def call(*arguments: Any, **keywords: Any) -> Any:
        return made(await session.call(name, bind(arguments, keywords)))

    def stream(*arguments: Any, **keywords: Any) -> AsyncIterator[Any]:
        return _Items(session.stream(name, bind(arguments, keywords)), made)

    return stream if kind.streams else call


class _Items:
    """What an async generator gives. (Not one itself: those asyncio closes later, when nobody has them any more, and
    until then the session is busy with it.)
    """

    def __init__(self, events: AsyncStream, made: Made) -> None:
        self._events = events
        self._made = made

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while (event := await anext(self._events)).type != "output":
            pass
        return self._made(event.output)

    async def aclose(self) -> None:
        await self._events.close()


def _binder(method: Callable[..., Any], hints: dict[str, Any]) -> Bind:
    """Arguments, as Python binds them, into the input of a call. Raises TypeError as Python does."""
    signature = inspect.signature(method)
    _, *parameters = signature.parameters.values()
    takes_model = whole_input(parameters, hints) is not None

    def bind(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        bound = signature.bind(None, *arguments, **keywords).arguments
        given = {parameter.name: bound[parameter.name] for parameter in parameters if parameter.name in bound}
        return next(iter(given.values()), None) if takes_model else given

    return bind


def _maker(session: Session | AsyncSession, name: str, annotation: Any) -> Made:
    """What came over the wire into what the method is annotated to return, or to yield. It came under the fields' own
    names, what msgpack has no type for as text or a list, which a strict model would refuse, and with what is computed,
    which a model may forbid. Raises APP_ERROR if it does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[Any] = TypeAdapter(Any if annotation is None else annotation)
    validate = partial(adapter.validate_python, strict=False, by_alias=True, by_name=True)

    def made(output: Any) -> Any:
        try:
            return validate(output)
        except ValidationError:
            pass
        try:
            return validate(output, extra="ignore")
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            shown = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'output'}: {item['msg']}" for item in found[:5])
            raise AppError(
                f"{name} gave what cannot be read as what it is annotated to give: {shown}; session.call({name!r}) "
                "gives it as it came",
                session_id=session.id,
                details={"type": "ValidationError", "message": shown, "traceback": ""},
            ) from None

    return made
