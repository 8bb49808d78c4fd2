"""What a client makes of what its user gives: pure, no process."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections import UserDict
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool import BaseApp, Data, InvalidRequestError
from warmpool.client.requests import (
    Page,
    app_reference,
    call_arguments,
    check_session_id,
    map_window,
    run_request,
    run_result,
    session_request,
    shown,
)
from warmpool.wire.frames import encode
from warmpool.wire.messages import CONTROL, Opened
from warmpool.wire.shapes import from_wire, to_wire

CWD = "/home/someone"
ID = "sess_0123456789abcdef"


def ask(**params):
    return run_request(params, {}, CWD)


def nested_list(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


# --- run ----------------------------------------------------------------------------------------------------------


def test_every_parameter_arrives():
    request = ask(
        app="counter",
        function="add",
        input={"amount": 2},
        session="new",
        session_timeout=300,
        open_timeout=5,
        labels={"project": "demo"},
    )
    assert request.app == "counter"
    assert request.function == "add"
    assert request.input == {"amount": 2}
    assert request.session == "new"
    assert request.session_timeout == 300
    assert request.open_timeout == 5
    assert request.labels == {"project": "demo"}


def test_what_is_left_out_is_none():
    request = ask(app="counter")
    assert (request.function, request.input, request.session) == (None, None, None)
    assert (request.session_timeout, request.open_timeout) == (None, None)
    assert not request.labels


def test_none_is_as_good_as_left_out():
    names = (
        *("function", "input", "session", "session_timeout", "open_timeout", "labels", "name", "if_exists"),
        *("description", "tags", "workers", "timeout", "timeout_seconds", "stream"),
    )
    assert ask(app="counter", **dict.fromkeys(names)) == ask(app="counter")
    assert ask(app=None, session=ID) == ask(session=ID)


def test_an_open_is_a_message_of_the_protocol():
    request = ask(
        app="counter:add", session="new", session_timeout=7, open_timeout=0.5, labels={"a": "b"},
        name="me", if_exists="attach", description="mine", tags=["x"], workers=["w_1"],
    )  # fmt: skip
    message = request.open(5)
    assert message == (
        5, "counter", "new", CWD, 7.0, 0.5, {"a": "b"}, "me", "attach", "mine", ["x"], "w_1",
    )  # fmt: skip
    assert from_wire(encode(to_wire(message), 65536)[4:], CONTROL) == message
    plain = ask(app="counter").open(1)
    assert (plain.labels, plain.name, plain.if_exists, plain.tags, plain.worker) == ({}, None, "error", [], None)


@pytest.mark.parametrize("wrap", [dict, MappingProxyType, UserDict])
def test_any_mapping_will_do(wrap):
    assert run_request(wrap({"app": "counter", "function": "add"}), {}, CWD).function == "add"


@pytest.mark.parametrize("params", [None, "counter", ["app", "counter"], 5, [("app", "counter")]])
def test_what_is_no_mapping_is_refused(params):
    with pytest.raises(InvalidRequestError, match="run takes a dict of parameters"):
        run_request(params, {}, CWD)


def test_keywords_override():
    params = {"app": "counter", "function": "add", "session": ID, "input": {"amount": 1}}
    request = run_request(params, {"session": "new", "function": "plain", "session_timeout": 9}, CWD)
    assert (request.app, request.function, request.session, request.session_timeout) == ("counter", "plain", "new", 9)
    assert request.input == {"amount": 1}
    assert run_request(params, {"input": None, "session": None}, CWD).input is None
    assert params == {"app": "counter", "function": "add", "session": ID, "input": {"amount": 1}}, "left as it was"


def test_unknown_parameters_are_all_named_and_so_are_the_known_ones():
    with pytest.raises(InvalidRequestError) as raised:
        run_request({"app": "counter", "fucntion": "add"}, {"patience": 3}, CWD)
    message = str(raised.value)
    assert message.startswith("run does not take 'fucntion', 'patience'; it takes app, session, function, input,")
    with pytest.raises(InvalidRequestError, match="run does not take 5"):
        run_request({"app": "counter", 5: 6}, {}, CWD)


@pytest.mark.parametrize("name", ["infra", "metadata", "wait"])
@pytest.mark.parametrize("value", [None, True, {"gpu": "A100"}, "private"])
def test_what_only_a_hosted_service_uses_has_no_effect(name, value):
    assert run_request({"app": "counter", name: value}, {}, CWD) == ask(app="counter")
    assert run_request({"app": "counter"}, {name: value}, CWD) == ask(app="counter")


@pytest.mark.parametrize("session", [None, "new"])
def test_an_app_is_needed_unless_a_session_has_one(session):
    with pytest.raises(InvalidRequestError, match='run needs "app"'):
        ask(session=session, function="add")
    assert ask(session=ID, function="add").app is None


@pytest.mark.parametrize("session", [None, ID, "sess_x"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session_timeout", 60),
        ("labels", {"a": "b"}),
        ("name", "me"),
        ("if_exists", "error"),
        ("description", "mine"),
        ("tags", ["x"]),
    ],
)
def test_what_is_said_of_a_session_goes_only_with_a_new_one(session, name, value):
    with pytest.raises(InvalidRequestError, match=f'{name} goes only with session="new"'):
        ask(app="counter", session=session, **{name: value})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": 5}, "name must be a non-empty string"),
        ({"name": ""}, "name must be a non-empty string"),
        ({"if_exists": "replace"}, 'if_exists must be "error" or "attach"'),
        ({"if_exists": nested_list(100_000)}, 'if_exists must be "error" or "attach"'),
        ({"if_exists": "attach"}, "needs a name"),
        ({"description": ["mine"]}, "description must be a non-empty string"),
        ({"tags": "x"}, "tags must be a list of strings"),
        ({"tags": [1]}, "tags must be a list of strings"),
        ({"workers": "w_1"}, "workers must be a list of strings"),
        ({"workers": []}, "a list of one id, not of 0"),
        ({"workers": ["w_1", "w_2"]}, "a list of one id, not of 2"),
        ({"workers": [1]}, "workers must be a list of strings"),
    ],
)
def test_what_is_no_session_option_is_refused(given, says):
    with pytest.raises(InvalidRequestError, match=says):
        ask(app="counter", session="new", **given)
    with pytest.raises(InvalidRequestError, match=says):
        session_request("counter", given, CWD)


def test_a_session_takes_no_call():
    for name in ("function", "timeout", "stream", "session"):
        with pytest.raises(InvalidRequestError, match=f"session does not take '{name}'"):
            session_request("counter", {name: None}, CWD)
    assert session_request("counter", {"name": "me"}, CWD) == ask(app="counter", session="new", name="me")
    with pytest.raises(InvalidRequestError, match=r"not of one function: open 'counter@1', and call add in it"):
        session_request("counter@1:add", {}, CWD)


def test_an_app_by_its_path_or_its_class():
    assert ask(app=Path("apps/counter.py")).app == f"{CWD}/apps/counter.py"
    assert ask(app=Path("/counter")).app == "/counter"
    assert session_request(Path("counter"), {}, CWD).app == f"{CWD}/counter", "a path and no name"
    with pytest.raises(InvalidRequestError, match=r"BaseApp is no app: it does not derive from BaseApp"):
        session_request(BaseApp, {}, "/")
    with pytest.raises(InvalidRequestError, match=r"pathlib.*Path is no app: it does not derive from BaseApp"):
        ask(app=Path)


def test_a_session_is_asked_about_by_its_id():
    check_session_id({"session_id": ID})
    check_session_id({"limit": 5})
    with pytest.raises(InvalidRequestError, match="session_id must be a string, as session.id is, not a PosixPath"):
        check_session_id({"session_id": Path(ID)})


@pytest.mark.parametrize("name", ["timeout", "timeout_seconds"])
def test_time_outs(name):
    assert ask(app="counter", **{name: 0.5}).timeout == 0.5
    for value in (0, -1, 0.0009, 7 * 86_400.1, float("nan"), True, "5", nested_list(9)):
        with pytest.raises(InvalidRequestError, match=r"timeout must be a number from 0.001 to 604800"):
            ask(app="counter", **{name: value})
    with pytest.raises(InvalidRequestError, match="give one"):
        ask(app="counter", timeout=1, timeout_seconds=1)


def test_windows_of_a_map():
    assert map_window(1) == 1
    assert map_window(4096) == 4096
    for value in (0, 4097, -1, True):
        with pytest.raises(InvalidRequestError, match="window must be a whole number from 1 to 4096"):
            map_window(value)
    for value in (1.0, "5", None):
        with pytest.raises(InvalidRequestError, match="window must be a whole number"):
            map_window(value)


@pytest.mark.parametrize("value", ["yes", 1, [True]])
def test_stream_is_true_or_false(value):
    with pytest.raises(InvalidRequestError, match="stream must be true or false"):
        ask(app="counter", stream=value)
    assert ask(app="counter", stream=True).stream is True


@pytest.mark.parametrize("timeout", [1, 1.0, 60, 2.5, 3600, 3600.0])
def test_windows_within_bounds(timeout):
    request = ask(app="counter", session="new", session_timeout=timeout)
    assert request.session_timeout == timeout
    assert type(request.session_timeout) is float


@pytest.mark.parametrize(
    "timeout", [0, 0.999, -1, 3600.001, 1e300, float("inf"), float("nan"), True, "60", [60], {"s": 60}, 1j, 10**400]
)
def test_windows_out_of_bounds(timeout):
    with pytest.raises(InvalidRequestError, match="session_timeout must be a number from 1 to 3600"):
        ask(app="counter", session="new", session_timeout=timeout)


@pytest.mark.parametrize("timeout", [0, 0.001, 30, 3600])
def test_patience_within_bounds(timeout):
    assert ask(app="counter", open_timeout=timeout).open_timeout == timeout


@pytest.mark.parametrize("timeout", [-0.001, 3601, float("nan"), False, "5", []])
def test_patience_out_of_bounds(timeout):
    with pytest.raises(InvalidRequestError, match="open_timeout must be a number from 0 to 3600"):
        ask(app="counter", open_timeout=timeout)


@pytest.mark.parametrize("name", ["session", "function"])
@pytest.mark.parametrize("value", ["", 5, True, ["add"], {"id": ID}, b"sess_bytes", ID.encode()])
def test_texts_are_texts(name, value):
    with pytest.raises(InvalidRequestError, match=f"{name} must be a non-empty string, not"):
        run_request({"app": "counter", name: value}, {}, CWD)


@pytest.mark.parametrize("app", ["", 5, ["counter"], b"counter", "counter@", "@1.0", "counter:", "counter:9", object()])
def test_what_names_no_app_is_refused(app):
    with pytest.raises(
        InvalidRequestError, match=r"does not name an app|app must be a name, a path or the app's class"
    ):
        ask(app=app)


@pytest.mark.parametrize("name", ["session", "function", "session_timeout", "open_timeout", "app"])
@pytest.mark.parametrize("value", [nested_list(100_000), 10**5000], ids=["deep", "long"])
def test_no_value_is_too_deep_or_too_long_for_its_refusal(name, value):
    with pytest.raises(InvalidRequestError, match=name):
        run_request({"app": "counter", "session": "new", name: value}, {}, CWD)


@pytest.mark.parametrize("labels", ["demo", 5, ["a"], {"a": 1}, {1: "a"}, {"a": None}, nested_list(3)])
def test_labels_are_texts_by_texts(labels):
    with pytest.raises(InvalidRequestError, match="labels"):
        ask(app="counter", session="new", labels=labels)


@pytest.mark.parametrize("value", [None, {}, {"amount": 1}, [1], "text", 5, b"\x00", object()])
def test_the_input_is_anybodys_business_but_the_clients(value):
    assert ask(app="counter", input=value).input is value


# --- apps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "reference", "function"),
    [
        ("counter", "counter", None),
        ("counter@1.0", "counter@1.0", None),
        ("counter:add", "counter", "add"),
        ("counter@1.0:add", "counter@1.0", "add"),
        ("counter.py", "/home/someone/counter.py", None),
        ("./counter.py", "/home/someone/counter.py", None),
        ("../apps/counter.py:add", "/home/apps/counter.py", "add"),
        ("examples/apps/counter.py@1.0:add", "/home/someone/examples/apps/counter.py@1.0", "add"),
        ("shops/", "/home/someone/shops", None),
        ("/srv/counter.py", "/srv/counter.py", None),
        ("/srv/../srv//counter.py", "/srv/counter.py", None),
        ("shop.py:Cart", "/home/someone/shop.py:Cart", None),
        ("shop.py:Cart@2:add", "/home/someone/shop.py:Cart@2", "add"),
        ("package.module:Class", "package.module:Class", None),
        ("package.module:Class:add", "package.module:Class", "add"),
    ],
)
def test_references(app, reference, function):
    assert app_reference(app, CWD) == (reference, function)
    request = ask(app=app)
    assert (request.app, request.function) == (reference, function)


def test_a_tilde_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    assert app_reference("~/counter.py", CWD) == ("/home/her/counter.py", None)


def test_a_function_of_its_own_goes_before_the_one_in_the_reference():
    assert ask(app="counter:add", function="plain").function == "plain"
    assert ask(app="counter:add", function=None).function == "add"


# --- call ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "fields", "meant"),
    [
        ((None, None), {}, (None, None)),
        (("add", None), {}, ("add", None)),
        (("add", {"amount": 1}), {}, ("add", {"amount": 1})),
        (("add", [1]), {}, ("add", [1])),
        (("add", None), {"amount": 1}, ("add", {"amount": 1})),
        ((None, None), {"amount": 1}, (None, {"amount": 1})),
        ((None, {"amount": 1}), {}, (None, {"amount": 1})),
        (({"amount": 1}, None), {}, (None, {"amount": 1})),
        (({}, None), {}, (None, {})),
        (([1, 2], None), {}, (None, [1, 2])),
    ],
)
def test_call_forms(given, fields, meant):
    assert call_arguments(*given, fields) == meant


@pytest.mark.parametrize("names", [{"function": 1, "input": 2, "self": 3}])
def test_fields_may_have_any_name(names):
    assert call_arguments("add", None, names) == ("add", names)


@pytest.mark.parametrize("given", [("add", {"amount": 1}), (None, {}), ({"amount": 1}, None)])
def test_an_input_is_one_value_or_keywords(given):
    with pytest.raises(InvalidRequestError, match="one value or as keywords, not both"):
        call_arguments(*given, {"amount": 2})


@pytest.mark.parametrize("function", [{"amount": 1}, 5, ["add"]])
def test_the_function_comes_first(function):
    with pytest.raises(InvalidRequestError, match="the name of a function first"):
        call_arguments(function, {"amount": 2}, {})


@pytest.mark.parametrize("fields", [{"function": "add"}, {"function": "add", "input": {"amount": 1}}])
def test_the_function_is_no_field(fields):
    with pytest.raises(InvalidRequestError, match=r"the name of the function comes first: \('add', …\)"):
        call_arguments(None, None, fields)
    assert call_arguments(fields, None, {}) == (None, fields)


# --- results ------------------------------------------------------------------------------------------------------


def test_data_answers_both():
    data = Data(status="active", pid=5, labels={"a": "b"})
    assert data.status == data["status"] == "active"
    assert data.get("nothing") is None
    assert "pid" in dir(data)
    assert "keys" in dir(data)
    data["status"] = "ended"
    assert data.status == "ended"
    assert data == {"status": "ended", "pid": 5, "labels": {"a": "b"}}


def test_a_missing_attribute_is_answered_with_those_there_are():
    data = Data(status="active", pid=5)
    with pytest.raises(AttributeError) as raised:
        data.state  # noqa: B018
    assert str(raised.value) == "there is no 'state' here; there are status, pid"
    assert not hasattr(data, "state")
    assert getattr(data, "state", 7) == 7
    with pytest.raises(KeyError):
        data["state"]


def test_a_key_that_is_no_text_does_no_harm():
    data = Data({1: "one", "two": 2})
    assert "1" in dir(data)
    with pytest.raises(AttributeError, match="there are 1, two"):
        data.three  # noqa: B018


def test_a_method_goes_before_a_key_of_its_name():
    data = Data(items=5)
    assert data["items"] == 5
    assert list(data.items()) == [("items", 5)]


def test_data_is_json_and_can_be_copied_and_pickled():
    data = Data(session_id=ID, output=Data(total=5))
    assert json.loads(json.dumps(data)) == data
    for twin in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert twin == data
        assert type(twin) is Data
        assert twin.output.total == 5


@given(st.dictionaries(st.text(), st.integers()))
def test_data_is_the_dict_that_it_was_made_of(fields):
    data = Data(fields)
    assert data == fields
    for name in fields:
        if not hasattr(Data, name):
            assert getattr(data, name) == fields[name]


def test_only_dicts_are_shown_as_data():
    assert shown({"total": 1}).total == 1
    for value in (None, 5, [{"total": 1}], "text"):
        assert shown(value) is value
    data = Data(total=1)
    assert shown(data) is data


def test_a_result_says_who_gave_it():
    result = run_result(Opened(1, ID, "counter", "1.0", "w_1", 0, 1024, 1024), {"total": 2})
    assert result == {
        "session_id": ID,
        "output": {"total": 2},
        "app": "counter",
        "version": "1.0",
        "worker_id": "w_1",
    }
    assert result.output.total == 2
    assert run_result(Opened(1, None, "counter", "1.0", "w_1", 0, 1024, 1024), None).session_id is None


def test_the_working_directory_is_not_asked_for():
    """Who calls says where they stand: the client asks once per request."""
    assert ask(app="counter.py").app == f"{CWD}/counter.py" != f"{os.getcwd()}/counter.py"


def test_a_page_is_a_list_that_knows_of_the_others():
    page = Page({"sessions": [{"id": "a"}, {"id": "b"}], "total": 7, "cursor": "5"})
    assert [info.id for info in page] == ["a", "b"]
    assert (page.total, page.cursor, len(page)) == (7, "5", 2)
    assert json.dumps(page) == '[{"id": "a"}, {"id": "b"}]'
