"""The smallest app worth a session: a number that outlives the call.

warmpool run examples/apps/counter.py add --session new --input '{"amount": 2}'

The answer is `{"total": 2}`, and the same call with the session's id in place of `new` makes it 4.
"""

from __future__ import annotations

from warmpool import BaseApp, BaseAppInput, BaseAppOutput


class AddInput(BaseAppInput):
    amount: int = 1


class CounterOutput(BaseAppOutput):
    total: int


class Counter(BaseApp):
    total = 0

    def add(self, input: AddInput) -> CounterOutput:
        """Adds `amount`, which may be negative."""
        self.total += input.amount
        return self.get()

    def get(self) -> CounterOutput:
        """Looks, and changes nothing."""
        return CounterOutput(total=self.total)

    def reset(self) -> CounterOutput:
        """Back to zero."""
        self.total = 0
        return self.get()
