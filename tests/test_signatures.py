"""A typed method → a function that can be called from afar: which methods are, what they take, what they give."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import functools
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from enum import Enum
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import msgpack
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, model_validator

from warmpool.app import BaseApp
from warmpool.errors import FunctionNotFoundError, InvalidInputError, from_wire
from warmpool.methods import HOOKS, Kind
from warmpool.signatures import Function, functions_of, select
from warmpool.wire.frames import decode, encode

LIMIT = 1024 * 1024


class Add(BaseModel):
    amount: int
    note: str = ""


class Order(BaseModel):
    items: list[Add]
    tags: set[str] = set()
    when: dt.datetime | None = None
    raw: bytes = b""


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def app_of(**members: Any) -> type[BaseApp]:
    return type("App", (BaseApp,), members)


def function_of(method: Callable[..., Any]) -> Function:
    (found,) = functions_of(app_of(**{method.__name__: method})).values()
    return found


def call(method: Callable[..., Any], value: Any) -> Any:
    """What a caller from afar gets: the input and the result both go over the wire."""
    function = function_of(method)
    result = function.method(BaseApp(), *function.decode(decode(encode(value, LIMIT)[4:])))
    return decode(encode(function.encode(result), LIMIT)[4:])


def refusal(method: Callable[..., Any], value: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as refused:
        function_of(method).decode(value)
    return refused.value


# --- which methods are functions --------------------------------------------------------------------------------


def helper(self, x: int) -> int:
    return x


class Members(BaseApp):
    text = "text"
    nested = type("Nested", (), {})
    partial = functools.partial(helper, None)

    def second(self, x: int) -> int:
        return x

    def first(self) -> int:
        return 1

    def defaulted(self, x=3):
        return x

    def half(self, x: int, y):
        return x

    def unannotated(self, x):
        return x

    def open_ended(self, *args, **kwargs):
        return args

    def _private(self, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x

    @staticmethod
    def static(x: int) -> int:
        return x

    @classmethod
    def of_class(cls, x: int) -> int:
        return x

    @property
    def prop(self) -> int:
        return 1

    async def later(self, x: int) -> int:
        return x


def test_public_annotated_methods_are_functions_in_the_order_of_their_definition():
    assert list(functions_of(Members)) == ["second", "first", "defaulted", "later"]


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_a_hook_is_no_function(hook):
    assert functions_of(app_of(**{hook: helper})) == {}


def test_base_app_alone_has_no_functions():
    assert functions_of(BaseApp) == {}


class Base(BaseApp):
    def kept(self, x: int) -> int:
        return x

    def changed(self, x: int) -> int:
        return x

    def hidden(self, x: int) -> int:
        return x

    def no_longer(self, x: int) -> int:
        return x


class Mixin:
    def mixed(self, x: int) -> int:
        return x


class Child(Mixin, Base):
    hidden = None

    def changed(self, x: str) -> str:
        return x

    def no_longer(self, x):
        return x


def test_functions_are_inherited_overridden_and_hidden():
    functions = functions_of(Child)
    assert sorted(functions) == ["changed", "kept", "mixed"]
    assert functions["changed"].method is Child.changed
    assert functions["kept"].method is Base.kept
    assert list(functions_of(Base)) == ["kept", "changed", "hidden", "no_longer"]


def test_async_methods_are_known():
    functions = functions_of(Members)
    assert functions["later"].is_async is True
    assert functions["first"].is_async is False


async def first_of(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator)


def plain_kind(self) -> list[int]: ...


async def async_kind(self) -> int: ...


def generator_kind(self) -> Generator[Add, None, Colour]:
    yield Add(amount=1)
    return Colour.RED


def unannotated_generator(self):
    yield dt.date(2026, 1, 2)


def iterable_generator(self) -> Iterable[Add]:
    yield Add(amount=1)


def wrong_generator(self) -> int:
    yield Add(amount=1)


def iterator_kind(self) -> Iterator[Add]:
    return iter([Add(amount=1)])


async def async_generator_kind(self) -> AsyncIterator[Add]:
    yield Add(amount=1)


def async_iterator_kind(self) -> AsyncGenerator[Add, None]:
    return async_generator_kind(self)


def only_keyword(self, *, amount: int = 1) -> Iterator[Add]:
    yield Add(amount=amount)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (plain_kind, Kind.PLAIN),
        (async_kind, Kind.ASYNC),
        (generator_kind, Kind.GENERATOR),
        (unannotated_generator, Kind.GENERATOR),
        (iterable_generator, Kind.GENERATOR),
        (wrong_generator, Kind.GENERATOR),
        (iterator_kind, Kind.GENERATOR),
        (only_keyword, Kind.GENERATOR),
        (async_generator_kind, Kind.ASYNC_GENERATOR),
        (async_iterator_kind, Kind.ASYNC_GENERATOR),
    ],
)
def test_how_a_function_gives_what_it_gives(method, kind):
    function = function_of(method)
    assert function.kind is kind
    assert function.is_async == (kind in (Kind.ASYNC, Kind.ASYNC_GENERATOR))
    assert function.streams == (kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR))
    description = function.describe()
    assert (description["async"], description["streams"]) == (function.is_async, function.streams)
    if not function.streams:
        return
    iterator = function.iterate(Members(), *function.decode({}))
    item = next(iterator) if kind is Kind.GENERATOR else asyncio.run(first_of(iterator))
    assert function.encode(item) == (
        item if "unannotated" in method.__name__ or method is wrong_generator else {"amount": 1, "note": ""}
    )
    last = function.method(Members(), *function.decode({}))
    assert (last if kind is Kind.GENERATOR else asyncio.run(last)) == item


def test_a_generator_is_described_by_its_items_and_has_its_result_encoded():
    function = function_of(generator_kind)
    assert function.describe()["output_schema"]["title"] == "Add"
    assert function.encode_return(Colour.RED) == Colour.RED
    assert function_of(wrong_generator).describe()["output_schema"] is None


def test_a_generator_that_is_called_plainly_is_closed_though_it_fails():
    closed: list[str] = []

    def fails(self) -> Iterator[int]:
        try:
            yield 1
            raise ValueError("enough")
        finally:
            closed.append("plain")

    async def fails_async(self) -> AsyncIterator[int]:
        try:
            yield 1
            raise ValueError("enough")
        finally:
            closed.append("async")

    with pytest.raises(ValueError, match="enough"):
        function_of(fails).method(Members())
    with pytest.raises(ValueError, match="enough"):
        asyncio.run(function_of(fails_async).method(Members()))
    assert closed == ["plain", "async"]


def test_a_decorated_method_keeps_its_signature():
    def logged(method):
        @functools.wraps(method)
        def wrapper(*args, **kwargs):
            return method(*args, **kwargs)

        return wrapper

    assert call(logged(helper), {"x": "4"}) == 4


def test_a_method_in_a_wrapper_that_is_no_function_is_one():
    assert call(functools.lru_cache(helper), {"x": "4"}) == 4


@pytest.mark.parametrize("knows", [False, True])
def test_an_async_method_in_a_plain_wrapper_is_awaited(knows: bool):
    """If that passes on what is to be awaited, and does not know the result itself."""

    async def method(self, x: int) -> int:
        return x

    @functools.wraps(method)
    def wrapper(self, x: int) -> Any:
        return x if knows else method(self, x)

    function = function_of(wrapper)
    assert function.kind is Kind.ASYNC
    assert asyncio.run(function.method(BaseApp(), 4)) == 4


# --- one model takes the whole input ----------------------------------------------------------------------------


def add(self, input: Add) -> int:
    return input.amount


def add_defaulted(self, input: Add = Add(amount=7)) -> int:  # noqa: B008
    return input.amount


def add_keyword(self, *, input: Add) -> int:
    return input.amount


def add_positional(self, input: Add, /) -> int:
    return input.amount


def order(self, order: Order) -> Order:
    return order


class Whole(RootModel[list[int]]):
    pass


def total(self, numbers: Whole) -> int:
    return sum(numbers.root)


class Empty(BaseModel):
    n: int = 5


class Tree(BaseModel):
    children: list[Tree] = []


class Deferring(Empty):
    m: int = 0

    @model_validator(mode="after")
    def says_what_it_has(self) -> Self:
        self.n = self.n
        return self


class Strict(Empty):
    model_config = ConfigDict(extra="forbid")


class Keeping(Empty):
    model_config = ConfigDict(extra="allow")


class Seeing(Empty):
    @model_validator(mode="before")
    @classmethod
    def takes_the_old_name(cls, value: Any) -> Any:
        return {"n": value.get("input", 5)}


class Needing(Keeping):
    m: int


class Passing(Empty):
    @model_validator(mode="wrap")
    @classmethod
    def passes(cls, value: Any, handler: Any) -> Any:
        return handler(value)


class PassingAll(BaseModel):
    n: int

    @model_validator(mode="before")
    @classmethod
    def passes(cls, value: Any) -> Any:
        return value


class Unwrapping(Empty):
    @model_validator(mode="before")
    @classmethod
    def unwraps(cls, value: Any) -> Any:
        return value["input"]


class MadeByItself(Empty):
    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)


class Picking(BaseModel):
    n: int = Field(5, validation_alias=AliasPath("input", "n"))


class AnyKeys(RootModel[dict[str, Any]]):
    pass


def empty(self, input: Empty) -> int:
    return input.n


def model_field(self, input: Add = Field(default_factory=lambda: Add(amount=8))) -> int:  # noqa: B008
    input.amount += 1
    return input.amount


def model_field_required(self, input: Add = Field(description="what to add")) -> int:  # noqa: B008
    return input.amount


def tree(self, root: Tree) -> int:
    return len(root.children)


def deferring(self, input: Annotated[Deferring, Field(description="all of it")] = Deferring(m=8)) -> int:  # noqa: B008
    return input.n + input.m


def strict(self, input: Strict) -> int:
    return input.n


def keeping(self, input: Keeping) -> Any:
    return input.model_extra


def needing(self, input: Needing) -> int:
    return input.m


def passing(self, input: Passing) -> int:
    return input.n


def passing_all(self, input: PassingAll) -> int:
    return input.n


def unwrapping(self, input: Unwrapping) -> int:
    return input.n


def made_by_itself(self, input: MadeByItself) -> int:
    return input.n


def seeing(self, input: Seeing) -> int:
    return input.n


def picking(self, input: Picking) -> int:
    return input.n


def itself(self, n: Empty) -> int:
    return n.n


def any_keys(self, numbers: AnyKeys) -> Any:
    return numbers.root


MODEL_CALLS: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "one-model": (add, {"amount": 3}, 3),
    "a-number-as-text": (add, {"amount": "3"}, 3),
    "unknown-keys-are-the-models-affair": (add, {"amount": 3, "more": 1}, 3),
    "no-input-is-an-empty-one": (empty, None, 5),
    "default-with-an-input": (add_defaulted, {"amount": 3}, 3),
    "default-without-an-input": (add_defaulted, None, 7),
    "a-field-with-an-input": (model_field, {"amount": 3}, 4),
    "a-field-without-an-input": (model_field, None, 9),
    "a-field-without-a-default": (model_field_required, {"amount": 3}, 3),
    "by-the-parameters-name": (add, {"input": {"amount": 3}}, 3),
    "by-the-parameters-name-with-a-default": (add_defaulted, {"input": {"amount": 3}}, 3),
    "by-the-parameters-name-where-all-is-optional": (empty, {"input": {"n": 3}}, 3),
    "by-the-parameters-name-and-empty": (empty, {"input": {}}, 5),
    "by-the-parameters-name-beside-another-key": (empty, {"input": {"n": 3}, "more": 1}, 5),
    "by-the-parameters-name-in-a-tree": (tree, {"root": {"children": [{}]}}, 1),
    "by-the-parameters-name-with-a-validator-of-the-whole": (deferring, {"input": {"n": 3}}, 3),
    "by-the-parameters-name-not-given": (deferring, None, 13),
    "by-the-parameters-name-where-more-is-forbidden": (strict, {"input": {"n": 3}}, 3),
    "more-is-kept": (keeping, {"text": "t", "input": {"n": 3}}, {"text": "t", "input": {"n": 3}}),
    "more-is-kept-by-one-that-is-named": (keeping, {"input": {"n": 3, "input": {}}}, {"input": {}}),
    "a-value-is-kept": (keeping, {"input": 3}, {"input": 3}),
    "a-validator-may-take-what-is-no-field": (seeing, {"input": 3}, 3),
    "one-with-a-validator-is-named": (passing, {"input": {"n": 3}}, 3),
    "one-with-a-validator-and-all-of-it-is-named": (passing_all, {"input": {"n": 3}}, 3),
    "a-validator-may-want-the-whole": (unwrapping, {"input": {"n": 3}}, 3),
    "one-with-an-init-is-named": (made_by_itself, {"input": {"n": 3}}, 3),
    "a-path-begins-with-a-key": (picking, {"input": {"n": 3}}, 3),
    "a-field-named-like-the-parameter": (itself, {"n": 3}, 3),
    "any-keys": (any_keys, {"numbers": {"numbers": 1}}, {"numbers": {"numbers": 1}}),
    "keyword-only": (add_keyword, {"amount": 3}, 3),
    "positional-only": (add_positional, {"amount": 3}, 3),
    "root-model": (total, [1, 2, 3], 6),
    "root-model-by-the-parameters-name": (total, {"numbers": [1, 2, 3]}, 6),
    "nested-models-sets-bytes-and-times": (
        order,
        {"items": [{"amount": 1}], "tags": ["a"], "when": "2026-01-02T03:04:05Z", "raw": b"\xff"},
        {
            "items": [{"amount": 1, "note": ""}],
            "tags": ["a"],
            "when": "2026-01-02T03:04:05Z",
            "raw": b"\xff",
        },
    ),
}


@pytest.mark.parametrize(("method", "value", "result"), MODEL_CALLS.values(), ids=MODEL_CALLS.keys())
def test_a_model_takes_the_whole_input(method, value, result):
    assert call(method, value) == result


@pytest.mark.parametrize("method", [keeping, passing, passing_all, made_by_itself, needing])
def test_a_model_that_is_named_and_wrong_is_refused(method):
    """Not taken for one that is right and has everything by default."""
    assert "input.n" in str(refusal(method, {"input": {"n": "three"}}))


# --- else the keys are the parameters ---------------------------------------------------------------------------


def plain(self, a: int, b: str = "b", *, c: float = 1.5, d: list[int] = []) -> list[Any]:  # noqa: B006
    d.append(0)
    return [a, b, c, d]


def odd_names(
    self,
    copy: int,
    schema: int,
    self_: int,
    _private: int,
    model_config: int,
    json: int,
    p0: int,
    cls: int,
    in_: int = 9,
) -> list[int]:
    return [copy, schema, self_, _private, model_config, json, p0, cls, in_]


def positional_only(self, a: int, /, b: int, *, c: int) -> list[int]:
    return [a, b, c]


def nothing(self) -> str:
    return "nothing"


def unannotated_default(self, x=3, y: Any = None) -> list[Any]:
    return [x, y]


def two_models(self, one: Add, other: Add | None = None) -> list[Any]:
    return [one.amount, other and other.amount]


def optional_model(self, one: Add | None = None) -> Any:
    return one and one.amount


def constrained(self, n: Annotated[int, Field(ge=1, le=9)], word: Annotated[str, Field(pattern="^a")] = "a") -> str:
    return word * n


def doubled(self, n: Annotated[int, BeforeValidator(lambda v: v * 2)]) -> int:
    return n


def rich(
    self, when: dt.date, id: uuid.UUID, colour: Colour, point: Point, tags: frozenset[str] = frozenset()
) -> list[str]:
    return [type(v).__name__ for v in (when, id, colour, point, tags)]


def with_fields(
    self,
    n: int = Field(2, ge=1),
    words: list[str] = Field(default_factory=list),  # noqa: B008
    most: Annotated[int, Field(ge=1)] = Field(9, le=9),
    size: Annotated[int, Field(default_factory=lambda: 4)] = Field(description="how large"),
) -> list[Any]:
    words.append("word")
    return [n, words, most, size]


def with_a_field_that_must_be_given(self, n: int = Field(description="how many"), m: int = 1) -> list[int]:
    return [n, m]


def with_aliases(
    self,
    user_id: Annotated[int, Field(alias="userId")],
    kind: str = Field("plain", validation_alias=AliasChoices("type", "sort")),
    first: int = Field(0, validation_alias=AliasPath("numbers", 0)),
) -> list[Any]:
    return [user_id, kind, first]


PARAMETER_CALLS: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "defaults": (plain, {"a": 1}, [1, "b", 1.5, [0]]),
    "all-given": (plain, {"a": "1", "b": "x", "c": 2, "d": ["3"]}, [1, "x", 2.0, [3, 0]]),
    "in-another-order": (plain, {"d": [], "c": 3, "b": "x", "a": 1}, [1, "x", 3.0, [0]]),
    "odd-names": (
        odd_names,
        {"cls": 8, "p0": 7, "json": 6, "model_config": 5, "_private": 4, "self_": 3, "schema": 2, "copy": 1},
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
    ),
    "positional-only-and-keyword-only": (positional_only, {"c": 3, "b": 2, "a": 1}, [1, 2, 3]),
    "no-parameters-no-input": (nothing, None, "nothing"),
    "no-parameters-empty-input": (nothing, {}, "nothing"),
    "a-default-without-annotation": (unannotated_default, {"x": [1]}, [[1], None]),
    "two-models": (two_models, {"one": {"amount": 1}, "other": {"amount": 2}}, [1, 2]),
    "two-models-one-left-out": (two_models, {"one": {"amount": 1}}, [1, None]),
    "an-optional-model-is-a-parameter": (optional_model, {"one": {"amount": 1}}, 1),
    "an-optional-model-left-out": (optional_model, None, None),
    "constraints": (constrained, {"n": 2, "word": "ab"}, "abab"),
    "fields-left-out": (with_fields, {}, [2, ["word"], 9, 4]),
    "fields-given": (with_fields, {"n": "1", "words": ["a"], "most": 3, "size": 5}, [1, ["a", "word"], 3, 5]),
    "a-field-without-a-default": (with_a_field_that_must_be_given, {"n": 3}, [3, 1]),
    "aliases": (with_aliases, {"userId": 1, "sort": "odd", "numbers": [7]}, [1, "odd", 7]),
    "names-beside-aliases": (with_aliases, {"user_id": 1, "kind": "odd", "first": 7}, [1, "odd", 7]),
    "validators": (doubled, {"n": 4}, 8),
    "rich-types": (
        rich,
        {
            "when": "2026-01-02",
            "id": str(uuid.UUID(int=1)),
            "colour": "red",
            "point": {"x": 1},
            "tags": ["a"],
        },
        ["date", "UUID", "Colour", "Point", "frozenset"],
    ),
}


@pytest.mark.parametrize(("method", "value", "result"), PARAMETER_CALLS.values(), ids=PARAMETER_CALLS.keys())
def test_the_keys_of_the_input_are_the_parameters(method, value, result):
    assert call(method, value) == result


def test_a_mutable_default_is_fresh_in_each_call():
    function, described = function_of(plain), function_of(with_fields)
    for _ in range(3):
        assert function.method(None, *function.decode({"a": 1})) == [1, "b", 1.5, [0]]
        assert described.method(None, *described.decode(None)) == [2, ["word"], 9, 4]


# --- what is refused when the app is loaded ---------------------------------------------------------------------


def unresolved(self, x: Nowhere) -> int:  # noqa: F821
    return 1


def unresolved_result(self) -> Nowhere:  # noqa: F821
    return 1


class NoSchema:
    pass


def no_schema(self, x: NoSchema) -> int:
    return 1


def no_schema_result(self) -> NoSchema:
    return NoSchema()


def var_positional(self, *numbers: int) -> int:
    return 1


def var_keyword(self, **numbers: int) -> int:
    return 1


def var_positional_model(self, *inputs: Add) -> int:
    return 1


async def late_iterator(self, n: int) -> AsyncIterator[int]:
    return first_of(n)


def var_keyword_model(self, **inputs: Add) -> int:
    return 1


@pytest.mark.parametrize(
    ("method", "error"),
    [
        (unresolved, NameError),
        (unresolved_result, NameError),
        (no_schema, pydantic.errors.PydanticSchemaGenerationError),
        (no_schema_result, pydantic.errors.PydanticSchemaGenerationError),
        (var_positional, TypeError),
        (var_keyword, TypeError),
        (var_positional_model, TypeError),
        (var_keyword_model, TypeError),
        (late_iterator, TypeError),
    ],
    ids=lambda value: value.__name__,
)
def test_a_signature_that_cannot_be_called_from_afar_is_refused_with_words_that_begin_with_the_method(method, error):
    with pytest.raises(TypeError) as refused:
        functions_of(app_of(**{method.__name__: method}))
    cause = refused.value.__cause__
    assert type(cause) is error
    words = str(cause).splitlines()[0]
    if error is pydantic.errors.PydanticSchemaGenerationError:
        words = f"{words.partition('. Set `arbitrary')[0]}: annotate a type that pydantic knows, as list[float]"
    assert str(refused.value) == f"{method.__qualname__} cannot be called from afar: {error.__name__}: {words}"
    assert "begins with _" in refused.value.__notes__[0]


def test_a_method_without_self_is_no_function_or_refused_by_name():
    def selfless() -> int:
        return 1

    found: dict[str, Function] = {}
    words = "selfless"
    try:
        found = functions_of(app_of(selfless=selfless))
    except Exception as refused:
        words = "\n".join([str(refused), *getattr(refused, "__notes__", [])])
    assert found == {}
    assert "selfless" in words


# --- what is refused when a function is called ------------------------------------------------------------------

SECRET = "hunter2-do-not-show"


def login(self, password: int, more: dict[int, int] = {}) -> int:  # noqa: B006
    return password


class Login(BaseModel):
    password: int


def login_model(self, input: Login) -> int:
    return input.password


@pytest.mark.parametrize("method", [login, login_model], ids=lambda m: m.__name__)
@pytest.mark.parametrize("value", [{"password": SECRET}, {"password": [SECRET]}, SECRET, [SECRET], 7])
def test_an_input_error_is_data_and_does_not_show_the_input(method, value):
    error = refusal(method, value)
    assert error.details["function"] == method.__name__
    assert f"the input of {method.__name__} is not valid" in str(error)
    assert SECRET not in repr(error.to_wire())
    (found,) = error.errors
    assert found.keys() >= {"type", "loc", "msg"}
    assert not {"input", "url"} & found.keys()
    assert found["loc"] == (["password"] if isinstance(value, dict) else [])


def test_an_input_error_goes_over_the_wire():
    error = refusal(constrained, {"n": 99, "word": "b", "more": 1})
    arrived = from_wire(decode(encode(error.to_wire(), LIMIT)[4:]))
    assert type(arrived) is InvalidInputError
    assert arrived.errors == error.errors
    assert [found["loc"] for found in arrived.errors] == [["n"], ["word"], ["more"]]
    assert arrived.errors[0]["ctx"] == {"le": 9}


@pytest.mark.parametrize(
    ("method", "value", "location", "sort"),
    [
        pytest.param(plain, {}, ["a"], "missing", id="missing"),
        pytest.param(plain, None, ["a"], "missing", id="no-input"),
        pytest.param(plain, {"a": 1, "z": 1}, ["z"], "extra_forbidden", id="unknown-parameter"),
        pytest.param(odd_names, dict.fromkeys("abc"), ["copy"], "missing", id="by-the-parameters-name"),
        pytest.param(nothing, {"x": 1}, ["x"], "extra_forbidden", id="no-parameters"),
        pytest.param(plain, [1], [], "model_type", id="a-list"),
        pytest.param(plain, {"a": 1, 2: 3}, [2], "invalid_key", id="a-key-that-is-no-text"),
        pytest.param(order, {"items": [{"amount": 1}, {}]}, ["items", 1, "amount"], "missing", id="nested"),
        pytest.param(with_fields, {"n": 0}, ["n"], "greater_than_equal", id="a-bound-of-a-field"),
        pytest.param(with_fields, {"most": 0}, ["most"], "greater_than_equal", id="a-bound-of-the-annotation"),
        pytest.param(with_fields, {"most": 10}, ["most"], "less_than_equal", id="a-bound-beside-another"),
        pytest.param(with_a_field_that_must_be_given, None, ["n"], "missing", id="a-field-without-a-default"),
        pytest.param(model_field_required, None, ["amount"], "missing", id="a-model-as-a-field-without-a-default"),
        pytest.param(with_aliases, {}, ["userId"], "missing", id="by-the-parameters-alias"),
        pytest.param(add, {"input": {}}, ["input", "amount"], "missing", id="in-a-model-that-is-named"),
        pytest.param(
            empty, {"input": {"n": "x"}}, ["input", "n"], "int_parsing", id="in-a-model-where-all-is-optional"
        ),
        pytest.param(empty, {"input": None}, ["input"], "model_type", id="a-model-that-is-named-and-not-given"),
        pytest.param(strict, {"input": {}, "n": 1}, ["input"], "extra_forbidden", id="beside-a-field"),
        pytest.param(itself, {"n": {"n": 1}}, ["n"], "int_type", id="a-field-named-like-the-parameter"),
        pytest.param(two_models, {"one": {}}, ["one", "amount"], "missing", id="nested-in-a-parameter"),
    ],
)
def test_an_input_error_says_where_and_what(method, value, location, sort):
    error = refusal(method, value)
    assert (error.errors[0]["loc"], error.errors[0]["type"]) == (location, sort)
    assert ".".join(map(str, location)) in str(error)


def test_whoever_takes_other_names_for_parameters_is_told_them():
    assert str(refusal(nothing, {"x": 1})).endswith("x: Extra inputs are not permitted; it takes {}")
    assert str(refusal(two_models, {"three": {}})).endswith('; it takes {"one": …, "other": …}')
    assert "it takes its parameters by name: give a dict" in str(refusal(two_models, 5))
    assert "it takes" not in str(refusal(two_models, {"one": {}}))


def test_a_model_that_is_given_by_its_parameters_name_is_described_as_the_whole_input():
    schema = function_of(empty).describe()["input_schema"]
    assert schema == Empty.model_json_schema()


def test_many_input_errors_are_all_data_but_five_in_words():
    error = refusal(order, {"items": [{}] * 8})
    assert len(error.errors) == 8
    assert str(error).count("Field required") == 5
    assert str(error).endswith("; and 3 more")


def test_an_error_of_the_apps_own_validator_is_an_input_error():
    def picky(value: Any) -> Any:
        raise ValueError("no such colour")

    def paint(self, colour: Annotated[str, BeforeValidator(picky)]) -> int:
        return 1

    paint.__annotations__["colour"] = Annotated[str, BeforeValidator(picky)]
    error = refusal(paint, {"colour": SECRET})
    assert "no such colour" in str(error)
    assert SECRET not in repr(error.to_wire())


keys = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
wire_values = st.recursive(
    keys | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
near_inputs = st.dictionaries(
    st.sampled_from(
        ["a", "b", "c", "d", "items", "tags", "when", "raw", "one", "id", "point", "n", "password", "more"]
    ),
    wire_values,
    max_size=5,
)

FUZZED = [function_of(m) for m in (add, order, total, plain, two_models, constrained, rich, nothing, login)]


@settings(max_examples=150, deadline=None)
@given(wire_values | near_inputs)
def test_any_input_is_taken_or_an_input_error_that_can_be_sent(value):
    for function in FUZZED:
        try:
            arguments = function.decode(value)
        except InvalidInputError as refused:
            arguments, wire = (), refused.to_wire()
            arrived = from_wire(msgpack.unpackb(msgpack.packb(wire)))
            assert arrived.to_wire() == wire
        assert isinstance(arguments, tuple)


# --- select: which function a call means ------------------------------------------------------------------------


def run(self, x: int = 0, action: str = "") -> list[Any]:
    return [x, action]


def act(self, x: int = 0, action: str = "") -> list[Any]:
    return [x, action]


class WithAction(BaseModel):
    action: str
    x: int = 0


class WithAlias(BaseModel):
    what: str = Field(alias="action")


class WithValidationAlias(BaseModel):
    what: str = Field(validation_alias="action")


class WithChoices(BaseModel):
    what: str = Field(validation_alias=AliasChoices("verb", "action"))


class WithPath(BaseModel):
    what: str = Field("act", validation_alias=AliasPath("action", 0))


def act_model(self, input: WithAction) -> str:
    return input.action


def act_alias(self, input: WithAlias) -> str:
    return input.what


def act_validation_alias(self, input: WithValidationAlias) -> str:
    return input.what


def act_path(self, input: WithPath) -> str:
    return input.what


def act_keyed(self, what: str = Field(alias="action")) -> str:
    return what


def act_choices(self, input: WithChoices) -> str:
    return input.what


TABLE = functions_of(app_of(helper=helper, act=act, add=add))
TABLE_WITH_RUN = functions_of(app_of(run=run, helper=helper))


def selected(table: dict[str, Function], name: str | None, value: Any) -> tuple[str, Any]:
    function, passed = select(table, "counter", name, value)
    return function.name, passed


def test_a_named_function_takes_the_input_as_it_is():
    assert selected(TABLE, "helper", {"x": 1, "action": "act"}) == ("helper", {"x": 1, "action": "act"})
    assert selected(TABLE_WITH_RUN, "helper", 7) == ("helper", 7)


@pytest.mark.parametrize("value", [None, {}, 7, {"action": "helper"}, {"action": "nonsense"}], ids=repr)
def test_without_a_name_it_is_run_whatever_the_action_says(value):
    assert selected(TABLE_WITH_RUN, None, value) == ("run", value)


def test_without_run_it_is_what_the_action_names():
    value = {"action": "helper", "x": 3}
    assert selected(TABLE, None, value) == ("helper", {"x": 3})
    assert value == {"action": "helper", "x": 3}, "the caller's input is left as it was"


@pytest.mark.parametrize(
    "method",
    [act, act_model, act_alias, act_validation_alias, act_choices, act_path, act_keyed],
    ids=lambda m: m.__name__,
)
def test_the_action_is_passed_on_to_a_function_that_has_a_field_for_it(method):
    table = functions_of(app_of(**{method.__name__: method}))
    value = {"action": method.__name__}
    function, passed = select(table, "counter", None, value)
    assert function.takes_action is True
    assert passed == value
    function.decode(passed)


@pytest.mark.parametrize("method", [helper, add, order, nothing], ids=lambda m: m.__name__)
def test_the_action_is_dropped_for_a_function_that_has_none(method):
    assert function_of(method).takes_action is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nonsense", None),
        ("nonsense", {"action": "helper"}),
        ("", {"action": "helper"}),
        (None, None),
        (None, {}),
        (None, 7),
        (None, ["action", "helper"]),
        (None, {"action": None}),
        (None, {"action": 7}),
        (None, {"action": ["helper"]}),
        (None, {"action": "nonsense"}),
        (None, {"action": "setup"}),
        (None, {"action": "__init__"}),
        ("_private", None),
    ],
    ids=repr,
)
def test_what_names_no_function_is_refused_with_the_names_there_are(name, value):
    with pytest.raises(FunctionNotFoundError) as refused:
        select(TABLE, "counter", name, value)
    assert refused.value.functions == ["act", "add", "helper"]
    assert "app counter " in str(refused.value)
    assert "act, add, helper" in str(refused.value)


def test_an_app_without_functions_says_so():
    with pytest.raises(FunctionNotFoundError, match="it has none"):
        select({}, "counter", "add", None)


class Beginner(BaseApp):
    counter = 0

    def good(self, amount: int) -> int:
        return amount

    def bare(self, amount):
        return amount

    @staticmethod
    def static(amount: int) -> int:
        return amount

    @classmethod
    def of_the_class(cls, amount: int) -> int:
        return amount

    def _hidden(self, amount: int) -> int:
        return amount

    def setup(self) -> None: ...

    wrapped = functools.partial(good, amount=1)
    partly = functools.partialmethod(good, amount=1)
    held = property(good)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bare", ", since its parameter amount has neither an annotation nor a default;"),
        ("static", ", since it is a staticmethod, and a function takes self;"),
        ("of_the_class", ", since it is a classmethod, and a function takes self;"),
        ("_hidden", ", since its name begins with _;"),
        ("setup", ", since it is a hook;"),
        ("wrapped", ", since it is no method, or in a wrapper that does not say so by `functools.wraps`;"),
        ("partly", ", since it is a partialmethod, and no plain method;"),
        ("held", ", since it is a property, and no plain method;"),
        ("counter", ";"),
        ("nothing", ";"),
        ("\0", ";"),
    ],
)
def test_why_what_an_app_has_under_a_name_is_no_function(name: str, why: str):
    with pytest.raises(FunctionNotFoundError) as raised:
        select(functions_of(Beginner), "beginner", name, None, Beginner)
    assert f"app beginner does not have a function {name!r}{why} it has good (" in str(raised.value)


class Countdown:
    """An iterator that is a value for all that."""

    def __init__(self, left: int = 3) -> None:
        self.left = left

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


class Words(dict, Countdown):
    pass


class Text(str, Countdown):
    __slots__ = ("left",)


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (None, Countdown(), [2, 1, 0]),
        (Any, Countdown(), [2, 1, 0]),
        (Iterable[int], Countdown(), [2, 1, 0]),
        (Iterable[int], [1], [1]),
        (None, Words(a=1), {"a": 1}),
        (None, Text("abc"), "abc"),
        (Annotated[Any, pydantic.PlainSerializer(lambda value: value.left)], Countdown(), 3),
    ],
    ids=["bare", "any", "iterable", "list", "dict", "text", "serializer-of-its-own"],
)
def test_an_iterator_is_a_list_by_the_end_of_the_call(annotation, value, result):
    function = function_of(returning(annotation, value))
    given = function.method(None)
    assert given == (result if isinstance(result, list) else value), "its items are made in the call"
    assert decode(encode(function.encode(given), LIMIT)[4:]) == result


@dataclasses.dataclass
class Box:
    width: int
    height: int = 1
    area: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.area = self.width * self.height


@dataclasses.dataclass
class Rack:
    boxes: list[Box]
    best: Box | None = None
    full: bool = dataclasses.field(init=False, default=False)


def measure(self, box: Box) -> int:
    return box.area


def measure_either(self, box: Box | Rack) -> int:
    return 0


def measure_all(self, rack: Rack, more: dict[str, Box] = {}) -> int:  # noqa: B006
    return sum(box.area for box in [*rack.boxes, *more.values(), *([rack.best] if rack.best else [])])


def test_a_dataclass_may_come_with_the_fields_that_it_makes_itself():
    def sent(value: object) -> Any:
        return decode(encode(value, LIMIT)[4:])

    assert call(measure, sent({"box": Box(2, 3)})) == 6
    rack = Rack([Box(1), Box(2, 2)], Box(3, 3))
    assert call(measure_all, sent({"rack": rack, "more": {"x": Box(4, 4)}})) == 1 + 4 + 9 + 16
    error = refusal(measure, {"box": {**dataclasses.asdict(Box(2)), "depth": 1}})
    assert "depth" in str(error)
    assert "area" in str(refusal(measure_either, sent({"box": Box(2, 3)}))), "of a union it is not known which is meant"


def test_a_hook_that_is_run_by_its_decorator_is_taken():
    def drained(method):
        @functools.wraps(method)
        def run(self):
            for _ in method(self):
                pass

        return run

    class Drained(BaseApp):
        @drained
        def setup(self) -> Iterator[None]:
            yield

        def get(self) -> int:
            return 1

    assert list(functions_of(Drained)) == ["get"]


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_a_hook_that_yields_is_refused(hook: str):
    """It would be a generator that nobody runs, and its app not set up."""

    def plain(self) -> Iterator[None]:
        yield

    async def awaited(self) -> AsyncIterator[None]:
        yield

    for method in (plain, awaited):
        app = type("Yields", (BaseApp,), {hook: method})
        with pytest.raises(TypeError, match="yields, and would never run"):
            functions_of(app)


# --- encode: what the result becomes ----------------------------------------------------------------------------


def returning(annotation: Any, value: Any) -> Callable[..., Any]:
    def give(self):
        return value

    give.__annotations__ = {} if annotation is None else {"return": annotation}
    return give


RESULTS: dict[str, tuple[Any, Any, Any]] = {
    "model": (Add, Add(amount=1), {"amount": 1, "note": ""}),
    "list-of-models": (list[Add], [Add(amount=1)], [{"amount": 1, "note": ""}]),
    "map-of-models": (dict[str, Add], {"k": Add(amount=1)}, {"k": {"amount": 1, "note": ""}}),
    "dataclass": (Point, Point(1), {"x": 1, "y": 0}),
    "set-of-bytes": (set[bytes], {b"\xff"}, [b"\xff"]),
    "bytes": (bytes, b"\xff", b"\xff"),
    "date": (dt.date, dt.date(2026, 1, 2), "2026-01-02"),
    "enum": (Colour, Colour.RED, "red"),
    "none": (type(None), None, None),
    "unannotated-model": (None, Add(amount=1), {"amount": 1, "note": ""}),
    "any": (Any, {"k": {1}}, {"k": [1]}),
    "a-parent-model-hides-what-a-child-adds": (Add, type("More", (Add,), {"__annotations__": {"z": int}})(amount=1, z=2), {"amount": 1, "note": ""}),
    "another-type-than-was-promised": (Add, {"amount": "x"}, {"amount": "x"}),
    "a-text-for-a-number": (int, "x", "x"),
    "none-for-a-model": (Add, None, None),
    "other-members": (list[Add], [1, "x", None], [1, "x", None]),
    "other-keys": (dict[str, int], {1: 2}, {1: 2}),
    "a-shorter-tuple": (tuple[int, str], (1,), [1]),
    "no-member-of-the-union": (Add | Point, 7, 7),
    "another-model": (Add, Empty(), {"n": 5}),
    "a-generator": (Iterable[bytes], (raw for raw in [b"\xff", b"a"]), [b"\xff", b"a"]),
    "a-generator-of-models": (Iterable[Add], (Add(amount=n) for n in [1]), [{"amount": 1, "note": ""}]),
    "a-generator-for-a-list": (list[bytes], (raw for raw in [b"\xff"]), [b"\xff"]),
    "no-such-literal": (Literal["a"], "b", "b"),
}  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "result"), RESULTS.values(), ids=RESULTS.keys())
def test_a_result_is_sent_by_its_annotation_and_as_it_is_where_it_does_not_fit(annotation, value, result):
    assert call(returning(annotation, value), None) == result


@pytest.mark.parametrize(
    "annotation",
    [None, Any, int, str, Add, list[str], dict[str, int], set[int], Add | Point, object, Colour],
    ids=repr,
)
@pytest.mark.parametrize("value", [NoSchema(), [NoSchema()], {"k": NoSchema()}], ids=["bare", "in-list", "in-map"])
def test_encode_never_fails_on_a_value_that_pydantic_does_not_know_and_the_packer_refuses_it(annotation, value):
    """Above all, it is never sent as an empty map, which is what pydantic makes of any object for a model."""
    encoded = function_of(returning(annotation, value)).encode(value)
    with pytest.raises(TypeError, match="NoSchema"):
        encode(encoded, LIMIT)


# --- describe ---------------------------------------------------------------------------------------------------


class Described(BaseApp):
    def documented(
        self,
        a: int,
        copy: Annotated[str, Field(description="twice")] = "x",
        *,
        _c: list[Add] = [],  # noqa: B006
    ) -> Add:
        """Does one thing.

        And says more about it.
        """
        return Add(amount=a)

    async def bare(self, x=1):
        return x

    def by_model(self, input: Order) -> dict[str, set[int]]:
        return {}


def test_a_function_describes_itself_with_json_schemas():
    described = functions_of(Described)["documented"].describe()
    assert (described["name"], described["description"], described["async"]) == (
        "documented",
        "Does one thing.",
        False,
    )
    schema = described["input_schema"]
    assert list(schema["properties"]) == ["a", "copy", "_c"]
    assert schema["required"] == ["a"]
    assert schema["properties"]["a"]["type"] == "integer"
    assert schema["properties"]["copy"]["description"] == "twice"
    assert schema["properties"]["copy"]["default"] == "x"
    assert schema["additionalProperties"] is False
    assert list(described["output_schema"]["properties"]) == ["amount", "note"]


def test_a_function_without_words_or_annotations_describes_itself_too():
    described = functions_of(Described)["bare"].describe()
    assert (described["description"], described["async"], described["output_schema"]) == ("", True, None)
    assert list(described["input_schema"]["properties"]) == ["x"]


@pytest.mark.parametrize("name", ["documented", "bare", "by_model"])
def test_a_description_is_plain_data(name):
    described = functions_of(Described)[name].describe()
    assert json.loads(json.dumps(described)) == described
    assert decode(encode(described, LIMIT)[4:]) == described


def test_a_parameter_is_described_by_its_field_and_its_alias():
    schema = function_of(with_fields).describe()["input_schema"]
    assert schema["properties"]["n"] == {"title": "N", "type": "integer", "default": 2, "minimum": 1}
    assert schema["properties"]["size"]["description"] == "how large"
    schema = function_of(with_aliases).describe()["input_schema"]
    assert list(schema["properties"])[:2] == ["userId", "type"]
    assert schema["required"] == ["userId"]


def test_no_name_of_ours_is_in_a_schema():
    schema = functions_of(Described)["documented"].describe()["input_schema"]
    assert [field["title"] for field in schema["properties"].values()] == ["A", "Copy", "C"]
    assert schema["title"] == "documented"


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    user_id: int = Field(alias="userId")


def aliased(self, input: Aliased) -> Aliased:
    return input


def test_the_input_schema_has_the_keys_that_the_input_has():
    schema = function_of(aliased).describe()["input_schema"]
    assert list(schema["properties"]) == ["userId"]
    assert function_of(aliased).decode({"userId": 3})[0].user_id == 3


def test_the_output_schema_has_the_keys_that_the_result_has():
    schema = function_of(aliased).describe()["output_schema"]
    assert list(call(aliased, {"userId": 3})) == list(schema["properties"])


class Opaque(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    frame: Annotated[NoSchema, BeforeValidator(lambda _: NoSchema())]


def opaque(self, input: Opaque, n: int = 1) -> int:
    return n


def opaque_model(self, input: Opaque) -> int:
    return 1


@pytest.mark.parametrize("method", [opaque, opaque_model], ids=lambda m: m.__name__)
def test_an_input_that_has_no_json_schema_can_be_called_and_described(method):
    function = function_of(method)
    function.decode({"frame": {}} if method is opaque_model else {"input": {"frame": {}}})
    assert function.describe()["name"] == method.__name__


def opaque_result(self) -> Opaque:
    return Opaque(frame=1)


def test_a_result_that_has_no_json_schema_is_described_without_one():
    assert function_of(opaque_result).describe()["output_schema"] is None


def test_a_default_that_is_no_json_is_described_without_a_warning():
    def odd_default(self, x: Any = NoSchema()) -> int:  # noqa: B008
        return 1

    odd_default.__annotations__ = {"x": Any, "return": int}
    assert function_of(odd_default).describe()["input_schema"]["properties"].keys() == {"x"}


# --- models that are packed as they lie ---------------------------------------------------------------------------


class Flat(BaseModel):
    a: int = 3
    b: str = Field("x", max_length=3)
    c: float = 1.0
    d: bytes = b"\x00\xff"
    e: bool = False

    @functools.cached_property
    def twice(self) -> int:
        return 2 * self.a


class Private(BaseModel):
    a: int = 1
    _secret: int = pydantic.PrivateAttr(7)


class UnderItsName(BaseModel):
    a: int = Field(1, alias="b")


class ByAlias(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    a: int = Field(1, serialization_alias="b")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


class Excluding(BaseModel):
    a: int = Field(1, exclude=True)
    b: int = 2


class FieldSerialised(BaseModel):
    a: int = 1

    @pydantic.field_serializer("a")
    def in_words(self, value: int) -> str:
        return f"{value}!"


class AnnotatedSerialised(BaseModel):
    a: Annotated[int, pydantic.PlainSerializer(lambda value: f"{value}?")] = 1


class ModelSerialised(BaseModel):
    a: int = 1

    @pydantic.model_serializer
    def in_words(self) -> dict[str, str]:
        return {"all": f"{self.a}"}


class Computed(BaseModel):
    a: int = 1

    @pydantic.computed_field
    @property
    def double(self) -> int:
        return 2 * self.a


class Nested(BaseModel):
    a: Flat = Flat()


class Root(RootModel[int]):
    root: int = 1


class Wider(Flat):
    f: int = 9


def used(model: Flat) -> Flat:
    assert model.twice == 2 * model.a
    return model


def without(model: BaseModel, field: str) -> BaseModel:
    delattr(model, field)
    return model


@pytest.mark.parametrize(
    "value",
    [
        Flat(), Flat(a=-1, b="abc"), used(Flat()), Flat.model_construct(a="no number", b=dt.date(2026, 1, 1)),
        without(Flat(), "c"), Private(), UnderItsName(), ByAlias(), Open(), Open(z=5), Excluding(), FieldSerialised(),
        AnnotatedSerialised(), ModelSerialised(), Computed(), Nested(), Root(), Wider(),
    ],
    ids=repr,
)  # fmt: skip
def test_a_model_goes_as_pydantic_would_dump_it(value: BaseModel):
    dumped = value.model_dump(warnings=False)
    assert call(returning(type(value), value), {}) == decode(encode(dumped, LIMIT)[4:])


def test_a_subclass_of_what_was_promised_goes_with_the_fields_that_were_promised():
    dumped = pydantic.TypeAdapter(Flat).dump_python(Wider(), warnings=False)
    assert call(returning(Flat, Wider()), {}) == dumped


def test_no_input_is_a_fresh_one_for_each_call():
    class Counting(BaseModel):
        seen: int = 0

        @pydantic.model_validator(mode="before")
        @classmethod
        def count(cls, data: dict[str, int]) -> dict[str, int]:
            data["seen"] = data.get("seen", 0) + 1
            return data

    def count(self, input: Counting) -> int:
        return input.seen

    count.__annotations__["input"] = Counting
    decode_input = function_of(count).decode
    assert [decode_input(None)[0].seen for _ in range(3)] == [1, 1, 1]


# --- generic bases ------------------------------------------------------------------------------------------------

T = TypeVar("T")
U = TypeVar("U", bound=BaseModel)
V = TypeVar("V")


class Page(BaseModel, Generic[T]):
    items: list[T]


class Crate(BaseModel, Generic[V]):
    inside: V


class Shelf(BaseApp, Generic[T]):
    def open(self, box: Crate[T]) -> Crate[T]:
        return box

    def open_all(
        self,
        boxes: Annotated[list[Crate[T]], "shown"],
        named: dict[str, tuple[T, Crate[T]]] | None = None,
        last: Crate[Page[T]] | None = None,
    ) -> list[Crate[T]]:
        return boxes

    def add(self, item: T) -> T:
        return item

    def fill(self, page: Page[T], more: list[T] | None = None) -> list[Annotated[T, "shown"]]:
        return page.items + (more or [])


class LargeShelf(Shelf[U], Generic[U]):
    def best(self, of: U) -> U:
        return of


class Shop(LargeShelf[Add]):
    pass


def test_what_stands_for_a_type_variable_is_known_of_the_app():
    functions = functions_of(Shop)
    shop = Shop()
    for name in ("add", "best"):
        assert functions[name].input_model is Add
        (decoded,) = functions[name].decode({"amount": "3"})
        assert decoded == functions[name].method(shop, decoded) == Add(amount=3)
        with pytest.raises(InvalidInputError, match="amount"):
            functions[name].decode({})
    page, more = functions["fill"].decode({"page": {"items": [{"amount": 1}]}, "more": [{"amount": 2}]})
    assert functions["fill"].method(shop, page, more) == [Add(amount=1), Add(amount=2)]
    assert functions_of(Shelf)["add"].decode({"item": 5}) == (5,)


def test_it_is_known_inside_of_models_that_have_variables_of_their_own():
    functions, given, add = functions_of(Shop), {"inside": {"amount": 1}}, Add(amount=1)
    assert functions["open"].decode(given) == (Crate[Add](inside=add),)
    assert functions["open"].output_model is Crate[Add]
    named, last = {"x": ({"amount": 1}, given)}, {"inside": {"items": [{"amount": 1}]}}
    assert functions["open_all"].decode({"boxes": [given], "named": named, "last": last}) == (
        [Crate[Add](inside=add)], {"x": (add, Crate[Add](inside=add))}, Crate[Page[Add]](inside=Page[Add](items=[add])),
    )  # fmt: skip
    wrong = {"inside": {"amount": "x"}}
    for function, value in (
        ("open", wrong),
        ("open_all", {"boxes": [wrong]}),
        ("open_all", {"boxes": [], "named": {"x": ({"amount": 1}, wrong)}}),
        ("open_all", {"boxes": [], "last": {"inside": {"items": [wrong]}}}),
    ):
        with pytest.raises(InvalidInputError, match="amount"):
            functions[function].decode(value)
