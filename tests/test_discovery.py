"""Which files hold apps, by their texts."""

from __future__ import annotations

import pytest

from warmpool.discovery import app_files, is_for_tests

TEXTS = {
    "grandchild": b"from child import Child\nif True:\n    class Grandchild(\n        Child,\n    ): pass\n",
    "child": b"import base\nclass Child(Mixin, base.Base): pass\n",
    "base": b"import warmpool\nclass Base(warmpool.BaseApp): pass\nclass Other: pass\n",
    "renames": b"from warmpool import BaseApp as App\nclass Renamed(App): pass\n",
    "uses": b"from child import Child\nclass Test: app = Child\n",
    "models alone": b"from warmpool import BaseAppInput\nclass Point(BaseAppInput): x: int = 0\n",
    "of other": b"from base import Other\nclass OfOther(Other): pass\n",
    "like it": b"class Childish(Childlike): pass\n",
    "nothing": b"",
    "no text": b"\xff\0class \xff(Base)",
}


def test_who_derives_from_an_app_is_one():
    assert app_files(TEXTS) == ["grandchild", "child", "base", "renames"]
    assert app_files({}) == app_files({"child": TEXTS["child"]}) == []


@pytest.mark.parametrize(
    ("module", "is_so"), [("test_app", True), ("conftest", True), ("app_test", False), ("test", False)]
)
def test_what_pytest_takes_for_its_own(module: str, is_so: bool):
    assert is_for_tests(module) is is_so
