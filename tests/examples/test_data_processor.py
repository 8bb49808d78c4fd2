import csv
import datetime as dt
import json
import math
import statistics
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest

from warmpool.errors import InvalidInputError
from warmpool.signatures import functions_of, select

ROOT = Path(__file__).parents[2]
PENGUINS = ROOT / "examples" / "data" / "penguins.csv"
NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "year"]
ANALYSES = ["summary", "correlations", "outliers", "trends"]

with PENGUINS.open(newline="") as file:
    ROWS = list(csv.DictReader(file))


def column(name):
    """The numbers of a column of the shipped data with their rows, read without polars."""
    return [(row, float(cells[name])) for row, cells in enumerate(ROWS) if cells[name]]


def values(name):
    return [value for _, value in column(name)]


def pairs(x, y):
    """The values of two columns in the rows that have both."""
    there = [(float(cells[x]), float(cells[y])) for cells in ROWS if cells[x] and cells[y]]
    return zip(*there, strict=True)


def call(app, name, **value):
    """As a worker calls: the input decoded, the result encoded, and nothing in it that JSON does not know."""
    function, value = select(functions_of(type(app)), "data", name, value)
    result = function.encode(function.method(app, *function.decode(value)))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


@pytest.fixture
def app(load_app):
    app = load_app("data_processor").DataProcessor()
    app.setup()
    return app


@pytest.fixture
def penguins(app):
    app.load(str(PENGUINS))
    return app


@pytest.fixture
def data(app, tmp_path):
    """→ a function that loads a table given as columns, by way of a Parquet file."""

    def load(**columns):
        pl.DataFrame(columns).write_parquet(tmp_path / "table.parquet")
        call(app, "load", path=str(tmp_path / "table.parquet"))
        return app

    return load


# Loading -----------------------------------------------------------------------------------------------------------


def test_load_describes_the_columns(app):
    result = call(app, "load", path=str(PENGUINS))
    assert result["rows"] == len(ROWS) == 344
    assert [(c["name"], c["dtype"]) for c in result["columns"]] == [
        ("species", "String"),
        ("island", "String"),
        ("bill_length_mm", "Float64"),
        ("bill_depth_mm", "Float64"),
        ("flipper_length_mm", "Int64"),
        ("body_mass_g", "Int64"),
        ("sex", "String"),
        ("year", "Int64"),
    ]
    assert {c["name"]: c["nulls"] for c in result["columns"]} == {
        name: sum(not cells[name] for cells in ROWS) for name in ROWS[0]
    }


def test_a_relative_path_begins_at_the_current_directory(app, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert call(app, "load", path="examples/data/penguins.csv")["rows"] == 344


def test_parquet_and_csv_give_the_same(app, tmp_path):
    def look():
        """The last digit of a sum may depend on how a file is cut into pieces."""
        analyses = json.dumps([call(app, name) for name in ANALYSES])
        return json.loads(analyses, parse_float=lambda digits: round(float(digits), 9))

    from_csv = call(app, "load", path=str(PENGUINS))
    analyses = look()
    pl.read_csv(PENGUINS).write_parquet(tmp_path / "penguins.PARQUET")
    assert call(app, "load", path=str(tmp_path / "penguins.PARQUET")) == from_csv
    assert look() == analyses


def test_a_number_with_a_fraction_may_come_late_in_a_csv(app, tmp_path):
    (tmp_path / "late.csv").write_text("x\n" + "1\n" * 5000 + "1.5\n")
    assert call(app, "load", path=str(tmp_path / "late.csv"))["columns"][0]["dtype"] == "Float64"


@pytest.mark.parametrize("analysis", [*ANALYSES, "analyze"])
def test_an_analysis_needs_data_and_says_how_to_get_it(app, analysis):
    with pytest.raises(ValueError, match="call `load`"):
        call(app, analysis, **({"type": "summary"} if analysis == "analyze" else {}))


def test_other_kinds_of_files_are_refused_by_name(app):
    with pytest.raises(ValueError, match=r"'table\.xlsx'.*\.csv or \.parquet"):
        call(app, "load", path="table.xlsx")


@pytest.mark.parametrize("name", ["missing.csv", "missing.parquet"])
def test_a_failed_load_keeps_the_data_there_was(penguins, tmp_path, name):
    before = call(penguins, "summary")
    with pytest.raises(FileNotFoundError):
        call(penguins, "load", path=str(tmp_path / name))
    assert call(penguins, "summary") == before


def test_a_new_load_takes_the_place_of_the_old(penguins, data):
    data(x=[1])
    assert list(call(penguins, "summary")) == ["x"]
    assert list(call(penguins, "trends")) == ["x"]


def test_the_file_can_be_imported_without_polars(load_app, monkeypatch):
    """The template imports it, and must not get polars' threads."""
    monkeypatch.setitem(sys.modules, "polars", None)
    assert list(functions_of(load_app("data_processor").DataProcessor)) == ["load", "analyze", *ANALYSES]


def test_two_sessions_share_nothing(penguins, load_app):
    other = load_app("data_processor").DataProcessor()
    other.setup()
    with pytest.raises(ValueError, match="call `load`"):
        other.summary()


# Summary -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_summary_of_numbers(penguins, name):
    numbers = values(name)
    q1, median, q3 = statistics.quantiles(numbers, n=4, method="inclusive")
    assert call(penguins, "summary")[name] == pytest.approx(
        {
            "count": len(numbers),
            "mean": statistics.mean(numbers),
            "std": statistics.stdev(numbers),
            "min": min(numbers),
            "q1": q1,
            "median": median,
            "q3": q3,
            "max": max(numbers),
        },
        rel=1e-12,
    )


@pytest.mark.parametrize("name", ["species", "island", "sex"])
def test_summary_of_text(penguins, name):
    counts = Counter(cells[name] for cells in ROWS if cells[name])
    ((top, top_count),) = counts.most_common(1)
    assert call(penguins, "summary")[name] == {
        "count": counts.total(),
        "n_unique": len(counts),
        "top": top,
        "top_count": top_count,
    }


def test_summary_keeps_the_order_of_columns(penguins):
    assert list(call(penguins, "summary")) == list(ROWS[0])


def test_of_equally_frequent_values_the_least_is_on_top(data):
    assert call(data(x=["b", "a", "b", "a", "c", None]), "summary")["x"] == {
        "count": 5,
        "n_unique": 3,
        "top": "a",
        "top_count": 2,
    }


def test_columns_may_have_any_name(data):
    app = data(**{"count": ["x", "x"], "index": [1, 2], "": [2, 1]})
    assert call(app, "summary")["count"]["top_count"] == 2
    assert call(app, "correlations") == [{"columns": ["index", ""], "r": pytest.approx(-1.0)}]
    assert call(app, "trends", by="")["index"]["slope"] == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("column", "top"),
    [
        ([True, True, False], "True"),
        ([dt.date(2007, 11, 11)] * 2 + [dt.date(2008, 1, 1)], "2007-11-11"),
        ([dt.timedelta(seconds=1)] * 2 + [dt.timedelta(0)], "0:00:01"),
        (pl.Series(["b", "b", "a"], dtype=pl.Categorical), "b"),
        (pl.Series(["b", "b", "a"], dtype=pl.Enum(["b", "a"])), "b"),
        ([b"\xff", b"\xff", b""], "b'\\xff'"),
    ],
)
def test_what_is_neither_number_nor_text_is_counted(data, column, top):
    result = call(data(x=column), "summary")["x"]
    assert result == {"count": 3, "n_unique": 2, "top": top, "top_count": 2}


@pytest.mark.parametrize("column", [[[1], [1], [2]], [{"a": 1}, {"a": 1}, {"a": 2}]])
def test_nested_values_are_counted_without_a_top(data, column):
    result = call(data(x=column), "summary")["x"]
    assert result == {"count": 3, "n_unique": 2, "top": None, "top_count": None}


# Correlations ------------------------------------------------------------------------------------------------------


def test_correlations_of_all_pairs(penguins):
    expected = {(x, y): statistics.correlation(*pairs(x, y)) for x, y in combinations(NUMBERS, 2)}
    result = call(penguins, "correlations")
    assert {tuple(pair["columns"]): pair["r"] for pair in result} == pytest.approx(expected, rel=1e-9)
    strengths = [abs(pair["r"]) for pair in result]
    assert strengths == sorted(strengths, reverse=True)
    assert result[0]["columns"] == ["flipper_length_mm", "body_mass_g"]


def test_correlation_takes_the_rows_that_have_both(data):
    app = data(x=[1, 2, None, 4, 5], y=[2.0, 4.0, 100.0, None, 10.0])
    assert call(app, "correlations") == [{"columns": ["x", "y"], "r": pytest.approx(1.0)}]


def test_a_constant_correlates_with_nothing_and_comes_last(data):
    app = data(constant=[0.1] * 3, x=[1, 2, 3], y=[1, 3, 2])
    assert call(app, "correlations") == [
        {"columns": ["x", "y"], "r": pytest.approx(0.5)},
        {"columns": ["constant", "x"], "r": None},
        {"columns": ["constant", "y"], "r": None},
    ]


def test_a_correlation_of_zero_is_a_number(data):
    assert call(data(x=[-1, 0, 1], y=[1, 0, 1]), "correlations") == [{"columns": ["x", "y"], "r": 0.0}]


def test_perfect_lines_correlate_with_exactly_one(data):
    x = [0.1 * n for n in range(100)]
    app = data(x=x, up=[value / 3 for value in x], down=[-7 * value for value in x])
    for pair in call(app, "correlations"):
        assert abs(pair["r"]) == pytest.approx(1.0)
        assert abs(pair["r"]) <= 1.0


# Outliers ----------------------------------------------------------------------------------------------------------


def fences(numbers, threshold):
    q1, _, q3 = statistics.quantiles(numbers, n=4, method="inclusive")
    return q1 - threshold * (q3 - q1), q3 + threshold * (q3 - q1)


def deviations(numbers, threshold):
    reach = threshold * statistics.stdev(numbers)
    return statistics.mean(numbers) - reach, statistics.mean(numbers) + reach


@pytest.mark.parametrize("threshold", [0.5, 1.0, 1.5, 2, 3])
@pytest.mark.parametrize(("method", "limits"), [("iqr", fences), ("zscore", deviations)])
def test_outliers_of_all_columns(penguins, method, limits, threshold):
    result = call(penguins, "outliers", method=method, threshold=threshold)
    assert list(result) == NUMBERS
    for name in NUMBERS:
        low, high = limits(values(name), threshold)
        expected = [(row, value) for row, value in column(name) if not low <= value <= high]
        assert (result[name]["low"], result[name]["high"]) == pytest.approx((low, high), rel=1e-12)
        assert result[name]["count"] == len(expected)
        assert list(zip(result[name]["rows"], result[name]["values"], strict=True)) == expected[:100]


def test_each_method_has_its_usual_threshold(penguins):
    assert call(penguins, "outliers") == call(penguins, "outliers", method="iqr", threshold=1.5)
    assert call(penguins, "outliers", method="zscore") == call(penguins, "outliers", method="zscore", threshold=3)


def test_an_outlier_is_found_at_its_row_in_spite_of_nulls_before_it(data):
    app = data(x=[None, 1, 2, None, 3, 2, 1, 1000, 2])
    assert call(app, "outliers")["x"] | {"low": 0, "high": 0} == {
        "low": 0,
        "high": 0,
        "count": 1,
        "rows": [7],
        "values": [1000.0],
    }


def test_the_list_ends_at_the_limit_and_the_count_does_not(data):
    app = data(x=[0, 1] * 50 + [1000, 2000, 3000])
    result = call(app, "outliers", limit=2)["x"]
    assert (result["count"], result["rows"], result["values"]) == (3, [100, 101], [1000.0, 2000.0])
    result = call(app, "outliers", limit=0)["x"]
    assert (result["count"], result["rows"], result["values"]) == (3, [], [])


def test_columns_can_be_chosen(penguins):
    assert list(call(penguins, "outliers", columns="year")) == ["year"]
    assert list(call(penguins, "outliers", columns=["year", "body_mass_g"])) == ["year", "body_mass_g"]
    assert call(penguins, "outliers", columns=[]) == {}


@pytest.mark.parametrize("columns", ["species", "wings", ["year", "species"]])
def test_a_column_that_has_no_numbers_is_refused_with_those_that_have(penguins, columns):
    with pytest.raises(ValueError, match=r"no column of numbers is named .*; there are: bill_length_mm, .*, year"):
        call(penguins, "outliers", columns=columns)


@pytest.mark.parametrize(
    "value", [{"method": "guess"}, {"threshold": 0}, {"threshold": -1}, {"limit": -1}, {"colums": "year"}]
)
def test_options_that_make_no_sense_are_refused(penguins, value):
    with pytest.raises(InvalidInputError):
        call(penguins, "outliers", **value)


@pytest.mark.parametrize("method", ["iqr", "zscore"])
@pytest.mark.parametrize("x", [[0.1] * 10, [0.1, None], [7], [None, None], []])
def test_without_two_different_values_nothing_is_an_outlier(data, method, x):
    app = data(x=pl.Series(x, dtype=pl.Float64))
    assert call(app, "outliers", method=method, threshold=1e-9)["x"] == {
        "low": None,
        "high": None,
        "count": 0,
        "rows": [],
        "values": [],
    }


# Trends ------------------------------------------------------------------------------------------------------------


def same_line(result, x, y):
    slope, _ = statistics.linear_regression(x, y)
    r2 = statistics.correlation(x, y) ** 2
    assert result == {
        "slope": pytest.approx(slope, rel=1e-9),
        "r2": pytest.approx(r2, rel=1e-9),
        "direction": "flat" if r2 < 0.01 else "up" if slope > 0 else "down",
    }


def test_trends_over_the_order_of_rows(penguins):
    result = call(penguins, "trends")
    assert list(result) == NUMBERS
    for name in NUMBERS:
        same_line(result[name], *zip(*column(name), strict=True))


@pytest.mark.parametrize("by", ["year", "body_mass_g"])
def test_trends_over_a_column(penguins, by):
    result = call(penguins, "trends", by=by)
    assert list(result) == [name for name in NUMBERS if name != by]
    for name in result:
        same_line(result[name], *pairs(by, name))


def test_directions(data):
    app = data(up=[1, 2, None, 4], down=[3.0, 2.0, 1.0, 0.0], flat=[5, 5, 5, 5], noise=[1, -1, -1, 1])
    assert call(app, "trends") == {
        "up": {"slope": pytest.approx(1), "r2": pytest.approx(1), "direction": "up"},
        "down": {"slope": pytest.approx(-1), "r2": pytest.approx(1), "direction": "down"},
        "flat": {"slope": 0.0, "r2": None, "direction": "flat"},
        "noise": {"slope": 0.0, "r2": 0.0, "direction": "flat"},
    }


def test_over_a_constant_there_is_no_line(data):
    app = data(x=[0.1, 0.1, 0.1], y=[1, 2, 3])
    assert call(app, "trends", by="x") == {"y": {"slope": None, "r2": None, "direction": "flat"}}


@pytest.mark.parametrize("by", ["species", "wings"])
def test_a_trend_over_what_has_no_numbers_is_refused(penguins, by):
    with pytest.raises(ValueError, match="no column of numbers is named"):
        call(penguins, "trends", by=by)


# Analyze, and odd tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ANALYSES)
def test_analyze_is_the_analysis_of_that_name(penguins, type):
    assert call(penguins, "analyze", type=type) == call(penguins, type)


@pytest.mark.parametrize("type", ["load", "analyze", "_loaded", "everything", None])
def test_analyze_knows_the_analyses_only(penguins, type):
    with pytest.raises(InvalidInputError):
        call(penguins, "analyze", type=type)


def test_the_functions_can_be_named_by_the_action_of_the_input(app):
    call(app, None, action="load", path=str(PENGUINS))
    assert call(app, None, action="analyze", type="trends") == call(app, "trends")


NO_NUMBERS = {"count": 0, **dict.fromkeys(["mean", "std", "min", "q1", "median", "q3", "max"])}
NO_VALUES = {"count": 0, "n_unique": 0, "top": None, "top_count": None}
NO_OUTLIERS = {"low": None, "high": None, "count": 0, "rows": [], "values": []}
NO_TREND = {"slope": None, "r2": None, "direction": "flat"}


@pytest.mark.parametrize("text", ["", "name,number\n"])
def test_a_csv_without_rows(app, tmp_path, text):
    (tmp_path / "empty.csv").write_text(text)
    names = text.strip().split(",") if text else []
    assert call(app, "load", path=str(tmp_path / "empty.csv")) == {
        "rows": 0,
        "columns": [{"name": name, "dtype": "String", "nulls": 0} for name in names],
    }
    assert call(app, "summary") == dict.fromkeys(names, NO_VALUES)
    assert call(app, "correlations") == []
    assert call(app, "outliers") == call(app, "trends") == {}


@pytest.mark.parametrize("rows", [0, 3])
def test_columns_without_a_value(data, rows):
    empty = [None] * rows
    app = data(
        x=pl.Series(empty, dtype=pl.Int64),
        y=pl.Series(empty, dtype=pl.Float32),
        z=pl.Series(empty, dtype=pl.Null),
    )
    assert call(app, "summary") == {"x": NO_NUMBERS, "y": NO_NUMBERS, "z": NO_VALUES}
    assert call(app, "correlations") == [{"columns": ["x", "y"], "r": None}]
    assert call(app, "outliers") == {"x": NO_OUTLIERS, "y": NO_OUTLIERS}
    assert call(app, "trends") == {"x": NO_TREND, "y": NO_TREND}


def test_text_only(data):
    app = data(name=["Ada", "Grace", "Ada"])
    assert call(app, "summary") == {"name": {"count": 3, "n_unique": 2, "top": "Ada", "top_count": 2}}
    assert call(app, "correlations") == []
    assert call(app, "outliers") == call(app, "trends") == {}
    with pytest.raises(ValueError, match="there are: none"):
        call(app, "trends", by="name")


def test_one_row(data):
    app = data(x=[2], y=[3.0])
    assert call(app, "summary")["x"] == NO_NUMBERS | {
        "count": 1, "mean": 2.0, "min": 2.0, "q1": 2.0, "median": 2.0, "q3": 2.0, "max": 2.0,
    }  # fmt: skip
    assert call(app, "correlations") == [{"columns": ["x", "y"], "r": None}]
    assert call(app, "trends")["x"] == NO_TREND


def test_what_is_no_number_counts_as_missing(data):
    app = data(x=[1.0, math.nan, 3.0, math.inf, -math.inf, None])
    assert call(app, "summary")["x"] | {"std": None} == {
        "count": 2, "mean": 2.0, "std": None, "min": 1.0, "q1": 1.5, "median": 2.0, "q3": 2.5, "max": 3.0,
    }  # fmt: skip
    assert call(app, "outliers")["x"]["count"] == 0
    assert call(app, "trends")["x"] == {"slope": pytest.approx(1), "r2": pytest.approx(1), "direction": "up"}


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_numbers_may_be_too_small_or_too_large_to_be_squared(data, scale):
    app = data(x=[scale, 2 * scale, 4 * scale], y=[1, 2, 3])
    (pair,) = call(app, "correlations")
    assert pair["r"] == pytest.approx(statistics.correlation([1, 2, 4], [1, 2, 3]))
    assert call(app, "trends")["x"]["slope"] == pytest.approx(1.5 * scale)


def test_numbers_at_the_very_end_of_floats_break_nothing(data):
    app = data(x=[-1.7e308, 1.7e308, 1.7e308], y=[1, 2, 3])
    assert call(app, "correlations") == [{"columns": ["x", "y"], "r": None}]
    assert call(app, "summary")["x"]["max"] == 1.7e308
    assert call(app, "outliers")["x"]["count"] == 0


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(10, 2)])
def test_all_kinds_of_numbers_become_floats(data, dtype):
    app = data(x=pl.Series([1, 2, 3]).cast(dtype))
    summary = call(app, "summary")["x"]
    assert (summary["min"], summary["mean"], summary["max"]) == (1.0, 2.0, 3.0)
    assert isinstance(summary["min"], float)


# The data ----------------------------------------------------------------------------------------------------------


def test_the_shipped_data_is_small_and_its_source_and_licence_are_told():
    assert PENGUINS.stat().st_size < 50_000
    readme = (PENGUINS.parent / "README.md").read_text()
    assert all(name in readme for name in ["penguins.csv", "CC0", "Gorman", *ROWS[0]])
