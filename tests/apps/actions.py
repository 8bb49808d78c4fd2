"""No `run`: the input's `action` chooses."""

from warmpool import BaseApp, BaseAppInput


class WithAction(BaseAppInput):
    action: str
    value: int


class Actions(BaseApp):
    def double(self, value: int) -> int:
        return 2 * value

    def tell(self, input: WithAction) -> list[object]:
        return [input.action, input.value]
