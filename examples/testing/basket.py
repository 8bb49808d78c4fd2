"""A session with a web shop: it logs in once, keeps the connection open, and remembers what is in the basket."""

from __future__ import annotations

import json
from http.client import HTTPConnection

from warmpool import BaseApp


class Basket(BaseApp):
    def setup(self) -> None:
        self.items: list[str] = []
        self.token = ""

    def open(self, host: str, port: int, user: str) -> str:
        """Logs in, and gives the greeting of the shop."""
        self.shop = HTTPConnection(host, port, timeout=10)
        answer = self._ask("POST", "/login", {"user": user})
        self.token = answer["token"]
        return answer["greeting"]

    def put(self, item: str) -> list[str]:
        self.items.append(item)
        return self.items

    def price(self) -> int:
        """The whole basket, in cents."""
        return sum(self._ask("GET", f"/price/{item}")["cents"] for item in self.items)

    def order(self) -> str:
        """Orders what is in the basket, which is empty then. Gives the number of the order."""
        number = self._ask("POST", "/order", {"items": self.items})["number"]
        self.logger.info("ordered %d items: %s", len(self.items), number)
        self.items = []
        return number

    def _ask(self, method: str, path: str, body: object = None) -> dict:
        self.shop.request(method, path, json.dumps(body), {"Authorization": self.token})
        answer = self.shop.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            raise LookupError(found["error"])
        return found
