"""Counts the bytecodes that its worker executes to answer a call, and lets itself be traced."""

import sys
from types import FrameType
from typing import Any

from tracing import allow_tracing

from warmpool import BaseApp, BaseAppInput, BaseAppOutput

ANSWER = "BlockingLoop._answer"
"""All that a call costs but its reading, which depends on when it came."""


class AddInput(BaseAppInput):
    key: str
    value: int


class AddOutput(BaseAppOutput):
    value: int


class CountsItself(BaseApp):
    def setup(self) -> None:
        allow_tracing()
        self.state: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.is_answering = False

    def add(self, input: AddInput) -> AddOutput:
        self.state[input.key] = self.state.get(input.key, 0) + input.value
        return AddOutput(value=self.state[input.key])

    def start_counting(self) -> None:
        self.counts = {}
        sys._getframe().f_trace_opcodes = True  # or Python 3.12 tells of none
        sys.settrace(self._entered)

    def stop_counting(self) -> dict[str, int]:
        """By function. Of this call there is nothing in it but its beginning."""
        sys.settrace(None)
        return self.counts

    def _entered(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.is_answering |= frame.f_code.co_qualname == ANSWER
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._happened

    def _happened(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_qualname
        if event == "opcode" and self.is_answering:
            self.counts[name] = self.counts.get(name, 0) + 1
        elif event == "return" and name == ANSWER:
            self.is_answering = False
        return self._happened
