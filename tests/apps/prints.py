"""Prints in every way there is, and more than anybody wants to read."""

import os
import subprocess
import sys

from warmpool import BaseApp


class Prints(BaseApp):
    def setup(self):
        print("set up")

    def on_end(self, reason: str):
        print(f"on_end {reason}")

    def say(self, text: str) -> None:
        print(text)

    def write(self, text: str, fd: int = 1) -> None:
        os.write(fd, text.encode())

    def say_by_a_child(self, text: str) -> None:
        subprocess.run(["sh", "-c", 'echo "$1"; echo "$1 too" >&2', "sh", text], check=True)

    def log(self, text: str) -> None:
        self.logger.warning(text)

    def in_every_way(self) -> None:
        print("by print")
        print("by print to stderr", file=sys.stderr)
        os.write(1, b"by os.write\n")
        subprocess.run(["echo", "by a child"], check=True)
        self.logger.info("by the logger")

    def flood(self, megabytes: int) -> int:
        """A hundred letters a line."""
        block = (b"x" * 99 + b"\n") * 10_000
        for _ in range(megabytes):
            left = memoryview(block)
            while left:
                left = left[os.write(1, left) :]
        return megabytes

    def labels(self) -> dict[str, str]:
        return self.context.labels

    def close_its_output(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(null, fd)
