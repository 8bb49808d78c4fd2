"""Gives values of many kinds."""

import dataclasses
import datetime
import decimal
import enum
import gc
import os
import pathlib
import uuid

from warmpool import BaseApp, BaseAppOutput


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    raw: bytes


class Report(BaseAppOutput):
    when: datetime.date
    tags: set[str]
    raw: bytes


class Opaque:
    pass


class Values(BaseApp):
    def echo(self, value: object = None) -> object:
        return value

    def give(self, kind: str):
        return {
            "none": None,
            "bytes": b"\x00\xff",
            "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
            "uuid": uuid.UUID(int=7),
            "decimal": decimal.Decimal("1.50"),
            "set": {3},
            "path": pathlib.Path("/a/b"),
            "dataclass": Point(1, b"\x00"),
            "enum": Colour.RED,
            "model": Report(when=datetime.date(2026, 1, 2), tags={"a"}, raw=b"\xff"),
            "nested": {"items": [Point(2, b""), {Colour.RED}]},
            "opaque": Opaque(),
            "huge_int": 2**70,
            "surrogate": "\ud800",
        }[kind]

    def count(self, number: int) -> int:
        return number

    def kept(self) -> list[int]:
        """How many exceptions nobody has any more but the collector, and descriptors there are."""
        gc.disable()
        found = [one for one in gc.get_objects() if isinstance(one, BaseException)]
        return [len(found), len(os.listdir("/proc/self/fd"))]

    def annotated(self) -> Report:
        return Report(when=datetime.date(2026, 1, 2), tags={"a"}, raw=b"\xff")

    def length(self, data: bytes) -> int:
        return len(data)

    def large(self, size: int) -> bytes:
        return b"x" * size
