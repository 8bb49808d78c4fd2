import pytest

from warmpool.errors import InvalidInputError
from warmpool.signatures import functions_of, select


@pytest.fixture
def counter(load_app):
    return load_app("counter").Counter()


def call(app, name, value=None):
    """As a worker calls: the input decoded, the result encoded."""
    function, value = select(functions_of(type(app)), "counter", name, value)
    return function.encode(function.method(app, *function.decode(value)))


def test_the_command_of_the_docstring_answers_two(counter):
    assert call(counter, "add", {"amount": 2}) == {"total": 2}


def test_the_total_outlives_the_call(counter):
    assert [call(counter, "add", {"amount": n})["total"] for n in (2, 2, -5)] == [2, 4, -1]
    assert call(counter, "get") == {"total": -1}
    assert call(counter, "get") == {"total": -1}


def test_one_is_added_if_nothing_is_said(counter):
    assert call(counter, "add") == call(counter, "get") == {"total": 1}
    assert call(counter, "add", {}) == {"total": 2}


def test_reset_goes_back_to_zero(counter):
    call(counter, "add", {"amount": 7})
    assert call(counter, "reset") == call(counter, "get") == {"total": 0}


def test_counters_share_nothing(load_app):
    one, other = (load_app("counter").Counter() for _ in range(2))
    call(one, "add", {"amount": 3})
    assert call(other, "get") == {"total": 0}


@pytest.mark.parametrize("amount", ["many", 1.5, None, []])
def test_an_amount_that_is_no_whole_number_is_refused_and_changes_nothing(counter, amount):
    with pytest.raises(InvalidInputError, match="amount"):
        call(counter, "add", {"amount": amount})
    assert call(counter, "get") == {"total": 0}


def test_the_functions_can_also_be_named_by_the_action_of_the_input(counter):
    assert call(counter, None, {"action": "add", "amount": 5}) == {"total": 5}


def test_plain_python_can_use_it_too(load_app):
    module = load_app("counter")
    assert module.Counter().add(module.AddInput(amount=2)) == module.CounterOutput(total=2)


def test_it_has_these_functions(counter):
    assert list(functions_of(type(counter))) == ["add", "get", "reset"]
