"""Each app runs under the interpreter of its own project; one that cannot serve says what to install where."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import venv
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
from support import APPS, ROOT, open_files

from warmpool import AppBrokenError, AppBrokenWarning, Client, __version__
from warmpool.daemon import interpreters
from warmpool.daemon.interpreters import Interpreter, interpreter_for, requirement
from warmpool.wire.messages import PROTOCOL_VERSION

PACKAGE = Path(sys.modules["warmpool"].__file__ or "").parent
APP = """\
import sys
from warmpool import BaseApp

class Where(BaseApp):
    def run(self) -> list[str]:
        return [sys.prefix, sys.modules["warmpool"].__file__]

    def library(self) -> str:
        import only_here
        return only_here.__file__
"""


def make_venv(path: Path) -> Path:
    """An environment without anything; gives the directory for packages."""
    venv.create(path)
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(path)}))


def install(libraries: Path) -> None:
    """Our package, as pip would, and a way to what it needs."""
    shutil.copytree(PACKAGE, libraries / "warmpool", ignore=shutil.ignore_patterns("__pycache__"))
    needs = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (libraries / "needs.pth").write_text("\n".join(sorted(needs)))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second environment with warmpool and a library of its own."""
    path = tmp_path_factory.mktemp("other") / "venv"
    libraries = make_venv(path)
    install(libraries)
    (libraries / "only_here.py").write_text("")
    return path


@pytest.fixture
def project(directory: Path) -> Path:
    (directory / "where.py").write_text(APP)
    return directory


def name(project: Path, python: str | Path) -> None:
    (project / "pyproject.toml").write_text(f"[tool.warmpool]\npython = {json.dumps(str(python))}\n")


def program(project: Path, text: str) -> Path:
    """Something else in the interpreter's place."""
    path = project / "python"
    path.write_text(text)
    path.chmod(0o755)
    name(project, path)
    return path


def prefix_of(client: Client, project: Path) -> str:
    return client.run(app=str(project / "where.py")).output[0]


def refused(client: Client, project: Path) -> str:
    with pytest.raises(AppBrokenError) as raised:
        client.session(str(project / "where.py"))
    assert raised.value.message.startswith("app where is broken: ")
    assert client.sessions.list() == []
    return raised.value.message


# --- which one ----------------------------------------------------------------------------------------------------


def test_the_daemons_own_where_nothing_is_named(project: Path):
    assert interpreter_for(str(project)) == Interpreter(sys.executable)
    (project / ".venv").mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.warmpool]\n')
    assert interpreter_for(str(project)) == Interpreter(sys.executable)


def test_the_environment_beside_the_app_and_before_it_what_the_project_names(project: Path, other: Path):
    beside = project / ".venv" / "bin" / "python"
    beside.parent.mkdir(parents=True)
    beside.symlink_to(sys.executable)
    assert interpreter_for(str(project)) == Interpreter(str(beside))
    name(project, os.path.relpath(other / "bin" / "python", project))
    assert interpreter_for(str(project)) == Interpreter(str(other / "bin" / "python"))
    name(project, Path("bin") / ".." / ".venv" / "bin" / "python")
    assert interpreter_for(str(project)) == Interpreter(str(beside)), "from where the file lies"


def test_the_daemons_own_by_another_way_is_its_own(project: Path):
    (project / ".venv").symlink_to(Path(sys.executable).parent.parent)
    assert interpreter_for(str(project)).is_ours
    name(project, sys.executable)
    assert interpreter_for(str(project)).is_ours


def test_a_neighbour_of_the_daemons_own_is_another(project: Path, monkeypatch: pytest.MonkeyPatch):
    for version in ("3.11", "3.12"):
        program(project, f"#!/bin/sh\n# {version}\n").rename(project / f"python{version}")
    (project / "python").symlink_to("python3.11")
    monkeypatch.setattr(sys, "executable", str(project / "python3.11"))
    name(project, "python")
    assert interpreter_for(str(project)).is_ours
    name(project, "python3.12")
    assert not interpreter_for(str(project)).is_ours


@pytest.mark.parametrize(("make", "remove"), [(os.mkdir, os.rmdir), (os.mkfifo, os.unlink)])
def test_settings_that_can_be_read_again_are(
    project: Path, make: Callable[[Path], None], remove: Callable[[Path], None]
):
    settings, files = project / "pyproject.toml", open_files()
    make(settings)
    assert "settings cannot be used" in (interpreter_for(str(project)).problem or "")
    remove(settings)
    assert interpreter_for(str(project)) == Interpreter(sys.executable)
    assert open_files() == files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("python =", "settings cannot be used"),
        ("\xff", "settings cannot be used"),
        ("[tool.warmpool]\npython = 3.11", "must be the path"),
        ('[tool.warmpool]\npython = ""', "must be the path"),
        (f"deep = {'[' * 3000}{']' * 3000}", "cannot be used"),
        ('[tool.warmpool]\npython = "\\u0000"', "must be the path"),
        (
            '[tool.warmpool]\npython = "nowhere/python"',
            "nowhere/python cannot be found: No such file or directory; correct `python` in",
        ),
        ('[tool.warmpool]\npython = "."', "is not a program; correct `python` in"),
        ('[tool.warmpool]\npython = "where.py"', "where.py is not a program; correct `python` in"),
    ],
)
def test_settings_that_name_nothing_that_could_run(project: Path, text: str, says: str):
    (project / "pyproject.toml").write_bytes(text.encode("latin-1"))
    problem = interpreter_for(str(project)).problem
    assert problem is not None
    assert says in problem
    assert str(project) in problem


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nwarmpool = 3", "[[tool.warmpool]]", ""])
def test_settings_of_another_shape_name_nothing(project: Path, text: str):
    (project / "pyproject.toml").write_text(text)
    assert interpreter_for(str(project)) == Interpreter(sys.executable)


def test_an_environment_whose_python_is_gone(project: Path):
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(project / "gone")
    problem = interpreter_for(str(project)).problem
    assert (
        problem
        == f"its interpreter {python} cannot be found: No such file or directory; make {project}/.venv anew, or remove it"
    )


# --- running under it ---------------------------------------------------------------------------------------------


def test_apps_of_two_projects_run_under_their_own_interpreters(client: Client, project: Path, other: Path):
    guest = project / "guest"
    guest.mkdir()
    (guest / "where.py").write_text(APP)
    (guest / ".venv").symlink_to(other)
    with client.session(str(project / "where.py")) as ours, client.session(str(guest / "where.py")) as theirs:
        assert ours.call() == [sys.prefix, str(PACKAGE / "__init__.py")]
        prefix, package = theirs.call()
        assert prefix == str(guest / ".venv")
        assert package.startswith(prefix), "its own warmpool, not the daemon's"
        assert theirs.call("library").startswith(prefix)
        assert ours.version == theirs.version, "the version speaks of the source"


def test_it_is_shown(client: Client, project: Path, other: Path):
    name(project, other / "bin" / "python")
    app = str((project / "where.py").rename(project / "shown.py"))
    assert client.apps.get(app).python == str(other / "bin" / "python")
    assert {app.name: app.python for app in client.apps.list()}["shown"] == str(other / "bin" / "python")


def test_a_package_takes_what_lies_beside_its_directory(client: Client, project: Path, other: Path):
    package = project / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from .till import Where\n")
    (package / "till.py").write_text(APP)
    name(project, other / "bin" / "python")
    assert client.run(app=str(package)).output[0] == str(other)


def test_what_lies_in_its_environment_is_no_source_of_the_app(client: Client, project: Path):
    libraries = make_venv(project / ".venv")
    install(libraries)
    extra = project / ".venv" / "lib" / "extra"
    extra.mkdir()
    (extra / "from_extra.py").write_text("x = 1\n")
    (libraries / "extra.pth").write_text(str(extra))
    app = project / "where.py"
    app.write_text("import from_extra\n" + APP)
    with client.session(str(app)) as session:
        assert session.call()[0] == str(project / ".venv")
        assert session.version == sha256(app.read_bytes()).hexdigest()[:8]


def test_a_module_is_looked_for_where_its_interpreter_finds_it(
    client: Client, project: Path, monkeypatch: pytest.MonkeyPatch
):
    libraries = make_venv(project / ".venv")
    install(libraries)
    (project / "src").mkdir()
    (project / "where.py").rename(project / "src" / "only_there.py")
    (libraries / "src.pth").write_text(str(project / "src"))
    monkeypatch.chdir(project)
    assert client.run(app="only_there:Where").output[0] == str(project / ".venv")
    with pytest.raises(AppBrokenError, match="No module named 'nowhere'"):
        client.run(app="nowhere:Where")


def test_another_interpreter_counts_as_an_edit(client: Client, project: Path, other: Path):
    app = str(project / "where.py")
    with client.session(app) as before:
        assert before.call()[0] == sys.prefix
        name(project, other / "bin" / "python")
        assert prefix_of(client, project) == str(other)
        (project / "pyproject.toml").unlink()
        assert prefix_of(client, project) == sys.prefix
        assert before.call()[0] == sys.prefix


def test_a_bad_change_leaves_the_interpreter_before_it_serving(client: Client, project: Path):
    assert prefix_of(client, project) == sys.prefix
    name(project, "nowhere/python")
    with pytest.warns(AppBrokenWarning, match="nowhere/python cannot be found"):
        assert prefix_of(client, project) == sys.prefix


def test_an_app_that_cannot_be_forked_gets_processes_of_its_interpreter(client: Client, other: Path):
    path = other.parent / "threaded.py"  # not in a directory that goes with the test: one more process is on its way
    text = (APPS / "starts_a_thread.py").read_text()
    path.write_text(text.replace('"pid": os.getpid()', '"prefix": __import__("sys").prefix'))
    name(other.parent, Path(other.name, "bin", "python"))
    with client.session(str(path)) as one, client.session(str(path)) as two:
        assert one.call("where") == two.call("where") == {"prefix": str(other), "threads": 2}
        assert one.info().pid != two.info().pid


def test_multiprocessing_works_under_it(client: Client, project: Path, other: Path):
    shutil.copy(APPS / "misbehaves.py", project)
    name(project, other / "bin" / "python")
    assert client.run(app=str(project / "misbehaves.py"), function="use_multiprocessing").output == [1, 2, 3]


# --- what cannot serve --------------------------------------------------------------------------------------------


def test_an_interpreter_without_warmpool_says_what_to_install_and_serves_once_it_is(client: Client, project: Path):
    libraries = make_venv(project / ".venv")
    python = project / ".venv" / "bin" / "python"
    message = refused(client, project)
    assert f"its interpreter {python} (Python 3." in message
    assert "cannot import warmpool: ModuleNotFoundError: No module named 'warmpool'" in message
    assert f"run `{python} -m pip install {ROOT}`" in message
    shown = client.apps.get(str(project / "where.py"))
    assert (shown.state, shown.python) == ("broken", str(python))
    install(libraries)
    assert prefix_of(client, project) == str(project / ".venv"), "at once: the pause is over"


@pytest.mark.parametrize(
    ("noted", "says"),
    [
        ('{"url": "file://%s", "dir_info": {}}', "'%s'"),
        ('{"url": "file:///no/such/place", "dir_info": {}}', f"warmpool=={__version__}"),
        ('{"url": "https://example.org/warmpool.whl"}', f"warmpool=={__version__}"),
        ("nonsense", f"warmpool=={__version__}"),
        (None, f"warmpool=={__version__}"),
    ],
)
def test_what_to_install_is_what_the_daemon_was_installed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: str | None, says: str
):
    """Its name is only good for an index that has it."""
    assert requirement() == str(ROOT), "it runs from its sources"
    source = tmp_path / "a b"
    source.mkdir()
    information = tmp_path / "site" / "warmpool-0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Name: warmpool\nVersion: 0\n")
    if noted is not None:
        (information / "direct_url.json").write_text(noted.replace("%s", quote(str(source))))
    monkeypatch.setattr(interpreters, "INSTALLATION", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert requirement() == says.replace("%s", str(source))


def test_an_interpreter_with_half_of_warmpool(client: Client, project: Path):
    install(make_venv(project / ".venv"))
    next((project / ".venv").rglob("needs.pth")).unlink()
    assert "cannot import warmpool: ModuleNotFoundError: No module named" in refused(client, project)


def test_an_interpreter_whose_warmpool_speaks_another_protocol(client: Client, project: Path):
    libraries = make_venv(project / ".venv")
    install(libraries)
    messages = libraries / "warmpool" / "wire" / "messages.py"
    ours, theirs = f"PROTOCOL_VERSION: Final = {PROTOCOL_VERSION}\n", "PROTOCOL_VERSION: Final = 99999\n"
    text = messages.read_text()
    assert ours in text
    messages.write_text(text.replace(ours, theirs))
    message = refused(client, project)
    assert f"has warmpool {__version__}, which speaks protocol 99999" in message
    assert f"the daemon {__version__} speaks {PROTOCOL_VERSION}" in message
    assert f"-m pip install {ROOT}`" in message


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\nexit 7\n", "its template under {python} exited with status 7"),
        ("#!/bin/sh\nkill -9 $$\n", "its template under {python} was killed by SIGKILL"),
        ("no program\n", "[Errno 8] Exec format error: '{python}'"),
        ("#!/no/such/shell\n", "[Errno 2] No such file or directory: '{python}'"),
    ],
)
def test_what_is_no_python_is_said_to_be_none(client: Client, project: Path, script: str, says: str):
    python = program(project, script)
    assert says.format(python=python) in refused(client, project)


def test_an_interpreter_that_cannot_serve_is_not_tried_again_at_once(client: Client, project: Path):
    marks = project / "marks"
    program(project, f"#!/bin/sh\nprintf x >> {marks}\nexit 7\n")
    assert refused(client, project) == refused(client, project) == refused(client, project)
    assert marks.read_text() == "x"
