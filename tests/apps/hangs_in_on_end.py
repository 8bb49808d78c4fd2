import time
from pathlib import Path

from warmpool import BaseApp


class HangsInOnEnd(BaseApp):
    def begin(self, file: str) -> str:
        self.file = Path(file)
        return "ok"

    def on_end(self, reason: str):
        time.sleep(1000)

    def unload(self):
        self.file.write_text("unloaded")
