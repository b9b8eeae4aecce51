"""Cells to types: what says a value, what says none, and that nothing is lost or invented on the way."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal

import polars as pl
import pytest

from flyball.data import coerce

UTC_TIME = pl.Datetime("us", "UTC")
AT = datetime(2013, 1, 1, 5, 0, tzinfo=UTC)
PARSED: list[tuple[pl.DataType, str, object]] = [
    *((pl.Int32(), text, value) for text, value in [("12", 12), ("-3", -3), ("+5", 5), ("007", 7)]),
    *((pl.Int32(), text, None) for text in ["12.5", "12.0", "1e3", "", " 12", "twelve", "1,000", "99999999999"]),
    *((pl.UInt8(), text, value) for text, value in [("255", 255), ("256", None), ("-1", None)]),
    *((pl.Float64(), text, value) for text, value in [("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("-2", -2.0)]),
    *((pl.Float64(), text, None) for text in ["1,5", "x", "", " 1"]),
    *((pl.Boolean(), text, True) for text in ["true", "TRUE", "True", "1"]),
    *((pl.Boolean(), text, False) for text in ["false", "FALSE", "0"]),
    *((pl.Boolean(), text, None) for text in ["yes", "t", "2", "", "truee"]),
    *((UTC_TIME, text, AT) for text in ["2013-01-01T05:00:00Z", "2013-01-01 05:00:00Z", "2013-01-01T06:00:00+01:00"]),
    (UTC_TIME, "2013-01-01T05:00:00.123456Z", AT.replace(microsecond=123456)),
    # A text without a zone is no instant.
    *((UTC_TIME, text, None) for text in ["2013-01-01T05:00:00", "2013-01-01", "2013-02-30T00:00:00Z", "soon", ""]),
    (pl.Datetime("us"), "2013-01-01T05:00:00", AT.replace(tzinfo=None)),
    (pl.Datetime("us"), "2013-01-01 05:00:00.5", AT.replace(tzinfo=None, microsecond=500_000)),
    (pl.Datetime("us"), "2013-01-01T05:00:00Z", None),
    (pl.Date(), "2013-01-01", date(2013, 1, 1)),
    *((pl.Date(), text, None) for text in ["2013-02-30", "01/02/2013", "2013-01-01T05:00:00Z"]),
    *((pl.Time(), text, time(5, 30)) for text in ["05:30", "05:30:00"]),
    (pl.Time(), "25:00", None),
    (pl.Decimal(10, 2), "1.5", Decimal("1.50")),
    (pl.Decimal(10, 2), "x", None),
    *((pl.Decimal(10, 2), text, None) for text in ["1.239", "0.001", "1e-3"]),
    (pl.Decimal(10, 2), "1.5000", Decimal("1.50")),
    *((t, text, None) for t in (pl.Float32(), pl.Float64()) for text in ["1e400", "-1e400"]),
    (pl.Float64(), "-inf", float("-inf")),
    *((pl.Datetime("ns", "UTC"), f"{year}-01-01T05:00:00Z", None) for year in (1200, 9999)),
    (pl.Datetime("ns"), "9999-01-01T05:00:00", None),
    (pl.Enum(["JFK", "LGA"]), "JFK", "JFK"),
    (pl.Enum(["JFK", "LGA"]), "EWR", None),
    (pl.Categorical(), "x", "x"),
    (pl.Binary(), "é", "é".encode()),
    (pl.List(pl.Int64), "[1]", None),
    (pl.Duration("us"), "1h", None),
]


def coerced(values: pl.Series, want: pl.DataType) -> pl.Series:
    frame = values.alias("x").to_frame()
    result = frame.with_columns(coerce.cell("x", frame.schema["x"], want).alias("x"))["x"]
    assert result.dtype == want
    assert len(result) == len(values)
    return result


@pytest.mark.parametrize(("want", "text", "value"), PARSED, ids=str)
def test_texts(want: pl.DataType, text: str, value: object) -> None:
    assert coerced(pl.Series([text, None]), want).to_list() == [value, None]


@pytest.mark.parametrize(
    ("have", "want", "values", "fit"),
    [
        (pl.Int64(), pl.Int8(), [1, 300, None], [1, None, None]),
        (pl.Float64(), pl.Int32(), [12.0, 12.5, float("nan"), float("inf"), 1e20], [12, None, None, None, None]),
        (pl.Int64(), pl.Float64(), [12, None], [12.0, None]),
        (pl.Int64(), pl.Float64(), [2**53 + 1], [None]),
        (pl.Float64(), pl.Float32(), [1e300, 0.5, float("inf")], [None, 0.5, float("inf")]),
        (pl.Float64(), pl.Decimal(10, 2), [1.239, 1.5], [None, Decimal("1.50")]),
        (pl.Decimal(10, 3), pl.Decimal(10, 2), [Decimal("1.239"), Decimal("1.230")], [None, Decimal("1.23")]),
        (pl.Boolean(), pl.Decimal(10, 2), [True], [Decimal("1.00")]),
        (UTC_TIME, pl.Datetime("ns", "UTC"), [datetime(9999, 1, 1, tzinfo=UTC), AT], [None, AT]),
        (pl.Int64(), pl.Boolean(), [0, 1, 2, None], [False, True, None, None]),
        (pl.Boolean(), pl.Int8(), [True, False, None], [1, 0, None]),
        (pl.Int64(), pl.String(), [12, None], ["12", None]),
        (pl.Boolean(), pl.String(), [True], ["true"]),
        (pl.Float64(), pl.String(), [12.0], [None]),  # "12.0" was never in the data
        (pl.Int64(), pl.Enum(["12"]), [12], [None]),
        (pl.Int64(), UTC_TIME, [0], [None]),
        (pl.Date(), UTC_TIME, [date(2013, 1, 1)], [None]),
        (pl.Date(), pl.Datetime("us"), [date(2013, 1, 1)], [datetime(2013, 1, 1)]),
        (pl.Datetime("us"), UTC_TIME, [datetime(2013, 1, 1)], [None]),
        (pl.Datetime("us", "America/New_York"), UTC_TIME, [AT], [AT]),
        (pl.Datetime("ms", "UTC"), UTC_TIME, [AT], [AT]),
        (UTC_TIME, pl.Date(), [AT], [None]),
        (pl.String(), pl.String(), ["", "x"], ["", "x"]),
        (pl.Enum(["a", "b"]), pl.Enum(["a"]), ["a", "b"], ["a", None]),
        (pl.Categorical(), pl.Int32(), ["1", "x"], [1, None]),
        (pl.Binary(), pl.String(), [b"x"], [None]),
        (pl.Null(), UTC_TIME, [None], [None]),
    ],
    ids=str,
)
def test_typed_cells(have: pl.DataType, want: pl.DataType, values: list[object], fit: list[object]) -> None:
    assert coerced(pl.Series(values, dtype=have), want).to_list() == fit


def test_a_column_that_cannot_fit_keeps_its_height() -> None:
    assert coerced(pl.Series([], dtype=pl.Binary), pl.Int64()).len() == 0
    assert coerced(pl.Series([b"x"] * 3), pl.Int64()).null_count() == 3
