import os

from warmpool import BaseApp


class ExitsInSetup(BaseApp):
    def setup(self):
        print("no database", flush=True)
        os._exit(9)

    def run(self) -> str:
        return "never"
