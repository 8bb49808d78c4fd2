"""How a plain app's worker waits."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from scripted import Client, Worker
from support import APPS

from warmpool.wire.processes import Attach


def test_a_worker_blocks_on_a_client_that_the_daemon_did_not_block_on(directory: Path):
    """Or it would poll before each call."""
    worker = Worker(APPS / "told_to_stop.py", directory, "Plain")
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    client = Client(ours)
    try:
        worker.say(Attach("sess_1", "/", {}, 0), theirs)
        assert client.call(1, "fine", value=2) == ["Result", 1, 2]
        assert os.get_blocking(theirs.fileno())
    finally:
        client.close()
        theirs.close()
        worker.close()
