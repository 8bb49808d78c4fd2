"""Starts a daemon of its own, and never stops it."""

import tempfile

from warmpool import BaseApp, embedded


class LeavesADaemon(BaseApp):
    def leave(self, directory: str) -> tuple[int, str]:
        """Its pid, and where its files are."""
        tempfile.tempdir = directory
        self.block = embedded()
        client = self.block.__enter__()
        return client.status().pid, str(client.places.socket.parent)
