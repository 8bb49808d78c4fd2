"""What one would use instead of warmpool: each does a stateful `add` in one other process.

Run as a program, with a peer's name and a socket's descriptor, it does as it is told there: a placement is for a round
of calls, answered by their median, and `make` is one more making with its first call, both in microseconds. A peer has
a process of its own because some start threads, beside which others could not fork.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, TypeVar

import psutil
from floors import process
from harness import Maker, Work, median_of, placed, sample, times_a_round

LEAST = 5
MAKE = "make"

T = TypeVar("T")


class Counter:
    def __init__(self) -> None:
        self.state: dict[str, int] = {}

    def add(self, key: str, value: int) -> int:
        self.state[key] = self.state.get(key, 0) + value
        return self.state[key]


_counter = Counter()


def add_in_pool(key: str, value: int) -> int:
    return _counter.add(key, value)


# --- each gives the work to be done, with everything that it needs ----------------------------------------------


@contextmanager
def multiprocessing_manager() -> Iterator[Work]:
    from multiprocessing.managers import BaseManager

    class Manager(BaseManager):
        pass

    Manager.register("Counter", Counter)
    with Manager() as manager:
        proxy = manager.Counter()  # type: ignore[attr-defined]
        yield lambda: proxy.add("n", 1)


@contextmanager
def process_pool_executor() -> Iterator[Work]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as executor:
        yield lambda: executor.submit(add_in_pool, "n", 1).result()


@contextmanager
def loky() -> Iterator[Work]:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as executor:
        yield lambda: executor.submit(add_in_pool, "n", 1).result()


@contextmanager
def rpyc() -> Iterator[Work]:
    import rpyc as peer
    from rpyc.utils.server import ThreadedServer

    class Service(peer.Service):  # type: ignore[misc]
        def on_connect(self, conn: object) -> None:
            self.counter = Counter()

        def exposed_add(self, key: str, value: int) -> int:
            return self.counter.add(key, value)

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")
        silent = logging.getLogger("silent")
        silent.disabled = True
        with process(lambda: ThreadedServer(Service, socket_path=path, logger=silent).start()):
            connection = when_it_is_there(lambda: peer.utils.factory.unix_connect(path))
            add = connection.root.add
            yield lambda: add("n", 1)
            connection.close()


@contextmanager
def pyro5() -> Iterator[Work]:
    from Pyro5 import api

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "s")

        def serve() -> None:
            server = api.Daemon(unixsocket=path)
            server.register(api.expose(Counter)(), "counter")
            server.requestLoop()

        with process(serve), api.Proxy(f"PYRO:counter@./u:{path}") as proxy:
            when_it_is_there(proxy._pyroBind)
            yield lambda: proxy.add("n", 1)


@contextmanager
def execnet() -> Iterator[Work]:
    import execnet as peer

    gateway = peer.makegateway()
    channel = gateway.remote_exec("s = {}\nfor k, v in channel:\n    s[k] = s.get(k, 0) + v\n    channel.send(s[k])")

    def add() -> object:
        channel.send(("n", 1))
        return channel.receive()

    yield add
    channel.close()
    gateway.exit()


@contextmanager
def jupyter_kernel() -> Iterator[Work]:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()
    client.execute_interactive("s = {}")

    def add() -> None:
        code = "s['n'] = s.get('n', 0) + 1"
        client.execute_interactive(code, store_history=False, output_hook=lambda _: None)

    yield add
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@contextmanager
def ray_actor() -> Iterator[Work]:
    """Of a cluster that runs: started with the first actor, and stopped when this program ends."""
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    actor = ray.remote(num_cpus=0)(Counter).remote()
    yield lambda: ray.get(actor.add.remote("n", 1))
    ray.kill(actor)


@contextmanager
def dask_actor() -> Iterator[Work]:
    """Of a cluster that runs, as Ray's."""
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:
        client = _clusters.enter_context(_dask_cluster())
    actor = client.submit(Counter, actor=True, pure=False).result()
    yield lambda: actor.add("n", 1).result()


@contextmanager
def _dask_cluster() -> Iterator[object]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


_clusters = ExitStack()


class Entry(NamedTuple):
    name: str
    module: str
    """Which must be installed."""
    peer: Maker
    call_bar: float | None = None
    """A call of it is to take at least so many times as long as one of warmpool's; and making it, as opening."""
    make_bar: float | None = None


PEERS = (
    Entry("multiprocessing BaseManager proxy", "multiprocessing", multiprocessing_manager, 1.0),
    Entry("ProcessPoolExecutor(1)", "concurrent.futures", process_pool_executor),
    Entry("loky ProcessPoolExecutor(1)", "loky", loky),
    Entry("rpyc, Unix socket", "rpyc", rpyc),
    Entry("Pyro5, Unix socket", "Pyro5", pyro5),
    Entry("execnet channel", "execnet", execnet),
    Entry("Jupyter kernel, execute", "jupyter_client", jupyter_kernel, 100.0),
    Entry("Ray actor", "ray", ray_actor, 20.0, 300.0),
    Entry("Dask actor", "distributed", dask_actor, 40.0),
)


# --- doing as told ----------------------------------------------------------------------------------------------


def when_it_is_there(connect: Callable[[], T]) -> T:
    deadline = time.monotonic() + 10
    while True:
        try:
            return connect()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def round_of(work: Work, called: Callable[[], Iterable[int]]) -> Callable[[str], float]:
    """Gives the median of a round of calls, in microseconds, by a placement. `called`: the pids of those who answer."""
    sample(work, 3 * LEAST)
    count = times_a_round(work, LEAST)

    def calls(placement: str) -> float:
        with placed(called(), placement):
            return median_of(sample(work, count))

    return calls


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children(recursive=True)]


def make_and_call(peer: Maker) -> float:
    """Microseconds until the first answer. What it takes to let go of it again is not counted."""
    start = time.perf_counter()
    with peer() as work:
        work()
        return (time.perf_counter() - start) * 1e6


def serve(peer: Maker, orders: socket.socket) -> None:
    with orders, orders.makefile("rw") as lines, _clusters, peer() as work:
        calls = round_of(work, children)
        print("ready", file=lines, flush=True)
        for line in lines:
            told = line.strip()
            print(make_and_call(peer) if told == MAKE else calls(told), file=lines, flush=True)


if __name__ == "__main__":
    _, name, fd = sys.argv
    (chosen,) = (entry.peer for entry in PEERS if entry.name == name)
    serve(chosen, socket.socket(fileno=int(fd)))
