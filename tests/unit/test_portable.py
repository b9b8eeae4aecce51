"""Expressions as data say what Polars says, or are left to the caller."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from flyball.edge import Refused, expression
from flyball.learn.features import portable

SCHEMA = {
    "x": pl.Float64(),
    "n": pl.Int32(),
    "on": pl.Boolean(),
    "text": pl.String(),
    "kind": pl.Enum(["a", "b"]),
    "at": pl.Datetime("us", "UTC"),
}
X, N, ON, TEXT, KIND, AT = (pl.col(name) for name in SCHEMA)
KNOWN = {
    "ratio": X / N,
    "third": X / 3,
    "sum": X + 2 * N - 1,
    "product": N * N + 1,
    "either": pl.when((X > 100) & ON).then(1).otherwise(0),
    "filled": X.fill_null(0.0) + 0,
    "missing": N.is_null() | ~ON,
    "same": (KIND == "a") | (TEXT != "b"),
    "shout": TEXT.str.to_uppercase(),
    "begins": TEXT.str.starts_with("ab"),
    "long": TEXT.str.len_chars(),
    "hour": AT.dt.convert_time_zone("Europe/Berlin").dt.hour(),
    "weekday": AT.dt.weekday(),
    "year": AT.dt.year() - 2000,
    "whole": N.cast(pl.Float64) <= X,
    "size": abs(X - 5.5),
}


@pytest.mark.parametrize("name", KNOWN)
def test_it_is_data_and_says_the_same(name: str) -> None:
    data = portable.of(KNOWN[name], SCHEMA)
    assert data is not None
    run = expression.compiled(json.loads(json.dumps(data)))
    at = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    rows = [(7.25, 3, True, "abC", "a", at), (None, None, None, None, None, None), (101.0, -4, True, "", "b", at)]
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    cells = frame.with_columns(pl.col("at").cast(pl.Int64)).to_dicts()
    assert [run(row) for row in cells] == frame.select(KNOWN[name].alias("x"))["x"].to_list()


@pytest.mark.parametrize(
    "unknown",
    [X.rank(), X.sin(), TEXT.str.contains("a+b"), AT, KIND < "b", X.map_elements(abs, return_dtype=pl.Float64), X % 3],
)
def test_what_is_not_known_is_handed_over(unknown: pl.Expr) -> None:
    assert portable.of(unknown, SCHEMA) is None


def test_what_may_not_be_the_same_is_refused() -> None:
    data = portable.of(N * 1000, SCHEMA)
    assert data is not None
    with pytest.raises(Refused, match="beyond its type"):
        expression.compiled(data)({"n": 2**30})
    with pytest.raises(Refused, match="knows no 'exec'"):
        expression.compiled(["exec", ["column", "x"]])
