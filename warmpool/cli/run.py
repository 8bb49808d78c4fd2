"""`warmpool run`: one call. stdout carries exactly one JSON document, with `session_id` at its top level."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from ..client.sync import Client
from ..errors import InvalidRequestError
from .output import print_json, tell, tell_if_started


def run(options: argparse.Namespace) -> None:
    warnings.showwarning = _to_stderr
    given = {"app": options.app, "input": read_input(options.input)}
    for name in ("function", "session", "session_timeout", "open_timeout"):
        if (value := getattr(options, name)) is not None:
            given[name] = value
    with Client(options.socket) as client:
        try:
            result = client.run(given)
        finally:
            tell_if_started(client)
        print_json(result)


def read_input(text: str | None) -> Any:
    """The JSON object behind `--input`, or None. Raises INVALID_REQUEST that says where it goes wrong."""
    if text is None:
        return None
    source = "--input"
    try:
        if text == "-":
            source = "stdin"
            text = sys.stdin.read()
        elif text.startswith("@"):
            source = text[1:]
            text = Path(source).read_text()
        value = json.loads(text)
    except OSError as error:
        raise InvalidRequestError(f"cannot read the input: {error}") from error
    except (ValueError, RecursionError) as error:
        hint = "; in a shell, put it in single quotes" if source == "--input" else ""
        raise InvalidRequestError(f"{source} is not JSON: {error}{hint}") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{source} must be a JSON object, not {type(value).__name__}")
    return value


def _to_stderr(message: Warning | str, *_: Any, **__: Any) -> None:
    tell(str(message).rstrip())
