"""Cannot be forked safely: a thread runs since the import."""

import os
import threading

from warmpool import BaseApp

threading.Thread(target=threading.Event().wait, name="hidden", daemon=True).start()


class StartsAThread(BaseApp):
    def where(self) -> dict[str, int]:
        return {"pid": os.getpid(), "threads": threading.active_count()}
