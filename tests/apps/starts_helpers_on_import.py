"""The import leaves two processes running: a child of the template, and one that ran away by forking twice."""

import subprocess
import sys

from warmpool import BaseApp

_RUN_AWAY = (
    "import os, subprocess\nos.setsid()\n"
    "print(subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)"
)

near = subprocess.Popen(["sleep", "1000"])
far = int(subprocess.run([sys.executable, "-c", _RUN_AWAY], capture_output=True, text=True, check=True).stdout)


class StartsHelpersOnImport(BaseApp):
    def helpers(self) -> list[int]:
        return [near.pid, far]
