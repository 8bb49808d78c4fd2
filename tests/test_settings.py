"""Each limit is checked once, by name and bounds; the constants fit each other."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import get_type_hints

import msgpack
import pytest

from warmpool import constants
from warmpool.checks import check_number, check_session_timeout
from warmpool.errors import InvalidRequestError
from warmpool.settings import Settings

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
TYPES = get_type_hints(Settings)

each_field = pytest.mark.parametrize("name", FIELDS)

NOT_NUMBERS = {
    "none": None,
    "true": True,
    "false": False,
    "text": "1",
    "bytes": b"1",
    "list": [1],
    "map": {},
    "nan": math.nan,
    "inf": math.inf,
    "minus-inf": -math.inf,
    "complex": 1j,
}


def bounds_of(name: str) -> tuple[float, float]:
    """The bounds of a setting, as its error tells them."""
    with pytest.raises(InvalidRequestError) as refused:
        Settings(**{name: -1})
    match = re.search(r"from (\S+) to (\S+), not -1$", str(refused.value))
    assert match, str(refused.value)
    return float(match[1]), float(match[2])


def test_the_defaults_are_within_their_bounds():
    Settings()


def test_settings_are_frozen_and_named():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().warm = 2
    with pytest.raises(TypeError):
        Settings(1)


@each_field
@pytest.mark.parametrize("value", [*NOT_NUMBERS.values(), -1, 10**30], ids=[*NOT_NUMBERS, "negative", "huge"])
def test_a_setting_out_of_bounds_is_an_invalid_request_that_names_it(name, value):
    with pytest.raises(InvalidRequestError, match=rf"^{name} must be a number from .* to .*, not "):
        Settings(**{name: value})


@each_field
def test_the_bounds_that_an_error_tells_are_those_that_are_checked(name):
    low, high = bounds_of(name)
    for value in (low, high):
        assert getattr(Settings(**{name: int(value)}), name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidRequestError):
            Settings(**{name: value})


@pytest.mark.parametrize("name", [name for name in FIELDS if TYPES[name] is int])
def test_a_count_is_a_whole_number(name):
    with pytest.raises(InvalidRequestError):
        Settings(**{name: getattr(Settings(), name) + 0.5})


@pytest.mark.parametrize("value", [1, 1.0, 60, 3600, 3600.0])
def test_a_session_timeout_from_1_to_3600_seconds_is_taken_as_a_float(value):
    checked = check_session_timeout(value)
    assert checked == value
    assert type(checked) is float


@pytest.mark.parametrize(
    "value",
    [*NOT_NUMBERS.values(), 0, 0.999, 3600.001, -60],
    ids=[*NOT_NUMBERS, "0", "below", "above", "negative"],
)
def test_any_other_session_timeout_is_an_invalid_request(value):
    with pytest.raises(InvalidRequestError, match="session_timeout must be a number from 1 to 3600, not "):
        check_session_timeout(value)


@pytest.mark.parametrize("low_high", [(0, 1), (-5, 5), (0.5, 0.75)])
def test_the_range_is_closed(low_high):
    low, high = low_high
    assert check_number("x", low, low, high) == low
    assert check_number("x", high, low, high) == high


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(msgpack.unpackb(b"\x91" * 1020 + b"\xc0"), id="list-1020-deep"),
        pytest.param("x" * 10**6, id="text-of-1-MB"),
    ],
)
def test_a_hostile_parameter_is_an_invalid_request_in_few_words(value):
    """What a client puts into `params` comes here as it was sent."""
    with pytest.raises(InvalidRequestError) as refused:
        check_session_timeout(value)
    assert len(str(refused.value)) < 1000


def test_the_constants_fit_each_other():
    assert constants.SESSION_TIMEOUT_MIN <= constants.SESSION_TIMEOUT_DEFAULT <= constants.SESSION_TIMEOUT_MAX
    assert constants.HOOK_TIMEOUT + constants.UNLOAD_TIMEOUT < constants.STOP_GRACE < 5
    assert constants.BACKOFF_FIRST < constants.BACKOFF_LIMIT
    assert Settings().call_frame_limit >= constants.CONTROL_FRAME_LIMIT
