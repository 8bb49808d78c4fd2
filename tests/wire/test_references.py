"""How an app is named: each documented form, what is none of them, and what `absolute` makes of paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmpool.errors import InvalidRequestError
from warmpool.wire.references import AppReference, absolute, parse

NAME, PATH, MODULE = "name", "path", "module"

FORMS: dict[str, tuple[AppReference, str]] = {
    # a registered name
    "counter": (AppReference("counter"), NAME),
    "my-app_2": (AppReference("my-app_2"), NAME),
    "package.module": (AppReference("package.module"), NAME),
    "zähler": (AppReference("zähler"), NAME),
    "counter@1.0": (AppReference("counter", None, "1.0"), NAME),
    "counter@3f2a91c0": (AppReference("counter", None, "3f2a91c0"), NAME),
    "counter:add": (AppReference("counter", None, None, "add"), NAME),
    "counter:_add2": (AppReference("counter", None, None, "_add2"), NAME),
    "counter@1.0:add": (AppReference("counter", None, "1.0", "add"), NAME),
    "counter@1.0:Add": (AppReference("counter", None, "1.0", "Add"), NAME),
    # a path
    "examples/apps/counter.py": (AppReference("examples/apps/counter.py"), PATH),
    "counter.py": (AppReference("counter.py"), PATH),
    ".": (AppReference("."), PATH),
    "..:Cart": (AppReference("..", "Cart"), PATH),
    "./counter": (AppReference("./counter"), PATH),
    "apps/counter": (AppReference("apps/counter"), PATH),
    "apps/counter/": (AppReference("apps/counter/"), PATH),
    "/opt/apps/counter.py": (AppReference("/opt/apps/counter.py"), PATH),
    "~/apps/my counter.py": (AppReference("~/apps/my counter.py"), PATH),
    "../v1.2/counter.py:add": (AppReference("../v1.2/counter.py", None, None, "add"), PATH),
    "counter.py@1.0": (AppReference("counter.py", None, "1.0"), PATH),
    "counter.py@1.0:add": (AppReference("counter.py", None, "1.0", "add"), PATH),
    # one class of several
    "shop.py:Cart": (AppReference("shop.py", "Cart"), PATH),
    "shop.py:Cart:add": (AppReference("shop.py", "Cart", None, "add"), PATH),
    "shop.py:Cart@2": (AppReference("shop.py", "Cart", "2"), PATH),
    "shop.py:Cart@2:add": (AppReference("shop.py", "Cart", "2", "add"), PATH),
    "apps/shop:Cart": (AppReference("apps/shop", "Cart"), PATH),
    # a module to import
    "package.module:Class": (AppReference("package.module", "Class"), MODULE),
    "package.module:lower": (AppReference("package.module", "lower"), MODULE),
    "package.module:Class:add": (AppReference("package.module", "Class", None, "add"), MODULE),
    "package.module:Class@1.0": (AppReference("package.module", "Class", "1.0"), MODULE),
    "package.module:Class@1.0:add": (AppReference("package.module", "Class", "1.0", "add"), MODULE),
    "module:Class": (AppReference("module", "Class"), MODULE),
}


@pytest.mark.parametrize(("text", "meaning"), FORMS.items(), ids=FORMS.keys())
def test_each_documented_form_is_read(text, meaning):
    reference, sort = meaning
    assert parse(text) == reference
    assert parse(text).is_path is (sort is PATH)
    assert parse(text).is_module is (sort is MODULE)


INVALID = {
    "nothing": "",
    "only-a-version": "@1.0",
    "only-a-function": ":add",
    "empty-version": "counter@",
    "empty-function": "counter:",
    "empty-function-after-version": "counter@1.0:",
    "empty-version-before-function": "counter@:add",
    "two-colons": "counter::add",
    "two-versions": "counter@1@2",
    "two-functions": "counter:add:more",
    "two-functions-of-a-path": "shop.py:add:more",
    "three-names": "package.module:Class:add:more",
    "two-functions-around-a-version": "counter:add@1.0:more",
    "function-before-version": "counter:add@1.0",
    "function-before-version-of-a-path": "shop.py:add@1.0",
    "function-begins-with-a-digit": "counter:1add",
    "function-with-a-dash": "counter:add-more",
    "function-with-a-dot": "counter:add.more",
    "function-with-a-space": "counter: add",
    "call": "counter:add()",
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID.keys())
def test_what_has_none_of_the_forms_is_an_invalid_request_that_quotes_it(text):
    with pytest.raises(InvalidRequestError) as refused:
        parse(text)
    assert repr(text) in str(refused.value)


targets = st.sampled_from(["counter", "a-b", "x.py", "./x", "/a b/c.py", "pkg.mod", "mod"])
identifiers = st.from_regex(r"[a-z_]\w{0,5}", fullmatch=True)
classes = st.from_regex(r"[A-Z]\w{0,5}", fullmatch=True)
references = st.builds(
    AppReference,
    targets,
    st.none() | classes,
    st.none() | st.text(st.characters(exclude_characters="@:/\0", codec="utf-8"), min_size=1, max_size=5),
    st.none() | identifiers,
)


def text_of(reference: AppReference) -> str:
    text = reference.without_function()
    return text if reference.function is None else f"{text}:{reference.function}"


@settings(max_examples=200, deadline=None)
@given(
    references.filter(lambda r: not (r.target == "pkg.mod" and r.class_name is None and r.function and not r.version))
)
def test_a_reference_reads_back_from_its_own_text(reference):
    """But for a dotted name with a function: the first name behind a module's colon is always the class."""
    assert parse(text_of(reference)) == reference
    assert parse(reference.without_function()) == reference._replace(function=None)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aA1.:@/_-~ \n\0é"), max_size=12) | st.text(max_size=12))
def test_any_text_is_a_reference_or_an_invalid_request(text):
    try:
        reference = parse(text)
    except InvalidRequestError:
        return
    assert text_of(reference) == text


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("counter.py", "/home/ann/here/counter.py"),
        ("./counter.py", "/home/ann/here/counter.py"),
        ("../counter.py", "/home/ann/counter.py"),
        ("apps//counter/", "/home/ann/here/apps/counter"),
        ("apps/../../counter.py", "/home/ann/counter.py"),
        ("/opt/x/../counter.py", "/opt/counter.py"),
        ("~/counter.py", "/home/me/counter.py"),
        ("counter.py:Cart@2:add", "/home/ann/here/counter.py"),
    ],
)
def test_absolute_makes_a_path_absolute_and_leaves_the_rest(text, target, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    reference = parse(text)
    assert absolute(reference, "/home/ann/here") == reference._replace(target=target)
    assert absolute(absolute(reference, "/home/ann/here"), "/elsewhere") == absolute(reference, "/home/ann/here")


@pytest.mark.parametrize("text", ["counter", "counter@1:add", "package.module", "package.module:Class:add"])
def test_absolute_leaves_names_and_modules_alone(text):
    assert absolute(parse(text), "/home/ann/here") == parse(text)


@pytest.mark.parametrize("cwd", ["/home/me@work/apps", "/srv/a:b/apps", "/srv/me@1.0:x/apps", "/with space/apps"])
def test_an_absolute_reference_reads_back_wherever_the_user_stands(cwd):
    """The client sends it as text and the daemon parses it: a directory may have a @ or a colon in its name."""
    for text in ("counter.py", "shop.py:Cart", "./shop:Cart@2", "counter.py@2"):
        reference = absolute(parse(text), cwd)
        assert parse(reference.without_function()) == reference
