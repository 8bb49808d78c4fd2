"""A real Chromium, on pages that this test serves itself: it stays open over calls, and goes with its session."""

from __future__ import annotations

import http.server
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from support import EXAMPLES, PATIENCE, Daemon, wait_for_exit

from warmpool import AppError, Client, InvalidInputError, Session

APP = str(EXAMPLES / "browser.py")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")

FORM = """
<title>Greeter</title>
<input id="name"> <button onclick="greet()">Greet</button> <a href="/second">Next</a>
<p id="said"></p>
<script>
function greet() { said.textContent = document.title = "Hello, " + document.querySelector("#name").value }
</script>
"""
LATE = """
<title>Late</title>
<script>setTimeout(() => { document.body.innerHTML = "<button onclick=\\"document.title = 'Clicked'\\">b</button>" }, 300)</script>
"""
ASKS = """
<title>Asks</title>
<script>setTimeout(() => { if (!confirm("Are you there?")) fetch("/answered") }, 100)</script>
"""


class Pages(http.server.BaseHTTPRequestHandler):
    texts: ClassVar = {
        "/": FORM,
        "/second": "<title>Second</title><p>The end.</p>",
        "/late": LATE,
        "/asks": ASKS,
        "/long": "<body style='margin: 0'><div style='height: 3000px; background: red'></div>",
    }

    answered = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/answered":
            self.answered.set()
        text = self.texts.get(self.path)
        body = (text or "nothing here").encode()
        self.send_response(200 if text else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where browsers keep their files: those of one that is killed stay there, since nobody could tidy up."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        yield


@pytest.fixture(scope="module")
def client(shared_daemon: Daemon) -> Client:
    return shared_daemon.client


@pytest.fixture(scope="module")
def browser(client: Client) -> Iterator[Session]:
    """One for all tests that do not harm it: to start a browser takes a second or two."""
    with client.session(APP, session_timeout=600) as session:
        session.call("start", width=400, height=300)
        yield session


def descendants(session: Session) -> list[psutil.Process]:
    """The browser's processes, and what drives it."""
    return psutil.Process(session.info().pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process]) -> None:
    for process in processes:
        assert wait_for_exit(process.pid), process


@needs_chromium
def test_what_one_call_does_the_next_one_finds(browser: Session, site: str):
    assert browser.call("open", url=site) == {"url": f"{site}/", "title": "Greeter", "status": 200}
    assert browser.call("type", selector="#name", text="A") == "A"
    assert browser.call("type", selector="#name", text="da") == "Ada"
    assert browser.call("click", selector="text=Greet") == {"url": f"{site}/", "title": "Hello, Ada"}
    assert browser.call("title") == "Hello, Ada"
    assert browser.call("text", selector="#said") == "Hello, Ada"
    assert browser.call("click", selector="a") == {"url": f"{site}/second", "title": "Second"}
    assert browser.call("text") == "The end."


@needs_chromium
def test_a_screenshot_is_a_png_of_what_is_in_view(browser: Session, site: str):
    browser.call("open", url=f"{site}/long")
    assert size_of(browser.call("screenshot")) == (400, 300)
    assert size_of(browser.call("screenshot", full_page=True)) == (400, 3000)


def size_of(image: bytes) -> tuple[int, int]:
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", image[16:24])
    return width, height


@needs_chromium
def test_it_waits_for_what_is_to_be_clicked(browser: Session, site: str):
    browser.call("open", url=f"{site}/late")
    assert browser.call("click", selector="button")["title"] == "Clicked"


@needs_chromium
def test_a_page_that_asks_between_calls_is_answered(browser: Session, site: str):
    browser.call("open", url=f"{site}/asks")
    assert Pages.answered.wait(PATIENCE)
    assert browser.call("title") == "Asks"


@needs_chromium
def test_two_sessions_have_two_browsers_and_each_goes_with_its_own(browser: Session, client: Client, site: str):
    other = client.session(APP)
    other.call("start", patience=0.2)
    browser.call("open", url=site)
    other.call("open", url=f"{site}/second")
    assert (browser.call("title"), other.call("title")) == ("Greeter", "Second")
    with pytest.raises(AppError, match="TimeoutError"):
        other.call("click", selector="#nothing")
    processes = descendants(other)
    assert not {process.pid for process in processes} & {process.pid for process in descendants(browser)}
    assert len([process for process in processes if "chrom" in process.name()]) > 2
    profile = profile_of(processes)
    assert profile.exists()
    other.end()
    assert_gone(processes)
    assert not profile.exists()
    assert browser.call("title") == "Greeter"


def profile_of(processes: list[psutil.Process]) -> Path:
    prefix = "--user-data-dir="
    arguments = [word for process in processes for word in process.cmdline()]
    return Path(next(word for word in arguments if word.startswith(prefix)).removeprefix(prefix))


@needs_chromium
def test_it_goes_when_the_worker_is_killed(client: Client):
    session = client.session(APP)
    session.call("start")
    processes = descendants(session)
    psutil.Process(session.info().pid).kill()
    assert_gone(processes)


@needs_chromium
def test_it_goes_when_a_call_without_a_session_has_started_it(daemon: Daemon):
    daemon.client.run(app=APP, function="start")
    workers = psutil.Process(daemon.pid).children()
    processes = [process for worker in workers for process in worker.children(recursive=True)]
    assert processes
    daemon.stop()
    assert_gone(processes)


@needs_chromium
def test_a_browser_that_died_is_noticed_and_can_be_started_anew_and_stopped(client: Client, site: str):
    with client.session(APP) as browser:
        browser.call("start")
        chromium = next(process for process in descendants(browser) if "--headless" in process.cmdline())
        chromium.kill()
        assert wait_for_exit(chromium.pid)
        with pytest.raises(AppError):
            browser.call("open", url=site)
        with pytest.raises(AppError, match="the browser has died: call `start`"):
            browser.call("title")
        browser.call("start")
        assert browser.call("open", url=site)["title"] == "Greeter"
        processes = descendants(browser)
        browser.call("stop")
        browser.call("stop")
        assert_gone(processes)
        with pytest.raises(AppError, match="call `start` first"):
            browser.call("title")


@needs_chromium
def test_an_address_that_leads_nowhere(browser: Session, site: str):
    assert browser.call("open", url=f"{site}/nowhere")["status"] == 404
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(AppError, match="ERR_CONNECTION_REFUSED"):
        browser.call("open", url=f"http://127.0.0.1:{port}/")
    with pytest.raises(AppError, match="invalid URL"):
        browser.call("open", url="nonsense")


def test_nothing_works_before_the_start(client: Client):
    with client.session(APP) as session:
        for function, value in {
            "open": {"url": "about:blank"},
            "click": {"selector": "a"},
            "type": {"selector": "a", "text": "b"},
            "title": {},
            "text": {},
            "screenshot": {},
        }.items():
            with pytest.raises(AppError, match="the browser is not open: call `start` first"):
                session.call(function, value)
        session.call("stop")


def test_a_browser_that_is_not_there(client: Client, directory: Path):
    with client.session(APP) as session:
        with pytest.raises(AppError, match="executable doesn't exist"):
            session.call("start", executable=str(directory / "nothing"))
        with pytest.raises(InvalidInputError):
            session.call("start", width=0)
