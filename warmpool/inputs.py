"""What comes from afar → the arguments of a function.

One parameter that is a pydantic model takes the whole input; otherwise the input's keys are the parameters, checked by
a model made from them. Whoever gives the name of that one parameter as the only key means its value, unless the model
has a field of that name.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Final, TypeGuard

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json

from .errors import InvalidInputError
from .methods import whole_input

_VAR_POSITIONAL: Final = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD: Final = inspect.Parameter.VAR_KEYWORD

_AROUND: Final = frozenset({"definitions", "definition-ref", "default", "function-after"})
"""What in a core schema of pydantic's stands around a model and leaves its input alone."""

_USERS: Final = ("default", "metadata")
"""Where a core schema holds what is not pydantic's."""

Arguments = tuple[Any, ...]
Decode = Callable[[Any], Arguments]
"""Raises InvalidInputError."""


def decoder(name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> tuple[type[BaseModel], Decode]:
    """The model that an input of function `name` is checked by, and what decodes it."""
    model = whole_input(parameters, hints)
    if model is None:
        return _decode_parameters(name, parameters, hints)
    return model, _decode_model(name, model, hints[parameters[0].name], parameters[0])


def is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def keys_of(name: str, field: FieldInfo) -> set[str | None]:
    """The keys of an input that fill a field."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    firsts = (choice.path[0] if isinstance(choice, AliasPath) else choice for choice in choices)
    return {name, field.alias, *(first for first in firsts if isinstance(first, str))}


def _decode_model(name: str, model: type[BaseModel], annotation: Any, parameter: inspect.Parameter) -> Decode:
    adapter, key = TypeAdapter(annotation), parameter.name
    validate = _validation(adapter.validator, adapter.core_schema)
    is_free = not any(key in keys_of(name, field) for name, field in model.model_fields.items())
    is_hungry = is_free and _may_use_any_key(model, adapter.core_schema)
    told = parameter.default if isinstance(parameter.default, FieldInfo) else None
    default = parameter.default if told is None else parameter.empty

    def decode(value: Any) -> Arguments:
        if value is None:
            if default is not parameter.empty:
                return (default,)
            value = {}
        try:
            return (validate(value),)
        except ValidationError as error:
            if is_free and isinstance(value, dict) and value.keys() == {key}:
                return decode_named(value)
            raise _invalid_input(name, error) from None

    def decode_named(value: dict[str, Any]) -> Arguments:
        try:
            return (validate(value[key]),)
        except ValidationError as error:
            raise _invalid_input(name, error, key) from None

    def decode_unless_ignored(value: Any) -> Arguments:
        """For a model that is content with any key, and would be empty. No other pays for the look."""
        arguments = decode(value)
        return decode_named(value) if value and key in value and len(value) == 1 else arguments

    def decode_named_first(value: Any) -> Arguments:
        """For a model that keeps any key, or shows it to a validator of the author's: whose way with it may be any."""
        if type(value) is dict and value.keys() == {key} and type(value[key]) is dict:
            try:
                return decode_named(value)
            except InvalidInputError:
                raise
            except Exception:  # noqa: S110  (it wants to see the whole)
                pass
        return decode(value)

    ignores = is_free and not any(field.is_required() for field in model.model_fields.values())
    careful = decode_named_first if is_hungry else decode_unless_ignored if ignores else decode
    return careful if told is None or told.is_required() else _or_default(careful, told)


def _may_use_any_key(model: type[BaseModel], schema: Any) -> bool:
    """Whether somebody keeps a key that is no field's, or sees it before the fields do. Of a root model any key may be
    part, and its value is asked for when that does not fit.
    """
    if model.__pydantic_root_model__:
        return False
    known = {one["ref"]: one for one in schema.get("definitions", ())}
    while schema["type"] in _AROUND:
        schema = known[schema["schema_ref"]] if schema["type"] == "definition-ref" else schema["schema"]
    if schema["type"] != "model" or schema.get("custom_init"):
        return True
    return schema["schema"]["type"] != "model-fields" or model.model_config.get("extra") == "allow"


def _or_default(decode: Decode, field: FieldInfo) -> Decode:
    """With a default that pydantic makes for each call."""

    def decode_or_default(value: Any) -> Arguments:
        if value is None:
            return (field.get_default(call_default_factory=True, validated_data={}),)
        return decode(value)

    return decode_or_default


def _decode_parameters(
    name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> tuple[type[BaseModel], Decode]:
    """A model with a field per parameter, aliased so that any parameter name will do."""
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(parameters):
        if parameter.kind in (_VAR_POSITIONAL, _VAR_KEYWORD):
            stars = "*" if parameter.kind is _VAR_POSITIONAL else "**"
            raise TypeError(f"{stars}{parameter.name} cannot be filled from a map: name each parameter")
        fields[f"p{index}"] = _field(parameter, hints.get(parameter.name, Any))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False, protected_namespaces=())
    model = create_model(name, __config__=config, **fields)
    validate = _validation(model.__pydantic_validator__, model.__pydantic_core_schema__)

    def decode(value: Any) -> Arguments:
        try:
            return tuple(validate({} if value is None else value).__dict__.values())
        except ValidationError as error:
            raise _with_names(_invalid_input(name, error), name, parameters, value) from None

    return model, decode


def _validation(validator: Any, schema: Any) -> Callable[[Any], Any]:
    """What checks an input. Dates, sets and the like came as text and as lists: pydantic takes them for what they are,
    but where it is strict only when it reads JSON.
    """
    validate: Callable[[Any], Any] = validator.validate_python
    if made := _made_fields(schema):
        validate = _without_what_is_made(validate, made)
    if not _is_strict(schema):
        return validate
    bytes_mode = _bytes_mode_of(schema)

    def validate_strictly(value: Any) -> Any:
        try:
            return validate(value)
        except ValidationError:
            try:
                return validator.validate_json(to_json(value, bytes_mode=bytes_mode))
            except (PydanticSerializationError, ValidationError) as error:
                if isinstance(error, ValidationError) and error.errors(include_url=False)[0]["type"] != "json_invalid":
                    raise
            raise  # it cannot be JSON

    return validate_strictly


def _bytes_mode_of(schema: Any) -> Any:
    """How the model that a schema begins with reads bytes out of JSON."""
    while isinstance(schema, Mapping):
        if mode := (schema.get("config") or {}).get("val_json_bytes"):
            return mode
        schema = schema.get("schema")
    return "utf8"


def _without_what_is_made(validate: Callable[[Any], Any], made: set[str]) -> Callable[[Any], Any]:
    """A dataclass is sent with all of its fields, also those (`made`) that no one like it is made from."""

    def validate_without(value: Any) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            refused = error.errors(include_url=False, include_context=False, include_input=False)
            if any(one["type"] != "unexpected_keyword_argument" or one["loc"][-1] not in made for one in refused):
                raise
            given = deepcopy(value)
            try:
                for one in refused:
                    _remove(given, *one["loc"])
            except (LookupError, TypeError):  # a step that is the name of a type in a union, and no key
                raise error from None
            return validate(given)

    return validate_without


def _remove(value: Any, *path: int | str) -> None:
    *steps, last = path
    for step in steps:
        value = value[step]
    del value[last]


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """All parts of a core schema of pydantic's, itself among them."""
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from _nodes(part)
    elif isinstance(schema, dict):
        yield schema
        for name, part in schema.items():
            if name not in _USERS:
                yield from _nodes(part)


def _made_fields(schema: Any) -> set[str]:
    """Of all dataclasses in it, the fields that are not given to who makes one."""
    found = (node["cls"] for node in _nodes(schema) if node.get("type") == "dataclass" and is_dataclass(node["cls"]))
    return {field.name for kind in found for field in fields(kind) if not field.init}


def _is_strict(schema: Any) -> bool:
    """Whether some part of it takes nothing for what it is not."""
    return any(node.get("strict") is True for node in _nodes(schema))


def _field(parameter: inspect.Parameter, annotation: Any) -> tuple[Any, Any]:
    """A parameter as `create_model` takes a field. An alias that the author gave it is a key beside its name, which
    remains one: a proxy binds by names.
    """
    name, default = parameter.name, parameter.default
    if isinstance(default, FieldInfo):
        annotation, default = Annotated[annotation, default], parameter.empty
    alias = FieldInfo.from_annotation(annotation).validation_alias
    given = {} if default is parameter.empty else {"default": default}
    if alias is None:
        return annotation, Field(**given, alias=name)
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return annotation, Field(**given, validation_alias=AliasChoices(*choices, name))


def _invalid_input(function: str, error: ValidationError, *within: str) -> InvalidInputError:
    """Pydantic's error as ours: a sentence for people, and the same as data (without the input, which may be
    large or secret). `within`: the keys under which it was found.
    """
    found = json.loads(error.json(include_url=False, include_input=False))
    for item in found:
        item["loc"] = [*within, *item["loc"]]
    shown = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'input'}: {item['msg']}" for item in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return InvalidInputError(
        f"the input of {function} is not valid: {shown}{more}", details={"function": function, "errors": found}
    )


def _with_names(
    refused: InvalidInputError, function: str, parameters: list[inspect.Parameter], value: object
) -> InvalidInputError:
    """It tells the names of the parameters, if it is these that are missing or others."""
    names = ", ".join(f'"{parameter.name}": …' for parameter in parameters)
    if not isinstance(value, dict | None):
        words = (
            f"the input of {function} is not valid: it takes its parameters by name: give a dict, {{{names}}}, "
            f"not {type(value).__name__}"
        )
    elif any(error["type"] == "extra_forbidden" and len(error["loc"]) == 1 for error in refused.details["errors"]):
        words = f"{refused}; it takes {{{names}}}"
    else:
        return refused
    return InvalidInputError(words, details=refused.details)
