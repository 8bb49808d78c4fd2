"""A data set that stays in memory: read once, then looked at from all sides.

warmpool run examples/apps/data_processor.py load --session new --input '{"path": "examples/data/penguins.csv"}'

The calls that follow in the session (`summary`, `correlations`, `outliers`, `trends`) find it there. In columns
of numbers null, NaN and infinity are all missing values. What does not exist (the deviation of a single value,
the correlation with a constant) is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from warmpool import BaseApp

if TYPE_CHECKING:
    from polars import DataFrame, Series

Analysis = Literal["summary", "correlations", "outliers", "trends"]
Method = Literal["iqr", "zscore"]

USUAL = {"iqr": 1.5, "zscore": 3.0}
"""The threshold of each method: in widths of the middle half (Tukey's fences), in standard deviations."""
FLAT = 0.01
"""A line that explains less than this share of the variance (r²) is no trend."""


class DataProcessor(BaseApp):
    readers: dict[str, Callable[[str], DataFrame]]
    frame: DataFrame | None = None
    numbers: dict[str, Series]

    def setup(self) -> None:
        # Not at the top of the file: importing polars starts threads, and a process with threads is not safe
        # to fork. `setup` runs in the worker, after the fork and before anyone waits for it.
        import polars as pl

        read_csv = partial(pl.read_csv, infer_schema_length=None, raise_if_empty=False)
        self.readers = {".csv": read_csv, ".parquet": pl.read_parquet}

    def load(self, path: str) -> dict[str, Any]:
        """Reads a CSV or Parquet file, in place of the one before. → its rows and columns."""
        read = self.readers.get(Path(path).suffix.lower())
        if read is None:
            raise ValueError(f"cannot read {path!r}: the name of a file ends in {' or '.join(self.readers)}")
        frame = read(path)
        numbers = {column.name: finite(column) for column in frame if column.dtype.is_numeric()}
        self.frame, self.numbers = frame, numbers
        columns = [{"name": c.name, "dtype": str(c.dtype), "nulls": c.null_count()} for c in frame]
        return {"rows": frame.height, "columns": columns}

    def analyze(self, type: Analysis) -> dict[str, Any] | list[Any]:
        """The analysis of that name. To pass options, call it by its own name."""
        return getattr(self, type)()

    def summary(self) -> dict[str, dict[str, Any]]:
        """How numbers are spread; of other columns, how many different values and the most frequent one."""
        return {
            column.name: spread(self.numbers[column.name]) if column.name in self.numbers else variety(column)
            for column in self._loaded()
        }

    def correlations(self) -> list[dict[str, Any]]:
        """Pearson's r of each pair of numeric columns, in the rows that have both; the strongest first."""
        pairs = combinations(self._numeric(), 2)
        found = [{"columns": [x.name, y.name], "r": fit(x, y)[1]} for x, y in pairs]
        return sorted(found, key=lambda pair: -1 if pair["r"] is None else abs(pair["r"]), reverse=True)

    def outliers(
        self,
        columns: str | list[str] | None = None,
        method: Method = "iqr",
        threshold: Annotated[float, Field(gt=0)] | None = None,
        limit: Annotated[int, Field(ge=0)] = 100,
    ) -> dict[str, dict[str, Any]]:
        """Values far from the rest: how many there are, and the first `limit` with their rows (from 0)."""
        found = {}
        for column in self._numeric(columns):
            low, high = bounds(column, method, threshold or USUAL[method])
            rows = ((column < low) | (column > high)).arg_true()
            first = rows.head(limit)
            found[column.name] = {
                "low": plain(low),
                "high": plain(high),
                "count": len(rows),
                "rows": first.to_list(),
                "values": column.gather(first).to_list(),
            }
        return found

    def trends(self, by: str | None = None) -> dict[str, dict[str, Any]]:
        """The straight line through each numeric column, over the order of rows or over the column `by`."""
        over = None if by is None else self._numeric(by)[0]
        lines = {}
        for column in self._numeric():
            if column is not over:
                slope, r = fit(row_numbers(column) if over is None else over, column)
                lines[column.name] = {"slope": slope, "r2": r and r * r, "direction": direction(r)}
        return lines

    def _loaded(self) -> DataFrame:
        if self.frame is None:
            raise ValueError("there is no data yet: call `load` with the path of a CSV or Parquet file first")
        return self.frame

    def _numeric(self, names: str | list[str] | None = None) -> list[Series]:
        """The columns of numbers, or of them those that are named."""
        self._loaded()
        if names is None:
            return list(self.numbers.values())
        names = [names] if isinstance(names, str) else names
        if unknown := ", ".join(name for name in names if name not in self.numbers):
            there = ", ".join(self.numbers) or "none"
            raise ValueError(f"no column of numbers is named {unknown}; there are: {there}")
        return [self.numbers[name] for name in names]


def finite(column: Series) -> Series:
    """The column as floats, with null for what is no number."""
    column = column.cast(float)
    return column.set(~column.is_finite(), None)


def plain(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def spread(column: Series) -> dict[str, Any]:
    measures = {
        "mean": column.mean(),
        "std": column.std(),
        "min": column.min(),
        "q1": column.quantile(0.25, "linear"),
        "median": column.median(),
        "q3": column.quantile(0.75, "linear"),
        "max": column.max(),
    }
    return {"count": column.count()} | {name: plain(measure) for name, measure in measures.items()}


def variety(column: Series) -> dict[str, Any]:
    """Of equally frequent values, the least is `top`. Lists and structs have none."""
    values = column.drop_nulls().alias("value")
    result = {"count": len(values), "n_unique": values.n_unique(), "top": None, "top_count": None}
    if len(values) and not values.dtype.is_nested():
        value, count = values.value_counts().sort("count", "value", descending=[True, False]).row(0)
        result |= {"top": str(value), "top_count": count}
    return result


def bounds(column: Series, method: Method, threshold: float) -> tuple[float, float]:
    """Where the ordinary values end: in a column without two different values, nowhere."""
    if not width(column):
        return -math.inf, math.inf
    if method == "iqr":
        low, high = column.quantile(0.25, "linear"), column.quantile(0.75, "linear")
        reach = threshold * (high - low)
    else:
        low = high = column.mean()
        reach = threshold * column.std()
    return low - reach, high + reach


def row_numbers(column: Series) -> Series:
    return column.is_null().cum_count().cast(float)


def fit(x: Series, y: Series) -> tuple[float | None, float | None]:
    """The slope of the least squares line and Pearson's r, from the rows that have both values."""
    both = x.is_not_null() & y.is_not_null()
    x, y = x.filter(both), y.filter(both)
    if not (x_width := width(x)):
        return None, None
    if not (y_width := width(y)):
        return 0.0, None
    # Of the size of one, so that their squares neither overflow nor vanish.
    dx, dy = (x - x.mean()) / x_width, (y - y.mean()) / y_width
    xx, xy, yy = dx.dot(dx), dx.dot(dy), dy.dot(dy)
    r = plain(xy / math.sqrt(xx * yy))
    return plain(xy / xx * y_width / x_width), r and max(-1.0, min(r, 1.0))


def width(column: Series) -> float:
    """From the least number to the greatest: 0 for a constant, and where there is none."""
    return (column.count() and plain(column.max() - column.min())) or 0.0


def direction(r: float | None) -> str:
    if r is None or r * r < FLAT:
        return "flat"
    return "up" if r > 0 else "down"
