"""What `BaseApp` promises its authors: own copies of mutable defaults, plain `__init__`, a shared `preload`."""

from __future__ import annotations

import collections
import logging
import threading
import typing
import typing as t
from collections import deque
from typing import Any, ClassVar

import pytest

from warmpool import app as app_module
from warmpool.app import AppContext, BaseApp, BaseAppInput, BaseAppOutput, CallCancelled
from warmpool.methods import HOOKS


class State(BaseAppOutput):
    items: list[int] = []
    deeper: dict[str, list[int]] = {}


class Defaults(BaseApp):
    a_list: list[Any] = [1, [2]]
    a_dict = {"k": [1]}
    a_set = {1, 2}
    a_bytearray = bytearray(b"ab")
    a_deque = deque([1, 2], maxlen=3)
    a_model = State(items=[1], deeper={"k": [1]})
    a_defaultdict = collections.defaultdict(list, {"k": [1]})
    _private: list[int] = []

    text = "text"
    number = 3
    frozen = frozenset({1})
    a_tuple = ([],)

    shared: ClassVar[list[int]] = []
    also_shared: typing.ClassVar[dict[str, int]] = {}
    bare_shared: ClassVar = set()


COPIED = ["a_list", "a_dict", "a_set", "a_bytearray", "a_deque", "a_model", "a_defaultdict", "_private"]
SHARED = ["shared", "also_shared", "bare_shared", "text", "number", "frozen", "a_tuple"]


def change(value: Any) -> None:
    """Changes a default as deep as it goes."""
    if isinstance(value, State):
        value.items.append(9)
        value.deeper["k"].append(9)
    elif isinstance(value, dict):
        value["k"].append(9)
        value["new"] = [9]
    elif isinstance(value, set):
        value.add(9)
    elif value == [1, [2]]:
        value[1].append(9)
    else:
        value.append(9)


# --- mutable defaults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COPIED)
def test_a_mutable_default_is_each_instances_own_down_to_its_depth(name):
    before = repr(getattr(Defaults, name))
    first, second = Defaults(), Defaults()
    assert type(getattr(first, name)) is type(getattr(Defaults, name))
    assert repr(getattr(first, name)) == before
    change(getattr(first, name))
    assert repr(getattr(first, name)) != before
    assert repr(getattr(second, name)) == repr(getattr(Defaults, name)) == repr(getattr(Defaults(), name)) == before


@pytest.mark.parametrize("name", SHARED)
def test_class_variables_and_immutable_defaults_stay_on_the_class(name):
    app = Defaults()
    assert name not in vars(app)
    assert getattr(app, name) is getattr(Defaults, name)


def test_a_deque_keeps_its_bound():
    assert Defaults().a_deque.maxlen == 3


def test_a_default_is_there_before_init_runs():
    class Early(BaseApp):
        items: list[int] = [1]

        def __init__(self):
            self.items.append(2)

    assert Early().items == [1, 2]
    assert Early().items == [1, 2]
    assert Early.items == [1]


def test_a_default_that_cannot_be_copied_is_named_with_what_helps():
    class Locked(BaseApp):
        locks = {"a": threading.Lock()}

    with pytest.raises(
        TypeError, match=r"Locked\.locks cannot be copied .*: cannot pickle .*; make it in setup.*ClassVar"
    ):
        Locked()

    class Shared(BaseApp):
        locks: ClassVar = {"a": threading.Lock()}

    assert Shared().locks is Shared.locks


@pytest.mark.parametrize(
    "annotation",
    [
        ClassVar[list],
        ClassVar,
        t.ClassVar[list],
        "ClassVar",
        "ClassVar[list[int]]",
        "typing.ClassVar[list]",
        "t.ClassVar[list[int]]",
    ],
    ids=repr,
)
def test_a_class_variable_is_shared_however_it_is_written(annotation):
    made = type("Made", (BaseApp,), {"__annotations__": {"items": annotation}, "items": [1]})
    assert made().items is made.items


@pytest.mark.parametrize("annotation", ["list[int]", "ClassVariable", list, "Annotated[list, 'ClassVar']"], ids=repr)
def test_what_is_no_class_variable_is_copied(annotation):
    made = type("Made", (BaseApp,), {"__annotations__": {"items": annotation}, "items": [1]})
    assert made().items == made.items
    assert made().items is not made.items


# --- plain constructors -----------------------------------------------------------------------------------------


class Plain(BaseApp):
    items: list[int] = []

    def __init__(self, size=3, *, name="n"):
        self.size = size
        self.name = name


def test_an_init_of_its_own_needs_no_super():
    app = Plain(5, name="x")
    assert (app.size, app.name, app.items) == (5, "x", [])
    assert app.items is not Plain.items
    assert isinstance(app.context, AppContext)
    assert isinstance(app.logger, logging.Logger)


def test_a_logger_is_named_after_the_class():
    assert Plain().logger.name == "warmpool.app.Plain"


def test_a_context_is_each_instances_own_and_says_nothing_yet():
    first, second = Plain(), Plain()
    first.context.labels["k"] = "v"
    first.context.session_id = "s_1"
    assert second.context == AppContext(app="", version="", worker_id="", session_id=None, labels={})


def test_a_context_has_no_room_for_misspelt_names():
    with pytest.raises(AttributeError):
        Plain().context.sesion_id = "s_1"


def test_a_logger_of_the_classes_own_stays():
    class Own(BaseApp):
        logger = logging.getLogger("mine")

    assert Own().logger.name == "mine"


def test_logger_and_context_are_there_in_init():
    class Curious(BaseApp):
        def __init__(self):
            self.seen = (self.logger.name, self.context.session_id)

    assert Curious().seen == ("warmpool.app.Curious", None)


def test_what_an_author_may_declare_has_its_defaults():
    assert (BaseApp.version, BaseApp.warm, BaseApp.max_workers) == ("", None, None)
    assert (BaseApp.cancel_grace, BaseApp.max_calls, BaseApp.max_private_bytes, BaseApp.max_lifetime) == (
        10,
        None,
        None,
        None,
    )

    class Declared(BaseApp):
        version = "1.0"
        warm = 3
        max_workers = 10

    assert (Declared.version, Declared().warm, Declared().max_workers) == ("1.0", 3, 10)


def test_a_context_outside_of_a_worker_hears_nothing_and_asks_nothing():
    context = AppContext()
    assert context.cancel_requested is False
    context.progress(1, 2, "so far")
    context.end_session()
    assert context == AppContext()
    assert "_host" not in repr(context)


@pytest.mark.parametrize(
    "told", [{"done": "1"}, {"done": None}, {"done": True}, {"done": 1, "total": "2"}, {"done": 1, "message": 3}]
)
def test_progress_that_is_no_number_is_refused_where_it_is_told(told):
    with pytest.raises(TypeError, match="progress"):
        AppContext().progress(**told)


def test_an_exception_handler_does_not_stop_a_cancel():
    assert issubclass(CallCancelled, BaseException)
    assert not issubclass(CallCancelled, Exception)


# --- preload ----------------------------------------------------------------------------------------------------


class Preloaded(BaseApp):
    table: dict[str, int] = {}
    model: State | None = None

    @classmethod
    def preload(cls):
        cls.table = {"big": 1}
        cls.model = State(items=[1])
        cls.weights = [1.0] * 3


def test_what_preload_puts_on_the_class_is_shared():
    class Mine(Preloaded):
        pass

    Mine.preload()
    first, second = Mine(), Mine()
    for name in ("table", "model", "weights"):
        assert getattr(first, name) is getattr(second, name) is getattr(Mine, name)
    assert first.table == {"big": 1}


def test_what_preload_leaves_alone_is_still_copied():
    class Mine(Preloaded):
        items: list[int] = []

    Mine.preload()
    assert Mine().items is not Mine.items


def test_what_preload_puts_on_one_class_does_not_reach_its_base():
    class Mine(Preloaded):
        pass

    Mine.preload()
    assert Preloaded().table == {}
    assert Preloaded().table is not Preloaded.table


# --- subclasses -------------------------------------------------------------------------------------------------


class Base(BaseApp):
    kept: list[int] = [1]
    replaced: list[int] = [1]
    made_a_tuple: Any = [1]
    made_shared: list[int] = [1]


class Child(Base):
    replaced: list[int] = [2]
    made_a_tuple = (2,)
    made_shared: ClassVar[list[int]] = [2]
    added: list[int] = [2]


class Grandchild(Child):
    kept = [3]
    made_a_tuple = [3]


def own_and_equal(kind: type[BaseApp], name: str, value: object) -> bool:
    first, second = getattr(kind(), name), getattr(kind(), name)
    return first == second == value and first is not second


def test_a_subclass_has_copies_of_what_it_inherits_replaces_and_adds():
    assert own_and_equal(Child, "kept", [1])
    assert own_and_equal(Child, "replaced", [2])
    assert own_and_equal(Child, "added", [2])
    assert own_and_equal(Base, "replaced", [1])


def test_a_subclass_of_a_subclass_does_too():
    assert own_and_equal(Grandchild, "kept", [3])
    assert own_and_equal(Grandchild, "replaced", [2])
    assert own_and_equal(Grandchild, "added", [2])
    assert own_and_equal(Grandchild, "made_a_tuple", [3])


def test_a_subclass_may_make_a_default_immutable_or_shared():
    assert Child().made_a_tuple is Child.made_a_tuple
    assert Child().made_shared is Child.made_shared
    assert Grandchild().made_shared is Child.made_shared
    assert own_and_equal(Base, "made_shared", [1])


def test_a_subclass_leaves_its_base_as_it_was():
    assert not hasattr(Base(), "added")
    assert vars(Base()).keys() == {"context", "kept", "replaced", "made_a_tuple", "made_shared"}


class Left(BaseApp):
    left: list[int] = [1]


class Right(BaseApp):
    right: list[int] = [1]


class Both(Left, Right):
    pass


class PlainMixin:
    mixed: list[int] = [1]
    mixed_shared: ClassVar[list[int]] = [1]


class Mixed(PlainMixin, BaseApp):
    pass


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Both, "left"), (Both, "right"), (Mixed, "mixed")],
    ids=["first-base", "second-base", "mixin-that-is-no-app"],
)
def test_a_default_of_any_base_is_copied(kind, name):
    assert own_and_equal(kind, name, [1])


def test_a_class_variable_of_a_mixin_is_shared():
    assert Mixed().mixed_shared is PlainMixin.mixed_shared


def test_keywords_of_a_class_reach_a_mixin():
    class Mixin:
        def __init_subclass__(cls, *, flavour="", **keywords):
            super().__init_subclass__(**keywords)
            cls.flavour = flavour

    class Flavoured(BaseApp, Mixin, flavour="sweet"):
        pass

    assert Flavoured.flavour == "sweet"


# --- the rest ---------------------------------------------------------------------------------------------------


def test_an_input_and_an_output_are_pydantic_models():
    class AddInput(BaseAppInput):
        amount: int = 1

    assert AddInput.model_validate({"amount": "3"}).amount == 3
    assert State().model_dump() == {"items": [], "deeper": {}}


def test_base_app_has_no_hook_that_would_run():
    assert not any(hasattr(BaseApp, hook) for hook in HOOKS)


def test_the_hooks_of_the_docstring_are_hooks():
    for hook in ("preload", "setup", "on_cancel", "on_end", "unload"):
        assert f"`{hook}" in app_module.__doc__
        assert hook in HOOKS


def test_the_example_of_the_docstring_works():
    example = app_module.__doc__.split("\n\n", 1)[1].split("\n\nEach public")[0]
    lines = "\n".join(line[4:] for line in example.splitlines())
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(lines, "example", "exec", dont_inherit=True), names)
    counter = names["Counter"]()
    counter.setup()
    assert counter.add(names["AddInput"](amount=2)) == {"total": 2}
    assert counter.add(names["AddInput"]()) == {"total": 3}
