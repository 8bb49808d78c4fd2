"""A model that is given as an input arrives as its like, whatever its fields are called in either direction."""

from __future__ import annotations

from typing import Optional

import pytest
from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    SecretStr,
    field_serializer,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from warmpool.wire.frames import HEADER_SIZE, decode, encode
from warmpool.wire.large import InputWriter


class ReadByAlias(BaseModel):
    count: int = Field(default=2, validation_alias="how_many")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=to_camel))
    max_items: int = 10


class ReadByName(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=False, alias_generator=to_camel)
    max_items: int = 10


class OfBothNames(BaseModel):
    count: int = Field(serialization_alias="outCount", validation_alias="inCount")


class NotToBeShown(BaseModel):
    token: str = Field(default="", exclude=True)
    key: SecretStr = SecretStr("k")


class OfChoices(BaseModel):
    model_config = ConfigDict(extra="allow")
    count: int = Field(validation_alias=AliasChoices(AliasPath("counts", 0), "count_of_all"))


class Around(BaseModel):
    """Its own fields have one name, and those of the models in it have two."""

    many: list[ReadByAlias]
    named: dict[str, Camel] | None = None
    inner: Optional[Around] = None  # noqa: UP045  (a forward reference)


class Coded(BaseModel):
    """What is kept of some is not what it is read from, and one is read under another name."""

    data: Base64Bytes
    parts: list[Base64Bytes] | None = None
    text: Json[str]
    name: str = Field(default="", validation_alias="theName")
    inner: Coded | None = None


class Roots(RootModel[list[ReadByAlias]]):
    pass


@dataclass
class Lines:
    text: str = Field(validation_alias="words")


MODELS = (
    ReadByAlias(how_many=7),
    Camel(maxItems=99),
    ReadByName(max_items=99),
    OfBothNames(inCount=3),
    NotToBeShown(token="secret"),
    OfChoices(count_of_all=3, more=[1]),
    Around(many=[ReadByAlias(how_many=3)], named={"a": Camel(maxItems=4)}, inner=Around(many=[ReadByAlias()])),
    Coded(data=b"YWJjZA==", parts=[b"YWJjZA=="], text='"\\"x\\""', theName="n", inner=Coded(data=b"YQ==", text='"a"')),
    Roots([ReadByAlias(how_many=9)]),
)


def sent(value: object) -> object:
    frame = InputWriter(1 << 20).frame(value)
    return decode(frame[HEADER_SIZE:])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_model_arrives_as_its_like(model: BaseModel):
    assert type(model).model_validate(sent(model)) == model
    (inside,) = sent([{"deep": model}])
    assert type(model).model_validate(inside["deep"]) == model


def test_so_does_a_dataclass_of_pydantics():
    assert sent(Lines(words="a")) == {"words": "a"}


def test_a_set_of_models_goes_as_a_list():
    class Point(BaseModel, frozen=True):
        x: int = 0

    class Holder(BaseModel):
        points: set[Point]
        nested: list[frozenset[Point]] = []

    holder = Holder(points={Point(x=1)}, nested=[frozenset({Point()})])
    assert sent(holder) == {"points": [{"x": 1}], "nested": [[{"x": 0}]]}
    assert decode(encode({"value": holder}, 1000)[HEADER_SIZE:]) == {"value": sent(holder)}


def test_what_lies_beside_a_set_of_models_goes_as_ever():
    class Tag(BaseModel, frozen=True):
        secret: SecretStr = SecretStr("in a tag")

    class Login(BaseModel):
        model_config = ConfigDict(extra="allow")
        tags: set[Tag]
        password: SecretStr
        raw: bytes = b"\xff"
        numbers: dict[int, str] = {1: "a"}
        named: int = Field(default=1, validation_alias="theirName")

    login = Login(tags={Tag()}, password="hunter2", more=b"x")
    arrived = Login.model_validate(sent(login))
    assert arrived.password.get_secret_value() == "hunter2"
    assert [tag.secret.get_secret_value() for tag in arrived.tags] == ["in a tag"]
    assert (arrived.raw, arrived.numbers, arrived.named, arrived.model_extra) == (b"\xff", {1: "a"}, 1, {"more": b"x"})
    written = decode(encode(login, 1000)[HEADER_SIZE:])
    assert (written["raw"], written["numbers"], written["named"], written["more"]) == (b"\xff", {1: "a"}, 1, b"x")
    assert written["password"] == "**********", "as pydantic writes it"


def test_what_is_read_from_inside_of_another_value_is_refused():
    class Deep(BaseModel):
        first: int = Field(validation_alias=AliasPath("all", 0))

    with pytest.raises(TypeError, match=r"Deep\.first is read from inside of another value: give a dict"):
        sent(Deep(all=[1]))


def test_an_author_who_writes_it_his_own_way_has_it_so():
    class Own(BaseModel):
        count: int = Field(serialization_alias="n", validation_alias="n", exclude=False)
        hidden: int = Field(default=0, exclude=True)

        @field_serializer("count")
        def as_text(self, count: int) -> str:
            return str(count)

    assert sent(Own(n=3, hidden=1)) == {"n": "3"}
