"""Its child needs locks that another thread holds at the fork."""

import logging
import os
import threading

from warmpool import BaseApp

births = []
os.register_at_fork(after_in_child=lambda: births.append(os.getpid()))


class App(BaseApp):
    def births(self) -> int:
        return len(births)

    def native_id(self) -> int | None:
        return threading.main_thread().native_id

    def log_in_a_child(self) -> int:
        """How often the child was told of a birth, once it has taken the locks."""
        handler = logging.getLogger("warmpool.app").handlers[0]
        held, enough = threading.Event(), threading.Event()

        def hold() -> None:
            with handler.lock:  # type: ignore[union-attr]
                held.set()
                enough.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            self.logger.warning("in the child")
            os._exit(len(births))
        enough.set()
        thread.join()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
