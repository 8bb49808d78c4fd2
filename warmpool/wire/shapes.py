"""Messages, and how what comes from the wire is checked to be one.

A message is a named tuple; on the wire it is an array, its name first, then its fields in order. A field with
a default may be missing at the end. Each conversation accepts its own set of messages and no others, so that a
message in the wrong place is an error of the peer and not a surprise for us.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Final, ForwardRef, NamedTuple, TypeAlias

from ..checks import shorten
from ..errors import ProtocolError
from .frames import decode

Message: TypeAlias = tuple[Any, ...]


class Shape(NamedTuple):
    """A kind of message, as it is checked: the types that each field may have."""

    kind: type[Message]
    required: int
    fields: tuple[tuple[type, ...], ...]
    accepted: set[tuple[type, ...]]
    """Types of all fields that have been found right before. Not many: what msgpack can carry has nine."""


Conversation: TypeAlias = dict[str, Shape]

_WORDS: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
    "bytes": (bytes,),
    "dict": (dict,),
    "list": (list,),
    "None": (NoneType,),
    "object": (object,),
}


def kinds_of(annotation: str) -> tuple[type, ...]:
    """The types that a value may have, of such as msgpack carries. (Not subclasses of them: True is no number.)"""
    words = [word.strip().partition("[")[0] for word in annotation.split("|")]
    return tuple(kind for word in words for kind in _WORDS[word])


def _shape(kind: type[Message]) -> Shape:
    annotations: dict[str, ForwardRef] = vars(kind)["__annotations__"]
    fields = tuple(kinds_of(annotation.__forward_arg__) for annotation in annotations.values())
    return Shape(kind, len(fields) - len(vars(kind)["_field_defaults"]), fields, set())


def conversation_of(*kinds: type[Message]) -> Conversation:
    return {kind.__name__: _shape(kind) for kind in kinds}


new_tuple: Final = tuple.__new__
"""What a named tuple's own `__new__` comes to, without a Python function on the way."""


def to_wire(message: Message) -> Message:
    """What to pack for `message`."""
    return (type(message).__name__, *message)


def from_wire(body: bytes | memoryview, conversation: Conversation) -> Message:
    """The message in the body of a frame. Raises PROTOCOL_ERROR, and nothing else, if it is none of these."""
    return from_parts(decode(body), conversation)


def from_parts(parts: Any, conversation: Conversation) -> Message:
    """The message that is made of what was in a frame; as `from_wire`."""
    if type(parts) is not list or not parts or type(parts[0]) is not str:
        raise ProtocolError(f"a message is an array that begins with its name, not {shorten(parts)}")
    name, *values = parts
    shape = conversation.get(name)
    if shape is None:
        raise ProtocolError(f"{shorten(name)} is not one of {', '.join(conversation)}")
    kind, required, fields, accepted = shape
    types_of = tuple(map(type, values))
    if types_of in accepted:
        return new_tuple(kind, values)
    if not required <= len(values) <= len(fields):
        raise ProtocolError(f"{name} has {len(fields)} fields, not {len(values)}")
    for field, value, types in zip(kind.__annotations__, values, fields, strict=False):
        if type(value) not in types and object not in types:
            raise ProtocolError(f"{name}.{field} cannot be {shorten(value)}")
    if len(values) == len(fields):
        accepted.add(types_of)
    return kind(*values)
