"""Editing an app: the next session has the new version, living ones keep theirs."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import Daemon, wait_for_exit

from warmpool import (
    AppBrokenError,
    AppBrokenWarning,
    AppMismatchError,
    AppNotFoundError,
    AsyncClient,
    Client,
    SessionEndedError,
    VersionMismatchError,
)

TEXT = """\
from warmpool import BaseApp

class Edited(BaseApp):
    def run(self) -> str:
        return "{answer}"
"""


@pytest.fixture
def app(directory: Path) -> Path:
    path = directory / "edited.py"
    path.write_text(TEXT.format(answer="one"))
    return path


def test_the_version_is_the_digest_of_the_file(client: Client, app: Path):
    with client.session(str(app)) as session:
        assert session.version == hashlib.sha256(app.read_bytes()).hexdigest()[:8]


def test_an_edit_is_there_at_once(client: Client, app: Path):
    with client.session(str(app)) as old:
        assert old.call() == "one"
        for answer in ("two", "six", "ten"):  # of the same size, within the same second
            app.write_text(TEXT.format(answer=answer))
            with client.session(str(app)) as new:
                assert new.call() == answer
                assert new.version != old.version
        assert old.call() == "one"
        assert old.info().version == old.version


def test_a_file_that_is_replaced_by_one_of_its_age_and_size_is_an_edit(client: Client, app: Path):
    """As an archive does that is unpacked, or `rsync -a`."""
    with client.session(str(app)) as old:
        status = app.stat()
        other = app.with_suffix(".new")
        other.write_text(TEXT.format(answer="two"))
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(app)
        assert (app.stat().st_mtime_ns, app.stat().st_size) == (status.st_mtime_ns, status.st_size)
        with client.session(str(app)) as new:
            assert (old.call(), new.call()) == ("one", "two")


def test_a_touch_is_no_edit(client: Client, app: Path):
    with client.session(str(app)) as first:
        os.utime(app)
        with client.session(str(app)) as second:
            assert second.version == first.version


def test_a_broken_edit_leaves_the_old_version_serving_and_says_why(client: Client, shared_daemon: Daemon, app: Path):
    with client.session(str(app)) as old:
        app.write_text(TEXT.format(answer="two").replace("def run", "def run)"))
        with pytest.warns(AppBrokenWarning, match="SyntaxError") as caught:
            session = client.session(str(app))
        assert "edited.py" in str(caught[0].message)
        with session:
            assert session.call() == "one"
            assert session.version == old.version
        assert "SyntaxError" in shared_daemon.text_of_log()
        app.write_text(TEXT.format(answer="two"))
        with client.session(str(app)) as mended:
            assert mended.call() == "two"


def test_a_broken_edit_is_told_of_at_the_line_that_asks(
    client: Client, shared_daemon: Daemon, app: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(app.parent)
    monkeypatch.setitem(sys.modules, "edited", importlib.import_module("edited"))
    edited = sys.modules["edited"].Edited

    async def ask_async() -> None:
        async with AsyncClient(shared_daemon.socket, autostart=False) as other:
            await other.run(app=edited)  # here
            async with other.session(edited):  # here
                pass
            async with other.proxy(edited):  # here
                pass
            async for _ in other.stream(app=edited):  # here
                pass

    def ask() -> None:
        client.run(app=edited)  # here
        client.session(edited).end()  # here
        with client.proxy(edited):  # here
            pass
        list(client.stream(app=edited))  # here
        asyncio.run(ask_async())

    client.run(app=edited)
    app.write_text(TEXT.format(answer="two").replace("def run", "def run)"))
    with pytest.warns(AppBrokenWarning) as caught:
        ask()
    lines = Path(__file__).read_text().splitlines()
    asks = {number for number, line in enumerate(lines, 1) if line.endswith("  # here")}
    assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, number) for number in asks}


def test_where_warnings_are_errors_no_session_is_left_that_nobody_knows_of(client: Client, app: Path):
    client.session(str(app)).end()
    app.write_text(TEXT.format(answer="two").replace("def run", "def run)"))
    for ask in (lambda: client.session(str(app)), lambda: client.run(app=str(app), session="new")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(AppBrokenWarning, match="SyntaxError"):
                ask()
    assert client.sessions.list() == []


def test_a_link_that_leads_elsewhere_is_an_edit(client: Client, app: Path):
    """The whole of it: what it imports lies beside where it leads."""
    for place in ("one", "two"):
        (app.parent / place).mkdir()
        text = f"from beside import WORD\n{TEXT.format(answer=place)}".replace(f'"{place}"', f'"{place} " + WORD')
        (app.parent / place / "linked.py").write_text(text)
        (app.parent / place / "beside.py").write_text(f'WORD = "{place}"\n')
    link = app.parent / "link.py"
    link.symlink_to(app.parent / "one" / "linked.py")
    assert client.run(app=str(link)).output == "one one"
    link.unlink()
    link.symlink_to(app.parent / "two" / "linked.py")
    assert client.run(app=str(link)).output == "two two"
    (app.parent / "two" / "beside.py").write_text('WORD = "edited"\n')
    assert client.run(app=str(link)).output == "two edited"


def test_a_failing_setup_in_an_edit_leaves_the_old_version_serving(client: Client, app: Path):
    with client.session(str(app)):
        app.write_text(TEXT.format(answer="two") + "    def setup(self):\n        raise OSError('no disk')\n")
        with pytest.warns(AppBrokenWarning, match="no disk"):
            session = client.session(str(app))
        with session:
            assert session.call() == "one"


def test_a_broken_app_is_not_tried_again_until_its_pause_is_over_or_it_is_edited(client: Client, app: Path):
    app.write_text("import count_me\n" + TEXT.format(answer="one"))
    marks = app.with_name("marks")
    app.with_name("count_me.py").write_text(f"open({str(marks)!r}, 'a').write('x')\nraise ImportError('not yet')\n")
    for _ in range(3):
        with pytest.raises(AppBrokenError, match="not yet") as raised:
            client.session(str(app))
        assert "count_me.py" in raised.value.traceback
        assert "warmpool/" not in raised.value.traceback
    assert marks.read_text() == "x"
    app.with_name("count_me.py").write_text("")
    with client.session(str(app)) as session:
        assert session.call() == "one"


def test_a_missing_module_that_appears_mends_the_app(client: Client, app: Path):
    app.write_text("import comes_later\n" + TEXT.format(answer="one"))
    with pytest.raises(AppBrokenError, match="comes_later"):
        client.session(str(app))
    app.with_name("comes_later.py").write_text("")
    with client.session(str(app)) as session:
        assert session.call() == "one"


def test_editing_a_helper_is_an_edit(client: Client, app: Path):
    helper = app.with_name("helpers.py")
    helper.write_text("ANSWER = 'a'\n")
    app.write_text(TEXT.replace('"{answer}"', "helpers.ANSWER").replace("from", "import helpers\nfrom", 1))
    with client.session(str(app)) as session:
        assert session.call() == "a"
    helper.write_text("ANSWER = 'b'\n")
    with client.session(str(app)) as session:
        assert session.call() == "b"


def test_editing_what_lies_elsewhere_on_the_path_is_an_edit(client: Client, app: Path):
    """As what is installed for development does, or what an app puts on the path itself."""
    library = app.parent / "library"
    (library / "mine").mkdir(parents=True)
    (library / "mine" / "__init__.py").write_text("from .words import WORD\n")
    words = library / "mine" / "words.py"
    project = app.parent / "project"
    project.mkdir()
    app = project / "app.py"
    text = TEXT.format(answer="").replace('""', "WORD")
    app.write_text(f"import sys\nsys.path.append({str(library)!r})\nfrom mine import WORD\n{text}")
    versions: set[str] = set()
    for word in ("one", "two"):
        words.write_text(f"WORD = {word!r}\n")
        with client.session(str(app)) as session:
            assert session.call() == word
            versions.add(session.version)
    assert len(versions) == 2
    assert list(library.rglob("*.pyc")) == []


@pytest.fixture
def imported_alone(directory: Path, app: Path) -> tuple[Path, Path]:
    """A module of an app whose import starts a thread, so that each worker imports it for itself, and a latch, at which
    the second of all imports waits.
    """
    turns, latch, words = directory / "turns", directory / "latch", directory / "words.py"
    turns.touch()
    os.mkfifo(latch)
    app.write_text(
        "import threading\nfrom pathlib import Path\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        f"turns = Path({str(turns)!r})\nturns.write_text(turns.read_text() + 'x')\n"
        f"if turns.read_text() == 'xx':\n    open({str(latch)!r}).read()\n"
        "import words\n" + TEXT.replace('"{answer}"', "words.ANSWER").replace("(BaseApp):", "(BaseApp):\n    warm = 0")
    )
    words.write_text("ANSWER = 'one'\n")
    return words, latch


def test_an_edit_while_a_process_of_its_own_imports_the_app_is_not_called_by_the_version_before(
    client: Client, app: Path, imported_alone: tuple[Path, Path]
):
    words, latch = imported_alone
    with ThreadPoolExecutor() as threads:
        opens = threads.submit(client.session, str(app))
        with latch.open("w"):
            words.write_text("ANSWER = 'two'\n")
        session = opens.result()
    with session:
        assert session.call() == "two"
        assert session.version == hashlib.sha256(app.read_bytes() + words.read_bytes()).hexdigest()[:8]
        with client.session(f"{app}@{session.version}") as pinned:
            assert pinned.call() == "two"


def test_a_broken_edit_that_such_a_process_finds_is_not_blamed_on_the_version_before(
    client: Client, app: Path, imported_alone: tuple[Path, Path]
):
    words, latch = imported_alone
    sound = words.read_text()
    with ThreadPoolExecutor() as threads:
        opens = threads.submit(client.session, str(app))
        with latch.open("w"):
            words.write_text("1 / 0\n")
        assert isinstance(opens.exception(), AppBrokenError)
    words.write_text(sound)
    assert client.run(app=str(app)).output == "one", "an edit ends the pause"


def test_editing_what_an_import_hook_has_found_is_an_edit(client: Client, app: Path):
    """As those that `pip install -e` leaves behind."""
    package = app.parent / "library" / "mine"
    package.mkdir(parents=True)
    words = package / "__init__.py"
    project = app.parent / "project"
    project.mkdir()
    app = project / "app.py"
    app.write_text(
        "import sys\nfrom importlib.util import spec_from_file_location\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        return spec_from_file_location(name, {str(words)!r}) if name == 'mine' else None\n"
        "sys.meta_path.append(Finder)\nfrom mine import WORD\n" + TEXT.format(answer="").replace('""', "WORD")
    )
    for word in ("one", "two!"):
        words.write_text(f"WORD = {word!r}\n")
        with client.session(str(app)) as session:
            assert session.call() == word


def test_what_is_installed_elsewhere_on_the_path_is_no_source(client: Client, app: Path):
    """As `pip install --target` does."""
    library = app.parent / "library"
    (library / "theirs" / "inner").mkdir(parents=True)
    (library / "theirs-1.0.dist-info").mkdir()
    for package in (library / "theirs", library / "theirs" / "inner"):
        (package / "__init__.py").write_text("")
    project = app.parent / "project"
    project.mkdir()
    app = project / "app.py"
    app.write_text(f"import sys\nsys.path.append({str(library)!r})\nimport theirs.inner\n{TEXT.format(answer='one')}")
    with client.session(str(app)) as session:
        assert session.version == hashlib.sha256(app.read_bytes()).hexdigest()[:8]


@pytest.fixture(params=["edited.py", "aside.py"])
def faulty(app: Path, request: pytest.FixtureRequest) -> Path:
    """The app's file, or one that it imports: the one that is at fault when the app is first used."""
    app.with_name("aside.py").write_text("")
    app.write_text("import aside\n" + TEXT.format(answer="one"))
    return app.with_name(request.param)


def test_an_edit_is_there_at_once_where_the_first_import_hangs(
    client: Client, shared_daemon: Daemon, app: Path, faulty: Path
):
    sound, pipe = faulty.read_text(), app.with_name("pipe")
    os.mkfifo(pipe)
    says = f"import os, time\nwith open({str(pipe)!r}, 'w') as pipe:\n    print(os.getpid(), file=pipe)\n"
    faulty.write_text(f"{says}time.sleep(10000)\n{sound}")
    with Client(shared_daemon.socket, autostart=False) as other, ThreadPoolExecutor() as threads:
        waits = threads.submit(other.run, app=str(app))
        template = int(pipe.read_text())
        faulty.write_text(sound)
        assert client.run(app=str(app)).output == "one"
        assert waits.result().output == "one", "who has waited for the edition before gets this one"
    assert wait_for_exit(template)


@pytest.mark.parametrize("where", ["setup", "run"])
@pytest.mark.parametrize("session", ["new", None])
def test_editing_what_is_imported_late_is_an_edit(client: Client, app: Path, where: str, session: str | None):
    """By a worker, from which the daemon has it. What another one has read since does not count as seen."""
    helper = app.with_name("late_helper.py")
    app.write_text(
        "from warmpool import BaseApp\n"
        "class Late(BaseApp):\n"
        f"    def {where}(self) -> str:\n"
        "        from late_helper import ANSWER\n"
        "        self.answer = ANSWER\n"
        "        return ANSWER\n"
        "    def answered(self) -> str:\n"
        "        return self.answer\n"
    )
    function = "answered" if where == "setup" else "run"
    helper.write_text("ANSWER = 'one'\n")
    with client.session(str(app)) as never_called:
        for answer in ("one", "two", "six"):
            helper.write_text(f"ANSWER = '{answer}'\n")
            assert client.run(app=str(app), function=function, session=session).output == answer
            never_called.call(function)


def test_a_module_that_is_added_to_a_broken_package_is_an_edit(client: Client, directory: Path):
    package = directory / "shop"
    (package / "parts").mkdir(parents=True)
    for file, text in {
        "__init__.py": "",
        "parts/__init__.py": "",
        "app.py": "from warmpool import BaseApp\nfrom .parts import till\n"
        "class Shop(BaseApp):\n    def run(self) -> str:\n        return till.WORD\n",
    }.items():
        (package / file).write_text(text)
    for _ in range(2):
        with pytest.raises(AppBrokenError, match="cannot import name 'till'"):
            client.run(app=str(package))
    (package / "parts" / "till.py").write_text("WORD = 'one'\n")
    assert client.run(app=str(package)).output == "one"
    (package / "parts" / "till.py").unlink()
    with pytest.warns(AppBrokenWarning):
        client.run(app=str(package))
    (package / "parts" / "till.py").write_text("WORD = 'two'\n")
    assert client.run(app=str(package)).output == "two"


def test_an_edit_is_there_at_once_where_the_first_import_ends_its_process(client: Client, app: Path, faulty: Path):
    sound = faulty.read_text()
    faulty.write_text(f"import os\nos._exit(4)\n{sound}")
    for _ in range(2):
        with pytest.raises(AppBrokenError, match="exited with status 4 while it imported or preloaded the app"):
            client.run(app=str(app))
    faulty.write_text(sound)
    assert client.run(app=str(app)).output == "one"


def test_a_named_version_is_what_the_class_says(client: Client, app: Path):
    app.write_text(TEXT.format(answer="one").replace("    def", '    version = "1.0"\n    def'))
    with client.session(f"{app}@1.0") as session:
        assert session.version == "1.0"
    with pytest.raises(VersionMismatchError, match="is at version 1.0, not 2.0"):
        client.session(f"{app}@2.0")
    app.write_text(TEXT.format(answer="two").replace("    def", '    version = "2.0"\n    def'))
    with client.session(f"{app}@2.0") as session:
        assert session.call() == "two"


def test_nothing_is_written_beside_the_users_files(client: Client, app: Path):
    app.with_name("helpers.py").write_text("")
    app.write_text("import helpers\n" + TEXT.format(answer="one"))
    with client.session(str(app)) as session:
        session.call()
    assert not (app.parent / "__pycache__").exists()


def test_an_app_that_is_deleted_serves_on_under_its_name_only(client: Client, app: Path):
    with client.session(str(app)) as session:
        app.unlink()
        assert session.call() == "one"
        with pytest.raises(AppNotFoundError):
            client.session(str(app))


def test_a_session_of_an_app_that_is_deleted_is_known_by_its_path(client: Client, app: Path):
    with client.session(str(app)) as session:
        app.unlink()
        assert client.run(app=str(app), session=session.id).output == "one"
        for other in (str(app.with_name("other.py")), "nowhere"):
            with pytest.raises(AppMismatchError):
                client.run(app=other, session=session.id)
    for name in (str(app), "nowhere"):
        with pytest.raises(SessionEndedError):
            client.run(app=name, session=session.id)


def test_what_is_no_file_any_more_keeps_nobody_waiting(client: Client, app: Path):
    """A pipe in the place of an app and of its helper, which nobody writes to."""
    helper = app.with_name("aside.py")
    helper.write_text("")
    app.write_text("import aside\n" + TEXT.format(answer="one"))
    assert client.run(app=str(app)).output == "one"
    for path in (helper, app):
        text = path.read_text()
        path.unlink()
        os.mkfifo(path)
        with pytest.warns(AppBrokenWarning, match="aside" if path is helper else "it is no file"):
            assert client.run(app="edited").output == "one", "as where it is deleted"
        with pytest.raises(AppNotFoundError):
            client.run(app=str(path))
        path.unlink()
        path.write_text(text)
        assert client.run(app=str(app)).output == "one"
