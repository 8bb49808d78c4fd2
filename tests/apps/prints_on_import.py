"""Prints in every way there is while it is imported; with ONCE_ALONE in the environment it starts a thread, too."""

import os
import subprocess
import sys
import threading

from warmpool import BaseApp

print("by print")
print("by print to stderr", file=sys.stderr)
os.write(1, b"by os.write\n")
subprocess.run(["echo", "by a child"], check=True)
os.write(2, b"without an end")
if "ONCE_ALONE" in os.environ:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


KEPT = os.dup(1)


class PrintsOnImport(BaseApp):
    def run(self) -> int:
        print("not on import")
        return 1

    def by_what_was_kept(self) -> int:
        """As a library does that has taken the descriptor for itself."""
        return os.write(KEPT, b"\nlater\n")
