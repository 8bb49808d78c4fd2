"""The process that templates are forked from: they owe it their start, and nothing else."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import APPS, Daemon, children_of, look_again, wait_for_exit, zygote_of

from warmpool import PoolExhaustedError
from warmpool.worker import zygote

COUNTER = str(APPS / "counter.py")
OTHER = str(APPS / "values.py")
TELLS = """
import os, random, sys
from warmpool import BaseApp

AT_IMPORT = [random.random(), os.getpid(), os.getppid(), os.getsid(0), os.getcwd(), sys.argv, "{other}" in sys.modules]

class {name}(BaseApp):
    def at_import(self):
        return AT_IMPORT
"""


@pytest.fixture
def stopped_zygote(daemon: Daemon) -> Iterator[psutil.Process]:
    """Stands still, after it has forked one template."""
    daemon.client.session(COUNTER)
    found = zygote_of(daemon)
    found.suspend()
    yield found
    if found.is_running():
        found.resume()


def test_a_template_is_as_a_fresh_process_would_be(daemon: Daemon, directory: Path):
    told = {}
    for name, other in (("one", "two"), ("two", "one"), ("three", "two")):
        app = directory / f"{name}.py"
        app.write_text(TELLS.format(name=name.title(), other=other))
        told[name] = daemon.client.run(app=str(app), function="at_import").output
        _, pid, parent, session, cwd, argv, knows_another = told[name]
        assert (parent, session, cwd, argv, knows_another) == (daemon.pid, pid, "/", [str(app)], False)
    assert len({chance for chance, *_ in told.values()}) == 3, "what they import draws the same random numbers"
    zygote, *_ = children_of(daemon)
    assert zygote.pid not in {pid for _, pid, *_ in told.values()}


def test_it_dies_and_nobody_notices(daemon: Daemon):
    session = daemon.client.session(COUNTER)
    first = zygote_of(daemon)
    first.kill()
    assert wait_for_exit(first.pid)
    assert session.call("add") == {"total": 1}
    assert daemon.client.session(COUNTER).call("add") == {"total": 1}, "its template lives"
    assert daemon.client.run(app=OTHER, function="echo", input={"value": 1}).output == 1
    assert "[templates] the process that forks templates was killed by SIGKILL" in daemon.text_of_log()


def test_it_dies_with_templates_to_fork(daemon: Daemon, stopped_zygote: psutil.Process):
    """Nobody is to blame, so it is tried again."""
    outputs = []
    asking = threading.Thread(
        target=lambda: outputs.append(daemon.client.run(app=OTHER, function="echo", input={"value": 1}).output)
    )
    asking.start()
    while daemon.client.status().waiting == 0:
        look_again()
    stopped_zygote.kill()
    asking.join()
    assert outputs == [1]


def test_nobody_wants_the_template_any_more(daemon: Daemon, stopped_zygote: psutil.Process):
    """It is forked all the same, finds nobody, and goes."""
    with pytest.raises(PoolExhaustedError):
        daemon.client.session(OTHER, open_timeout=0.05)
    daemon.stop()
    assert wait_for_exit(stopped_zygote.pid)


def test_what_is_installed_is_not_mixed_with_what_it_has(
    start_daemon: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Templates that are made from then on have a zygote that knows it; what there is goes on."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(packages))
    daemon = start_daemon()
    session = daemon.client.session(COUNTER)
    first = zygote_of(daemon)
    (packages / "library-2.dist-info").mkdir()
    assert daemon.client.run(app=OTHER, function="echo", input={"value": 1}).output == 1
    assert wait_for_exit(first.pid)
    assert session.call("add") == {"total": 1}
    assert "process that forks templates" not in daemon.text_of_log(), "it is no failure"


def test_without_room_for_a_process_there_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def refused() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    assert not zygote._fork_twice(-1)
    assert capsys.readouterr().err == "no template can be forked: [Errno 11] Resource temporarily unavailable\n"
