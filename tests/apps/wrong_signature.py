from __future__ import annotations

from warmpool import BaseApp


class WrongSignature(BaseApp):
    def run(self, value: NoSuchType) -> str:  # noqa: F821
        return "never"
