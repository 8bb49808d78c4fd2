"""Results that JSON has no words for, and inputs that have no schema."""

from collections.abc import Callable

from warmpool import BaseApp


class OddResults(BaseApp):
    def numbers(self) -> list[float]:
        return [float("nan"), float("inf"), float("-inf"), 0.5]

    def keys(self) -> dict:
        return {b"raw": 1, (1, 2): 2, None: 3, 4: 4, "five": 5}

    def nested(self, depth: int) -> list:
        value: list = []
        for _ in range(depth - 1):
            value = [value]
        return value

    def take(self, function: Callable[[int], int]) -> str:
        """Cannot be called from afar, which is no reason to hide the others."""
        return str(function)
