"""An app in this process, and in a real session: they answer alike."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import user_code
from support import APPS

from warmpool import (
    AppBrokenError,
    AppError,
    BaseApp,
    InvalidRequestError,
    SessionEndedError,
    TestingClient,
    WarmpoolError,
)


@pytest.fixture(scope="module")
def app_class() -> Iterator:
    """Imports an app's class from its file, as its author's test would."""
    loaded = []

    def load(name: str, cls: str) -> type[BaseApp]:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, APPS / f"{name}.py")
            sys.modules[name] = importlib.util.module_from_spec(spec)
            loaded.append(name)
            spec.loader.exec_module(sys.modules[name])
        found = sys.modules[name]
        for part in cls.split("."):
            found = getattr(found, part)
        return found

    yield load
    for name in loaded:
        del sys.modules[name]


KINDS = ["none", "bytes", "datetime", "uuid", "decimal", "set", "path", "dataclass", "enum", "model", "nested"]
ODD = [
    *((name, None) for name in ("raise_no_words", "raise_unspeakable", "return_no_words", "fine", "take")),
    *(("take", {"kind": kind}) for kind in ("key error", "exit", "no words", "fine")),
    *(("raise_one", {"kind": kind}) for kind in ("nested", "nameless", "syntax", "exit", "cancelled")),
    ("speak", {"kind": "unspeakable"}),
]
STORIES = {
    "state": ("counter", "Counter", [("add", {"amount": 2}), ("add", {"amount": 3}), ("history", None)]),
    "defaults": ("counter", "Counter", [("add", None), ("add", {})]),
    "bad-input": (
        "counter",
        "Counter",
        [("add", {"amount": "many"}), ("add", {"colour": 1}), ("add", [1]), ("add", None)],
    ),
    "no-such-function": ("counter", "Counter", [("subtract", None), (None, {"amount": 1}), (None, {"action": "add"})]),
    "values": ("values", "Values", [("give", {"kind": kind}) for kind in KINDS]),
    "what-cannot-be-sent-back": (
        "values",
        "Values",
        [("give", {"kind": k}) for k in ("opaque", "huge_int", "surrogate", "no")],
    ),
    "what-cannot-be-sent": (
        "values",
        "Values",
        [("echo", {"value": object}), ("echo", {"value": 2**70}), ("echo", {"value": 1})],
    ),
    "what-is-sent-is-data": (
        "values",
        "Values",
        [("echo", {"value": v}) for v in ((1, 2), {1: "one"}, {3}, b"raw", 1.5, None)],
    ),
    "annotated": ("values", "Values", [("annotated", None)]),
    "too-large": ("values", "Values", [("large", {"size": 17 * 2**20}), ("large", {"size": 3})]),
    "async": (
        "async_counter",
        "AsyncCounter",
        [("add", {"amount": 2}), ("add", {"amount": "x"}), ("add", {"amount": 1}), ("nope", None)],
    ),
    "actions": (
        "actions",
        "Actions",
        [(None, {"action": "add", "amount": 3}), (None, {"action": "nope"}), (None, None)],
    ),
    "odd-errors": ("raises_oddly", "Plain", ODD),
    "odd-errors-async": ("raises_oddly", "Async", ODD),
}


def told(error: WarmpoolError) -> object:
    """An error without what differs from one session to the next."""
    fields = {**error.to_wire(), "session_id": error.session_id is not None}
    return type(error).__name__, re.sub(r"sess_[\w-]+", "sess_X", repr(fields))


def outcome(call) -> object:
    """What a call comes to."""
    try:
        return call()
    except WarmpoolError as error:
        return told(error)


async def outcome_of(call) -> object:
    try:
        return await call
    except WarmpoolError as error:
        return told(error)


@pytest.mark.parametrize(("name", "cls", "calls"), STORIES.values(), ids=STORIES.keys())
def test_it_and_a_real_session_answer_alike(client: TestingClient, app_class, name, cls, calls):
    kind = app_class(name, cls)
    with client.session(kind) as session:
        real = [outcome(lambda f=f, v=v: session.call(f, v)) for f, v in calls]
    with kind.test_client() as here:
        assert [outcome(lambda f=f, v=v: here.call(f, v)) for f, v in calls] == real


@pytest.mark.parametrize(("name", "cls", "calls"), STORIES.values(), ids=STORIES.keys())
def test_so_does_its_async_twin(client: TestingClient, app_class, name, cls, calls):
    kind = app_class(name, cls)

    async def story() -> list[object]:
        async with kind.test_client() as here:
            return [await outcome_of(here.call(function, value)) for function, value in calls]

    with kind.test_client() as here:
        known = [outcome(lambda f=f, v=v: here.call(f, v)) for f, v in calls]
    assert asyncio.run(story()) == known


class Diary(BaseApp):
    """Its hooks, in their order."""

    lines: list = []

    @classmethod
    def preload(cls):
        cls.preloaded = getattr(cls, "preloaded", 0) + 1

    def setup(self):
        self.lines.append(f"setup session={self.context.session_id}")

    def write(self, line: str) -> list[str]:
        self.lines.append(f"{line} session={self.context.session_id is not None} {self.context.labels}")
        self.context.progress(len(self.lines), 9, "writing")
        return self.lines

    def stop(self) -> str:
        self.context.end_session()
        return "the last words"

    def fail(self):
        raise ValueError("as it was meant")

    def on_end(self, reason):
        self.lines.append(f"end {reason}")

    def unload(self):
        self.lines.append("unload")
        raise RuntimeError("goes to the log")


def test_hooks_run_as_in_a_worker(capsys):
    with Diary.test_client(labels={"project": "demo"}) as client:
        assert client.call("write", line="one") == ["setup session=None", "one session=True {'project': 'demo'}"]
        app = client.app
    assert app.lines[2:] == ["end client", "unload"]
    assert Diary.lines == [], "a default in the class body is the instance's own"
    assert "unload raised RuntimeError: goes to the log" in capsys.readouterr().err
    with Diary.test_client() as client:
        client.call("write", line="again")
        assert client.progress == [(2, 9, "writing")]
    assert Diary.preloaded == 1


def test_a_call_before_it_has_begun_says_so():
    with pytest.raises(InvalidRequestError, match="use it as `with"):
        Diary.test_client().call("write", line="too early")


def test_an_app_may_end_its_own_session():
    with Diary.test_client() as client:
        assert client.call("stop") == "the last words"
        assert client.end_reason == "app"
        with pytest.raises(SessionEndedError, match=r"was ended \(app\)"):
            client.call("write", line="too late")


def test_one_that_is_awaited_shows_the_same():
    async def story() -> None:
        async with Diary.test_client() as client:
            await client.call("write", line="one")
            assert client.progress == [(2, 9, "writing")]
            assert client.end_reason is None
            await client.call("stop")
            assert client.end_reason == "app"
            assert "app" in repr(client)

    asyncio.run(story())


def test_user_code_has_an_instance_of_its_own_class():
    assert user_code.use_a_test_client() == [2, 2, []]
    assert asyncio.run(user_code.use_an_async_test_client()) == [5, 1, []]


def test_a_debugger_finds_what_was_raised():
    with Diary.test_client() as client:
        with pytest.raises(AppError, match="as it was meant") as caught:
            client.call("fail")
        cause = caught.value.__cause__
        assert isinstance(cause, ValueError)
        assert cause.__traceback__ is not None
        frames = []
        trace = cause.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert frames[-1] == "fail"


def test_a_setup_that_fails_is_told_as_a_daemon_tells_it(client: TestingClient, app_class):
    kind = app_class("costly_setup", "Fails")
    with pytest.raises(AppBrokenError) as real:
        client.session(kind)
    with pytest.raises(AppBrokenError) as here, kind.test_client():
        pass
    assert str(here.value) == str(real.value)
    assert isinstance(here.value.__cause__, ValueError)


class WarmInWords(BaseApp):
    warm = "x"


class NoCalls(BaseApp):
    max_calls = 0

    @classmethod
    def preload(cls):
        pass


class OddVersion(BaseApp):
    version = "a@b"


class VersionThree(BaseApp):
    version = 3

    def told(self) -> object:
        return self.context.version


@pytest.mark.parametrize("kind", [WarmInWords, NoCalls, OddVersion])
def test_what_an_app_may_not_say_of_itself_is_told_as_a_daemon_tells_it(client: TestingClient, kind):
    with pytest.raises(AppBrokenError) as real:
        client.session(kind)
    for _ in range(2):
        with pytest.raises(AppBrokenError) as here, kind.test_client():
            pass
        assert told(here.value) == told(real.value)


def test_a_version_that_is_a_number_is_text_to_the_app(client: TestingClient):
    with client.session(VersionThree) as session, VersionThree.test_client() as here:
        assert here.call("told") == session.call("told") == "3"


def test_in_a_running_loop_an_async_app_is_awaited(app_class):
    kind = app_class("async_counter", "AsyncCounter")

    async def wrong() -> None:
        with pytest.raises(InvalidRequestError, match="async with"), kind.test_client():
            pass

    async def right() -> None:
        async with kind.test_client() as client:
            assert await client.call("add", amount=2) == 2
            await asyncio.sleep(0.03)
            assert client.app.ticks > 0, "what it started in the background runs on between calls"

    asyncio.run(wrong())
    asyncio.run(right())


# --- one at a time --------------------------------------------------------------------------------------------


class Alone(BaseApp):
    """Says who was in it when a call began and ended."""

    def setup(self):
        self.seen: list[str] = []
        self.began = threading.Event()
        self.may_end = threading.Event()

    def stay(self, name: str) -> None:
        self.seen.append(f"{name} in")
        self.began.set()
        assert self.may_end.wait(30)
        self.seen.append(f"{name} out")

    def call_back(self) -> None:
        CALL_BACK[0].call("stay", name="inner")


class AsyncAlone(BaseApp):
    def setup(self):
        self.seen: list[str] = []

    async def stay(self, name: str) -> str:
        self.seen.append(f"{name} in")
        for _ in range(3):
            await asyncio.sleep(0)
        self.seen.append(f"{name} out")
        return name

    async def call_back(self) -> None:
        await CALL_BACK[0].call("stay", name="inner")


CALL_BACK: list = [None]
"""The client of the app that runs."""


def test_calls_from_many_threads_take_turns():
    with Alone.test_client() as client, ThreadPoolExecutor(2) as threads:
        first = threads.submit(client.call, "stay", name="a")
        assert client.app.began.wait(30)
        second = threads.submit(client.call, "stay", name="b")
        client.app.may_end.set()
        first.result()
        second.result()
        assert client.app.seen == ["a in", "a out", "b in", "b out"]


def test_calls_from_many_tasks_take_turns_in_their_order():
    async def story() -> None:
        async with AsyncAlone.test_client() as client:
            assert await asyncio.gather(*(client.call("stay", name=name) for name in "ab")) == ["a", "b"]
            assert client.app.seen == ["a in", "a out", "b in", "b out"]

    asyncio.run(story())


def test_a_call_from_inside_a_call_is_refused_and_not_waited_for():
    async def story() -> None:
        async with AsyncAlone.test_client() as CALL_BACK[0]:
            with pytest.raises(AppError, match="would wait for it"):
                await CALL_BACK[0].call("call_back")
            assert await CALL_BACK[0].call("stay", name="after") == "after"

    asyncio.run(story())
    for app in (Alone, AsyncAlone):
        with app.test_client() as CALL_BACK[0], pytest.raises(AppError, match="would wait for it"):
            CALL_BACK[0].call("call_back")


# --- time-outs ------------------------------------------------------------------------------------------------


class Patient(BaseApp):
    async def wait(self, how: str) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "raises":
                raise ValueError("what it likes") from None
            if how == "passes":
                raise
        return how

    def take(self, timeout: float) -> float:
        return timeout


class Plain(BaseApp):
    def take(self, timeout: float) -> float:
        return timeout


@pytest.mark.parametrize("how", ["passes", "raises", "returns"])
def test_a_call_that_awaits_is_late_as_in_a_session(client: TestingClient, how):
    call = "wait", {"how": how}

    async def story() -> object:
        async with Patient.test_client() as here:
            found = await outcome_of(here.call(*call, timeout=0.01))
            assert await here.call("take", {"timeout": 5}) == 5, "it goes on"
            return found

    with client.session(Patient) as session, Patient.test_client() as here:
        real = outcome(lambda: session.call(*call, timeout=0.01))
        assert outcome(lambda: here.call(*call, timeout_seconds=0.01)) == real
    assert asyncio.run(story()) == real


@pytest.mark.parametrize("app", [Plain, Patient])
def test_a_timeout_is_taken_as_a_session_takes_it(client: TestingClient, app):
    calls = [
        lambda face: face.call("take", {"timeout": 5}, timeout=5),
        lambda face: face.call("take", timeout=5),  # the call's, and none for the function
        lambda face: face.call("take", {"timeout": 5}, timeout=0),
        lambda face: face.call("take", {"timeout": 5}, timeout="soon"),
        lambda face: face.call("take", {"timeout": 5}, timeout=1, timeout_seconds=1),
    ]

    async def story() -> list[object]:
        async with app.test_client() as here:
            return [await outcome_of(call(here)) for call in calls]

    with client.session(app) as session, app.test_client() as here:
        real = [outcome(lambda call=call: call(session)) for call in calls]
        assert [outcome(lambda call=call: call(here)) for call in calls] == real
    assert asyncio.run(story()) == real


# --- what is meant for whoever runs the test ------------------------------------------------------------------


class Stopped(BaseApp):
    def stop(self, how: str) -> None:
        HOW[how]()


class AsyncStopped(BaseApp):
    async def stop(self, how: str) -> None:
        HOW[how]()
        await asyncio.Event().wait()  # Ctrl-C in a loop ends what it waits for


class StoppedInSetup(BaseApp):
    def setup(self):
        pytest.skip("not today")


class StoppedAtItsEnd(BaseApp):
    def on_end(self, reason):
        pytest.skip("not today")


class Waits(BaseApp):
    def setup(self):
        self.waits = asyncio.Event()

    async def wait(self) -> None:
        self.waits.set()
        await asyncio.Event().wait()

    async def be_cancelled(self) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task


HOW = {
    "ctrl-c": lambda: signal.raise_signal(signal.SIGINT),
    "skip": lambda: pytest.skip("not today"),
    "fail": lambda: pytest.fail("took too long"),
}


@pytest.mark.parametrize(
    ("how", "kind"),
    [("ctrl-c", KeyboardInterrupt), ("skip", pytest.skip.Exception), ("fail", pytest.fail.Exception)],
)
@pytest.mark.parametrize("app", [Stopped, AsyncStopped])
def test_what_stops_the_test_passes_through_its_app(app, how, kind):
    async def story() -> None:
        async with app.test_client() as client:
            await client.call("stop", how=how)

    with app.test_client() as client, pytest.raises(kind):
        client.call("stop", how=how)
    with pytest.raises(kind):
        asyncio.run(story())


@pytest.mark.parametrize("app", [StoppedInSetup, StoppedAtItsEnd])
def test_so_it_does_through_a_hook(app):
    async def story() -> None:
        async with app.test_client():
            pass

    with pytest.raises(pytest.skip.Exception), app.test_client():
        pass
    with pytest.raises(pytest.skip.Exception):
        asyncio.run(story())


def test_a_task_that_is_cancelled_in_a_call_is_cancelled():
    async def story() -> None:
        async with Waits.test_client() as client:
            task = asyncio.create_task(client.call("wait"))
            await client.app.waits.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await client.call("wait")
            with pytest.raises(AppError, match="be_cancelled raised CancelledError"):
                await client.call("be_cancelled")

    asyncio.run(story())
