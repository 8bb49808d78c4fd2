"""What msgpack cannot carry → what it can, by pydantic's rules: datetime → ISO 8601 text; UUID, Decimal, Path → text;
set → list; dataclass and model → map; Enum → value. Bytes stay bytes.

A result travels as pydantic writes it, an input as pydantic reads it. That is not the same where a field has one name
for each, or is not to be written at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final, get_args

_NATIVE: Final = (str, bytes, int, float, list, tuple, dict, type(None))
"""What msgpack packs without asking."""
_FINER: Final = ("[ns]", "[ps]", "[fs]", "[as]")
"""Units of numpy's moments and durations that Python's do not have: cut to microseconds, they travel like these."""
_OF_FIELDS: Final = ("model-fields", "dataclass-args")
_PARTS: Final = ("choices", "steps")
"""Besides what ends in `schema`, where a core schema has others in it."""


def carry(value: Any) -> Any:
    """One level of `value`, which msgpack cannot pack, as something that it can, or TypeError that names it.

    Asked once per value: what it gives must be native, though what is inside need not be.
    """
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:
        plain = _written(value, serializer)
        if type(plain) is not type(value):  # a Url or a SecretStr is text only in JSON
            return plain if isinstance(plain, _NATIVE) else carry(plain)
    elif hasattr(type(value), "__dataclass_fields__"):
        return _attributes(value)
    elif isinstance(value, Enum):
        return value.value if isinstance(value.value, _NATIVE) else carry(value.value)
    elif isinstance(value, Mapping):
        return dict(value)
    elif hasattr(type(value), "dtype") and getattr(value, "shape", None) == ():  # a scalar of numpy's
        item = value.item()
        if type(item) is int and str(value.dtype).endswith(_FINER):
            item = value.astype(f"{value.dtype.kind}8[us]").item()
        if type(item) is not type(value):
            return item if isinstance(item, _NATIVE) else carry(item)
    elif isinstance(value, set | frozenset | deque | Iterator):
        return list(value)
    elif callable(getattr(type(value), "__fspath__", None)):
        return value.__fspath__()
    elif type(value).__module__ == "zoneinfo":
        return str(value)
    elif isinstance(value, datetime) and value != value:  # noqa: PLR0124  (pandas' NaT)
        return None
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError) as error:
        kind = type(value)
        raise TypeError(f"a value of type {kind.__module__}.{kind.__qualname__} cannot be sent") from error


def holds_a_set_of_maps(error: TypeError) -> bool:
    """Whether pydantic could not write a set since what is in it becomes maps: level by level that goes as a list."""
    return str(error).startswith("unhashable type")


def _written(value: Any, serializer: Any) -> Any:
    """As pydantic writes it; but a field with a set of models in it as it lies there."""
    try:
        return serializer.to_python(value, warnings=False)
    except TypeError as error:
        if not hasattr(type(value), "__pydantic_fields__") or not holds_a_set_of_maps(error):
            raise
    if getattr(type(value), "__pydantic_root_model__", False):
        return value.root
    found: dict[str, Any] = {}
    for name in (*type(value).__pydantic_fields__, *type(value).__pydantic_decorators__.computed_fields):
        try:
            found |= serializer.to_python(value, include={name}, warnings=False)
        except TypeError as error:
            if not holds_a_set_of_maps(error):
                raise
            found[name] = getattr(value, name)
    return found | (getattr(value, "__pydantic_extra__", None) or {})


def _attributes(value: Any) -> dict[str, Any]:
    """Of a dataclass, one level of it."""
    import dataclasses  # whoever has one has paid for it

    try:
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    except AttributeError as error:
        raise TypeError(f"{type(value)} cannot be sent: {error}") from error


_NO_ITERATOR: Final = ("__pydantic_serializer__", "__dataclass_fields__")


def in_full(value: Any) -> Any:
    """`value`, or the list of what it gives if it is an iterator: `carry` would make that, but too late for whoever
    wants it done as part of a call.
    """
    if not isinstance(value, Iterator) or isinstance(value, Enum | Mapping | str | bytes):
        return value
    if any(hasattr(type(value), name) for name in _NO_ITERATOR):
        return value
    return [item for item in value]  # noqa: C416  (a `list` of what is made in C hears no signal)


def carry_input(value: Any) -> Any:
    """As `carry`, for what is to be validated by a model like its own: under the names that this one goes by, without
    what is computed, and with its secrets.
    """
    kind: Any = type(value)
    if hasattr(kind, "get_secret_value"):
        return value.get_secret_value()
    serializer = getattr(kind, "__pydantic_serializer__", None)
    if serializer is None:
        return carry(value)
    has_fields = hasattr(kind, "__pydantic_fields__")
    keys = _keys_of_its_own(kind) if has_fields else None
    if keys is None:
        try:
            plain = serializer.to_python(value, warnings=False, by_alias=True, round_trip=True)
        except TypeError as error:
            if not has_fields or not holds_a_set_of_maps(error):
                raise
            plain = _as_it_is_read(value, _keys_of(kind))
    elif getattr(kind, "__pydantic_root_model__", False):
        plain = value.root
    else:
        plain = _as_it_is_read(value, keys)
    if type(plain) is kind:
        return carry(value)
    return plain if isinstance(plain, _NATIVE) else carry_input(plain)


def _as_it_is_read(value: Any, keys: Mapping[str, str | None]) -> dict[str, Any]:
    """The fields of a model, one level of it, by the keys that its like is made from."""
    found = {name: field for name, field in vars(value).items() if name in keys}
    kind: Any = type(value)
    if coded := _coded_fields(kind):
        found |= value.__pydantic_serializer__.to_python(
            value, include=set(coded), by_alias=False, round_trip=True, warnings=False
        )
    for name in found:
        if keys[name] is None:
            raise TypeError(f"{type(value).__qualname__}.{name} is read from inside of another value: give a dict")
    more = getattr(value, "__pydantic_extra__", None) or {}
    return {**more, **{str(keys[name]): field for name, field in found.items()}}


@lru_cache(maxsize=256)
def _keys_of_its_own(kind: Any) -> dict[str, str | None] | None:
    """By field of a model, the key that it is read from, or None for a path; unless pydantic writes all in it as it is
    read, or its author has a way of his own to write it.
    """
    models: set[Any] = set()
    _collect_models(kind, models)
    decorators = kind.__pydantic_decorators__
    if decorators.model_serializers or decorators.field_serializers or all(map(_is_written_as_read, models)):
        return None
    return _keys_of(kind)


def _keys_of(kind: Any) -> dict[str, str | None]:
    return {name: _key_of(kind, name, field) for name, field in kind.__pydantic_fields__.items()}


@lru_cache(maxsize=256)
def _coded_fields(kind: Any) -> frozenset[str]:
    """Fields whose values are not what they are read from: base64, JSON, what has a serializer."""
    schema = kind.__pydantic_core_schema__
    known = {one["ref"]: one for one in schema.get("definitions", ())}
    while schema is not None and schema["type"] not in _OF_FIELDS:
        schema = known.get(schema.get("schema_ref"), schema.get("schema"))
    fields: Any = () if schema is None else schema["fields"]
    named = fields.items() if isinstance(fields, dict) else ((field["name"], field) for field in fields)
    return frozenset(name for name, field in named if _is_coded(field))


def _is_coded(schema: Any) -> bool:
    """A core schema of pydantic's, but for the models in it: they are asked themselves."""
    if isinstance(schema, list | tuple):
        return any(map(_is_coded, schema))
    if not isinstance(schema, dict) or schema.get("type") == "model":
        return False
    if "serialization" in schema or schema.get("type") == "json":
        return True
    return any(_is_coded(part) for name, part in schema.items() if name.endswith("schema") or name in _PARTS)


def _is_written_as_read(kind: Any) -> bool:
    return not any(
        field.exclude
        or getattr(field, "exclude_if", None)
        or _key_of(kind, name, field) != (field.serialization_alias or name)
        for name, field in kind.__pydantic_fields__.items()
    )


def _key_of(kind: Any, name: str, field: Any) -> str | None:
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    alias = field.validation_alias
    if alias is None or config.get("validate_by_alias") is False:
        return name
    for choice in getattr(alias, "choices", [alias]):
        path = getattr(choice, "path", [choice])
        if len(path) == 1:
            return str(path[0])
    return name if config.get("validate_by_name") or config.get("populate_by_name") else None


def _collect_models(annotation: Any, found: set[Any]) -> None:
    """All models that a value of this type may hold, itself among them."""
    annotation = getattr(annotation, "__value__", annotation)  # of a `type` statement
    if hasattr(annotation, "__pydantic_fields__") and annotation not in found:
        found.add(annotation)
        for field in annotation.__pydantic_fields__.values():
            _collect_models(field.annotation, found)
    for part in get_args(annotation):
        _collect_models(part, found)


def advice(error: BaseException, verb: str) -> str:
    """What to do about a value that cannot be packed. `verb`: what is done with it, in the imperative."""
    if isinstance(error, OverflowError):
        return "an integer of more than 64 bits goes as a string"
    if isinstance(error, UnicodeError):
        return "text that is no Unicode goes as bytes"
    return f"{verb} plain data, a pydantic model or a dataclass"
