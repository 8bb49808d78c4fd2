"""A typed method → a function that can be called from afar: how its input is decoded and its result encoded.

Everything is built once, in the template, and shared by all workers. A method is a function of its app if it is
public, no hook, and each of its parameters is annotated (or has a default).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import aclosing, closing, nullcontext
from functools import wraps
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import JsonSchemaMode, PydanticJsonSchemaWarning

from .app import BaseApp
from .errors import FunctionNotFoundError
from .facts import fact
from .inputs import Decode, decoder, is_model, keys_of
from .methods import (
    Kind,
    hints_of,
    is_function,
    kind_of,
    may_be_iterator,
    refuse_generators,
    refuse_late_iterator,
    results_of,
    why_no_function,
)
from .wire.values import holds_a_set_of_maps, in_full

DEFAULT_FUNCTION: Final = "run"


_NATIVE: Final = (int, float, str, bytes, bool)
"""Results that are sent as they are."""

_FLAT: Final = frozenset(kind.__name__ for kind in _NATIVE)
_SHAPING: Final = frozenset({"serialization", "serialization_exclude", "serialization_exclude_if"})
"""What in a core schema of pydantic's says that something is not serialised as it lies there."""


@fact
class Function:
    """One function of an app. `decode` raises InvalidInputError; `encode` never fails on a value that pydantic
    does not know, which is then the packer's to refuse.
    """

    name: str
    method: Callable[..., Any]
    """Takes the app and then what `decode` gives. Of a generator: gives its last item, None if it has none."""
    iterate: Callable[..., Any]
    """Of a generator: takes the same, and gives its iterator."""
    decode: Decode
    encode: Callable[[Any], Any]
    """Of a generator: encodes an item."""
    encode_return: Callable[[Any], Any]
    """Of a generator: encodes what it returns at its end."""
    kind: Kind
    takes_action: bool
    """Whether the input has a field `action`."""
    input_model: type[BaseModel]
    output_model: type[BaseModel] | None
    """Of an item or a result that is one."""
    output: TypeAdapter[Any] | None

    @property
    def is_async(self) -> bool:
        return self.kind.is_async

    @property
    def streams(self) -> bool:
        return self.kind.streams

    def describe(self) -> dict[str, Any]:
        """Name, first line of the docstring, and the JSON schemas of input and output."""
        doc = inspect.getdoc(self.iterate) or ""
        return {
            "name": self.name,
            "description": doc.partition("\n")[0],
            "async": self.is_async,
            "streams": self.streams,
            "input_schema": _schema_or_none(TypeAdapter(self.input_model), "validation"),
            "output_schema": None if self.output is None else _schema_or_none(self.output, "serialization"),
        }


def functions_of(app: type[BaseApp]) -> dict[str, Function]:
    """The functions of `app` by name, in the order of their definition.

    Raises TypeError for a hook that would never run, and for annotations that cannot be evaluated or have no schema.
    Its message begins with the method, since pydantic says much of a type, and what is long is cut.
    """
    refuse_generators(app)
    found: dict[str, Any] = {}
    for kind in reversed(app.__mro__):
        if kind in (object, BaseApp):
            continue
        for name, value in vars(kind).items():
            found.pop(name, None)
            if is_function(name, value):
                found[name] = value
    return {name: _function(app, name, value) for name, value in found.items()}


def select(
    functions: Mapping[str, Function], app: str, name: str | None, value: Any, app_class: type = object
) -> tuple[Function, Any]:
    """The function that a call means, and the input for it.

    Without a name it is `run`; in an app without `run`, the one that the input's `action` names. `action` itself
    is passed on only to a function that has a field for it. Raises FUNCTION_NOT_FOUND with the names there are, and why
    what `app_class` has under the name is none.
    """
    function = functions.get(DEFAULT_FUNCTION if name is None else name)
    if function is not None:
        return function, value
    if name is None and isinstance(value, dict) and isinstance(action := value.get("action"), str):
        name = action
        if (function := functions.get(action)) is not None:
            if not function.takes_action:
                value = {key: item for key, item in value.items() if key != "action"}
            return function, value
    wanted = "a function `run`, or an input whose `action` names one" if name is None else f"a function {name!r}"
    why = why_no_function(app_class, name or DEFAULT_FUNCTION)
    since = f", since {why}" if why else ""
    raise FunctionNotFoundError(
        f"app {app} does not have {wanted}{since}; it has {', '.join(sorted(functions)) or 'none'} "
        "(a function is a public method whose parameters have annotations, or defaults)",
        details={"functions": sorted(functions)},
    )


def _function(app: type[BaseApp], name: str, method: Callable[..., Any]) -> Function:
    try:
        hints = hints_of(app, method)
        if not (parameters := list(inspect.signature(method).parameters.values())):
            raise TypeError("a method takes self")
        parameters = parameters[1:]
        model, decode = decoder(name, parameters, hints)
        iterate = _by_position(method, parameters)
        kind = kind_of(method, hints.get("return"))
        refuse_late_iterator(kind, hints.get("return"))
        result, returned = results_of(kind, hints.get("return"))
        output = _adapter(result)
    except Exception as error:
        words = str(error).partition("\n")[0]
        if isinstance(error, PydanticSchemaGenerationError):  # its own advice is for models
            words = f"{words.partition('. Set ')[0]}: annotate a type that pydantic knows, as list[float]"
        refused = TypeError(f"{method.__qualname__} cannot be called from afar: {type(error).__name__}: {words}")
        refused.add_note("a method that is not to be called from afar has a name that begins with _")
        raise refused from error
    method = _RUN[kind](iterate)
    return Function(
        name=name,
        method=_complete(method) if not kind.streams and may_be_iterator(result) else method,
        iterate=iterate,
        decode=decode,
        encode=_encoder(result, output),
        encode_return=_encoder(returned, _adapter(returned)),
        kind=kind,
        takes_action=any("action" in keys_of(field_name, field) for field_name, field in model.model_fields.items()),
        input_model=model,
        output_model=result if is_model(result) else None,
        output=output,
    )


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    return None if annotation in (None, Any) else TypeAdapter(annotation)


def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    """Of a wrapper that is plain itself: it may pass on what is to be awaited, or know the result."""
    if inspect.iscoroutinefunction(method):
        return method

    async def awaited(app: BaseApp, *arguments: Any) -> Any:
        result = method(app, *arguments)
        return await result if inspect.isawaitable(result) else result

    return awaited


def _complete(method: Callable[..., Any]) -> Callable[..., Any]:
    """Of a function that may give an iterator: what that gives is made as part of the call."""
    if inspect.iscoroutinefunction(method):

        async def complete_async(app: BaseApp, *arguments: Any) -> Any:
            return in_full(await method(app, *arguments))

        return complete_async

    def complete(app: BaseApp, *arguments: Any) -> Any:
        return in_full(method(app, *arguments))

    return complete


def _last_item(iterate: Callable[..., Any]) -> Callable[..., Any]:
    def last_item(app: BaseApp, *arguments: Any) -> Any:
        item = None
        iterator = iter(iterate(app, *arguments))
        with closing(iterator) if hasattr(iterator, "close") else nullcontext():
            for item in iterator:  # noqa: B007
                pass
        return item

    return last_item


def _last_item_async(iterate: Callable[..., Any]) -> Callable[..., Any]:
    async def last_item(app: BaseApp, *arguments: Any) -> Any:
        item = None
        iterator = aiter(iterate(app, *arguments))
        async with aclosing(iterator) if hasattr(iterator, "aclose") else nullcontext():
            async for item in iterator:  # noqa: B007
                pass
        return item

    return last_item


_RUN: Final[dict[Kind, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    Kind.PLAIN: lambda method: method,
    Kind.ASYNC: _awaited,
    Kind.GENERATOR: _last_item,
    Kind.ASYNC_GENERATOR: _last_item_async,
}


def _by_position(method: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    """The method, its keyword-only parameters filled from the end of the arguments."""
    keywords = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    if not keywords:
        return method
    positional = len(parameters) - len(keywords)

    @wraps(method)
    def call(app: BaseApp, *arguments: Any) -> Any:
        return method(app, *arguments[:positional], **dict(zip(keywords, arguments[positional:], strict=True)))

    return call


def _encoder(annotation: Any, output: TypeAdapter[Any] | None) -> Callable[[Any], Any]:
    if output is None or annotation in _NATIVE:
        return lambda value: value
    to_python = output.serializer.to_python
    if not is_model(annotation):
        return lambda value: _dumped(value, to_python)
    model = annotation
    if (width := _width_if_flat(model)) is None:
        return lambda value: _dumped(value, to_python) if isinstance(value, model) else value

    def encode(value: Any) -> Any:
        if type(value) is model and len(fields := value.__dict__) == width:  # more: a cached property lies there too
            return fields
        # Something else than the model that was promised would lose what the model does not have.
        return _dumped(value, to_python) if isinstance(value, model) else value

    return encode


def _dumped(value: Any, to_python: Callable[..., Any]) -> Any:
    """As pydantic writes it. A set of models is left to the packer, as where no type is promised."""
    try:
        return to_python(value, warnings=False)
    except TypeError as error:
        if holds_a_set_of_maps(error):
            return value
        raise


def _width_if_flat(model: type[BaseModel]) -> int | None:
    """How many fields the model has, if pydantic would serialise it to a copy of its `__dict__`: plain values, each
    under its own name.
    """
    schema: Any = model.__pydantic_core_schema__
    config = model.model_config
    if schema["type"] != "model" or schema.keys() & _SHAPING:
        return None
    if config.get("extra") == "allow" or config.get("serialize_by_alias"):
        return None
    inner = schema["schema"]
    if inner["type"] != "model-fields" or inner.get("computed_fields") or inner.keys() & _SHAPING:
        return None
    for field in inner["fields"].values():
        value = field["schema"]
        while value["type"] == "default" and not value.keys() & _SHAPING:
            value = value["schema"]
        if value["type"] not in _FLAT or value.keys() & _SHAPING or field.keys() & _SHAPING:
            return None
    return len(inner["fields"])


def _schema_or_none(adapter: TypeAdapter[Any], mode: JsonSchemaMode) -> dict[str, Any] | None:
    """None for what has no JSON schema: it can still be sent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
            return adapter.json_schema(mode=mode, by_alias=mode == "validation")
    except Exception:
        return None
