"""Imports well; the template dies whenever it is to make a worker."""

import os

from warmpool import BaseApp

os.register_at_fork(before=lambda: os._exit(3))


class DiesAtItsFork(BaseApp):
    def run(self) -> str:
        return "never"
