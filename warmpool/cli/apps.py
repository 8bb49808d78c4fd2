"""`warmpool app …`"""

from __future__ import annotations

import argparse
from typing import Any

from ..client.sync import Client
from .output import print_json, print_table, tell_if_started


def list_apps(options: argparse.Namespace) -> None:
    with Client(options.socket, autostart=False) as client:
        apps = client.apps.list()
    if options.json:
        print_json(apps)
    elif apps:
        print_table(apps, ("name", "state", "version", "workers", "source", "python"))
    else:
        print("no apps; name one by its path, or start the daemon with `warmpool serve DIRECTORY`")


def describe(options: argparse.Namespace) -> None:
    with Client(options.socket) as client:
        try:
            functions = client.apps.describe(options.app)
            app = client.apps.get(options.app)
        finally:
            tell_if_started(client)
    if options.json:
        print_json(functions)
        return
    print(f"{app.name}: {app.source}, under {app.python}")
    for function in functions:
        print(f"{function.name}({_parameters(function.input_schema or {})})")
        if function.description:
            print(f"    {function.description}")


def _parameters(schema: dict[str, Any]) -> str:
    """Of an input, its fields; one that is no object has none, and is shown itself."""
    inner = schema.get("$defs", {}).get(_name_of(schema), schema)
    if inner and inner.get("type", "object") != "object":
        return _kind(inner)
    required = inner.get("required", ())
    return ", ".join(
        f"{name}: {_kind(field)}" + ("" if name in required else f" = {field.get('default')!r}")
        for name, field in inner.get("properties", {}).items()
    )


def _kind(field: dict[str, Any]) -> str:
    if choices := field.get("anyOf") or field.get("oneOf"):
        return " | ".join(map(_kind, choices))
    if "enum" in field:
        return " | ".join(map(repr, field["enum"]))
    if "const" in field:
        return repr(field["const"])
    return _name_of(field) or str(field.get("type", "any"))


def _name_of(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
