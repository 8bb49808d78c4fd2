"""The model is loaded once, and right in each session that was forked from where it was loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from support import EXAMPLES, ROOT, Daemon

from warmpool import AppError, Client, InvalidInputError, Session

APP = str(EXAMPLES / "model_inference.py")
PENGUINS = ROOT / "examples" / "data" / "penguins.csv"

PYTHON = "import os\n\n\ndef listing(path):\n    for name in sorted(os.listdir(path)):\n        print(name)\n"
HTML = "<!doctype html>\n<html><head><title>x</title></head><body><p>Hello</p><a href='/'>home</a></body></html>\n"
C = '#include <stdio.h>\n\nint main(int argc, char **argv) {\n    printf("hello, %s\\n", argv[0]);\n    return 0;\n}\n'
SQL = "SELECT name, count(*) FROM sessions WHERE status = 'ended' GROUP BY name ORDER BY name;\nDROP TABLE sessions;\n"


def zipped() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    return buffer.getvalue()


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    with client.session(APP) as session:
        yield session


@pytest.mark.parametrize(
    ("content", "label", "is_text"),
    [
        (PYTHON, "python", True),
        (HTML, "html", True),
        (C, "c", True),
        (json.dumps({"sessions": [{"id": n, "status": "active"} for n in range(5)]}, indent=1), "json", True),
        (zipped(), "zip", False),
        (b"", "empty", False),
    ],
    ids=["python", "html", "c", "json", "zip", "empty"],
)
def test_content_is_told_by_its_bytes(session: Session, content: str | bytes, label: str, is_text: bool):
    found = session.call("predict", content=content)
    assert (found["label"], found["is_text"]) == (label, is_text)
    assert 0.5 < found["score"] <= 1


def test_a_file_is_told_by_its_path_and_by_its_bytes_alike(session: Session):
    found = session.call("predict", path=str(PENGUINS))
    assert (found["label"], found["mime_type"]) == ("csv", "text/csv")
    assert session.call("predict", content=PENGUINS.read_bytes()) == found
    assert session.call(path=str(PENGUINS)) == found, "a call that names no function"


def test_a_path_is_seen_from_where_the_session_was_opened(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(PENGUINS.parent)
    with client.session(APP) as session:
        assert session.call("predict", path=PENGUINS.name)["label"] == "csv"


def test_what_cannot_be_told_is_refused_and_the_session_lives_on(session: Session, directory: Path):
    with pytest.raises(InvalidInputError, match="either `content` or `path`"):
        session.call("predict")
    with pytest.raises(InvalidInputError, match="either `content` or `path`"):
        session.call("predict", content=PYTHON, path=str(PENGUINS))
    with pytest.raises(AppError, match="FileNotFoundError"):
        session.call("predict", path=str(directory / "nothing"))
    with pytest.raises(AppError, match="IsADirectoryError"):
        session.call("predict", path=str(directory))
    assert session.call("predict", content=SQL)["label"] == "sql"


def test_load_model_tells_what_is_loaded(session: Session):
    info = session.call("load_model")
    assert info["name"]
    assert {"python", "html", "csv", "zip"} <= set(info["labels"])
    assert info["bytes"] > 1_000_000
    assert 0 < info["load_seconds"] < 60


def test_it_is_loaded_once_in_a_template_that_can_be_forked(client: Client, shared_daemon: Daemon):
    with client.session(APP) as one, client.session(APP) as other:
        loaded = {session.call("load_model")["loaded_by"] for session in (one, other)}
        workers = [session.info().pid for session in (one, other)]
        assert len(loaded) == 1
        (template,) = map(psutil.Process, loaded)
        assert template.ppid() == shared_daemon.pid
        assert template.pid not in workers, "no session had to load it in a process of its own"
        one.call("predict", content=PYTHON)
        assert [psutil.Process(pid).num_threads() for pid in (template.pid, *workers)] == [1, 1, 1]


def test_two_sessions_at_once_are_right_call_for_call(client: Client):
    contents = {"python": PYTHON, "html": HTML, "c": C, "sql": SQL, "zip": zipped()}

    def told(session: Session) -> list[tuple[str, float]]:
        found = [session.call("predict", content=content) for content in list(contents.values()) * 5]
        return [(one["label"], one["score"]) for one in found]

    with client.session(APP) as one, client.session(APP) as other, ThreadPoolExecutor(2) as threads:
        first, second = threads.map(told, (one, other))
        assert [label for label, _ in first] == list(contents) * 5
        assert first == second == told(one)


def test_sessions_share_the_memory_of_the_model(client: Client):
    with client.session(APP) as one, client.session(APP) as other:
        for session in (one, other):
            session.call("predict", content=PYTHON)
        for session in (one, other):
            memory = psutil.Process(session.info().pid).memory_full_info()
            assert memory.uss < memory.rss / 5, "a model of its own would be a third of it"
