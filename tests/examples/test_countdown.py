from __future__ import annotations

import pytest
from support import EXAMPLES

from warmpool import CallTimeoutError, Client

COUNTDOWN = str(EXAMPLES / "countdown.py")


def test_it_counts_and_tells_how_far_it_is(client: Client):
    with client.session(COUNTDOWN) as session:
        events = list(session.stream("count", start=2, pause=0))
        assert [event.output for event in events if event.type in ("output", "done")] == [2, 1, "lift-off"]
        assert [(event.done, event.total) for event in events if event.type == "progress"] == [(0, 2), (1, 2)]
        assert [event.message for event in events if event.type == "log"] == ["all clear", "the clock stands still"]


def test_it_can_be_stopped(client: Client):
    with client.session(COUNTDOWN) as session:
        with pytest.raises(CallTimeoutError):
            session.call("count", {"pause": 3600}, timeout=0.2)
        assert [line.split(" ", 3)[-1] for line in client.sessions.logs(session.id)][-1].endswith("scrubbed")
        assert session.call("count", start=1, pause=0) == 1
