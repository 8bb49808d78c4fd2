"""Is what an app preloads shared? Memory of an app that preloads 500 MB, with ten sessions and with one: template and
workers together, each session having read all of it.
"""

from __future__ import annotations

from contextlib import ExitStack

from daemon import APPS, daemon
from harness import Row, arguments, report
from memory import children, shared_out

from warmpool import Client

MB = 1_000_000


def megabytes_with(client: Client, count: int) -> float:
    app = str(APPS / "preloads.py")
    with ExitStack() as stack:
        for session in [stack.enter_context(client.session(app)) for _ in range(count)]:
            session.call("read")
        return shared_out(children(client.status()["pid"])) / MB


def main() -> None:
    options = arguments(__doc__, sessions=10)
    with daemon("--warm", "0") as client:
        one, many = megabytes_with(client, 1), megabytes_with(client, options.sessions)
    report(
        "Memory with 500 MB preloaded",
        [
            Row("1 session", one, unit="MB"),
            Row(f"{options.sessions} sessions", many, many / one, "of one", unit="MB", at_most=1.1),
        ],
    )


if __name__ == "__main__":
    main()
