"""The pytest plugin: sessions for tests, on a daemon that goes with the run, or on one that stays warm between runs.

    def test_total(warmpool_session):
        session = warmpool_session("counter")
        assert session.call("add", amount=2) == {"total": 2}

Loaded with every run of pytest in this environment, so it loads nothing of its own before a fixture is used. A test
that fails has in its report what its sessions wrote and lived through; one that leaves a session open is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from .client.sync import Session
    from .testing.embedded import TestingClient
    from .testing.embedded_async import AsyncTestingClient
    from .testing.watch import Ledger

_LEDGER: Final[pytest.StashKey[Ledger]] = pytest.StashKey()
_WATCHER: Final = "_warmpool_watch"


class SessionLeftOpenWarning(pytest.PytestWarning):
    """A test opened a session and did not end it. With --warmpool-strict it fails instead."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("warmpool", "warmpool: stateful sessions")
    group.addoption(
        "--warmpool-socket",
        metavar="PATH",
        help="use the daemon on this socket, which stays warm between runs, instead of one of this run's own; it is "
        "started if none runs",
    )
    group.addoption("--warmpool-log", metavar="FILE", help="keep the log of this run's daemon in FILE")
    group.addoption("--warmpool-strict", action="store_true", help="a test that leaves a session open fails")
    parser.addini("warmpool_apps", "apps to serve: files, packages, directories of them", type="paths")
    parser.addini("warmpool_strict", "as --warmpool-strict", type="bool", default=False)


@pytest.fixture(scope="session")
def warmpool_apps(pytestconfig: pytest.Config) -> Sequence[Any]:
    """Apps that are loaded and warm from the start: paths or classes. Others can be used as well, by path or class.
    Override it in the `conftest.py` at the root (there is one daemon for all of the run), or set `warmpool_apps` in the
    ini file.
    """
    paths: list[Any] = pytestconfig.getini("warmpool_apps")
    return paths


@pytest.fixture(scope="session")
def warmpool_settings() -> Mapping[str, Any]:
    """What the daemon of this run is told, as `{"max_workers": 4}`. Override it, as `warmpool_apps`."""
    return {}


@pytest.fixture(scope="session")
def warmpool(
    pytestconfig: pytest.Config, warmpool_apps: Sequence[Any], warmpool_settings: Mapping[str, Any]
) -> Iterator[TestingClient]:
    """A client of a daemon that this run (or this worker of xdist) has for itself, or of --warmpool-socket."""
    from .testing.embedded import embedded, lasting
    from .testing.watch import Ledger

    socket, log = pytestconfig.getoption("--warmpool-socket"), _log_file(pytestconfig)
    block: Any = lasting(socket, warmpool_apps) if socket else embedded(warmpool_apps, log=log, **warmpool_settings)
    with block as client:
        pytestconfig.stash[_LEDGER] = Ledger(client, None if socket else Path(log or client.places.log))
        try:
            yield client
        finally:
            del pytestconfig.stash[_LEDGER]


@pytest.fixture
def warmpool_async(warmpool: TestingClient) -> Iterator[AsyncTestingClient]:
    """An async client of the same daemon, for the test's own loop, whichever plugin runs that."""
    from .testing.embedded_async import AsyncTestingClient

    client = AsyncTestingClient(warmpool.places.socket)
    client._core.met = warmpool._core.met  # what it opens, the run is to know of
    yield client
    client._core.close()


@pytest.fixture
def warmpool_session(warmpool: TestingClient) -> Iterator[Callable[..., Session]]:
    """Opens sessions, as `warmpool.session` does, and ends them when the test is over; not one that was there before,
    and is only attached to. With `primed=True` the app's `setup` runs once per run, and each session begins with a copy
    of what it has made.
    """
    from .testing.embedded import primed as as_primed
    from .testing.watch import end_all

    made: set[str] = set()

    def session(app: Any, *, primed: bool = False, **options: Any) -> Session:
        before = warmpool.opened
        opened = warmpool.session(as_primed(app) if primed else app, **options)
        made.update({opened.id} & warmpool.opened - before)
        return opened

    yield session
    end_all(warmpool, made)


def _log_file(config: pytest.Config) -> str | None:
    """Absolute: a test may change the directory."""
    file: str | None = config.getoption("--warmpool-log")
    worker = getattr(config, "workerinput", {}).get("workerid")
    if file is None:
        return None
    return str(config.invocation_params.dir / (file if worker is None else f"{file}.{worker}"))


# --- what a test leaves, and what it says when it fails -------------------------------------------------------


def pytest_itemcollected(item: pytest.Item) -> None:
    """Set up first, so that it is torn down after all else of the test; also for who has `request`, and may ask for the
    client on the way.
    """
    names: list[str] = getattr(item, "fixturenames", [])
    if not {"warmpool", "request"}.isdisjoint(names) and _WATCHER not in names:
        names.insert(0, _WATCHER)


def _ledger(config: pytest.Config) -> Ledger | None:
    """None as long as nobody has asked for the client."""
    return config.stash.get(_LEDGER, None)


@pytest.fixture
def _warmpool_watch(request: pytest.FixtureRequest) -> Iterator[None]:
    config = request.config
    if (ledger := _ledger(config)) is not None:
        ledger.begin_test()
    yield
    ledger = _ledger(config)
    left = [] if ledger is None else ledger.watch.end_what_is_left()
    if left:
        said = f"left open: {', '.join(left)}; end it, or open it by the fixture warmpool_session"
        if config.getoption("--warmpool-strict") or config.getini("warmpool_strict"):
            pytest.fail(said, pytrace=False)
        request.node.warn(SessionLeftOpenWarning(said))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """What a fixture of a wider scope opens is not the test's, nor a clock that it stops."""
    if fixturedef.scope == "function":
        return (yield)
    ledger = _ledger(request.config)
    before = set() if ledger is None else ledger.open_sessions()
    stood = ledger is not None and ledger.stands()
    try:
        return (yield)
    finally:
        if (ledger := _ledger(request.config)) is not None:
            ledger.wider |= ledger.open_sessions() - before
            if ledger.stands() and not stood:
                ledger.freezer = fixturedef


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    if (ledger := _ledger(request.config)) is not None and ledger.freezer is fixturedef:
        ledger.freezer = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    ledger = _ledger(item.config)
    if report.failed and ledger is not None and _WATCHER in getattr(item, "fixturenames", ()):
        if call.excinfo is not None:
            from .testing.watch import traces_of

            report.sections.extend(traces_of(call.excinfo.value))
        report.sections.extend(ledger.watch.sections())
    return report
