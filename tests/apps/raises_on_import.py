import no_such_module_anywhere  # noqa: F401

from warmpool import BaseApp


class RaisesOnImport(BaseApp):
    def run(self) -> str:
        return "never"
