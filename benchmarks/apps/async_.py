"""The same with async functions."""

from warmpool import BaseApp, BaseAppInput, BaseAppOutput


class AddInput(BaseAppInput):
    key: str
    value: int


class AddOutput(BaseAppOutput):
    value: int


class Async(BaseApp):
    def setup(self) -> None:
        self.state: dict[str, int] = {}

    async def add(self, input: AddInput) -> AddOutput:
        self.state[input.key] = self.state.get(input.key, 0) + input.value
        return AddOutput(value=self.state[input.key])
