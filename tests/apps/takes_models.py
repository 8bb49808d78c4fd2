"""Inputs that go by other names than their fields, with parts that are computed or secret."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, Strict, computed_field
from pydantic.alias_generators import to_camel, to_pascal

from warmpool import BaseApp


class Order(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    user_id: int
    pass_word: SecretStr

    @computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> int:
        return 2 * self.user_id


class Tagged(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, strict=True)
    of: int
    tags: set[str]
    at: datetime


class Square(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Numbers(RootModel[list[int]]):
    pass


class TakesModels(BaseApp):
    def total(self, numbers: Numbers) -> int:
        return sum(numbers.root)

    def run(self, order: Order) -> list[object]:
        return [order.user_id, order.pass_word.get_secret_value()]

    def described(self, order: Annotated[Order, Field(description="what to do")]) -> list[object]:
        return self.run(order)

    def noted(
        self,
        count: Annotated[int, Field(alias="howMany")],
        notes: list[str] = Field(default_factory=list, max_length=1),  # noqa: B008
    ) -> list[object]:
        return [count, *notes]

    def tagged(self) -> list[Tagged]:
        return [Tagged(Of=1, Tags={"a"}, At=datetime(2026, 1, 2, tzinfo=UTC))]

    def told(self, tagged: Tagged) -> list[object]:
        return [tagged.of, sorted(tagged.tags), tagged.at]

    def told_apart(self, of: Annotated[int, Strict()], tags: Annotated[set[str], Strict()]) -> list[object]:
        return [of, sorted(tags)]

    def squared(self, side: int) -> Square:
        return Square(side=side)

    def several(self, orders: list[Order]) -> list[object]:
        return [self.run(order) for order in orders]
