"""Every message of every conversation. Driven by the tables themselves: a new message is covered by itself."""

from __future__ import annotations

import struct
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmpool.errors import ProtocolError
from warmpool.wire import messages, process_messages
from warmpool.wire.messages import PROTOCOL_VERSION, Call, check_version
from warmpool.wire.shapes import Conversation, Message, from_wire, to_wire

quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])

CONVERSATIONS: dict[str, Conversation] = {
    name: table
    for name, table in {**vars(messages), **vars(process_messages)}.items()
    if name.isupper() and not name.startswith("_") and isinstance(table, dict)
}


def kinds_of(conversation: Conversation) -> list[type[Message]]:
    return [conversation[name].kind for name in conversation]


MEMBERS = [(name, kind) for name, conversation in CONVERSATIONS.items() for kind in kinds_of(conversation)]
FIELDS = [(name, kind, field) for name, kind in MEMBERS for field in kind._fields]

each_member = pytest.mark.parametrize(
    ("conversation", "kind"),
    [pytest.param(CONVERSATIONS[name], kind, id=f"{name}-{kind.__name__}") for name, kind in MEMBERS],
)
each_field = pytest.mark.parametrize(
    ("conversation", "kind", "field"),
    [
        pytest.param(CONVERSATIONS[name], kind, field, id=f"{name}-{kind.__name__}.{field}")
        for name, kind, field in FIELDS
    ],
)
each_conversation = pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())

keys = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
wire_values = st.recursive(
    keys | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)


def alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type. A type that is new to messages fails here, by its name."""
    if len(alternatives(hint)) > 1:
        return st.one_of([values_of(one) for one in alternatives(hint)])
    if get_origin(hint) is dict:
        key, value = get_args(hint)
        return st.dictionaries(values_of(key), values_of(value), max_size=3)
    if get_origin(hint) is list:
        return st.lists(values_of(*get_args(hint)), max_size=3)
    return {
        object: wire_values,
        Any: wire_values,
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(-(2**63), 2**64 - 1),
        float: st.floats(allow_nan=False) | st.integers(0, 3600),
        str: st.text(max_size=8),
        bytes: st.binary(max_size=8),
    }[hint]


SAMPLES: list[Any] = [None, True, 7, 1.5, "x", b"x", [], {}]
"""One value of each type that msgpack gives."""


def plain_types(hint: Any) -> set[type]:
    """The exact types that a field may have on the wire."""
    found: set[type] = set()
    for one in alternatives(hint):
        if one in (object, Any):
            return {type(sample) for sample in SAMPLES}
        found |= {int, float} if one is float else {get_origin(one) or one}
    return found


@st.composite
def instances(draw, kind: type[Message]) -> Message:
    return kind(*(draw(values_of(hint)) for hint in get_type_hints(kind).values()))


def sample_of(kind: type[Message], *, changed: dict[str, Any] | None = None) -> list[Any]:
    """The wire form of some lawful message, with a field or two changed."""
    hints = get_type_hints(kind)
    lawful = {field: next(s for s in SAMPLES if type(s) in plain_types(hints[field])) for field in kind._fields}
    return [kind.__name__, *(lawful | (changed or {})).values()]


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def test_the_tables_were_found():
    assert len(CONVERSATIONS) >= 9
    assert len(MEMBERS) >= 20


# --- there and back ---------------------------------------------------------------------------------------------


@each_member
@quick
@given(data=st.data())
def test_a_message_arrives_as_it_was_sent(conversation, kind, data):
    message = data.draw(instances(kind))
    arrived = from_wire(msgpack.packb(to_wire(message)), conversation)
    assert type(arrived) is kind
    assert arrived == message


@each_member
def test_a_message_is_an_array_of_its_name_and_fields(conversation, kind):
    message = kind(*sample_of(kind)[1:])
    assert to_wire(message) == (kind.__name__, *message)


@each_member
def test_fields_with_a_default_may_be_missing_at_the_end(conversation, kind):
    wire = sample_of(kind)
    for missing in range(len(kind._field_defaults) + 1):
        short = wire[: len(wire) - missing]
        assert from_wire(msgpack.packb(short), conversation) == kind(*short[1:])


# --- what is refused --------------------------------------------------------------------------------------------


@each_member
def test_one_field_too_few_or_too_many_is_refused(conversation, kind):
    wire = sample_of(kind)
    required = len(kind._fields) - len(kind._field_defaults)
    wrong = [[*wire, None], [*wire, *[None] * 1000]]
    if required:
        wrong += [wire[:required], wire[:1]]
    for parts in wrong:
        with pytest.raises(ProtocolError, match=kind.__name__):
            from_wire(msgpack.packb(parts), conversation)


@each_field
def test_a_field_refuses_every_type_but_its_own(conversation, kind, field):
    lawful = plain_types(get_type_hints(kind)[field])
    for sample in SAMPLES:
        body = msgpack.packb(sample_of(kind, changed={field: sample}))
        if type(sample) in lawful:
            assert getattr(from_wire(body, conversation), field) == sample
        elif type(sample) is not bool:  # the next test
            with pytest.raises(ProtocolError, match=rf"{kind.__name__}\.{field} "):
                from_wire(body, conversation)


def test_true_is_not_a_number():
    accepted = []
    for name, kind, field in FIELDS:
        lawful = plain_types(get_type_hints(kind)[field])
        if bool not in lawful:
            try:
                from_wire(msgpack.packb(sample_of(kind, changed={field: True})), CONVERSATIONS[name])
            except ProtocolError:
                continue
            accepted.append(f"{kind.__name__}.{field}")
    assert accepted == []


@each_conversation
def test_a_message_of_another_conversation_is_refused(conversation):
    for _, kind in MEMBERS:
        if kind.__name__ not in conversation:
            with pytest.raises(ProtocolError, match=kind.__name__):
                from_wire(msgpack.packb(sample_of(kind)), conversation)


NOT_MESSAGES: dict[str, Any] = {
    "none": None,
    "number": 7,
    "text": "Call",
    "bytes": b"Call",
    "map": {"Call": 1},
    "empty-list": [],
    "name-is-none": [None],
    "name-is-a-number": [1, 2, 3],
    "name-is-bytes": [b"Call", 1, None, None],
    "name-is-a-list": [["Call"], 1],
    "name-is-a-map": [{"Call": 1}, 1],
    "name-is-an-extension": [msgpack.ExtType(5, b"Call")],
    "name-is-unknown": ["Nonsense", 1],
    "name-is-empty": [""],
    "name-in-lower-case": ["call", 1, None, None],
    "name-of-an-attribute": ["__class__"],
    "name-of-64-kB": ["x" * 65536],
}


@each_conversation
@pytest.mark.parametrize("value", NOT_MESSAGES.values(), ids=NOT_MESSAGES.keys())
def test_what_is_no_message_is_refused_in_few_words(conversation, value):
    with pytest.raises(ProtocolError) as refused:
        from_wire(msgpack.packb(value), conversation)
    assert len(str(refused.value)) < 400


@each_member
def test_a_map_whose_keys_read_like_a_message_is_refused(conversation, kind):
    keys = [key if isinstance(key, int | float | str | None) else 1 for key in sample_of(kind)]
    with pytest.raises(ProtocolError):
        from_wire(msgpack.packb(dict.fromkeys(keys)), conversation)


def test_a_refused_value_is_shown_but_never_at_length():
    with pytest.raises(ProtocolError, match=r"Call\.id cannot be 'aaa") as refused:
        from_wire(msgpack.packb(["Call", "a" * 10**6, None, None]), messages.CALLS)
    assert len(str(refused.value)) < 200


DEEP_PLACES = {
    "the-whole": nested,
    "the-name": lambda depth: b"\x92" + nested(depth) + b"\x01",
    "a-field-of-another-type": lambda depth: b"\x94\xa4Call" + nested(depth) + b"\xc0\xc0",
    "a-field-of-any-type": lambda depth: b"\x94\xa4Call\x01\xc0" + nested(depth),
    "a-field-too-many": lambda depth: b"\x95\xa4Call\x01\xc0\xc0" + nested(depth),
    "maps": lambda depth: b"\x94\xa4Call\x01\xc0" + b"\x81\xc0" * depth + b"\xc0",
    "before-a-byte-too-many": lambda depth: nested(depth) + b"\0",
}


@pytest.mark.parametrize("depth", [100, 900, 1020, 1030, 50_000])
@pytest.mark.parametrize("body_of", DEEP_PLACES.values(), ids=DEEP_PLACES.keys())
def test_deep_values_never_raise_a_recursion_error(body_of, depth):
    for conversation in CONVERSATIONS.values():
        try:
            message = from_wire(body_of(depth), conversation)
        except ProtocolError:
            continue
        assert type(message) is Call


@each_conversation
@settings(quick, max_examples=60)
@given(value=wire_values)
def test_any_value_is_a_message_or_refused(conversation, value):
    try:
        message = from_wire(msgpack.packb(value), conversation)
    except ProtocolError:
        return
    assert type(message) in kinds_of(conversation)


@each_conversation
@settings(quick, max_examples=60)
@given(data=st.data())
def test_any_fields_under_a_known_name_are_a_message_or_refused(conversation, data):
    name = data.draw(st.sampled_from(sorted(conversation)))
    parts = [name, *data.draw(st.lists(wire_values, max_size=8))]
    try:
        message = from_wire(msgpack.packb(parts), conversation)
    except ProtocolError:
        return
    assert type(message) is conversation[name].kind
    assert list(message)[: len(parts) - 1] == parts[1:]


@each_conversation
@settings(quick, max_examples=60)
@given(body=st.binary(max_size=40))
def test_any_bytes_are_a_message_or_refused(conversation, body):
    try:
        message = from_wire(body, conversation)
    except ProtocolError:
        return
    assert type(message) in kinds_of(conversation)


def test_a_huge_count_of_fields_is_refused():
    with pytest.raises(ProtocolError):
        from_wire(b"\xdd" + struct.pack(">I", 2**32 - 1) + b"\xa4Call", messages.CALLS)


# --- the version ------------------------------------------------------------------------------------------------


def test_a_peer_of_our_version_can_be_served():
    check_version(PROTOCOL_VERSION)


@pytest.mark.parametrize(
    ("protocol", "old", "remedy"),
    [
        pytest.param(PROTOCOL_VERSION - 1, "client", "for the client", id="one-older"),
        pytest.param(0, "client", "for the client", id="zero"),
        pytest.param(-1, "client", "for the client", id="negative"),
        pytest.param(PROTOCOL_VERSION + 1, "daemon", "warmpool stop", id="one-newer"),
        pytest.param(2**64 - 1, "daemon", "warmpool stop", id="much-newer"),
    ],
)
def test_a_peer_of_another_version_is_told_which_side_is_old_and_what_to_do(protocol, old, remedy):
    with pytest.raises(ProtocolError) as refused:
        check_version(protocol)
    words = str(refused.value)
    assert f"the {old} is the older side" in words
    assert f"client speaks protocol {protocol}" in words
    assert f"daemon {PROTOCOL_VERSION}" in words
    assert remedy in words
