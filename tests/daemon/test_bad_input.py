"""Whatever a client sends, it gets the named error, and nothing else changes: not the daemon, not a session."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
from support import APPS, PATIENCE, Daemon, Raw, framed, in_frame, look_again

from warmpool import AppNotFoundError, Client, InvalidRequestError
from warmpool.constants import CONTROL_FRAME_LIMIT, HELLO_TIMEOUT, MIB
from warmpool.wire.messages import PROTOCOL_VERSION, Open

COUNTER = str(APPS / "counter.py")
ASYNC_COUNTER = str(APPS / "async_counter.py")
LIMITED = str(APPS / "limited.py")
CALL_FRAME_LIMIT = 16 * MIB


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HELLO = framed(["Control", PROTOCOL_VERSION])


def an_open(**fields: Any) -> bytes:
    """An Open that would be served, but for `fields`."""
    good = {
        "id": 7,
        "app": COUNTER,
        "session": "new",
        "cwd": "/",
        "session_timeout": None,
        "open_timeout": None,
        "labels": {},
        "name": None,
        "if_exists": "error",
        "description": None,
        "tags": [],
        "worker": None,
    }
    assert not fields.keys() - good.keys()
    return framed(["Open", *(good | fields).values()])


@pytest.fixture(scope="module")
def used_apps(shared_daemon: Daemon) -> None:
    """The apps of this module are loaded: two that keep a warm worker, and one that keeps none."""
    for app in (COUNTER, ASYNC_COUNTER, LIMITED):
        shared_daemon.client.session(app).end()


@pytest.fixture
def connect(client: Client, shared_daemon: Daemon, used_apps: None) -> Iterator[Callable[[], Raw]]:
    """Raw connections to the shared daemon. At the end the daemon has as many descriptors, children and sessions as
    before, and has written no traceback.
    """
    before = state_at_rest(client, shared_daemon)
    logged = len(shared_daemon.text_of_log())
    made: list[Raw] = []

    def make() -> Raw:
        made.append(Raw.to(shared_daemon.socket, greet=False))
        return made[-1]

    yield make
    for raw in made:
        raw.close()
    for info in client.sessions.list():
        client.sessions.end(info.id)
    deadline = time.monotonic() + 5
    while not is_no_more(after := state_at_rest(client, shared_daemon), before):
        assert time.monotonic() < deadline, f"{after}, before it was {before}"
    assert "Traceback" not in shared_daemon.text_of_log()[logged:]


def state_at_rest(client: Client, daemon: Daemon) -> dict[str, Any]:
    """Counts of the daemon, when its warm workers are there and no other ones."""
    deadline = time.monotonic() + 5
    while (status := client.status()).workers_by_state != {"warm": 2} and time.monotonic() < deadline:
        look_again()
    process = psutil.Process(daemon.pid)
    return {
        "sessions": status.sessions,
        "workers": status.workers_by_state,
        "fds": process.num_fds(),
        "children": len(process.children()),
    }


def is_no_more(after: dict[str, Any], before: dict[str, Any]) -> bool:
    """A connection of the test before may have been on its way out when this one began."""
    return all(
        after[name] <= before[name] if type(after[name]) is int else after[name] == before[name] for name in after
    )


def is_usable(client: Client) -> bool:
    with client.session(COUNTER) as session:
        return session.call("add") == {"total": 1}


def open_on(control: Raw, **fields: Any) -> list[Any]:
    """What an Open is answered with."""
    control.send(an_open(**fields))
    answer = control.hear()
    assert answer is not None, "closed without a word"
    assert answer[1] == 7, answer
    return answer


def assert_goes_on(control: Raw) -> None:
    control.say("Request", 8, "daemon.status", {})
    answer = control.hear()
    assert answer is not None
    assert answer[:2] == ["Reply", 8]


def assert_refused(raw: Raw, code: str, *words: str) -> None:
    """The named error with id 0, and the end of the connection."""
    answer = raw.hear()
    assert answer is not None, f"closed without a word instead of {code}"
    name, number, error = answer
    assert (name, number, error["code"]) == ("Failure", 0, code), answer
    for word in words:
        assert word in error["message"]
    assert raw.hear() is None


# --- the hello ----------------------------------------------------------------------------------------------------

NOT_MESSAGES = {
    "a length and no more": b"\0\0\0\0",
    "no msgpack": in_frame(b"\xc1\xc1\xc1"),
    "bad utf-8": in_frame(b"\x92\xa4Open\xa2\xff\xfe"),
    "two values": in_frame(msgpack.packb(["Control", PROTOCOL_VERSION]) * 2),
    "half a value": in_frame(msgpack.packb(["Control", PROTOCOL_VERSION])[:-1]),
    "deeper than msgpack goes": in_frame(b"\x91" * 2000 + b"\x01"),
    "an array of four billion": in_frame(b"\xdd\xff\xff\xff\xff"),
    "a nest of large arrays": in_frame(b"\xdd\x00\x0f\x42\x40" * 500),
    "a number": framed(5),
    "a text": framed("Control"),
    "a map": framed({"Control": PROTOCOL_VERSION}),
    "nothing": framed(None),
    "an empty array": framed([]),
    "no name": framed([1, 2]),
    "a deep name": framed([nested(900), 1]),
    "an unknown message": framed(["Nonsense", 1]),
    "a long unknown message": framed(["x" * 60_000]),
    "a name in bytes": framed([b"Control", PROTOCOL_VERSION]),
}


@pytest.mark.parametrize("data", NOT_MESSAGES.values(), ids=NOT_MESSAGES)
def test_a_hello_that_is_no_message(connect: Callable[[], Raw], data: bytes):
    raw = connect()
    raw.socket.sendall(data)
    assert_refused(raw, "PROTOCOL_ERROR")


@pytest.mark.parametrize(
    "message",
    [
        ["Request", 1, "daemon.stop", {}],
        ["Call", 1, "add", {}],
        ["Reply", 1, None],
        ["Result", 1, None],
        ["Failure", 0, {}],
        ["Open", 1, COUNTER, "new", "/"],
        ["Abandon", 1],
        ["Opened", 1, "sess_x", "counter", "1", "w_1", 1, 1, None],
        ["Stop", "client"],
        ["Attach", "sess_x", "/", {}],
        ["Fork", "w_1", 0, False],
        ["Leaving", "idle"],
    ],
    ids=lambda message: message[0],
)
def test_a_message_of_another_conversation_is_no_hello(connect: Callable[[], Raw], message: list[Any]):
    raw = connect()
    raw.say(*message)
    assert_refused(raw, "PROTOCOL_ERROR", message[0])


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff\xff", struct.pack("!I", CONTROL_FRAME_LIMIT + 1), b"GET / HTTP/1.1\r\n\r\n"],
    ids=["4 GiB", "64 KiB and 1", "HTTP"],
)
def test_a_header_that_claims_too_much_is_enough(connect: Callable[[], Raw], data: bytes):
    raw = connect()
    raw.socket.sendall(data)
    assert_refused(raw, "PAYLOAD_TOO_LARGE", str(CONTROL_FRAME_LIMIT))


LONG_LABELS = {f"label {number}": "x" * 256 for number in range(64)}

WRONG_TYPES = {
    "id": ["1", None, 1.0, True, [1], b"1"],
    "app": [5, b"counter", [COUNTER], {}, False],
    "session": [5, b"new", ["new"], {}, True],
    "cwd": [None, 5, b"/", ["/"]],
    "session_timeout": ["60", True, [60], b"60", {}],
    "open_timeout": ["1", False, [1], {}],
    "labels": [None, [], "x", 5, [["a", "b"]]],
    "name": [5, b"x", ["x"], {}, True],
    "if_exists": [None, 5, b"error", ["error"], True],
    "description": [5, b"x", ["x"], {}, True],
    "tags": [None, "x", 5, {}, {"a": "b"}],
    "worker": [5, b"w_1", ["w_1"], {}, True],
}


def test_a_hello_that_lacks_its_field(connect: Callable[[], Raw]):
    raw = connect()
    raw.say("Control")
    assert_refused(raw, "PROTOCOL_ERROR", "fields")


@pytest.mark.parametrize("value", ["1", None, 1.0, True, [1], b"1"], ids=repr)
def test_a_hello_of_a_version_that_is_none(connect: Callable[[], Raw], value: object):
    raw = connect()
    raw.say("Control", value)
    assert_refused(raw, "PROTOCOL_ERROR", "Control.protocol")


@pytest.mark.parametrize("more", [[1], ["yes", True], [True, None], [True, True, True]], ids=repr)
def test_a_hello_with_fields_that_are_none(connect: Callable[[], Raw], more: list[object]):
    raw = connect()
    raw.say("Control", PROTOCOL_VERSION, *more)
    assert_refused(raw, "PROTOCOL_ERROR", "Control")


@pytest.mark.parametrize("field_more", [False, True], ids=["same fields", "a field more"])
@pytest.mark.parametrize(("version", "old"), [(PROTOCOL_VERSION - 1, "client"), (PROTOCOL_VERSION + 1, "daemon")])
def test_another_protocol_is_told_which_side_is_old(
    connect: Callable[[], Raw], version: int, old: str, field_more: bool
):
    """A newer one may have added a field: its version comes first all the same."""
    more = ["new in the next version"] if field_more else []
    raw = connect()
    raw.say("Control", version, *more)
    assert_refused(raw, "PROTOCOL_ERROR", f"the {old} is the older side")


def test_a_request_that_is_refused_with_the_connection_leaves_nothing_in_line(daemon: Daemon):
    """An id of 0 means the connection itself."""
    with daemon.client.session(LIMITED) as holder, Raw.to(daemon.socket) as raw:
        raw.say("Open", *Open(1, LIMITED, None, "/", open_timeout=PATIENCE))
        raw.say("Request", 0, "no.such", {})
        assert_refused(raw, "INVALID_REQUEST", "no method")
        holder.end()
    assert daemon.client.run(app=LIMITED, open_timeout=5).output == "ran"


def test_a_hello_that_ends_in_the_middle(connect: Callable[[], Raw]):
    for size in range(1, len(HELLO)):
        raw = connect()
        raw.send(HELLO[:size])
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.hear() is None


def test_a_hello_and_an_open_in_single_bytes(connect: Callable[[], Raw]):
    raw = connect()
    for byte in HELLO + an_open():
        raw.send(bytes([byte]))
    answer = raw.hear()
    assert answer is not None
    assert answer[:2] == ["Opened", 7]


# --- opens --------------------------------------------------------------------------------------------------------


@pytest.fixture
def control(connect: Callable[[], Raw]) -> Raw:
    raw = connect()
    raw.send(HELLO)
    return raw


def test_an_open_of_64_kib_is_read_and_one_byte_more_is_not(control: Raw):
    room = CONTROL_FRAME_LIMIT + len(struct.pack("!I", 0)) - len(an_open(cwd="/" + "y" * 60_000))
    assert open_on(control, cwd="/" + "y" * (60_000 + room))[0] == "Opened"
    control.send(an_open(cwd="/" + "y" * (60_001 + room)))
    assert_refused(control, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_an_open_with_a_field_of_a_wrong_type(connect: Callable[[], Raw], field: str):
    for value in WRONG_TYPES[field]:
        raw = connect()
        raw.send(HELLO + an_open(**{field: value}))
        assert_refused(raw, "PROTOCOL_ERROR", f"Open.{field}")


@pytest.mark.parametrize("message", [["Open"], ["Open", 1, COUNTER, "new"]], ids=["none", "half"])
def test_an_open_that_lacks_fields(control: Raw, message: list[Any]):
    control.say(*message)
    assert_refused(control, "PROTOCOL_ERROR", "fields")


def test_the_last_fields_of_an_open_may_be_missing_and_there_are_no_more(control: Raw):
    fields = [7, COUNTER, "new", "/", None, None, {}, None, "error", None, [], None]
    for count in range(4, len(fields) + 1):
        control.say("Open", *fields[:count])
        answer = control.hear()
        assert answer is not None
        assert answer[:2] == ["Opened", 7], answer
        with control.take() as worker:
            worker.say("Call", 1, "add", {})
            assert worker.hear() == ["Result", 1, {"total": 1}]
    control.say("Open", *fields, None)
    assert_refused(control, "PROTOCOL_ERROR", "Open has 12 fields, not 13")


def test_an_id_of_an_open_that_is_not_answered_yet_cannot_be_used_again(control: Raw, client: Client):
    """The first keeps its place in the line."""
    with client.session(LIMITED) as session:
        control.send(an_open(app=LIMITED))
        answer = open_on(control, app=LIMITED)
        assert (answer[0], answer[2]["code"]) == ("Failure", "PROTOCOL_ERROR")
        session.end()
        answer = control.hear()
    assert answer is not None
    assert answer[:2] == ["Opened", 7]


ILLEGAL_VALUES = {
    "a window too short": ({"session_timeout": 0.5}, "INVALID_REQUEST"),
    "a window too long": ({"session_timeout": 3601}, "INVALID_REQUEST"),
    "a window that is no number": ({"session_timeout": float("nan")}, "INVALID_REQUEST"),
    "a window without an end": ({"session_timeout": float("inf")}, "INVALID_REQUEST"),
    "a window for a stateless call": ({"session": None, "session_timeout": 5}, "INVALID_REQUEST"),
    "a window for a session that is": ({"session": "sess_nobody", "session_timeout": 5}, "INVALID_REQUEST"),
    "a negative patience": ({"open_timeout": -1}, "INVALID_REQUEST"),
    "an endless patience": ({"open_timeout": float("inf")}, "INVALID_REQUEST"),
    "no app": ({"app": None}, "INVALID_REQUEST"),
    "no app and no session": ({"app": None, "session": None}, "INVALID_REQUEST"),
    "an empty app": ({"app": ""}, "INVALID_REQUEST"),
    "an app of colons": ({"app": "a:b:c:d"}, "INVALID_REQUEST"),
    "labels with numbers": ({"labels": {"a": 1}}, "INVALID_REQUEST"),
    "labels by number": ({"labels": {1: "a"}}, "INVALID_REQUEST"),
    "labels by tuple": ({"labels": {(1, 2): "a"}}, "INVALID_REQUEST"),
    "labels that nest": ({"labels": {"a": {"b": "c"}}}, "INVALID_REQUEST"),
    "an unknown app": ({"app": "nobody"}, "APP_NOT_FOUND"),
    "an unknown path": ({"app": "/nowhere/app.py"}, "APP_NOT_FOUND"),
    "a directory": ({"app": "/"}, "APP_NOT_FOUND"),
    "a relative path to nothing": ({"app": "./nothing.py", "cwd": "nowhere"}, "INVALID_REQUEST"),
    "an unknown module": ({"app": "no.such.module:App"}, "APP_NOT_FOUND"),
    "a module of dots": ({"app": "a..b:App"}, "APP_NOT_FOUND"),
    "an unknown class": ({"app": f"{COUNTER}:Nobody"}, "APP_BROKEN"),
    "another version": ({"app": f"{COUNTER}@nope"}, "VERSION_MISMATCH"),
    "a name with white space": ({"name": "a b"}, "INVALID_REQUEST"),
    "an attach to no name": ({"if_exists": "attach"}, "INVALID_REQUEST"),
    "a long description": ({"description": "x" * 1001}, "INVALID_REQUEST"),
    "tags that nest": ({"tags": [["x"]]}, "INVALID_REQUEST"),
    "an unknown worker": ({"worker": "w_999"}, "INVALID_REQUEST"),
    "an unknown session": ({"session": "sess_nobody"}, "SESSION_NOT_FOUND"),
    "an empty session": ({"session": ""}, "SESSION_NOT_FOUND"),
}


@pytest.mark.parametrize(("fields", "code"), ILLEGAL_VALUES.values(), ids=ILLEGAL_VALUES)
def test_an_open_with_an_illegal_value(control: Raw, fields: dict[str, Any], code: str):
    answer = open_on(control, **fields)
    assert (answer[0], answer[2]["code"]) == ("Failure", code), answer
    assert_goes_on(control)


ODD_NAMES = {
    "a name longer than files have": ({"app": f"/{'a' * 300}.py"}, "APP_NOT_FOUND"),
    "a path longer than paths are": ({"app": f"/{'a/' * 4000}b.py"}, "APP_NOT_FOUND"),
    "a path with a zero": ({"app": "/a\0b.py"}, "INVALID_REQUEST"),
    "a path through a file": ({"app": f"{COUNTER}/b.py"}, "APP_NOT_FOUND"),
    "a module with a zero": ({"app": "a\0b:App"}, "INVALID_REQUEST"),
    "a module of a place with a zero": ({"app": "a:App", "cwd": "/tmp\0"}, "INVALID_REQUEST"),
    "a place with a zero": ({"cwd": "/tmp\0x"}, None),
    "a place longer than paths are": ({"cwd": "/" + "a" * 5000}, None),
    "a place that is not there": ({"cwd": "/nowhere"}, None),
    "a long name that does not parse": ({"app": "\1" * 60_000 + "@@"}, "INVALID_REQUEST"),
    "a long unknown name": ({"app": "\1" * 60_000}, "APP_NOT_FOUND"),
    "a long unknown session": ({"session": "\1" * 60_000}, "SESSION_NOT_FOUND"),
}


@pytest.mark.parametrize(("fields", "code"), ODD_NAMES.values(), ids=ODD_NAMES)
def test_an_open_with_a_name_that_nobody_expects(
    control: Raw, client: Client, fields: dict[str, Any], code: str | None
):
    """Where no code is named a session may be had as well, if it can be used."""
    answer = open_on(control, **fields)
    if code is not None:
        assert (answer[0], answer[2]["code"]) == ("Failure", code), answer
    elif answer[0] == "Opened":
        with control.take() as worker:
            worker.say("Call", 1, "add", {})
            assert worker.hear() == ["Result", 1, {"total": 1}]
        assert client.sessions.get(answer[2]).status == "active"


@pytest.mark.parametrize(
    "more",
    [b"\xff\xff\xff\xff", HELLO, framed(["Call", 1, "run", {}])],
    ids=["a large header", "a second hello", "a call"],
)
def test_nonsense_behind_an_open_that_is_in_line(connect: Callable[[], Raw], client: Client, more: bytes):
    """The place in the line is lost, others keep theirs."""
    with client.session(LIMITED) as session:
        raw, other = connect(), connect()
        for waiting in (raw, other):
            waiting.send(HELLO + an_open(app=LIMITED))
        client.status()
        raw.send(more)
        answer = raw.hear()
        assert answer is not None
        assert (answer[0], answer[1]) == ("Failure", 0)
        session.end()
        answer = other.hear()
        assert answer is not None
        assert answer[0] == "Opened"
    assert is_usable(client)


def test_a_client_that_leaves_right_after_its_open(connect: Callable[[], Raw], client: Client, shared_daemon: Daemon):
    """Its open and its end are there at once when the daemon looks. A session that nobody was told of is nobody's."""
    os.kill(shared_daemon.pid, signal.SIGSTOP)
    try:
        raw = connect()
        raw.send(HELLO + an_open(session_timeout=3600))
        raw.close()
    finally:
        os.kill(shared_daemon.pid, signal.SIGCONT)
    deadline = time.monotonic() + 3
    while client.sessions.list():
        assert time.monotonic() < deadline, "a session that nobody knows is held for an hour"


# --- control requests ---------------------------------------------------------------------------------------------

METHODS: dict[str, dict[str, Any]] = {
    "sessions.get": {"session_id": "sess_nobody"},
    "sessions.list": {},
    "sessions.keepalive": {"session_id": "sess_nobody"},
    "sessions.end": {"session_id": "sess_nobody"},
    "sessions.set_labels": {"session_id": "sess_nobody", "labels": {}},
    "sessions.why": {"session_id": "sess_nobody"},
    "sessions.logs": {"session_id": "sess_nobody"},
    "calls.cancel": {"session_id": "sess_nobody"},
    "apps.list": {},
    "apps.get": {"app": COUNTER, "cwd": "/"},
    "apps.describe": {"app": COUNTER, "cwd": "/"},
    "daemon.status": {},
    "daemon.stop": {},
}
NO_TEXTS = [5, None, True, b"x", [], {}, "", nested(1000)]
NO_FLAGS = [1, 0, "yes", "", None, b"", [], nested(1000)]


def assert_invalid(control: Raw, method: str, params: Any, *words: str) -> None:
    """The request is refused by its id, and the connection goes on."""
    control.say("Request", 7, method, params)
    readable, _, _ = select.select([control.socket], [], [], 2)
    assert readable, f"{method} is not answered"
    answer = control.hear()
    assert answer is not None
    name, number, error = answer
    assert (name, number, error["code"]) == ("Failure", 7, "INVALID_REQUEST"), answer
    for word in words:
        assert word in error["message"]
    assert_goes_on(control)


def test_an_unknown_method_is_answered_with_those_there_are(control: Raw):
    for method in ("", "sessions", "sessions.open", "__init__", "x" * 60_000):
        assert_invalid(control, method, {}, *METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_parameter(control: Raw, method: str):
    for name in ("nonsense", 5, (1, 2), None, "x" * 60_000):
        assert_invalid(control, method, METHODS[method] | {name: 1}, "does not take")


@pytest.mark.parametrize("method", [method for method, params in METHODS.items() if params])
def test_a_missing_parameter(control: Raw, method: str):
    for missing in METHODS[method]:
        left = {name: value for name, value in METHODS[method].items() if name != missing}
        assert_invalid(control, method, left, missing)


@pytest.mark.parametrize("method", [method for method, params in METHODS.items() if params])
def test_a_parameter_that_must_be_a_text(control: Raw, method: str):
    for name in METHODS[method].keys() - {"labels"}:
        for value in NO_TEXTS:
            assert_invalid(control, method, METHODS[method] | {name: value}, method, name)


@pytest.mark.parametrize(
    ("method", "flag"),
    [
        ("sessions.get", "settle"),
        ("sessions.get", "memory"),
        ("sessions.end", "force"),
        ("sessions.logs", "wait"),
        ("calls.cancel", "force"),
    ],
)
def test_a_parameter_that_must_be_true_or_false(control: Raw, method: str, flag: str):
    for value in NO_FLAGS:
        assert_invalid(control, method, METHODS[method] | {flag: value}, f"{flag} of {method} must be true or false")


def test_a_description_of_what_is_no_app(control: Raw):
    for app, code in (("nobody", "APP_NOT_FOUND"), ("a:b:c", "INVALID_REQUEST"), (f"/{'a' * 300}.py", "APP_NOT_FOUND")):
        control.say("Request", 3, "apps.describe", {"app": app, "cwd": "/"})
        answer = control.hear()
        assert answer is not None, f"no answer for {app:.20}"
        assert (answer[0], answer[1], answer[2]["code"]) == ("Failure", 3, code)


REQUESTS_OF_WRONG_TYPES = {
    "id": [["1", "daemon.status", {}], [None, "daemon.status", {}], [1.5, "daemon.status", {}], [True, "x", {}]],
    "method": [[1, None, {}], [1, 5, {}], [1, b"daemon.status", {}], [1, ["daemon.status"], {}]],
    "params": [[1, "daemon.status", None], [1, "daemon.status", []], [1, "daemon.status", "{}"]],
}


@pytest.mark.parametrize("field", REQUESTS_OF_WRONG_TYPES)
def test_a_request_with_a_field_of_a_wrong_type(connect: Callable[[], Raw], field: str):
    for fields in REQUESTS_OF_WRONG_TYPES[field]:
        raw = connect()
        raw.say("Control", PROTOCOL_VERSION)
        raw.say("Request", *fields)
        assert_refused(raw, "PROTOCOL_ERROR", f"Request.{field}")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (HELLO, "PROTOCOL_ERROR"),
        (framed(["Call", 1, "add", {}]), "PROTOCOL_ERROR"),
        (framed(["Request", 1]), "PROTOCOL_ERROR"),
        (framed(["Abandon", "1"]), "PROTOCOL_ERROR"),
        (in_frame(b"\xc1"), "PROTOCOL_ERROR"),
        (b"\xff\xff\xff\xff", "PAYLOAD_TOO_LARGE"),
    ],
    ids=["another hello", "a call", "half a request", "an abandon of a text", "no msgpack", "4 GiB"],
)
def test_what_is_no_request_ends_a_control_connection(control: Raw, data: bytes, code: str):
    control.socket.sendall(data)
    assert_refused(control, code)


def test_requests_are_answered_by_their_ids_whatever_these_are(control: Raw):
    for number in (1, 1, -1, 2**63, 2**64 - 1):
        control.say("Request", number, "daemon.status", {})
        answer = control.hear()
        assert answer is not None
        assert answer[:2] == ["Reply", number]


def test_an_ordinary_clients_mistakes_reach_it_as_exceptions(client: Client):
    with pytest.raises(InvalidRequestError, match="does not take nonsense"):
        client.request("daemon.status", nonsense=1)
    assert client.status().sessions == 0


# --- clients that do not speak, or do not listen ------------------------------------------------------------------


def closed_in_time(raws: list[Raw]) -> float:
    """Waits until each is told that it said no hello and is closed; gives the seconds until the last was."""
    started = time.monotonic()
    for raw in raws:
        readable, _, _ = select.select([raw.socket], [], [], HELLO_TIMEOUT + 2)
        assert readable, "nobody minds that it says nothing"
        assert_refused(raw, "PROTOCOL_ERROR", "no hello")
    return time.monotonic() - started


def test_two_hundred_silent_clients_are_sent_away_and_hold_up_nobody(
    connect: Callable[[], Raw], control: Raw, client: Client
):
    """Whether they say nothing or half a hello. One that has said hello may be silent."""
    raws = [connect() for _ in range(200)]
    client.status()
    for index, raw in enumerate(raws[::20]):
        raw.send(HELLO[: 1 + index])
    for _ in range(5):
        assert is_usable(client)
    assert HELLO_TIMEOUT - 0.5 < closed_in_time(raws) < HELLO_TIMEOUT + 1.5
    control.say("Request", 1, "daemon.status", {})
    answer = control.hear()
    assert answer is not None
    assert answer[:2] == ["Reply", 1]


def test_a_client_that_says_half_a_hello_at_once_is_sent_away(connect: Callable[[], Raw], shared_daemon: Daemon):
    """Its bytes are there when the daemon first looks."""
    os.kill(shared_daemon.pid, signal.SIGSTOP)
    try:
        raws = [connect() for _ in range(10)]
        for index, raw in enumerate(raws):
            raw.send(HELLO[: 1 + index])
    finally:
        os.kill(shared_daemon.pid, signal.SIGCONT)
    assert closed_in_time(raws) < HELLO_TIMEOUT + 1.5


def test_a_client_that_never_listens_is_not_listened_to_and_costs_no_memory(
    control: Raw, client: Client, shared_daemon: Daemon
):
    for _ in range(8):
        client.session(COUNTER, labels=LONG_LABELS)
    process = psutil.Process(shared_daemon.pid)
    assert is_usable(client)
    before = process.memory_info().rss
    control.socket.settimeout(0.5)
    with pytest.raises((BrokenPipeError, ConnectionResetError, TimeoutError)):
        for number in range(100_000):  # answers of 160 kB each
            control.say("Request", number, "sessions.list", {})
    assert is_usable(client)
    assert process.memory_info().rss - before < 32 * MIB


def test_a_client_that_listens_gets_a_long_answer_whole(client: Client):
    sessions = [client.session(COUNTER, labels=LONG_LABELS) for _ in range(8)]
    try:
        listed = client.sessions.list()
        assert {info.id for info in listed} == {session.id for session in sessions}
        assert all(info.labels == LONG_LABELS for info in listed)
    finally:
        for session in sessions:
            session.end()


# --- directories --------------------------------------------------------------------------------------------------


def test_odd_things_in_a_served_directory_are_no_apps(start_daemon: Callable[..., Daemon], directory: Path):
    """They come while the daemon runs, and then the directory goes."""
    served = directory / "apps"
    served.mkdir()
    shutil.copy(COUNTER, served)
    daemon = start_daemon(str(served))
    for make in (
        lambda: (served / "link.py").symlink_to("nowhere"),
        lambda: (served / "loop.py").symlink_to("loop.py"),
        lambda: (served / "long.py").symlink_to("x" * 300),
        lambda: (served / "directory.py").mkdir(),
        lambda: (served / "package").mkdir() or (served / "package" / "__init__.py").symlink_to("nowhere"),
        lambda: shutil.rmtree(served),
    ):
        make()
        with pytest.raises(AppNotFoundError):
            daemon.client.session("nobody")
        assert daemon.client.status().apps == 1
        assert [app.name for app in daemon.client.apps.list()] == ["counter"]


def test_what_cannot_be_an_app_is_refused_in_words(daemon: Daemon):
    too_long = "x" * 300 + ".py"
    with pytest.raises(AppNotFoundError, match="File name too long"):
        daemon.client.request("apps.serve", apps=[too_long])
    assert daemon.client.status().apps == 0


def test_a_pipe_in_a_served_directory_holds_nobody_up(start_daemon: Callable[..., Daemon], directory: Path):
    served = directory / "apps"
    served.mkdir()
    daemon = start_daemon(str(served))
    pipe = served / "pipe.py"
    os.mkfifo(pipe)
    raw = Raw.to(daemon.socket)
    try:
        raw.say("Request", 1, "daemon.status", {})
        assert select.select([raw.socket], [], [], 1)[0], "the daemon waits for a writer"
    finally:
        raw.close()
        with suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        pipe.unlink()


# --- call connections ---------------------------------------------------------------------------------------------

NOT_CALLS = {name: (data, "PROTOCOL_ERROR") for name, data in NOT_MESSAGES.items()} | {
    "a header of 4 GiB": (b"\xff\xff\xff\xff", "PAYLOAD_TOO_LARGE"),
    "a header of 16 MiB and 1": (struct.pack("!I", CALL_FRAME_LIMIT + 1), "PAYLOAD_TOO_LARGE"),
    "an open": (an_open(), "PROTOCOL_ERROR"),
    "a hello": (HELLO, "PROTOCOL_ERROR"),
    "a request": (framed(["Request", 1, "daemon.stop", {}]), "PROTOCOL_ERROR"),
    "a result": (framed(["Result", 1, None]), "PROTOCOL_ERROR"),
    "a message of the daemon": (framed(["Stop", "client"]), "PROTOCOL_ERROR"),
    "the daemon's first word": (framed(["Attach", "sess_x", "/", {}, 0]), "PROTOCOL_ERROR"),
    "a call without an input": (framed(["Call", 1, "add"]), "PROTOCOL_ERROR"),
    "a call and more": (framed(["Call", 1, "add", {}, None]), "PROTOCOL_ERROR"),
    "a call with a text for an id": (framed(["Call", "1", "add", {}]), "PROTOCOL_ERROR"),
    "a call with a fraction for an id": (framed(["Call", 1.0, "add", {}]), "PROTOCOL_ERROR"),
    "a call with true for an id": (framed(["Call", True, "add", {}]), "PROTOCOL_ERROR"),
    "a call without an id": (framed(["Call", None, "add", {}]), "PROTOCOL_ERROR"),
    "a call of a number": (framed(["Call", 1, 5, {}]), "PROTOCOL_ERROR"),
    "a call of bytes": (framed(["Call", 1, b"add", {}]), "PROTOCOL_ERROR"),
    "a call of a list": (framed(["Call", 1, ["add"], {}]), "PROTOCOL_ERROR"),
}


Attach = Callable[[str], Raw]


@pytest.fixture
def attach(control: Raw) -> Iterator[Attach]:
    made: list[Raw] = []

    def attach(session_id: str) -> Raw:
        answer = open_on(control, app=None, session=session_id)
        assert (answer[0], answer[2]) == ("Opened", session_id)
        made.append(control.take())
        return made[-1]

    yield attach
    for raw in made:
        raw.close()


@pytest.mark.parametrize(("app", "add"), [(COUNTER, {"total": 1}), (ASYNC_COUNTER, 1)], ids=["plain", "async"])
def test_what_is_no_call_ends_its_connection_and_nothing_else(
    attach: Attach, client: Client, shared_daemon: Daemon, app: str, add: object
):
    session = client.session(app)
    pid = session.info().pid
    for name, (data, code) in NOT_CALLS.items():
        raw = attach(session.id)
        raw.socket.sendall(data)
        answer = raw.hear()
        assert answer is not None, f"{name}: closed without a word"
        assert (answer[0], answer[1], answer[2]["code"], answer[2]["session_id"]) == ("Failure", 0, code, session.id)
        assert raw.hear() is None, name
        info = session.info()
        assert (info.status, info.call_count, info.busy, info.pid) == ("active", 0, False, pid), name
    raw = attach(session.id)
    raw.say("Call", 5, "add", {"amount": 1})
    assert raw.hear() == ["Result", 5, add]
    assert session.info().call_count == 1


@pytest.mark.parametrize("app", [COUNTER, ASYNC_COUNTER], ids=["plain", "async"])
def test_a_call_that_ends_in_the_middle_is_no_call(attach: Attach, client: Client, app: str):
    with client.session(app) as session:
        data = framed(["Call", 1, "add", {"amount": 1}])
        for size in (1, 4, 5, len(data) - 1):
            raw = attach(session.id)
            raw.socket.sendall(data[:size])
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.hear() is None
        info = session.info()
        assert (info.status, info.call_count, info.busy) == ("active", 0, False)
        session.call("add", amount=1)
        assert session.info().call_count == 1


def test_a_call_before_the_nonsense_is_answered(attach: Attach, client: Client):
    with client.session(COUNTER) as session:
        raw = attach(session.id)
        raw.socket.sendall(framed(["Call", 1, "add", {"amount": 3}]) + in_frame(b"\xc1"))
        assert raw.hear() == ["Result", 1, {"total": 3}]
        assert_refused(raw, "PROTOCOL_ERROR")
        assert session.info().call_count == 1
        assert session.call("add") == {"total": 4}


@pytest.mark.parametrize("app", [COUNTER, ASYNC_COUNTER], ids=["plain", "async"])
def test_an_input_that_nobody_expects_is_answered_by_its_id(attach: Attach, client: Client, app: str):
    with client.session(app) as session:
        raw = attach(session.id)
        inputs = [5, "x", b"x", [], [1], True, {1: 2}, {None: 1}, {(1, 2): 3}, {"amount": nested(900)}, nested(900)]
        for number, value in enumerate(inputs, 1):
            raw.say("Call", number, "add", value)
            answer = raw.hear()
            assert answer is not None, f"input {number} broke the connection"
            assert answer[1] == number
            assert answer[0] == "Result" or answer[2]["code"] == "INVALID_INPUT"
        for function in ("", "nope", "__init__", "x" * 100_000):
            raw.say("Call", 100, function, {"amount": 1})
            answer = raw.hear()
            assert answer is not None
            assert (answer[1], answer[2]["code"]) == (100, "FUNCTION_NOT_FOUND")
        raw.say("Call", 101, "add", {"amount": 1})
        answer = raw.hear()
        assert answer is not None
        assert answer[:2] == ["Result", 101]
