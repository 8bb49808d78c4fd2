"""A daemon that belongs to a process, and is gone a second after it, however it died."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from support import APPS, PATIENCE, all_are_gone, processes_marked, wait_for_exit

from warmpool import (
    AppNotFoundError,
    BaseApp,
    Client,
    DaemonUnavailableError,
    InvalidRequestError,
    embedded,
)

COUNTER = APPS / "counter.py"
GONE_WITHIN = 1.0


class Tally(BaseApp):
    """An app of this very module."""

    def setup(self) -> None:
        self.count = 0

    def tick(self, by: int = 1) -> int:
        self.count += by
        return self.count

    def where(self) -> str:
        return __name__

    class Inner(BaseApp):
        def answer(self) -> str:
            return "inner"


def test_a_block_has_a_daemon_of_its_own(marked):
    with embedded(apps=[COUNTER]) as client, client.session("counter") as session:
        assert session.call("add", amount=2) == {"total": 2}
        status = client.status()
        assert psutil.Process(status.pid).ppid() == os.getpid()
    with pytest.raises(InvalidRequestError, match="closed"):
        client.status()
    assert processes_marked(marked) == []


def test_a_block_that_has_been_entered_is_not_entered_again(marked):
    block = embedded()
    with block as client:
        with pytest.raises(InvalidRequestError, match="has its daemon already"), block:
            pass
        assert client.status().sessions == 0
    with block as client:
        assert client.status().sessions == 0


def test_an_app_of_the_test_module_is_named_by_its_class(marked):
    with embedded() as client, client.session(Tally) as session:
        assert session.call("tick") == 1
        assert session.call("tick", by=4) == 5
        assert client.run(app=Tally, function="tick").output == 1
        assert client.run(app=Tally, session=session.id, function="tick").output == 6
        assert "test_embedded" in session.call("where")
        with client.session(Tally.Inner) as inner:
            assert inner.call("answer") == "inner"
        assert [function.name for function in client.apps.describe(Tally.Inner)] == ["answer"]


def test_apps_can_be_given_as_classes_too(marked):
    with embedded(apps=[Tally, Tally.Inner, str(COUNTER)]) as client:
        assert {app.name for app in client.apps.list()} == {
            "counter",
            "test_embedded:Tally",
            "test_embedded:Tally.Inner",
        }


def test_from_a_directory_that_is_gone_an_app_is_found_by_its_class(marked, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with embedded(apps=[Tally]) as client, client.session(Tally) as session:
        assert session.call("tick") == 1
        client.lose_template(Tally)


def test_a_class_that_cannot_be_imported_says_why(marked):
    class Local(BaseApp):
        def answer(self) -> int:
            return 1

    lower = type("lower", (BaseApp,), {"__module__": __name__})
    nowhere = type("Nowhere", (BaseApp,), {"__module__": "no.such.module"})
    with embedded() as client:
        with pytest.raises(InvalidRequestError, match="outside of functions"):
            client.session(Local)
        with pytest.raises(InvalidRequestError, match="begin its name with a capital"):
            client.session(lower)
        with pytest.raises(InvalidRequestError, match="not defined in a file"):
            client.session(nowhere)


@pytest.mark.parametrize("by", ["itself", "PYTHONPATH"])
def test_modules_that_the_owner_finds_its_apps_find(marked, tmp_path, monkeypatch, by: str):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "only_here.py").write_text("WORD = 'found'\n")
    (tmp_path / "app.py").write_text(
        "import only_here\nfrom warmpool import BaseApp\n\n"
        "class Finder(BaseApp):\n    def word(self) -> str:\n        return only_here.WORD\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    if by == "PYTHONPATH":
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    with embedded() as client:
        assert client.run(app=str(tmp_path / "app.py"), function="word").output == "found"


def test_modules_of_the_owners_stand_in_for_none_of_pythons(marked, tmp_path, monkeypatch):
    """Where it has a module called as one of those, it has long imported the other."""
    (tmp_path / "lib").mkdir()
    for name in ("inspect", "logging"):
        (tmp_path / "lib" / f"{name}.py").write_text("raise ImportError('not this one')\n")
    (tmp_path / "app.py").write_text(
        "import logging, os\nfrom warmpool import BaseApp\n\n"
        "class App(BaseApp):\n"
        "    def level(self) -> int:\n        return logging.WARNING\n"
        "    def given(self) -> list:\n        return [os.environ.get(name) for name in ('PYTHONPATH', 'WARMPOOL_PATH')]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with embedded() as client:
        assert client.run(app=str(tmp_path / "app.py"), function="level").output == 30
        assert client.run(app="app", function="given").output == [str(tmp_path), None], "what it starts has it as we do"


def test_a_module_is_named_as_its_owner_finds_it(marked, tmp_path, monkeypatch):
    (tmp_path / "only_there.py").write_text(
        "from warmpool import BaseApp\n\nclass Found(BaseApp):\n    def run(self) -> str:\n        return __name__\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with embedded() as client:
        assert client.run(app="only_there:Found").output == "only_there"


def test_it_holds_nothing_of_its_owners(marked):
    readable, writable = os.pipe()
    os.set_inheritable(writable, True)
    with embedded(apps=[COUNTER]) as client, client.session("counter"):
        os.close(writable)
        assert select.select([readable], [], [], PATIENCE)[0], "somebody has it"
    os.close(readable)


def test_the_owner_may_have_many_files_open(marked):
    """More than `select` knows of."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with embedded(apps=[COUNTER]) as client:
            assert client.run(app="counter", function="add").output == {"total": 1}
    finally:
        for fd in many:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert processes_marked(marked) == []


def test_any_number_run_side_by_side(marked):
    with embedded(apps=[COUNTER]) as one, embedded(apps=[COUNTER]) as two:
        with one.session("counter") as first, two.session("counter") as second:
            first.call("add", amount=5)
            assert second.call("add") == {"total": 1}
        one.clock.freeze()
        assert one.status().pid != two.status().pid


def test_the_path_may_be_longer_than_a_sockets(marked, tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with embedded(apps=[COUNTER]) as client, client.session("counter") as session:
        assert len(str(client.places.socket)) > 200
        assert session.call("add") == {"total": 1}
    assert list(deep.iterdir()) == []


def test_the_log_is_kept_where_it_is_wanted(marked, tmp_path):
    with embedded(apps=[COUNTER], log=tmp_path / "log.txt") as client:
        client.session("counter").end()
    text = (tmp_path / "log.txt").read_text()
    assert "listening on" in text
    assert text.rstrip().endswith("stopped")


@pytest.mark.parametrize(("below", "why"), [("nowhere/log.txt", "No such file"), ("", "Is a directory")])
def test_a_log_that_cannot_be_kept_is_named(marked, tmp_path, monkeypatch, below: str, why: str):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InvalidRequestError, match=f"no log can be kept in {tmp_path / below}: {why}"):
        embedded(log=tmp_path / below).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_settings_reach_it(marked):
    with embedded(max_workers=3) as client:
        assert client.status().max_workers == 3


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"apps": ["no/such/app.py"]}, AppNotFoundError, "there is no file"),
        ({"max_workers": 0}, InvalidRequestError, "max_workers must be a number"),
        ({"colour": "red"}, InvalidRequestError, "there is no setting 'colour'"),
        ({"apps": "counter.py"}, InvalidRequestError, "apps must be a list of them, not 'counter.py'"),
    ],
)
def test_what_it_cannot_be_told_is_refused_and_nothing_is_left(marked, tmp_path, monkeypatch, arguments, error, words):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(error, match=words), embedded(**arguments):
        pass
    assert processes_marked(marked) == []
    assert list(tmp_path.iterdir()) == []


def test_a_daemon_that_is_killed_leaves_its_owner_a_clean_end(marked):
    with embedded(apps=[COUNTER]) as client:
        session = client.session("counter")
        psutil.Process(client.status().pid).kill()
        assert all_are_gone(marked, 2), "also who was just being forked"
        with pytest.raises(DaemonUnavailableError):
            session.call("add")


# --- the owner's death ----------------------------------------------------------------------------------------

OWNER = """
import json, os, signal, subprocess, sys, threading
import psutil
from warmpool import embedded
block = embedded(apps=[{counter!r}, {helper!r}])
client = block.__enter__()
session = client.session("counter")
session.call("add")
client.session("leaves_a_fork").call("leave")
{before}
daemon = psutil.Process(client.status().pid)
pids = [daemon.pid, *(child.pid for child in daemon.children(recursive=True))]
print(json.dumps([str(client.places.socket.parent), pids]), flush=True)
{death}
"""

DEATHS = {
    "returns": "",
    "is-killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "leaves-without-a-word": "os._exit(0)",
    "raises": "raise SystemExit(3)",
    "aborts": "os.abort()",
    "is-interrupted": "os.kill(os.getpid(), signal.SIGINT); threading.Event().wait()",
    "becomes-another-program": "os.execv('/bin/true', ['true'])",
}


def all_goes_with_its_owner(death: str, before: str = "") -> None:
    """Runs an owner until it is dead; then all that belongs to its daemon has a second."""
    program = OWNER.format(counter=str(COUNTER), helper=str(APPS / "leaves_a_fork.py"), death=death, before=before)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        directory, pids = json.loads(owner.stdout.readline())
        owner.stdout.close()
        owner.wait(PATIENCE)
        died = time.monotonic()
        assert len(pids) >= 6, "a daemon, two templates, two workers, and what one of these has left"
        assert all(wait_for_exit(pid) for pid in pids)
        assert time.monotonic() - died < GONE_WITHIN
        assert not Path(directory).exists()


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS.keys())
def test_nothing_is_left_a_second_after_its_owner_died(marked, death):
    all_goes_with_its_owner(death)
    assert processes_marked(marked) == []


def test_a_worker_that_is_stuck_does_not_outlive_the_owner(marked):
    stuck = textwrap.dedent("""
        client.hang_next_call(session)
        threading.Thread(target=session.call, args=("add",), daemon=True).start()
        while not session.info().busy:
            pass
    """)
    all_goes_with_its_owner(DEATHS["is-killed"], stuck)


def test_a_child_of_the_owner_does_not_keep_the_daemon_alive(marked):
    """Neither one that it has started, nor one that it has forked, and which lives on."""
    children = textwrap.dedent("""
        subprocess.Popen(["sleep", "30"], close_fds=False)
        if os.fork() == 0:
            signal.pause()
    """)
    all_goes_with_its_owner(DEATHS["is-killed"], children)
    left = processes_marked(marked)
    assert len(left) == 2
    for process in left:
        process.kill()


def test_a_forked_child_that_leaves_does_not_stop_the_daemon(marked):
    with embedded(apps=[COUNTER]) as client, client.session("counter") as session:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        script = "import os, sys\npid = os.fork()\nif pid == 0: sys.exit(0)\nos.waitpid(pid, 0)\n"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert session.call("add") == {"total": 1}


def test_a_client_elsewhere_is_told_that_the_daemon_is_gone(marked):
    with embedded(apps=[COUNTER]) as client:
        other = Client(client.places.socket, autostart=False)
        session = other.session("counter")
    with pytest.raises(DaemonUnavailableError):
        session.call("add")
    other.close()
