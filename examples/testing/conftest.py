from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from shopper import Shopper

PRICES = {"tea": 350, "scones": 420}


class Shop(ThreadingHTTPServer):
    """A shop that lives in this process, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Counter)
        self.orders: list[list[str]] = []
        self.logins: list[str] = []


class _Counter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shop

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/login":
            self.server.logins.append(sent["user"])
            self._answer(200, {"token": "secret", "greeting": f"Good day, {sent['user']}."})
        else:
            self.server.orders.append(sent["items"])
            self._answer(200, {"number": f"A{len(self.server.orders)}"})

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        item = self.path.rpartition("/")[2]
        known = item in PRICES
        self._answer(200, {"cents": PRICES[item]}) if known else self._answer(404, {"error": f"no {item} here"})

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="session")
def the_shop() -> Iterator[Shop]:
    with Shop() as shop:
        thread = Thread(target=shop.serve_forever, args=(0.01,))
        thread.start()
        yield shop
        shop.shutdown()
        thread.join()


@pytest.fixture
def shop(the_shop: Shop) -> Shop:
    the_shop.orders.clear()
    the_shop.logins.clear()
    return the_shop


@pytest.fixture
def shopper(warmpool, shop: Shop) -> Iterator[Shopper]:
    shopper = Shopper(warmpool, shop.server_address, "Ada")
    yield shopper
    shopper.close()
