"""What travels: everything that msgpack carries, and by pydantic's rules what it does not."""

from __future__ import annotations

import dataclasses
import datetime
import runpy
import uuid
from collections.abc import Iterator

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr, computed_field
from pydantic.alias_generators import to_camel
from support import APPS

from warmpool import AppError, Client, InvalidRequestError, PayloadTooLargeError


@pytest.fixture
def session(client: Client) -> Iterator:
    with client.session(str(APPS / "values.py")) as session:
        yield session


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", None),
        ("bytes", b"\x00\xff"),
        ("datetime", "2026-01-02T03:04:05Z"),
        ("uuid", "00000000-0000-0000-0000-000000000007"),
        ("decimal", "1.50"),
        ("set", [3]),
        ("path", "/a/b"),
        ("dataclass", {"x": 1, "raw": b"\x00"}),
        ("enum", "red"),
        ("model", {"when": "2026-01-02", "tags": ["a"], "raw": b"\xff"}),
        ("nested", {"items": [{"x": 2, "raw": b""}, ["red"]]}),
    ],
)
def test_a_result_is_carried(session, kind: str, expected: object):
    assert session.call("give", kind=kind) == expected


def test_an_annotated_result_is_serialised_by_its_annotation(session):
    assert session.call("annotated") == {"when": "2026-01-02", "tags": ["a"], "raw": b"\xff"}


@pytest.mark.parametrize(("kind", "words"), [("opaque", "values.Opaque"), ("huge_int", "int"), ("surrogate", "str")])
def test_what_cannot_be_sent_is_named(session, kind: str, words: str):
    with pytest.raises(AppError, match=words):
        session.call("give", kind=kind)
    assert session.call("give", kind="none") is None


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "text", b"\xff", [1, [2]], {"a": {"b": None}}, "ü" * 70000])
def test_an_input_is_carried(session, value: object):
    assert session.call("echo", value=value) == value


class Order(BaseModel):
    """As the app has it, for its clients."""

    model_config = ConfigDict(alias_generator=to_camel)
    user_id: int
    pass_word: SecretStr

    @computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> int:
        return 2 * self.user_id


@pytest.mark.parametrize("where", ["in a worker", "in this process"])
def test_a_model_is_carried_as_a_model_like_it_takes_it(client: Client, where: str):
    """By its aliases, without what is computed, with its secrets."""
    order = Order(userId=3, passWord="sesame")
    app = str(APPS / "takes_models.py")
    in_process = runpy.run_path(app)["TakesModels"].test_client
    with client.session(app) if where == "in a worker" else in_process() as session:
        assert session.call("run", order) == [3, "sesame"]
        assert session.call("run", {"userId": 3, "passWord": "sesame"}) == [3, "sesame"]
        assert session.call("run", order=order) == [3, "sesame"]
        assert session.call("described", order) == [3, "sesame"]
        assert session.call("several", orders=[order, order]) == [[3, "sesame"]] * 2


def test_an_input_may_be_more_than_msgpack_carries(session):
    @dataclasses.dataclass
    class Point:
        x: int

    assert session.call("echo", value=Point(1)) == {"x": 1}
    assert session.call("echo", {"value": {uuid.UUID(int=1)}}) == ["00000000-0000-0000-0000-000000000001"]
    assert session.call("echo", value=datetime.date(2026, 1, 2)) == "2026-01-02"
    with pytest.raises(InvalidRequestError, match="cannot be sent"):
        session.call("echo", value=object())
    assert session.call("echo", value=1) == 1
    assert session.info().call_count == 4


def test_too_much_is_refused_on_both_ways_and_the_session_lives(session):
    limit = session._twin.link.opened.memory_limit
    with pytest.raises(PayloadTooLargeError, match="limit"):
        session.call("echo", value=b"x" * (limit + 1))
    with pytest.raises(PayloadTooLargeError):
        session.call("large", size=limit + 1)
    assert len(session.call("large", size=limit - 100)) == limit - 100
    assert len(session.call("echo", value=b"x" * (limit - 100))) == limit - 100
    assert session.call("echo", value=1) == 1
