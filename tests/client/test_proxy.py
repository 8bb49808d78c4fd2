"""Sessions that look like their app. That the types are true is mypy's to say, of `user_code.py`."""

from __future__ import annotations

import asyncio
import copy
import inspect
import runpy
from datetime import date
from pathlib import Path

import pytest
import user_code
from support import APPS, Daemon
from user_code import AddInput, AsyncCart, Cart, Total

from warmpool import (
    AppError,
    AsyncClient,
    Client,
    FunctionNotFoundError,
    InvalidInputError,
    InvalidRequestError,
)

DAY = date(2026, 1, 2)


def test_a_proxy_gives_what_its_methods_say(client: Client):
    assert user_code.use_a_proxy(client) == [
        Total(total=2, on=DAY), "3.00 USD", "6.00 EUR", date(2026, 1, 1), DAY
    ]  # fmt: skip
    assert client.sessions.list() == []


def test_a_session_has_a_proxy_of_its_own(client: Client):
    assert user_code.use_a_session(client) == [1, "cart", ["output", "done"], [{"total": 3, "on": "2026-01-02"}]]


def test_an_async_proxy(shared_daemon: Daemon):
    async def main() -> list[object]:
        async with AsyncClient(shared_daemon.socket, autostart=False) as client:
            return await user_code.use_an_async_proxy(client)

    assert asyncio.run(main()) == [Total(total=5, on=DAY), [0, 1]]


def test_run_is_typed(client: Client):
    assert user_code.run(client).output == "1.50 EUR"


def test_arguments_are_bound_as_python_binds_them(client: Client):
    with client.proxy(Cart) as cart:
        for wrong in ((), (1, 2.0, "EUR")):
            with pytest.raises(TypeError):
                cart.price(*wrong)
        with pytest.raises(TypeError, match="unexpected keyword"):
            cart.price(1, size=2)
        with pytest.raises(InvalidInputError, match="count"):
            cart.price("two")
        with pytest.raises(AppError, match="no"):
            cart.fail()
        assert cart.add(AddInput()).total == 1
        assert cart.clear() is None


def test_a_proxy_has_functions_and_nothing_else(client: Client):
    with client.proxy(Cart) as cart:
        assert dir(cart) == ["add", "clear", "days", "fail", "months", "price", "weeks", "years"]
        for name in ("total", "setup", "_private", "logger", "nothing", "__call__"):
            with pytest.raises(AttributeError):
                getattr(cart, name)
            assert not hasattr(cart, name)
        with pytest.raises(
            FunctionNotFoundError, match="Cart has no function 'setup': it is a hook; it has add, clear"
        ):
            cart.setup()
        assert repr(cart).startswith("<Cart in <Session sess_")


def test_a_proxy_looks_like_its_app_to_people_and_tools(client: Client):
    with client.proxy(Cart) as cart:
        assert str(inspect.signature(cart.add)) == str(inspect.signature(Cart().add))
        assert (cart.add.__name__, cart.add.__doc__) == ("add", Cart.add.__doc__)
        assert [name for name, _ in inspect.getmembers(cart) if not name.startswith("_")] == dir(cart)
        assert copy.copy(cart).add(AddInput()).total == 1
    with client.proxy(AsyncCart) as cart:
        assert [name for name, _ in inspect.getmembers(cart) if not name.startswith("_")] == dir(cart)


def test_a_function_that_gives_an_iterator_is_a_generator(client: Client, shared_daemon: Daemon):
    """Though it does not yield itself."""
    with client.proxy(Cart) as cart:
        assert list(cart.months()) == [date(2026, 1, 1), date(2026, 2, 1)]
        assert list(cart.years()) == [date(2026, 1, 1), date(2027, 1, 1)]

    async def main() -> list[int]:
        async with AsyncClient(shared_daemon.socket, autostart=False) as other, other.proxy(AsyncCart) as cart:
            return [number async for number in cart.steps(2)]

    assert asyncio.run(main()) == [0, 1]


def test_results_are_made_of_what_a_worker_sends(client: Client):
    """Which goes by the names of fields, and is text or a list where msgpack has nothing better."""
    file = str(APPS / "takes_models.py")
    names = runpy.run_path(file)
    with client.session(file) as session:
        takes = session.proxy(names["TakesModels"])
        assert takes.tagged() == names["TakesModels"]().tagged()


def test_a_strict_model_is_taken_for_what_it_is(client: Client):
    """Its date and its set travel as text and as a list. A number is still none if it is a text."""
    file = str(APPS / "takes_models.py")
    names = runpy.run_path(file)
    (tagged,) = names["TakesModels"]().tagged()
    with client.session(file) as session:
        told = [1, ["a"], "2026-01-02T00:00:00Z"]
        for way in (tagged, tagged.model_dump(by_alias=True), tagged.model_dump(by_alias=True, mode="json")):
            assert session.call("told", way) == told
        assert session.proxy(names["TakesModels"]).told_apart(1, {"b"}) == [1, ["b"]]
        for wrong in ({"Of": "1", "Tags": ["a"], "At": told[2]}, {"Of": 1, "Tags": [1], "At": told[2]}):
            with pytest.raises(InvalidInputError, match="told is not valid"):
                session.call("told", wrong)
        with pytest.raises(InvalidInputError, match="of: Input should be a valid integer"):
            session.call("told_apart", of="1", tags=["b"])


def test_a_result_that_is_not_what_is_promised_is_an_error_of_the_apps(client: Client, directory: Path):
    file = directory / "liar.py"
    file.write_text(
        "from warmpool import BaseApp\nclass Liar(BaseApp):\n    def number(self) -> int:\n        return 'none'\n"
    )
    with client.session(str(file)) as session:
        with pytest.raises(AppError, match=r"number gave what cannot be read .*session\.call\('number'\)") as raised:
            session.proxy(runpy.run_path(str(file))["Liar"]).number()
        assert raised.value.session_id == session.id
        assert session.call("number") == "none"


def test_what_is_computed_is_no_surprise(client: Client):
    file = str(APPS / "takes_models.py")
    names = runpy.run_path(file)
    with client.session(file) as session:
        assert session.call("squared", side=3) == {"side": 3, "area": 9}
        square = session.proxy(names["TakesModels"]).squared(3)
        assert (type(square).__name__, square.side, square.area) == ("Square", 3, 9)


def test_an_async_generator_that_is_left_holds_nothing(shared_daemon: Daemon):
    async def main() -> int:
        async with AsyncClient(shared_daemon.socket, autostart=False) as other, other.proxy(AsyncCart) as cart:
            async for number in cart.steps(1000):
                assert number == 0
                break
            numbers = cart.steps(1000)
            assert await anext(numbers) == 0
            await numbers.aclose()
            return (await cart.add(2)).total

    assert asyncio.run(main()) == 2


def test_a_parameter_with_an_alias_goes_by_its_own_name_too(client: Client):
    file = str(APPS / "takes_models.py")
    app = runpy.run_path(file)["TakesModels"]
    with client.session(file) as session:
        takes = session.proxy(app)
        assert [takes.noted(3), takes.noted(count=2, notes=["a"])] == [[3], [2, "a"]]
        assert session.call("noted", howMany=1) == [1]
        with pytest.raises(InvalidInputError, match="notes: List should have at most 1 item"):
            takes.noted(2, ["a", "b"])


def test_a_generator_that_is_left_is_closed(client: Client):
    with client.proxy(Cart) as cart:
        days = cart.days(30)
        assert next(days) == date(2026, 1, 1)
        days.close()
        assert cart.add(AddInput()).total == 1


def test_what_a_generator_returns_comes_too_and_what_is_wrong_is_told_at_once(client: Client):
    with client.proxy(Cart) as cart:
        weeks = cart.weeks(2)
        assert [next(weeks), next(weeks)] == [0, 1]
        with pytest.raises(StopIteration) as end:
            next(weeks)
        assert end.value.value == "done"
        with pytest.raises(TypeError, match="unexpected keyword"):
            cart.weeks(2, size=2)


def test_types_stay_true(client: Client, shared_daemon: Daemon):
    with client.proxy(AsyncCart) as cart:
        for name in ("add", "count"):
            with pytest.raises(InvalidRequestError, match=f"{name} is async: use AsyncClient"):
                getattr(cart, name)()
        assert cart.plain() == 1

    async def main() -> None:
        async with AsyncClient(shared_daemon.socket, autostart=False) as other, other.proxy(AsyncCart) as cart:
            with pytest.raises(InvalidRequestError, match="plain is not async: use Client"):
                cart.plain()

    asyncio.run(main())


# --- the decorator ------------------------------------------------------------------------------------------------


@pytest.fixture
def at_the_daemon(shared_daemon: Daemon, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMPOOL_SOCKET", str(shared_daemon.socket))


@pytest.mark.usefixtures("at_the_daemon")
def test_a_decorated_function_has_a_session_while_it_runs(client: Client):
    *found, session_id = asyncio.run(user_code.use_the_decorated())
    assert found == [2, 3, "EUR 4"]
    assert client.sessions.get(session_id).status == "ended"
    assert client.sessions.list() == []
    assert user_code.decorated.__name__ == "decorated"
    assert "session" not in inspect.signature(user_code.decorated).parameters, "nobody is to fill it"


@pytest.mark.usefixtures("at_the_daemon")
def test_a_decorated_function_that_raises_ends_its_session(client: Client):
    @user_code.warmpool.session(user_code.__file__ + ":Cart", autostart=False, name="held")
    def fail(session):
        assert client.sessions.list()[0].name == "held"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert client.sessions.list() == []
    with pytest.raises(TypeError, match="session"):
        fail(session=None)


def test_what_is_wrong_is_said_when_it_is_written():
    for options in ({"colour": "red"}, {"session_timeout": 0}, {"if_exists": "attach"}):
        with pytest.raises(InvalidRequestError):
            user_code.warmpool.session("counter", **options)
    with pytest.raises(InvalidRequestError, match="generator"):

        @user_code.warmpool.session("counter")
        def generate(session):
            yield session


def test_a_proxy_has_the_functions_that_the_worker_has(client: Client):
    with client.proxy(user_code.Odd) as odd:
        assert list(odd.items()) == [1, 2]
        assert dir(odd) == ["items"]
        for other, why in {"helper": "", "static": "it is a staticmethod, and a function takes self"}.items():
            with pytest.raises(FunctionNotFoundError, match=f"{why}; it has items"):
                getattr(odd, other)


def test_a_proxy_of_a_generic_app(client: Client):
    assert user_code.use_a_proxy_of_a_generic_app(client) == AddInput(amount=3)
