"""Sketches: whatever the rows and however they are cut and merged, what is called exact is exact, and no bound is broken."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyball.data.sketches import days, frequent, moments, quantiles, shape, sketch
from flyball.data.sketches.sketch import Column

FLOATS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-5, 5).map(round).map(float)


def column(values: list[Any], dtype: Any, **options: Any) -> Column:
    made = sketch.of(pl.LazyFrame({"x": pl.Series(values, dtype=dtype)}), **options).column("x")
    assert made is not None
    return made


def merged(parts: list[list[Any]], dtype: Any) -> Column:
    made = [sketch.of(pl.LazyFrame({"x": pl.Series(p, dtype=dtype)})) for p in parts]
    found = sketch.merge(*made).column("x")
    assert found is not None
    return found


def cut(values: list[Any], at: list[int]) -> list[list[Any]]:
    places = [0, *sorted(min(a, len(values)) for a in at), len(values)]
    return [values[a:b] for a, b in pairwise(places)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.none() | FLOATS, max_size=60), st.lists(st.integers(0, 60), max_size=4))
@example([0.1] * 3 + [1e300, -1e300, 5e-324, math.nan, math.inf, None], [2, 5])
@example([-0.0, 0.0], [1])
def test_what_is_exact_is_the_same_however_the_rows_are_cut(values: list[float | None], at: list[int]) -> None:
    whole, parts = column(values, pl.Float64), merged(cut(values, at), pl.Float64)
    assert parts == whole  # so few rows are kept whole
    there = [v for v in values if v is not None]
    real = [v for v in there if math.isfinite(v)]
    assert (whole.rows, whole.nulls) == (len(values), values.count(None))
    assert (whole.nans, whole.infinite) == (sum(map(math.isnan, there)), sum(map(math.isinf, there)))
    if real:
        exact = sum(map(Fraction, real))
        assert int(whole.moments.total, 16) == exact * 2**1126
        assert (whole.low is None) == (not [v for v in there if not math.isnan(v)])
    assert sketch.many(whole) == (len({v for v in there if not math.isnan(v)}), True)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
@example([1e9, 1e9 + 1e-6])
def test_the_deviation_does_not_cancel(values: list[float]) -> None:
    found = column(values, pl.Float64)
    exact = [Fraction(v) if abs(v) >= 2.0**-240 else Fraction(0) for v in values]
    mean = sum(exact) / len(exact)
    variance = sum((v - mean) ** 2 for v in exact) / (len(exact) - 1)
    assert moments.deviation(found.moments) == pytest.approx(math.sqrt(variance), rel=1e-12, abs=1e-150)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["normal", "few", "sorted", "skewed", "constant"]),
    st.lists(st.integers(1, 30_000), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_no_rank_is_wrong_by_more_than_is_said_in_any_order_of_merging(
    seed: int, kind: str, sizes: list[int], chance: Any
) -> None:
    draw, n = np.random.default_rng(seed), sum(sizes)
    values = {
        "normal": lambda: draw.normal(size=n),
        "few": lambda: draw.integers(0, 5, n).astype(float),
        "sorted": lambda: np.arange(n, dtype=float),
        "skewed": lambda: draw.pareto(0.5, n),
        "constant": lambda: np.full(n, 3.0),
    }[kind]()
    parts = [quantiles.of(np.sort(p)) for p in np.split(values, np.cumsum(sizes)[:-1])]
    while len(parts) > 1:  # any tree of merging
        a, b = (parts.pop(chance.randrange(len(parts))) for _ in range(2))
        parts.append(quantiles.merge(a, b))
    found, ordered = parts[0], np.sort(values)
    assert found.n == n
    assert found.slack <= n * (math.log2(max(2, n / quantiles.WIDTH)) / 2 + 1) / quantiles.WIDTH + len(sizes)
    for at in [*draw.choice(values, 20), float(ordered[0]) - 1, float(ordered[-1])]:
        true = int(np.searchsorted(ordered, at, side="right"))
        assert abs(quantiles.rank(found, float(at)) - true) <= found.slack
    for q in (0.0, 0.01, 0.5, 0.99, 1.0):
        value = quantiles.quantile(found, q)
        low, high = (int(np.searchsorted(ordered, value, side=side)) for side in ("left", "right"))
        assert low - found.slack - 1 <= q * n <= high + found.slack + 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 900).map(lambda x: int(900 * (x / 900) ** 3)), max_size=3_000),
    st.lists(st.integers(0, 3_000), max_size=5),
)
def test_a_frequent_value_is_counted_too_low_by_no_more_than_is_said(values: list[int], at: list[int]) -> None:
    texts = [f"v{v}" for v in values]
    found = merged(cut(texts, at), pl.String)
    kept = dict(zip(found.frequent.values, found.frequent.counts, strict=True))
    assert found.frequent.slack <= len(values) / (frequent.KEPT + 1)
    for value in set(texts):
        assert kept.get(value, 0) <= texts.count(value) <= kept.get(value, 0) + found.frequent.slack
    assert all(n >= sketch.NAMED for _, n in sketch.top(found))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60_000), st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_how_many_different_values_there_are(n: int, seed: int, parts: int) -> None:
    values = np.random.default_rng(seed).permutation(n).astype(float)
    pieces = [column(list(p), pl.Float64) for p in np.array_split(values, parts)]
    found = pieces[0].distinct
    for piece in pieces[1:]:
        assert found is not None
        assert piece.distinct is not None
        found = frequent.union(found, piece.distinct)
    assert found == column(list(values[::-1]), pl.Float64).distinct  # no order, and no cut, matters
    assert found is not None
    many, exact = frequent.many(found)
    assert exact == (n < frequent.SMALLEST)
    assert many == n if exact else abs(many / n - 1) < 6 / math.sqrt(frequent.SMALLEST)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(10**17), 10**17) | st.integers(0, 10**13), max_size=50), st.lists(st.integers(0, 50)))
def test_days_are_the_same_however_the_rows_are_cut(micros: list[int], at: list[int]) -> None:
    dtype = pl.Datetime("us", "UTC")
    whole, parts = column(micros, dtype), merged(cut(micros, at), dtype)
    assert parts.days == whole.days
    assert sum(whole.days.counts) == sum(whole.days.week) == len(micros)
    for n in micros:
        assert (n // days.DAY) >> whole.days.coarse in whole.days.starts


@pytest.mark.parametrize(
    ("values", "dtype", "low", "high"),
    [
        ([2**63 - 1, -(2**63), None, 2**53 + 1], pl.Int64, str(-(2**63)), str(2**63 - 1)),
        ([2**64 - 1, 0], pl.UInt64, "0", str(2**64 - 1)),
        ([-(2**100), 2**100], pl.Int128, str(-(2**100)), str(2**100)),
        ([Decimal("0.10"), Decimal("99999999999999999999.99")], pl.Decimal(38, 2), "0.10", "99999999999999999999.99"),
        ([timedelta(seconds=-2), timedelta(hours=1)], pl.Duration("us"), "-2.0", "3600.0"),
        ([date(1, 1, 1), date(9999, 12, 31)], pl.Date, None, None),
        ([datetime(2026, 1, 1), None], pl.Datetime("ns"), None, None),
        ([math.inf, -math.inf], pl.Float32, "-inf", "inf"),
        ([[1, 2], [], None], pl.List(pl.Int64), None, None),
        ([{"a": 1}, {"a": 2}], pl.Struct({"a": pl.Int64}), None, None),
        ([b"x", None], pl.Binary, None, None),
        ([None, None], pl.Null, None, None),
        (["a", "b", None], pl.Categorical(), None, None),
        (["a", "b", None], pl.Enum(["a", "b"]), None, None),
        ([True, False, None], pl.Boolean, None, None),
        ([], pl.String, None, None),
    ],
)
def test_every_type_has_a_sketch_that_is_stored_merged_and_said(
    values: list[Any], dtype: Any, low: Any, high: Any
) -> None:
    one = sketch.of(pl.LazyFrame({"x": pl.Series(values, dtype=dtype)}))
    assert sketch.decode(sketch.encode(one)) == one
    twice = sketch.merge(one, one).column("x")
    alone = one.column("x")
    assert twice is not None
    assert alone is not None
    assert (twice.rows, twice.nulls) == (2 * len(values), 2 * values.count(None))
    if low is not None:
        assert (twice.low, twice.high) == (low, high)
    assert sketch.many(twice) == sketch.many(alone)
    said = shape.line(twice)
    assert said.rows == twice.rows
    shape.blocks(shape.shape(twice, 12))
    if shape.shape(twice) is not None:
        assert shape.apart(alone, twice) in (None, pytest.approx(0.0, abs=1e-9))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | FLOATS, max_size=80))
@example([1.7e308, -1.7e308])
@example([1e-320, 2e-320, 0.0])
@example([7.0])
def test_bars_lose_no_row(values: list[float | None]) -> None:
    found = column(values, pl.Float64)
    drawn = shape.shape(found)
    there = [v for v in values if v is not None and not math.isnan(v)]
    if not [v for v in there if math.isfinite(v)]:
        assert drawn is None
        return
    assert drawn is not None
    assert len(drawn.counts) == len(drawn.labels)
    assert sum(drawn.counts) + drawn.below + drawn.above == len(there)
