"""Code that uses sessions, tested with what goes wrong with sessions: expiry, lost workers, calls that hang."""

from __future__ import annotations

from threading import Thread

import pytest
from basket import Basket
from shopper import COFFEE, OrderUncertainError, Shopper

from warmpool import AppError, CallCancelledError, InvalidInputError, PoolExhaustedError


def test_a_visit(shopper, shop):
    assert shopper.greeting == "Good day, Ada."
    shopper.put("tea")
    assert shopper.put("scones") == ["tea", "scones"]
    assert shopper.price() == 770
    assert shopper.order() == "A1"
    assert shop.orders == [["tea", "scones"]]


def test_a_short_coffee_costs_nothing(warmpool, shopper, shop):
    warmpool.clock.freeze()
    for _ in range(10):
        warmpool.clock.advance(COFFEE - 1)
        shopper.put("tea")
    assert shopper.sessions == 1
    assert shop.logins == ["Ada"]


def test_a_long_coffee_costs_a_login_and_no_basket(warmpool, shopper, shop):
    warmpool.clock.freeze()
    shopper.put("tea")
    warmpool.clock.advance(COFFEE)
    assert shopper.put("scones") == ["tea", "scones"]
    assert shopper.sessions == 2
    assert shop.logins == ["Ada", "Ada"]


def test_a_lost_worker_is_made_up_for(warmpool, shopper):
    shopper.put("tea")
    warmpool.kill_worker(shopper.session)
    assert shopper.price() == 350
    assert shopper.sessions == 2


def test_an_order_is_never_repeated(warmpool, shopper, shop):
    shopper.put("tea")
    warmpool.hang_next_call(shopper.session)
    uncertain = []

    def order() -> None:
        with pytest.raises(OrderUncertainError) as caught:
            shopper.order()
        uncertain.append(caught.value)

    ordering = Thread(target=order)
    ordering.start()
    while not shopper.session.info().busy:
        pass
    warmpool.kill_worker(shopper.session)
    ordering.join()
    assert len(uncertain) == 1
    assert shop.orders == []


def test_a_call_that_hangs_can_be_cancelled_and_the_basket_is_still_there(warmpool, shopper):
    shopper.put("tea")
    warmpool.hang_next_call(shopper.session)
    cancelled = []

    def ask() -> None:
        with pytest.raises(CallCancelledError) as caught:
            shopper.price()
        cancelled.append(caught.value)

    asking = Thread(target=ask)
    asking.start()
    while not shopper.session.info().busy:
        pass
    shopper.session.cancel()
    asking.join()
    assert len(cancelled) == 1
    assert shopper.put("scones") == ["tea", "scones"]


def test_a_full_house_is_told_of(warmpool, shop):
    with warmpool.fill_pool(), pytest.raises(PoolExhaustedError):
        warmpool.session("basket", open_timeout=0)


def test_shoppers_do_not_share_a_basket(warmpool, shopper, shop):
    other = Shopper(warmpool, shop.server_address, "Grace")
    other.put("scones")
    assert shopper.put("tea") == ["tea"]
    other.close()


# --- the app alone: no daemon, no process, and a debugger stops in it ------------------------------------------


@pytest.fixture
def basket(shop):
    host, port = shop.server_address
    with Basket.test_client() as client:
        client.call("open", host=host, port=port, user="Ada")
        yield client
        client.app.shop.close()


def test_what_the_shop_does_not_have(basket):
    basket.call("put", item="anchors")
    with pytest.raises(AppError, match="no anchors here"):
        basket.call("price")


def test_an_order_empties_the_basket(basket, shop):
    basket.call("put", item="tea")
    basket.call("order")
    assert basket.app.items == []
    assert shop.orders == [["tea"]]


def test_input_is_checked_as_in_a_session(basket):
    with pytest.raises(InvalidInputError, match="item: Input should be a valid string"):
        basket.call("put", item=3)
