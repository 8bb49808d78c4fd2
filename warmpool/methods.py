"""Which methods of an app are its functions, and what they give: one rule for the worker, which runs them, and for a
proxy, which looks like their app. Needs no pydantic.
"""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Callable, Sequence
from enum import Enum
from functools import reduce
from operator import is_, or_
from types import UnionType
from typing import Annotated, Any, Final, Never, NoReturn, TypeVar, get_args, get_origin, get_type_hints

HOOKS: Final = frozenset({"setup", "preload", "on_end", "on_cancel", "unload"})
"""Public methods of an app that are not its functions."""

_GENERATORS: Final = (collections.abc.Generator, collections.abc.Iterator)
_ASYNC_GENERATORS: Final = (collections.abc.AsyncGenerator, collections.abc.AsyncIterator)
_OF_ITEMS: Final = (*_GENERATORS, collections.abc.Iterable, *_ASYNC_GENERATORS, collections.abc.AsyncIterable)


class Kind(Enum):
    """How a function gives what it gives."""

    PLAIN = "plain"
    ASYNC = "async"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def is_async(self) -> bool:
        """Whether it needs an event loop."""
        return self in (Kind.ASYNC, Kind.ASYNC_GENERATOR)

    @property
    def streams(self) -> bool:
        """Whether it gives items one after another."""
        return self in (Kind.GENERATOR, Kind.ASYNC_GENERATOR)


def is_function(name: str, value: object) -> bool:
    """Whether what a class has under this name is a public method, no hook, each parameter annotated or with a default.
    One in a wrapper that is no function itself, as that of `functools.lru_cache`, is one too.
    """
    return not _obstacle(name, value)


def why_no_function(app: type, name: str) -> str:
    """Why what an app has under this name is none of its functions, for its author; empty if it has nothing there."""
    value = inspect.getattr_static(app, name, None)
    return _obstacle(name, value) if callable(value) or hasattr(type(value), "__get__") else ""


def _obstacle(name: str, value: object) -> str:
    """Why this is no function; empty if it is one."""
    if name.startswith("_"):
        return "its name begins with _"
    if name in HOOKS:
        return "it is a hook"
    if isinstance(value, staticmethod | classmethod):
        return f"it is a {type(value).__name__}, and a function takes self"
    if not callable(value):
        return f"it is a {type(value).__name__}, and no plain method"
    if not inspect.isfunction(inspect.unwrap(value)):
        return "it is no method, or in a wrapper that does not say so by `functools.wraps`"
    for parameter in list(inspect.signature(value).parameters.values())[1:]:
        if parameter.annotation is parameter.empty and parameter.default is parameter.empty:
            return f"its parameter {parameter.name} has neither an annotation nor a default"
    return ""


def refuse_generators(app: type) -> None:
    """Raises TypeError for a hook that yields: to call it makes a generator and runs nothing."""
    for name in sorted(HOOKS):
        hook: Any = getattr(app, name, None)
        if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
            raise TypeError(f"{hook.__qualname__} yields, and would never run: a hook is called, and not iterated")


def hints_of(app: type, method: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a method, evaluated, as they are in this app: of a generic base, with what the app has put in
    place of its type variables. Raises what the evaluation raises.
    """
    try:
        hints = get_type_hints(method, include_extras=True)
    except NameError:  # of a class in the app's own body, where annotations are texts
        named = {name: value for kind in reversed(app.__mro__) for name, value in vars(kind).items()}
        inner = {name: value for name, value in named.items() if isinstance(value, type)}
        hints = get_type_hints(method, localns=inner, include_extras=True)
    given = _type_arguments(app)
    return {name: _with_arguments(hint, given) for name, hint in hints.items()} if given else hints


def _type_arguments(app: type) -> dict[Any, Any]:
    """What stands for each type variable of the app's bases."""
    given: dict[Any, Any] = {}
    for kind in app.__mro__:
        for base in vars(kind).get("__orig_bases__", ()):
            variables = getattr(get_origin(base), "__parameters__", ())
            arguments = (_with_arguments(argument, given) for argument in get_args(base))
            given |= dict(zip(variables, arguments, strict=False))
    return given


def _with_arguments(hint: Any, given: dict[Any, Any]) -> Any:
    """The hint with these in place of its type variables, also of those that a model of pydantic's keeps to itself."""
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    if isinstance(hint, type):
        model = getattr(hint, "__pydantic_generic_metadata__", None)
        variables = getattr(hint, "__parameters__", ()) if model is None else model["parameters"]
        return hint[tuple(given.get(one, one) for one in variables)] if given.keys() & {*variables} else hint  # type: ignore[index]
    parts = get_args(hint)
    filled = tuple(_with_arguments(part, given) for part in parts)
    if all(map(is_, parts, filled)):
        return hint
    origin: Any = get_origin(hint)
    return reduce(or_, filled) if origin is UnionType else origin[filled]


def whole_input(parameters: Sequence[inspect.Parameter], hints: dict[str, Any]) -> Any:
    """The model that is the only one of these parameters, and so the whole input; None if it is not so."""
    if len(parameters) != 1 or parameters[0].kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return None
    annotation = hints.get(parameters[0].name)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and hasattr(annotation, "model_fields") else None


def kind_of(method: Callable[..., Any], returned: Any) -> Kind:
    """`returned`: its annotation. A function that is no generator itself, but says that it gives one, is one too. Of a
    wrapper it is what is wrapped that counts.
    """
    inner = inspect.unwrap(method)
    if inspect.iscoroutinefunction(inner):
        return Kind.ASYNC
    origin = get_origin(returned) or returned
    if inspect.isasyncgenfunction(inner) or origin in _ASYNC_GENERATORS:
        return Kind.ASYNC_GENERATOR
    if inspect.isgeneratorfunction(inner) or origin in _GENERATORS:
        return Kind.GENERATOR
    return Kind.PLAIN


def refuse_late_iterator(kind: Kind, returned: Any) -> None:
    """Raises TypeError for an async function, none that yields, that is annotated to give an iterator: that is iterated
    where it is made, and nobody does.
    """
    if kind is Kind.ASYNC and (get_origin(returned) or returned) in (*_GENERATORS, *_ASYNC_GENERATORS):
        raise TypeError("an async function that gives an iterator: let it yield the items, or leave out `async`")


def may_be_iterator(returned: Any) -> bool:
    """Whether a function that is annotated so, or not at all, can be meant to give an iterator."""
    return returned in (None, Any, object) or (get_origin(returned) or returned) is collections.abc.Iterable


def results_of(kind: Kind, returned: Any) -> tuple[Any, Any]:
    """Annotations of what a function gives, or of each item that it does, and of what a generator returns. None if
    nothing is said, or that nothing comes, of which there is no schema.
    """
    if not kind.streams:
        return _something(returned), None
    if get_origin(returned) not in _OF_ITEMS:
        return None, None
    item, *others = get_args(returned)
    return _something(item), _something(others[1]) if len(others) == 2 else None


def _something(annotation: Any) -> Any:
    return None if annotation in (Never, NoReturn) else annotation
