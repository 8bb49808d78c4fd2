"""Imports well; a forked process of it has no descriptors, so it can tell nobody that it was born."""

import os

from warmpool import BaseApp

os.register_at_fork(after_in_child=lambda: os.closerange(3, 256))


class ClosesAllAtItsFork(BaseApp):
    def run(self) -> str:
        return "never"
