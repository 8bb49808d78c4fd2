"""Does an idle daemon sleep? Context switches of the daemon and of all its processes in ten seconds, with a thousand
idle sessions: a process that is not run is not switched to.
"""

from __future__ import annotations

import select

from daemon import INPUT, PLAIN, daemon, wait_for_workers
from harness import Row, arguments, report
from memory import children, context_switches

HOUR = 3600


def main() -> None:
    options = arguments(__doc__, sessions=1000, seconds=10.0, settle=3.0)
    with daemon("--max-workers", str(options.sessions + 10)) as client:
        sessions = [client.session(PLAIN, session_timeout=HOUR) for _ in range(options.sessions)]
        for session in sessions:
            session.call("add", INPUT)
        wait_for_workers(client, lambda states: "starting" not in states)
        pid = client.status()["pid"]
        watched = {pid: "the daemon"} | dict.fromkeys(children(pid), "templates and workers")
        _sleep(options.settle)
        before = {one: context_switches(one) for one in watched}
        _sleep(options.seconds)
        after = {one: context_switches(one) for one in watched}
    rows = []
    for name in dict.fromkeys(watched.values()):
        pids = [one for one, whose in watched.items() if whose == name]
        woken = sum(after[one] - before[one] for one in pids)
        rows.append(Row(name, woken, note=f"{len(pids)} processes", unit="switches", at_most=0))
    report(f"Wake-ups in {options.seconds:g} s with {options.sessions} idle sessions", rows)


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


if __name__ == "__main__":
    main()
