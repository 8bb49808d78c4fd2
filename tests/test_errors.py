"""The tree that the module prints is the tree that it has; every error goes over the wire and through pickle."""

from __future__ import annotations

import copy
import pickle
import re

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmpool import errors
from warmpool.errors import (
    BY_CODE,
    AppError,
    AppFailure,
    CallError,
    FunctionNotFoundError,
    InternalError,
    InvalidInputError,
    RequestError,
    SessionEndedError,
    SessionError,
    UnavailableError,
    WarmpoolError,
    from_wire,
)

LEAVES = sorted(BY_CODE.values(), key=lambda kind: kind.__name__)
CATEGORIES = [RequestError, SessionError, CallError, AppFailure, UnavailableError]

each_leaf = pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)

LINE = re.compile(r"(?P<indent>[│├└─ ]*)(?P<name>\w+) *(?P<code>[A-Z_]{4,})? *(?P<status>\d{3})?.*")


def printed_tree() -> dict[str, tuple[str | None, str | None, int | None]]:
    """name: (parent, code, status), from the docstring of the module."""
    lines = errors.__doc__.splitlines()
    first = lines.index("WarmpoolError")
    found: dict[str, tuple[str | None, str | None, int | None]] = {}
    path: list[str] = []
    for line in lines[first : lines.index("", first)]:
        match = LINE.fullmatch(line)
        assert match, line
        depth = len(match["indent"]) // 4
        del path[depth:]
        status = int(match["status"]) if match["status"] else None
        assert match["name"] not in found
        found[match["name"]] = (path[-1] if path else None, match["code"], status)
        path.append(match["name"])
    return found


def real_tree(
    kind: type[WarmpoolError] = WarmpoolError,
) -> dict[str, tuple[str | None, str | None, int | None]]:
    is_leaf = kind in BY_CODE.values()
    parent = None if kind is WarmpoolError else kind.__base__.__name__
    found = {kind.__name__: (parent, kind.code if is_leaf else None, kind.status_code if is_leaf else None)}
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            found |= real_tree(child)
    return found


# --- the tree ---------------------------------------------------------------------------------------------------


def test_the_printed_tree_is_the_real_one_with_its_codes_and_status():
    assert printed_tree() == real_tree()


def test_codes_are_unique_and_each_leads_to_its_class():
    own = [kind for name in real_tree() if "code" in vars(kind := getattr(errors, name)) and kind is not WarmpoolError]
    codes = [kind.code for kind in own] + [InternalError.code]
    assert len(codes) == len(set(codes))
    assert {code: kind for code, kind in BY_CODE.items() if kind is not InternalError} == {k.code: k for k in own}
    assert BY_CODE["INTERNAL"] is InternalError


@each_leaf
def test_a_leaf_has_a_code_in_capitals_an_http_status_and_one_base(kind):
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", kind.code)
    assert 400 <= kind.status_code < 600
    assert len(kind.__bases__) == 1


@each_leaf
def test_blame_is_in_the_status(kind):
    """A request that cannot be served is a 4xx; what the app, the world or we did is a 5xx."""
    if issubclass(kind, RequestError):
        assert kind.status_code < 500
    elif not issubclass(kind, SessionError | CallError):
        assert kind.status_code >= 500


# --- over the wire ----------------------------------------------------------------------------------------------


def full(kind: type[WarmpoolError]) -> WarmpoolError:
    return kind("it broke: ü", session_id="s_1", details={"size": 3, "list": [1, {"raw": b"\xff"}]})


def assert_same(one: BaseException, other: WarmpoolError) -> None:
    assert type(one) is type(other)
    assert one.args == other.args
    assert one.__dict__ == other.__dict__


@each_leaf
def test_an_error_arrives_as_the_same_class_with_the_same_fields(kind):
    sent = full(kind)
    assert sent.to_wire().keys() == {"code", "message", "session_id", "details"}
    assert_same(from_wire(msgpack.unpackb(msgpack.packb(sent.to_wire()))), sent)


@each_leaf
def test_an_error_without_extras_arrives_too(kind):
    sent = kind("it broke")
    assert (sent.session_id, sent.details, str(sent)) == (None, {}, "it broke")
    assert_same(from_wire(msgpack.unpackb(msgpack.packb(sent.to_wire()))), sent)


@each_leaf
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_goes_through_pickle(kind, protocol):
    assert_same(pickle.loads(pickle.dumps(full(kind), protocol)), full(kind))


class Mine(SessionError):
    """A user's own."""


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_what_a_user_has_added_stays(again):
    error = Mine("it broke", session_id="s_1")
    error.add_note("twice")
    error.mine = 5
    assert_same(again(error), error)
    assert again(error).__notes__ == ["twice"]


@each_leaf
def test_an_error_can_be_copied(kind):
    assert_same(copy.copy(full(kind)), full(kind))
    assert_same(copy.deepcopy(full(kind)), full(kind))


def test_details_are_the_errors_own():
    given_details = {"a": 1}
    error = AppError("it broke", details=given_details)
    error.details["b"] = 2
    assert given_details == {"a": 1}


def test_an_unknown_code_of_a_newer_peer_keeps_its_words():
    error = from_wire({"code": "TOO_SPICY", "message": "mind the chili", "session_id": "s_1", "details": {"x": 1}})
    assert type(error) is InternalError
    assert str(error) == "TOO_SPICY: mind the chili"
    assert (error.session_id, error.details) == ("s_1", {"x": 1})


MALFORMED = {
    "nothing": {},
    "all-none": {"code": None, "message": None, "session_id": None, "details": None},
    "code-is-a-number": {"code": 7, "message": "words"},
    "code-is-a-list": {"code": ["APP_ERROR"], "message": "words"},
    "code-is-a-map": {"code": {}, "message": "words"},
    "message-is-a-number": {"code": "APP_ERROR", "message": 7},
    "message-is-bytes": {"code": "APP_ERROR", "message": b"\xff"},
    "message-is-a-map": {"code": "APP_ERROR", "message": {}},
    "session-is-a-number": {"code": "APP_ERROR", "message": "words", "session_id": 7},
    "details-are-a-list": {"code": "APP_ERROR", "message": "words", "details": [1]},
    "details-are-text": {"code": "APP_ERROR", "message": "words", "details": "text"},
    "more-fields": {"code": "APP_ERROR", "message": "words", "new": 1, 2: 3},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_fields_still_give_an_error_with_proper_fields(fields):
    error = from_wire(fields)
    assert type(error) is (AppError if fields.get("code") == "APP_ERROR" else InternalError)
    assert isinstance(error.message, str)
    assert str(error) == error.message
    assert error.session_id is None
    assert error.details == {}


@pytest.mark.parametrize("field", ["code", "message", "session_id", "details"])
def test_a_field_too_deep_for_python_still_gives_an_error(field):
    fields = {"code": "APP_ERROR", "message": "words"}
    fields[field] = msgpack.unpackb(b"\x91" * 1020 + b"\xc0")
    assert isinstance(from_wire(fields), WarmpoolError)


wire_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.sampled_from(sorted(BY_CODE)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(["code", "message", "session_id", "details", "new"]), wire_values))
def test_any_fields_give_some_error_that_can_be_sent_on(fields):
    error = from_wire(fields)
    assert_same(from_wire(error.to_wire()), error)


# --- what the details mean --------------------------------------------------------------------------------------


def test_the_properties_read_the_details():
    assert InvalidInputError("m", details={"errors": [{"type": "missing"}]}).errors == [{"type": "missing"}]
    assert FunctionNotFoundError("m", details={"functions": ["add"]}).functions == ["add"]
    assert SessionEndedError("m", details={"end_reason": "expired"}).end_reason == "expired"
    app = AppError("m", details={"type": "ValueError", "message": "no", "traceback": "Traceback..."})
    assert (app.remote_type, app.remote_message, app.traceback) == ("ValueError", "no", "Traceback...")


def test_the_properties_are_empty_where_the_details_say_nothing():
    assert InvalidInputError("m").errors == []
    assert FunctionNotFoundError("m").functions == []
    assert SessionEndedError("m").end_reason is None
    app = AppError("m")
    assert (app.remote_type, app.remote_message, app.traceback) == ("", "", "")


def test_one_except_clause_catches_each_kind_of_blame():
    for category in CATEGORIES:
        assert any(issubclass(kind, category) for kind in LEAVES)
    for kind in LEAVES:
        blamed = [category for category in CATEGORIES if issubclass(kind, category)]
        assert len(blamed) == (0 if kind is InternalError else 1)
