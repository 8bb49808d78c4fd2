"""Code as users write it. mypy checks it with everything else: that what is said here of types is so, and that what is
marked as an error is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from datetime import date
from typing import Annotated, Generic, TypeVar, assert_type

import warmpool
from warmpool import (
    AsyncClient,
    AsyncSession,
    AsyncStream,
    BaseApp,
    BaseAppInput,
    BaseAppOutput,
    Client,
    Data,
    Session,
    Stream,
)


class AddInput(BaseAppInput):
    amount: int = 1


class Total(BaseAppOutput):
    total: int
    on: date


class Cart(BaseApp):
    def setup(self) -> None:
        self.total = 0

    def add(self, input: AddInput) -> Total:
        self.total += input.amount
        return Total(total=self.total, on=date(2026, 1, 2))

    def price(self, count: int, each: float = 1.5, *, currency: str = "EUR") -> str:
        return f"{count * each:.2f} {currency}"

    def days(self, count: int) -> Iterator[date]:
        for day in range(1, count + 1):
            yield date(2026, 1, day)

    def weeks(self, count: int) -> Generator[int, None, str]:
        yield from range(count)
        return "done"

    def months(self) -> Iterator[date]:
        return iter([date(2026, month, 1) for month in (1, 2)])

    def years(self) -> Iterable[date]:
        return (date(year, 1, 1) for year in (2026, 2027))

    def clear(self) -> None:
        self.total = 0

    def fail(self) -> None:
        raise ValueError("no")

    def _private(self) -> None:
        pass


class AsyncCart(BaseApp):
    async def add(self, amount: int) -> Total:
        return Total(total=amount, on=date(2026, 1, 2))

    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    def steps(self, to: int) -> AsyncIterator[int]:
        return self.count(to)

    def plain(self) -> int:
        return 1


class Odd(BaseApp):
    def items(self) -> Annotated[Iterator[int], "shown"]:
        yield from (1, 2)

    def helper(self, anything):  # type: ignore[no-untyped-def]
        return anything

    @staticmethod
    def static(value: int) -> int:
        return value


T = TypeVar("T")


class Shelf(BaseApp, Generic[T]):
    def put(self, item: T) -> T:
        return item


class InputShelf(Shelf[AddInput]):
    pass


def use_a_proxy_of_a_generic_app(client: Client) -> AddInput:
    with client.proxy(InputShelf) as shelf:
        item = shelf.put(AddInput(amount=3))
        assert_type(item, AddInput)
        return item


def use_a_proxy(client: Client) -> list[object]:
    with client.proxy(Cart, labels={"by": "proxy"}) as cart:
        total = cart.add(AddInput(amount=2))
        assert_type(total, Total)
        assert_type(cart.price(2, each=2), str)
        found = [*cart.days(2)]
        assert_type(found, list[date])
        cart.clear()
        return [total, cart.price(2, currency="USD"), cart.price(count=3, each=2.0), *found]


def use_a_session(client: Client) -> list[object]:
    with client.session(__file__ + ":Cart", session_timeout=300, name="cart") as session:
        assert_type(session, Session)
        cart = session.proxy(Cart)
        assert_type(cart, Cart)
        with session.stream("days", count=1) as stream:
            assert_type(stream, Stream)
            kinds = [event.type for event in stream]
        session.map("add", []).close()
        client.sessions.logs(session.id).close()
        return [cart.add(AddInput()).total, session.info().name, kinds, list(session.map("add", [{"amount": 2}]))]


async def use_an_async_proxy(client: AsyncClient) -> list[object]:
    async with client.proxy(AsyncCart) as cart:
        total = await cart.add(5)
        assert_type(total, Total)
        return [total, [number async for number in cart.count(2)]]


def use_a_test_client() -> list[object]:
    with Cart.test_client(labels={"by": "test"}) as client:
        assert_type(client.app, Cart)
        return [client.call("add", amount=2, timeout=5)["total"], client.app.total, client.progress]


async def use_an_async_test_client() -> list[object]:
    async with AsyncCart.test_client() as client:
        assert_type(client.app, AsyncCart)
        return [(await client.call("add", amount=5))["total"], client.app.plain(), client.progress]


def run(client: Client) -> Data:
    assert_type(client.run(app=__file__ + ":Cart", function="clear", stream=True), Stream)
    return client.run(app=__file__ + ":Cart", function="price", input={"count": 1})


async def run_async(client: AsyncClient) -> Data:
    assert_type(await client.run(app="x", stream=True), AsyncStream)
    return await client.run({"app": "x"})


def wrong(client: Client) -> None:
    with client.proxy(Cart) as cart:
        cart.add(5)  # type: ignore[arg-type]
        cart.remove()  # type: ignore[attr-defined]
        cart.price("two")  # type: ignore[arg-type]
    with Cart.test_client() as here:
        here.app.remove()  # type: ignore[attr-defined]
    client.session("cart", colour="red")  # type: ignore[call-arg]
    client.session("cart", if_exists="replace")  # type: ignore[arg-type]


@warmpool.session(__file__ + ":Cart", session_timeout=60)
def decorated(amount: int, *, session: Session) -> int:
    assert_type(session, Session)
    return int(session.call("add", amount=amount)["total"])


@warmpool.session(__file__ + ":Cart")
async def decorated_async(amount: int, *, session: AsyncSession) -> str:
    await session.call("add", amount=amount)
    return session.id


class Till:
    currency = "EUR"

    @warmpool.session(__file__ + ":Cart")
    def ring(self, amount: int, session: Session) -> str:
        return f"{self.currency} {session.call('add', amount=amount)['total']}"


async def use_the_decorated() -> list[object]:
    total = decorated(2)
    assert_type(total, int)
    told = Till().ring(amount=4)
    assert_type(told, str)
    session_id = await decorated_async(1)
    assert_type(session_id, str)
    return [total, decorated(amount=3), told, session_id]
