"""What Python classes do that an app is not often seen to do: being empty, being copied, making names up."""

import asyncio
import copy
import multiprocessing
from pathlib import Path

from pydantic import BaseModel, computed_field, field_serializer

from warmpool import BaseApp


class Basket(BaseApp):
    def setup(self):
        self.items: list[int] = []

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: int) -> int:
        self.items.append(item)
        return len(self)


class AsyncBasket(Basket):
    async def add(self, item: int) -> int:  # type: ignore[override]
        return super().add(item)


class Copied(BaseApp):
    def setup(self):
        self.factor = 3

    def _product(self, number: int) -> int:
        return number * self.factor

    def in_a_pool(self) -> list[int]:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.map(self._product, [1, 2])

    def snapshot(self) -> dict:
        twin = copy.deepcopy(self)
        twin.context.progress(1, 2)
        twin.context.end_session()
        return {"factor": twin.factor, "session": twin.context.session_id, "cancelled": twin.context.cancel_requested}


class Dynamic(BaseApp):
    """Has any name that is in its table; and raises the wrong error for any other."""

    def setup(self):
        self.table = {"seven": 7}

    def __getattr__(self, name: str) -> int:
        return self.__dict__["table"][name]

    def wait(self, fifo: Path) -> str:
        return fifo.read_text()

    def look_up(self) -> int:
        return self.seven

    def unload(self):
        print("unloaded", flush=True)


class AsyncDynamic(Dynamic):
    async def wait(self, fifo: Path) -> str:  # type: ignore[override]
        await asyncio.sleep(1000)
        return str(fifo)


class Computed(BaseModel):
    total: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float:
        return {}["rate"]


class Serialised(BaseModel):
    total: int = 1

    @field_serializer("total")
    def double(self, total: int) -> int:
        return total // 0


class Reports(BaseApp):
    def computed(self) -> Computed:
        return Computed()

    def serialised(self) -> Serialised:
        return Serialised()

    async def awaited(self) -> Serialised:
        return Serialised()

    def opaque(self) -> object:
        return object()
