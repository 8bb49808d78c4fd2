from warmpool import BaseApp


class RaisesInSetup(BaseApp):
    def setup(self):
        raise RuntimeError("no model here")

    def run(self) -> str:
        return "never"
