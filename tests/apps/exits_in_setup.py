import os

from warmpool import BaseApp


class ExitsInSetup(BaseApp):
    def setup(self):
        os._exit(9)

    def run(self) -> str:
        return "never"
