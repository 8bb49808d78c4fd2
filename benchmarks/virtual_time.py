"""500 tests of a one-hour window in a row: three keepalives, each at the last millisecond, then the end.

None may fail, on however busy a machine; printed is how long they take.
"""

from __future__ import annotations

import statistics
import time

from daemon import PLAIN
from harness import Row, arguments, percentile, report

from warmpool import TestingClient, embedded

TIMES = 500
HOUR = 3600.0
MOMENT = 0.001


def main() -> None:
    arguments(__doc__)
    taken = []
    with embedded(apps=[PLAIN]) as client:
        client.session("plain").end()
        for _ in range(TIMES):
            start = time.perf_counter()
            expire_after_three_keepalives(client)
            taken.append((time.perf_counter() - start) * 1000)
    report(
        f"{TIMES} tests of a one-hour window with three keepalives, none of which failed",
        [
            Row("median", statistics.median(taken), unit="ms"),
            Row("p99", percentile(taken, 0.99), unit="ms"),
            Row("slowest", max(taken), unit="ms"),
        ],
    )


def expire_after_three_keepalives(client: TestingClient) -> None:
    with client.clock.frozen():
        session = client.session("plain", session_timeout=HOUR)
        for _ in range(3):
            client.clock.advance(HOUR - MOMENT)
            assert session.keepalive().status == "active"
        client.clock.advance(HOUR - MOMENT)
        assert session.info().status == "active"
        client.clock.advance(MOMENT)
        assert session.info().status == "expired"


if __name__ == "__main__":
    main()
