"""The process that templates are forked from: they owe it their start, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from support import APPS, PATIENCE, Daemon, children_of, look_again, open_files, wait_for_exit, zygote_of

from warmpool import AppBrokenError, PoolExhaustedError, embedded, packets
from warmpool.daemon import zygote as ends
from warmpool.daemon.children import Children
from warmpool.daemon.zygote_process import ZygoteProcess, start_zygote
from warmpool.wire.process_messages import FROM_TEMPLATE, Forked, NotForked
from warmpool.wire.shapes import Message
from warmpool.worker import zygote

COUNTER = str(APPS / "counter.py")
OTHER = str(APPS / "values.py")
TELLS = """
import os, random, sys, threading
from warmpool import BaseApp

AT_IMPORT = [random.random(), os.getpid(), threading.main_thread().native_id, os.getppid(), os.getsid(0), os.getcwd(), sys.argv, "{other}" in sys.modules]

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


def test_it_is_there_before_it_is_wanted(daemon: Daemon):
    (first,) = children_of(daemon)
    daemon.client.session(COUNTER)
    assert zygote_of(daemon) == first


BEGINS = """\
import sys
from warmpool.daemon import main
from warmpool.paths import Places
from warmpool.settings import Settings

def begin():
    print(sorted({"uvloop", "asyncio", "warmpool.daemon.server", "warmpool.policy.broker"} & sys.modules.keys()))
    sys.exit()

main.start_zygote = begin
main.serve(Places.of(sys.argv[1]), Settings())
"""


def test_it_is_started_before_the_daemon_imports_what_it_is_made_of(directory: Path):
    command = [sys.executable, "-c", BEGINS, str(directory / "d.sock")]
    begun = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (begun.stdout, list(directory.iterdir())) == ("[]\n", [])


def test_a_template_is_as_a_fresh_process_would_be(daemon: Daemon, directory: Path):
    told = {}
    for name, other in (("one", "two"), ("two", "one"), ("three", "two")):
        app = directory / f"{name}.py"
        app.write_text(TELLS.format(name=name.title(), other=other))
        told[name] = daemon.client.run(app=str(app), function="at_import").output
        _, pid, thread, parent, session, cwd, argv, knows_another = told[name]
        assert thread == pid
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


def test_wherever_something_is_installed_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also by `pip install --target`, and the first thing that a user installs without an environment."""
    target, users = tmp_path / "libraries", tmp_path / "lib" / "python" / "site-packages"
    (target / "library-1.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(target))
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(users))
    before = ends.last_installed()
    assert ends.last_installed() == before
    (target / "library-1.dist-info").rename(target / "library-2.dist-info")
    os.utime(target, ns=(0, max(before) + 1))
    then = ends.last_installed()
    users.mkdir(parents=True)
    assert len({tuple(before), tuple(then), tuple(ends.last_installed())}) == 3


def test_without_room_for_a_process_there_is_none(monkeypatch: pytest.MonkeyPatch):
    """It is told why, and nobody is blamed."""

    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more")

    monkeypatch.setattr(os, "fork", refused)
    ours, theirs = packets.pair()
    with ours, theirs:
        assert not zygote._fork_twice(theirs.fileno())
        assert packets.receive(ours, FROM_TEMPLATE) == (NotForked(errno.EAGAIN), [])


THREADS = """
import threading, time
LOCK = threading.Lock()
def hold():
    with LOCK:
        time.sleep(1000)
threading.Thread(target=hold, daemon=True, name="agent").start()
"""


def test_one_with_threads_forks_nothing(start_daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A lock that a thread of the environment's holds would stay locked in each app."""
    (tmp_path / "sitecustomize.py").write_text(THREADS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    daemon = start_daemon()
    for app in (COUNTER, OTHER):
        assert daemon.client.session(app).info().status == "active"
    said = daemon.text_of_log()
    assert said.count("[templates] this Python has threads before it runs anything of ours: ") == 1
    assert said.count("cannot be forked, its import has left threads running") == 2, "as always"


def test_one_that_cannot_import_what_all_need_is_no_shortage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each template says so, with its back-off, until something is installed."""
    packages = tmp_path / "site-packages"
    (packages / "__pycache__").mkdir(parents=True)  # whoever imports from there makes it, and that looks like a change
    broken = packages / "annotated_types.py"
    broken.write_text("raise ImportError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    with embedded() as client:
        client.clock.freeze()  # the back-off lasts
        for _ in range(2):
            with pytest.raises(AppBrokenError, match="its template exited with status 1"):
                client.session(COUNTER)
        said = Path(client.status().log).read_text()
        assert said.count("ImportError: half installed") == 2, "the zygote's, and its"
        assert said.count("each template is started by itself, until something is installed") == 1
        broken.unlink()
        assert client.session(OTHER).call("echo", value=1) == 1


class OwnZygote:
    """One of the test's, with the daemon's end of it."""

    def __init__(self, first: ZygoteProcess | None = None) -> None:
        self.said: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.children = Children(self.loop, lambda: None)
        self.end = ends.Zygote(self.loop, self.children, first, self.said.append)

    def first_word(self) -> Message | None:
        """Of the next template."""
        with self.end.fork(self.said.append) as channel:
            self.loop.add_reader(channel, self.loop.stop)
            self.loop.run_forever()
            self.loop.remove_reader(channel)
            received = packets.receive(channel, FROM_TEMPLATE)
        return received and received[0]

    def run_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.loop.run_until_complete(asyncio.sleep(0))

    def stand_still(self) -> int:
        """After it has forked one template. Gives its pid."""
        assert isinstance(self.first_word(), Forked)
        self.run_until(lambda: self.end._current._can_fork)
        (pid,) = self.children._known
        os.kill(pid, signal.SIGSTOP)
        return pid

    def close(self) -> None:
        self.end.stop()
        self.children.close()
        self.loop.close()


def test_one_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ends, "FORK_TIMEOUT", 0.1)
    with closing(OwnZygote()) as own:
        own.stand_still()
        assert own.first_word() is None
        own.run_until(lambda: own.end._current is None)
        assert isinstance(own.first_word(), Forked)
        assert own.said == ["the process that forks templates was killed by SIGKILL since it was not done after 0 s"]


def test_one_whose_place_another_has_taken_forks_what_it_was_asked_for_and_goes(monkeypatch: pytest.MonkeyPatch):
    """Or nothing would be forked while one thing after another is installed."""
    with closing(OwnZygote(start_zygote())) as own:
        orders = []
        for turn in range(3):
            monkeypatch.setattr(ends, "last_installed", lambda turn=turn: [turn])
            orders.append(own.end.fork(own.said.append))
        assert len(own.children._known) == 4, "the first was asked for nothing"
        for channel in orders:
            with channel:
                channel.settimeout(0)
                own.run_until(lambda channel=channel: bool(select.select([channel], [], [], 0)[0]))
                assert isinstance(packets.receive(channel, FROM_TEMPLATE)[0], Forked)
        own.run_until(lambda: len(own.end._alive) == 1)
        assert own.said == []


def test_one_whose_place_another_has_taken_and_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ends, "FORK_TIMEOUT", 0.1)
    with closing(OwnZygote()) as own:
        pid = own.stand_still()
        with own.end.fork(own.said.append) as channel:
            monkeypatch.setattr(ends, "last_installed", lambda: [-1])
            assert isinstance(own.first_word(), Forked)
            own.run_until(lambda: pid not in own.children._known)
            assert packets.receive(channel, FROM_TEMPLATE) is None


def test_one_that_hangs_in_its_imports_is_of_no_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ends, "IMPORT_TIMEOUT", 0.1)
    first = start_zygote()
    os.kill(first.spawned.pid, signal.SIGSTOP)
    with closing(OwnZygote(first)) as own:
        assert own.first_word() is None
        own.run_until(lambda: own.end._current is None)
        assert own.end.fork(own.said.append) is None
        assert own.said[-1] == "each template is started by itself, until something is installed"


def test_a_first_one_that_nobody_can_watch_is_replaced():
    """As where there is no descriptor to watch it with."""
    files = open_files()
    first = start_zygote()
    os.kill(first.spawned.pid, signal.SIGKILL)
    os.waitpid(first.spawned.pid, 0)
    with closing(OwnZygote(first)) as own:
        assert isinstance(own.first_word(), Forked)
    assert open_files() == files
