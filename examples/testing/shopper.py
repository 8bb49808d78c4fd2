"""What is to be tested: code that uses a session, and goes on when that is lost.

A shopper's session may expire over a long coffee, or lose its process. What was in the basket then is known here, so a
new session is opened and filled again. An order is never repeated: it may have reached the shop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmpool import Client, SessionError, WorkerLostError

BASKET = str(Path(__file__).with_name("basket.py"))
COFFEE = 900.0


class OrderUncertainError(Exception):
    """The session was lost while it ordered: ask the shop."""


class Shopper:
    def __init__(self, client: Client, address: tuple[str, int], user: str) -> None:
        self._client = client
        self._address = address
        self._user = user
        self._items: list[str] = []
        self.sessions = 0
        self._open()

    def _open(self) -> None:
        self.session = self._client.session(BASKET, session_timeout=COFFEE)
        self.sessions += 1
        host, port = self._address
        self.greeting = self.session.call("open", host=host, port=port, user=self._user)
        for item in self._items:
            self.session.call("put", item=item)

    def put(self, item: str) -> list[str]:
        basket: list[str] = self._call("put", item=item)
        self._items.append(item)
        return basket

    def price(self) -> int:
        cents: int = self._call("price")
        return cents

    def order(self) -> str:
        try:
            number: str = self.session.call("order")
        except WorkerLostError as error:
            raise OrderUncertainError(str(error)) from error
        self._items = []
        return number

    def _call(self, function: str, **fields: Any) -> Any:
        try:
            return self.session.call(function, **fields)
        except SessionError:
            self._open()
            return self.session.call(function, **fields)

    def close(self) -> None:
        self.session.end()
