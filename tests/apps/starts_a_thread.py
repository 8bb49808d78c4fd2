"""Cannot be forked safely: a thread runs since the import."""

import os
import random
import threading

from warmpool import BaseApp

random.seed(7)
threading.Thread(target=threading.Event().wait, name="hidden", daemon=True).start()


class StartsAThread(BaseApp):
    def where(self) -> dict[str, int]:
        return {"pid": os.getpid(), "threads": threading.active_count()}

    def draw(self) -> float:
        return random.random()
