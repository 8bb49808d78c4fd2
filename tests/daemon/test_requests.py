"""Control requests: each with what it may be given and what not, and what it tells of real sessions."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest
from support import (
    APPS,
    PATIENCE,
    Daemon,
    Raw,
    is_asleep,
    look_again,
    to_worker,
    wait_for_exit,
)

from warmpool import Client, SessionEndedError, WorkerLostError
from warmpool.constants import (
    DESCRIPTION_MAX,
    LABEL_KEY_MAX,
    LABEL_VALUE_MAX,
    LABELS_MAX,
    MIB,
    NAME_MAX,
    PAGE_MAX,
    TAGS_MAX,
)
from warmpool.wire.messages import Open

COUNTER = str(APPS / "counter.py")
STUCK = str(APPS / "told_to_stop.py:Plain")
IMPATIENT = str(APPS / "told_to_stop.py:Impatient")
LIMITED = str(APPS / "limited.py")


class Control(Raw):
    """A control connection."""

    def ask(self, method: str, **params: Any) -> Any:
        """The value of the reply, or the error as it is on the wire."""
        self.say("Request", 7, method, params)
        answer = self.hear()
        assert answer is not None
        assert answer[1] == 7
        return answer[2]

    def refused(self, method: str, **params: Any) -> str:
        """The message of the INVALID_REQUEST that it must be."""
        error = self.ask(method, **params)
        assert error["code"] == "INVALID_REQUEST", error
        return str(error["message"])


@pytest.fixture
def control(client: Client) -> Iterator[Control]:
    with Control.to(client.places.socket) as control:
        yield control


@pytest.fixture
def opened(client: Client) -> Iterator[Callable[..., dict[str, Any]]]:
    """Opens with any field of the hello; gives what Opened tells, or the error. The connections stay open."""
    control = Raw.to(client.places.socket)
    raws = [control]

    def opened(app: str | None = COUNTER, session: str | None = "new", **fields: Any) -> dict[str, Any]:
        control.say("Open", *Open(5, app, session, "/", **fields))
        answer = control.hear()
        assert answer is not None
        assert answer[1] == 5
        if answer[0] == "Failure":
            return dict(answer[2])
        raws.append(control.take())
        return {"id": answer[2], "worker": answer[5], "raw": raws[-1]}

    yield opened
    for raw in raws:
        raw.close()


def state_of(control: Control, session_id: str) -> dict[str, Any]:
    info = control.ask("sessions.get", session_id=session_id)
    return {name: value for name, value in info.items() if name not in ("expires_at", "busy")}


# --- what may be given --------------------------------------------------------------------------------------------

TOO_MANY = {f"key {number}": "x" for number in range(LABELS_MAX + 1)}
BAD_LABELS = {
    "no map": [0, "", False, "x", 5, [], [["a", "b"]], b"a"],
    "too many": [TOO_MANY],
    "an empty key": [{"": "x"}],
    "a long key": [{"k" * (LABEL_KEY_MAX + 1): "x"}],
    "a key that is no text": [{1: "x"}, {b"k": "x"}],
    "an empty value": [{"k": ""}],
    "a long value": [{"k": "x" * (LABEL_VALUE_MAX + 1)}],
    "a value that is no text": [{"k": None}, {"k": 1}, {"k": True}, {"k": {"a": "b"}}, {"k": ["x"]}],
}
GOOD_LABELS: list[dict[str, str]] = [
    {},
    {"k" * LABEL_KEY_MAX: "x" * LABEL_VALUE_MAX},
    {f"key {number}": "é\n" for number in range(LABELS_MAX)},
]


@pytest.mark.parametrize("bad", BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_cannot_be(control: Control, client: Client, opened: Callable[..., dict[str, Any]], bad: list[Any]):
    with client.session(COUNTER, labels={"kept": "as it was"}) as session:
        before = state_of(control, session.id)
        for labels in bad:
            assert "label" in control.refused("sessions.set_labels", session_id=session.id, labels=labels)
            assert "label" in control.refused("sessions.list", labels=labels)
            if isinstance(labels, dict):
                assert "label" in opened(labels=labels)["message"]
        assert "labels" in control.refused("sessions.set_labels", session_id=session.id)
        assert state_of(control, session.id) == before
        assert [info.id for info in client.sessions.list()] == [session.id]


@pytest.mark.parametrize("labels", GOOD_LABELS, ids=["none", "long", "many"])
def test_labels_that_can_be(
    control: Control, client: Client, opened: Callable[..., dict[str, Any]], labels: dict[str, str]
):
    session = opened(labels=labels)["id"]
    assert state_of(control, session)["labels"] == labels
    control.ask("sessions.set_labels", session_id=session, labels={"another": "one"})
    assert control.ask("sessions.set_labels", session_id=session, labels=labels)["labels"] == labels
    assert client.sessions.list()[0].labels == labels
    assert control.ask("sessions.list", labels=labels)["total"] == 1


def test_the_app_sees_the_labels_that_are_set(control: Control, client: Client):
    with client.session(COUNTER, labels={"a": "b"}) as session:
        assert session.call("who")["labels"] == {"a": "b"}
        control.ask("sessions.set_labels", session_id=session.id, labels={"c": "d"})
        assert session.call("who")["labels"] == {"c": "d"}


def test_a_call_that_comes_right_after_labels_were_set_sees_them(
    control: Control, client: Client, opened: Callable[..., dict[str, Any]]
):
    """Both are there when the worker wakes up, which waits for its only client."""
    session = opened(str(APPS / "prints.py"))
    raw, pid = session["raw"], client.sessions.get(session["id"]).pid
    for number in range(10):
        raw.say("Call", number, "labels", {})
        raw.hear()
        while not is_asleep(pid):
            look_again()
        os.kill(pid, signal.SIGSTOP)
        try:
            control.ask("sessions.set_labels", session_id=session["id"], labels={"number": str(number)})
            raw.say("Call", number, "labels", {})
        finally:
            os.kill(pid, signal.SIGCONT)
        assert raw.hear() == ["Result", number, {"number": str(number)}]


BAD_OPENS = {
    "an empty name": ({"name": ""}, "name must be a string of 1 to 128"),
    "a long name": ({"name": "x" * (NAME_MAX + 1)}, "name must be a string of 1 to 128"),
    "a name with a space": ({"name": "a b"}, "without white space"),
    "a name with a newline": ({"name": "a\n"}, "without white space"),
    "a name with a control character": ({"name": "a\x07"}, "printable"),
    "a name with a line separator": ({"name": "a\u2028b"}, "printable"),
    "a name for no session": ({"session": None, "name": "a"}, 'only with session="new"'),
    "a name for a session that is": ({"session": "sess_x", "name": "a"}, 'only with session="new"'),
    "an unknown if_exists": ({"name": "a", "if_exists": "maybe"}, "one of error, attach"),
    "an empty if_exists": ({"name": "a", "if_exists": ""}, "one of error, attach"),
    "an attach to no name": ({"if_exists": "attach"}, "needs a name"),
    "an attach for no session": ({"session": None, "if_exists": "attach"}, 'only with session="new"'),
    "an attach for a session that is": ({"session": "sess_x", "if_exists": "attach"}, 'only with session="new"'),
    "a long description": ({"description": "x" * (DESCRIPTION_MAX + 1)}, "1 to 1000 characters"),
    "a description for no session": ({"session": None, "description": "x"}, 'only with session="new"'),
    "a description for a session that is": ({"session": "sess_x", "description": "x"}, 'only with session="new"'),
    "too many tags": ({"tags": ["x"] * (TAGS_MAX + 1)}, "at most 64 tags"),
    "an empty tag": ({"tags": [""]}, "a tag must be"),
    "a long tag": ({"tags": ["x" * (LABEL_VALUE_MAX + 1)]}, "a tag must be"),
    "a tag that is no text": ({"tags": ["x", 5]}, "a tag must be"),
    "tags for no session": ({"session": None, "tags": ["x"]}, 'only with session="new"'),
    "tags for a session that is": ({"session": "sess_x", "tags": ["x"]}, 'only with session="new"'),
    "labels for no session": ({"session": None, "labels": {"a": "b"}}, 'only with session="new"'),
    "labels for a session that is": ({"session": "sess_x", "labels": {"a": "b"}}, 'only with session="new"'),
    "an unknown worker": ({"worker": "w_999"}, "has no worker w_999"),
    "an empty worker": ({"worker": ""}, "has no worker"),
    "a worker for a session that is": ({"session": "sess_x", "worker": "w_1"}, 'only with session="new"'),
}


@pytest.mark.parametrize(("fields", "words"), BAD_OPENS.values(), ids=BAD_OPENS)
def test_an_open_that_cannot_be(
    client: Client, opened: Callable[..., dict[str, Any]], fields: dict[str, Any], words: str
):
    client.session(COUNTER).end()
    error = opened(**fields)
    assert (error["code"], words in error["message"]) == ("INVALID_REQUEST", True), error
    assert client.sessions.list() == []


def test_an_open_with_all_that_it_can_have(control: Control, opened: Callable[..., dict[str, Any]]):
    said = {"name": "é" * NAME_MAX, "description": "d" * DESCRIPTION_MAX, "tags": ["t" * LABEL_VALUE_MAX] * TAGS_MAX}
    session = opened(**said)["id"]
    info = control.ask("sessions.get", session_id=session)
    assert {name: info[name] for name in said} == said
    control.ask("sessions.end", session_id=session)
    info = control.ask("sessions.get", session_id=session)
    assert {name: info[name] for name in said} == said, "it is remembered"


BAD_PARAMETERS: dict[str, list[tuple[str, list[Any]]]] = {
    "sessions.list": [
        ("app", [5, "", [], True]),
        ("status", ["open", "", 5, ["active"], True]),
        ("name_prefix", [5, "", []]),
        ("limit", [0, -1, PAGE_MAX + 1, 1.0, "1", True, []]),
        ("cursor", [5, "", "x", "-1", "1.5", "9" * 19, "sess_x", []]),
        ("all", [True]),
    ],
    "sessions.get": [("session_id", [None, 5, "", []]), ("settle", [1, None]), ("memory", ["yes", 0])],
    "sessions.keepalive": [("session_id", [None, 5, ""])],
    "sessions.end": [("session_id", [None, 5, ""]), ("force", [1, "yes", None])],
    "sessions.set_labels": [("session_id", [None, 5, ""])],
    "sessions.why": [("session_id", [None, 5, ""])],
    "sessions.logs": [
        ("session_id", [None, 5, ""]),
        ("offset", [-1, 1.5, "0", True, 2**63]),
        ("wait", [1, "yes", None]),
    ],
    "calls.cancel": [
        ("session_id", [None, 5, ""]),
        ("call_id", [0, -1, 2**63, 1.5, "1", True, []]),
        ("force", [1, "yes", None]),
    ],
}


@pytest.mark.parametrize("method", BAD_PARAMETERS)
def test_a_parameter_that_cannot_be_is_named_and_nothing_has_changed(control: Control, client: Client, method: str):
    with client.session(COUNTER) as session:
        session.call("add")
        before = state_of(control, session.id)
        good: dict[str, Any] = {} if method == "sessions.list" else {"session_id": session.id}
        if method == "sessions.set_labels":
            good["labels"] = {}
        for name, values in BAD_PARAMETERS[method]:
            for value in values:
                assert name in control.refused(method, **{**good, name: value}), value
        assert "does not take nonsense" in control.refused(method, **good, nonsense=1)
        assert state_of(control, session.id) == before
        assert session.call("add") == {"total": 2}


@pytest.mark.parametrize("method", sorted(set(BAD_PARAMETERS) - {"sessions.list"}))
def test_a_session_that_nobody_knows(control: Control, method: str):
    params = {"labels": {}} if method == "sessions.set_labels" else {}
    error = control.ask(method, session_id="sess_nobody", **params)
    assert (error["code"], error["session_id"]) == ("SESSION_NOT_FOUND", "sess_nobody")


@pytest.mark.parametrize("method", ["sessions.keepalive", "sessions.set_labels", "calls.cancel"])
def test_a_session_that_is_over_cannot_be_used_and_says_how_it_ended(control: Control, client: Client, method: str):
    session = client.session(COUNTER)
    session.end()
    params = {"labels": {"a": "b"}} if method == "sessions.set_labels" else {}
    error = control.ask(method, session_id=session.id, **params)
    assert (error["code"], error["details"]["end_reason"]) == ("SESSION_ENDED", "client")
    assert client.sessions.get(session.id).labels == {}


# --- names --------------------------------------------------------------------------------------------------------


def test_a_name_is_got_or_created_or_refused_with_its_holder(
    control: Control, client: Client, opened: Callable[..., dict[str, Any]]
):
    first = opened(name="vision/resnet50", session_timeout=300.0)
    again = opened(name="vision/resnet50", if_exists="attach", session_timeout=5.0)
    assert (again["id"], again["worker"]) == (first["id"], first["worker"])
    assert client.sessions.get(first["id"]).session_timeout == 300
    error = opened(name="vision/resnet50")
    assert (error["code"], error["session_id"]) == ("NAME_TAKEN", first["id"])
    again["raw"].say("Call", 1, "add", {})
    assert again["raw"].hear() == ["Result", 1, {"total": 1}]
    control.ask("sessions.end", session_id=first["id"])
    assert opened(name="vision/resnet50", if_exists="attach")["id"] != first["id"]


def test_one_that_attaches_by_a_name_and_leaves_at_once_ends_nothing(
    shared_daemon: Daemon, client: Client, opened: Callable[..., dict[str, Any]]
):
    """Its hello and its end are there at once when the daemon looks: it cannot be told, and the session is another's."""
    first = opened(name="mine")
    os.kill(shared_daemon.pid, signal.SIGSTOP)
    try:
        leaving = Raw.to(client.places.socket)
        leaving.say("Open", *Open(1, COUNTER, "new", "/", name="mine", if_exists="attach"))
        leaving.close()
    finally:
        os.kill(shared_daemon.pid, signal.SIGCONT)
    first["raw"].say("Call", 1, "add", {})
    assert first["raw"].hear() == ["Result", 1, {"total": 1}]
    assert client.sessions.get(first["id"]).status == "active"


def test_a_worker_may_be_wished_for(client: Client, opened: Callable[..., dict[str, Any]]):
    holder = opened()
    error = opened(worker=holder["worker"])
    assert (error["code"], error["session_id"]) == ("WORKER_LEASED", holder["id"])
    served = client.run(app=COUNTER, function="add").worker_id
    assert opened(worker=served)["code"] == "WORKER_LEASED", "it has served others"


# --- lists --------------------------------------------------------------------------------------------------------


def test_a_list_is_of_what_is_asked_for_page_by_page(control: Control, opened: Callable[..., dict[str, Any]]):
    ids = [
        opened(app, labels=labels, name=name)["id"]
        for app, labels, name in (
            (COUNTER, {"project": "demo"}, "vision/a"),
            (COUNTER, {"project": "demo", "user": "ann"}, "vision/b"),
            (COUNTER, {"project": "other"}, None),
            (LIMITED, {"project": "demo"}, "text"),
        )
    ]
    control.ask("sessions.end", session_id=ids[2])

    def found(**query: Any) -> list[int]:
        page = control.ask("sessions.list", **query)
        shown = [ids.index(info["id"]) for info in page["sessions"] if info["id"] in ids]
        assert page["total"] >= len(shown)
        return shown

    assert found() == [3, 1, 0]
    assert found(status="all") == [3, 2, 1, 0]
    assert found(status="ended")[:1] == [2]
    assert found(status="expired") == []
    assert found(labels={"project": "demo"}) == [3, 1, 0]
    assert found(labels={"project": "demo", "user": "ann"}) == [1]
    assert found(app="limited") == [3]
    assert found(name_prefix="vision/") == [1, 0]
    assert found(app="counter", name_prefix="v", labels={"user": "bob"}) == []
    page = control.ask("sessions.list", limit=2)
    assert ([info["id"] for info in page["sessions"]], page["total"]) == ([ids[3], ids[1]], 3)
    control.ask("sessions.end", session_id=ids[1])
    opened(COUNTER)
    page = control.ask("sessions.list", limit=2, cursor=page["cursor"])
    assert ([info["id"] for info in page["sessions"]], page["total"], page["cursor"]) == ([ids[0]], 3, None)


# --- memory -------------------------------------------------------------------------------------------------------


def test_the_memory_of_a_session_is_told_when_it_is_asked_for(control: Control, client: Client):
    with client.session(str(APPS / "takes_memory.py")) as session:
        assert "private_bytes" not in control.ask("sessions.get", session_id=session.id)
        before = control.ask("sessions.get", session_id=session.id, memory=True)
        session.call("take", megabytes=20)
        after = control.ask("sessions.get", session_id=session.id, memory=True)
        assert 20 * MIB <= after["private_bytes"] - before["private_bytes"] < 24 * MIB
        assert before["shared_bytes"] > 4 * MIB, "the interpreter, pydantic and the app are the template's too"
        assert before["private_bytes"] < before["shared_bytes"]
        assert after["call_count"] == 1
    info = control.ask("sessions.get", session_id=session.id, memory=True)
    assert (info["private_bytes"], info["shared_bytes"], info["status"]) == (None, None, "ended")
    peak = re.search(r"at most (\d+)\.\d MiB", texts(why(control, session.id))[-1])
    assert peak
    assert int(peak[1]) > 20


def test_the_memory_of_one_that_has_just_died_is_none(control: Control, client: Client, shared_daemon: Daemon):
    session = client.session(COUNTER)
    pid = session.info().pid
    control.socket.settimeout(PATIENCE)
    os.kill(shared_daemon.pid, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        assert wait_for_exit(pid)
        control.say("Request", 7, "sessions.get", {"session_id": session.id, "memory": True})
    finally:
        os.kill(shared_daemon.pid, signal.SIGCONT)
    answer = control.hear()
    assert answer is not None
    assert (answer[0], answer[2]["private_bytes"]) == ("Reply", None)


# --- why ----------------------------------------------------------------------------------------------------------


def why(control: Control, session_id: str) -> dict[str, Any]:
    told = control.ask("sessions.why", session_id=session_id)
    assert told["session_id"] == session_id
    times = [datetime.fromisoformat(entry["time"]) for entry in told["entries"]]
    assert times == sorted(times)
    return dict(told)


def texts(told: dict[str, Any]) -> list[str]:
    return [entry["text"] for entry in told["entries"]]


def test_why_tells_the_life_of_a_session(control: Control, client: Client):
    with client.session(COUNTER) as session:
        session.call("add")
        for _ in range(3):
            session.keepalive()
        told = why(control, session.id)
        assert (told["status"], told["end_reason"]) == ("active", None)
        opened = next(text for text in texts(told) if text.startswith("opened"))
        assert re.fullmatch(rf"opened by pid {os.getpid()} in .*; {session.worker_id} serves it", opened)
        assert ("slid by a keepalive", 3) in [(entry["text"], entry["count"]) for entry in told["entries"]]
        assert "calls so far: 1, none runs" in texts(told)
    told = why(control, session.id)
    assert (told["status"], told["end_reason"]) == ("ended", "client")
    assert texts(told)[-2] == "ended: client"
    last = rf"{session.worker_id} exited with status 0; at most \d+\.\d MiB of memory; 1 calls"
    assert re.fullmatch(last, texts(told)[-1])


def test_why_tells_what_an_open_waited_for(control: Control, client: Client):
    holder = client.session(LIMITED)
    waiting = threading.Thread(target=holder.end)
    with closing(Raw.to(client.places.socket)) as raw:
        raw.say("Open", *Open(1, LIMITED, "new", "/"))
        control.ask("daemon.status")
        waiting.start()
        answer = raw.hear()
        waiting.join()
    assert answer is not None
    told = texts(why(control, answer[2]))
    assert told[0] == "waited: the app has its 1 workers (its `max_workers`), all in use"
    assert re.search(r"after \d\.\d\d\d s in line", told[-1])


def test_why_tells_of_one_that_was_lost_and_its_last_lines(control: Control, client: Client):
    session = client.session(str(APPS / "prints.py"))
    for number in range(20):
        session.call("say", text=f"line {number}")
    os.kill(session.info().pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        session.call("say", text="never")
    told = why(control, session.id)
    assert (told["status"], told["end_reason"]) == ("ended", "worker_lost")
    assert "was killed by SIGKILL that we did not send" in texts(told)[-1]
    assert [line.rpartition(" ")[2] for line in told["log"]] == [str(number) for number in range(10, 20)]


# --- cancels ------------------------------------------------------------------------------------------------------


class Call:
    """A call that is stuck, in a session of its own."""

    def __init__(self, client: Client, control: Control, app: str, function: str, call_id: int = 2**40 + 1) -> None:
        self.session = client.session(app)
        self.pid = self.session.info().pid
        _, self.raw = to_worker(client.places.socket, None, self.session.id)
        self.call_id = call_id
        self.raw.say("Call", call_id, function, {})
        self.log = follow(control, self.session.id, "begun")
        while function == "hold_the_gil" and not is_asleep(self.pid):
            look_again()  # it is about to be

    def answer(self) -> list[Any] | None:
        return self.raw.hear()


def follow(control: Control, session_id: str, until: str) -> str:
    """The session's log, up to where it tells `until`."""
    text, offset = "", 0
    while until not in text:
        piece = control.ask("sessions.logs", session_id=session_id, offset=offset, wait=True)
        assert not piece["end"], text
        text, offset = text + piece["text"], piece["offset"]
    return text


@pytest.fixture
def begin(client: Client, control: Control) -> Iterator[Callable[..., Call]]:
    calls: list[Call] = []

    def begin(app: str, function: str, **how: Any) -> Call:
        calls.append(Call(client, control, app, function, **how))
        return calls[-1]

    yield begin
    for call in calls:
        control.ask("sessions.end", session_id=call.session.id, force=True)
        call.raw.close()


def test_a_call_that_sleeps_is_cancelled_and_the_session_lives(
    control: Control, client: Client, begin: Callable[..., Call]
):
    call = begin(STUCK, "sleep")
    info = client.sessions.get(call.session.id)
    assert (info.busy, info.call_id) == (True, call.call_id)
    asked = control.ask("calls.cancel", session_id=call.session.id, call_id=call.call_id)
    assert asked == {"call_id": call.call_id, "state": "running"}
    answer = call.answer()
    assert answer is not None
    assert (answer[:2], answer[2]["code"]) == (["Failure", call.call_id], "CALL_CANCELLED")
    assert control.ask("calls.cancel", session_id=call.session.id) == {"call_id": None, "state": "idle"}
    call.raw.say("Call", 5, "fine", {"value": 5})
    assert call.answer() == ["Result", 5, 5]
    told = why(control, call.session.id)
    assert "cancel of call 1 asked for, 10 s given" in texts(told)
    assert told["status"] == "active"


def test_a_call_that_waits_behind_another_is_cancelled_and_never_begins(control: Control, begin: Callable[..., Call]):
    call = begin(STUCK, "sleep")
    call.raw.say("Call", call.call_id + 1, "clean_up", {})
    asked = control.ask("calls.cancel", session_id=call.session.id, call_id=call.call_id + 1)
    assert asked == {"call_id": call.call_id + 1, "state": "waiting"}
    control.ask("calls.cancel", session_id=call.session.id)
    for number in (call.call_id, call.call_id + 1):
        answer = call.answer()
        assert answer is not None
        assert (answer[1], answer[2]["code"]) == (number, "CALL_CANCELLED")
    call.raw.say("Call", 5, "seen", {})
    answer = call.answer()
    assert answer is not None
    assert answer[2][1] == 0, "nothing was cleaned up"


def test_a_call_that_holds_the_interpreter_is_stopped_by_force_with_its_stack_in_the_log(
    control: Control, client: Client, begin: Callable[..., Call]
):
    call = begin(STUCK, "hold_the_gil")
    asked = control.ask("calls.cancel", session_id=call.session.id, force=True)
    assert asked == {"call_id": call.call_id, "state": "running"}
    assert wait_for_exit(call.pid), "told to stop, to die, and killed"
    assert call.answer() is None
    info = control.ask("sessions.get", session_id=call.session.id, settle=True)
    assert (info["status"], info["end_reason"]) == ("ended", "unresponsive")
    with pytest.raises(SessionEndedError) as raised:
        call.session.call("fine")
    assert raised.value.end_reason == "unresponsive"
    told = why(control, call.session.id)
    said = texts(told)
    assert "call 1 did not stop: its stack goes to the log" in said
    assert any("SIGTERM" in text for text in said)
    assert "was killed by SIGTERM" in said[-1]
    log = control.ask("sessions.logs", session_id=call.session.id)["text"]
    assert "in hold_the_gil" in log


def test_a_call_that_does_not_stop_in_its_apps_grace_is_stopped(control: Control, begin: Callable[..., Call]):
    call = begin(IMPATIENT, "ignore")
    control.ask("calls.cancel", session_id=call.session.id)
    assert call.answer() is None
    assert wait_for_exit(call.pid)
    info = control.ask("sessions.get", session_id=call.session.id, settle=True)
    assert (info["status"], info["end_reason"]) == ("ended", "unresponsive")
    assert "cancel of call 1 asked for, 0.1 s given" in texts(why(control, call.session.id))
    log = control.ask("sessions.logs", session_id=call.session.id)["text"]
    assert log.index("ignored") < log.index("in ignore"), "told first, then its stack"


def test_one_that_is_ended_and_whose_call_does_not_stop_is_killed_after_its_grace(
    control: Control, begin: Callable[..., Call]
):
    call = begin(IMPATIENT, "hold_the_gil")
    info = control.ask("sessions.end", session_id=call.session.id)
    assert wait_for_exit(call.pid, 0)
    assert (info["status"], info["end_reason"]) == ("ended", "client")


def test_an_idle_session_ends_when_its_apps_lifetime_is_over(control: Control, client: Client):
    session = client.session(f"{APPS / 'limits.py'}:Grace", session_timeout=300)
    assert wait_for_exit(session.info().pid)
    info = control.ask("sessions.get", session_id=session.id, settle=True)
    assert (info["status"], info["end_reason"]) == ("ended", "max_lifetime")
    assert "ended: max_lifetime" in texts(why(control, session.id))
    assert "ended: max_lifetime" in control.ask("sessions.logs", session_id=session.id)["text"], "the hook was told so"


@pytest.mark.parametrize("kind", ["EndsInSetup", "EndsInAsyncSetup"])
def test_a_session_that_its_apps_setup_has_ended_is_ended(client: Client, kind: str):
    with pytest.raises(SessionEndedError) as raised:
        client.session(f"{APPS / 'limits.py'}:{kind}").call("fine")
    assert raised.value.details["end_reason"] == "app"


@pytest.mark.parametrize("kind", ["Plain", "Async"])
def test_an_app_ends_its_session_while_nobody_calls(control: Control, client: Client, kind: str):
    session = client.session(f"{APPS / 'limits.py'}:{kind}", session_timeout=300)
    pid = session.info().pid
    session.call("end_later")
    assert wait_for_exit(pid)
    info = control.ask("sessions.get", session_id=session.id, settle=True)
    assert (info["status"], info["end_reason"]) == ("ended", "app")


def test_one_that_is_ended_in_the_middle_of_a_call_has_its_call_cancelled_first(
    control: Control, begin: Callable[..., Call]
):
    call = begin(STUCK, "sleep")
    info = control.ask("sessions.end", session_id=call.session.id)
    answer = call.answer()
    assert answer is not None
    assert answer[2]["code"] == "CALL_CANCELLED"
    assert (info["status"], info["end_reason"]) == ("ended", "client")
    assert "exited with status 0" in texts(why(control, call.session.id))[-1], "it went of itself"


def test_one_that_is_ended_by_force_is_killed_in_the_middle_of_a_call(control: Control, begin: Callable[..., Call]):
    call = begin(STUCK, "clean_up")
    info = control.ask("sessions.end", session_id=call.session.id, force=True)
    assert wait_for_exit(call.pid, 0), "it is answered when the worker is gone"
    assert call.answer() is None
    assert (info["status"], info["end_reason"]) == ("ended", "client")
    assert "SIGKILL" in texts(why(control, call.session.id))[-1]


def test_one_that_is_ended_patiently_can_be_ended_by_force_meanwhile(
    control: Control, client: Client, begin: Callable[..., Call]
):
    call = begin(STUCK, "hold_the_gil")
    control.say("Request", 1, "sessions.end", {"session_id": call.session.id})
    assert not select.select([control.socket], [], [], 0.05)[0], "its call has ten seconds"
    assert client.request("sessions.end", session_id=call.session.id, force=True)["end_reason"] == "client"
    answer = control.hear()
    assert answer is not None
    assert answer[:2] == ["Reply", 1]


def test_a_daemon_that_is_stopped_waits_for_no_stuck_call(start_daemon: Callable[..., Daemon]):
    daemon = start_daemon()
    control = Control.to(daemon.socket)
    call = Call(daemon.client, control, STUCK, "hold_the_gil")
    daemon.stop()
    assert wait_for_exit(call.pid, 0)
    call.raw.close()
    control.close()
