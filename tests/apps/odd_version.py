"""Has a version that cannot be asked for, and a `preload` that has nothing to do with it."""

from warmpool import BaseApp


class OddVersion(BaseApp):
    version = "1.0:beta"

    @classmethod
    def preload(cls):
        cls.value = 1

    def get(self) -> int:
        return self.value
