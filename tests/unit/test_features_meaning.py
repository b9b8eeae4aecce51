"""What can be kept exactly, and what is refused; numbers, keys and entities are the same in Polars and in Python."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel.durations import days, hours
from flyball._kernel.errors import DataError, DeclarationError
from flyball.data import rules
from flyball.data.contract import Contract, before, event_time, outcome, outcome_time
from flyball.learn.features import aggregate, meaning, notation, online
from flyball.learn.features.aggregate import Aggregate
from flyball.learn.features.notation import latest, window

x, y = pl.col("x"), pl.col("y")
UTC_TIME = {"time_zone": "UTC"}


class Sale(Contract):
    sale = dy.String(primary_key=True)
    sold = event_time(dy.Datetime(time_zone="UTC"), known=before(days(1)))
    shop = dy.Enum(["a", "b"])
    buyer = dy.Int64(nullable=True)
    price = dy.Float64(nullable=True)
    items = dy.Int16(nullable=True)
    cents = dy.Decimal(nullable=True)
    weight = dy.Float64()
    paid_at = outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    paid = outcome(dy.Bool(nullable=True))


class Visit(Contract):
    shop = dy.String(primary_key=True)
    seen = event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    buyer = dy.Int32(nullable=True)
    count = dy.UInt8(nullable=True)
    note = dy.String(nullable=True)


class Odd(Contract):
    """Its key is a float, which equals itself only sometimes."""

    level = dy.Float64(primary_key=True)
    seen = event_time(dy.Datetime(time_zone="UTC"))
    shop = dy.String()
    value = dy.Int64()


@pytest.mark.parametrize(
    "expression",
    [
        x,
        x + 1,
        pl.lit(value=True),
        pl.when(y > 1).then(x),
        x.is_in([1, 2]),
        x.fill_null(0),
        pl.coalesce("x", pl.lit(0)),
        pl.col("t").dt.convert_time_zone("America/New_York").dt.hour(),
        pl.concat_str("s", pl.lit("a")),
        x.cast(pl.Int32),
        x.clip(0, 1),
        pl.max_horizontal("x", "y"),
    ],
    ids=str,
)
def test_row_wise(expression: pl.Expr) -> None:
    assert rules.row_wise(expression)


@pytest.mark.parametrize(
    "expression",
    [
        x.mean(),
        x - x.mean(),
        x > x.max(),
        pl.when(x > x.median()).then(1),
        x.shift(),
        x.rank(),
        x.cum_sum(),
        x.sum().over("y"),
        x.filter(y > 1),
        x.forward_fill(),
        x.fill_null(strategy="mean"),
        x.clip(0, x.max()),
        x.shuffle(),
        x.explode(),
        pl.len() > 3,
        pl.lit(pl.Series([1, 2])),
        x.map_elements(lambda v: v, return_dtype=pl.Float64),
    ],
    ids=str,
)
def test_not_row_wise(expression: pl.Expr) -> None:
    assert not rules.row_wise(expression)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("expression-not-row-wise", {"f": Sale.price.col - Sale.price.col.mean()}),
    ("expression-not-row-wise", {"f": window(Sale, Sale.price.col.shift().mean(), by=Sale.shop, over=days(1))}),
    ("no-such-column", {"f": pl.col("discount") * 2}),
    ("no-such-column", {"f": window(Visit, pl.col("price").mean(), by=Sale.shop, over=days(1))}),
    ("no-such-column", {"f": latest(Visit, by=Sale.shop, columns=[Sale.price])}),
    ("no-such-column", {"f": latest(Visit, by=(Visit.note, Visit.shop))}),
    ("leaks-outcome", {"f": latest(Sale, by=(Sale.buyer, Sale.paid), columns=[Sale.price])}),
    ("leaks-outcome", {"f": window(Sale, pl.len(), by=(Sale.paid, Sale.paid), over=days(1))}),
    ("not-comparable", {"f": latest(Visit, by=(Sale.shop, Visit.buyer))}),
    ("not-comparable", {"f": latest(Sale, by=Sale.weight, columns=[Sale.items])}),
    ("not-comparable", {"f": window(Odd, Odd.value.col.sum(), by=Sale.shop, over=days(1))}),
    ("span-not-positive", {"f": window(Sale, pl.len(), by=Sale.shop, over=[days(1), days(0)])}),
    ("span-not-positive", {"f": window(Sale, pl.len(), by=Sale.shop, over=[])}),
    ("span-not-positive", {"f": latest(Visit, by=Sale.shop, max_age=timedelta(seconds=-1))}),
    ("feature-of-unusable-type", {"f": latest(Sale, by=Sale.shop, columns=[Sale.cents])}),
    ("feature-of-unusable-type", {"f": latest(Sale, by=Sale.shop, columns=[Sale.sold])}),
    ("feature-of-unusable-type", {"f": window(Sale, Sale.cents.col.sum(), by=Sale.shop, over=days(1))}),
    ("feature-of-unusable-type", {"f": window(Visit, Visit.note.col.mean(), by=Sale.shop, over=days(1))}),
    ("expression-does-not-fit", {"f": window(Sale, Sale.price.col.dt.hour().sum(), by=Sale.shop, over=days(1))}),
    ("feature-name-taken", {"v": latest(Visit, by=Sale.shop, columns=[Visit.count]), "v_count": Sale.price.col}),
    ("feature-name-taken", {"_asked": Sale.price.col}),
]


@pytest.mark.parametrize(("code", "named"), REFUSED, ids=[f"{n}-{code}" for n, (code, _) in enumerate(REFUSED)])
def test_refused(code: str, named: dict[str, Any]) -> None:
    features = notation.features(**named)
    with pytest.raises(DeclarationError, match=code) as raised:
        meaning.check(features, Sale)
    assert raised.value.where is not None
    assert raised.value.where.file == __file__


def test_accepted() -> None:
    meaning.check(
        notation.features(
            Sale.price,
            dear=Sale.price.col > 100,
            visit=latest(Visit, by=Sale.shop, columns=[Visit.count, Visit.note]),
            buyer=latest(Visit, by=(Sale.buyer, Visit.buyer)),
            notes=window(Visit, Visit.note.col.count(), by=Sale.shop, over=hours(1)),
            paid=window(Sale, Sale.paid.col.mean(), by=Sale.buyer, over=[hours(1), days(1)], where=Sale.price.col > 1),
        ),
        Sale,
    )


def counted(expression: pl.Expr, values: pl.Series) -> list[int | None]:
    feature = window(Sale, expression, by=Sale.shop, over=days(1))
    frame = pl.DataFrame({"price": values})
    found = frame.select(meaning.value(feature)).to_series()
    meaning.fitting(feature, found)
    return found.to_list()


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-(2.0**55), 2.0**55) | st.sampled_from([0.5**41, 3 * 0.5**41, -(0.5**41), 5e-324]), min_size=1)
)
def test_floats_are_whole_parts_half_to_even(values: list[float]) -> None:
    exact = [round(Fraction(v) * 2**40) for v in values]
    assert counted(Sale.price.col.sum(), pl.Series(values, dtype=pl.Float64)) == exact


def test_what_is_no_number_is_no_value() -> None:
    values = pl.Series([math.nan, math.inf, -math.inf, None, 1.0], dtype=pl.Float64)
    assert counted(Sale.price.col.mean(), values) == [None, None, None, None, 2**40]
    assert counted(Sale.price.col.count(), values) == [None, None, None, None, 1]
    assert counted(Sale.price.col.count(), pl.Series([1e300])) == [1], "what is counted need not add up"


@pytest.mark.parametrize("value", [2.0**56, -(2.0**56), 1e300])
def test_too_large_to_be_exact(value: float) -> None:
    assert counted(Sale.price.col.sum(), pl.Series([2.0**56 - 16])) == [(2**56 - 16) * 2**40]
    with pytest.raises(DataError, match="number-too-large"):
        counted(Sale.price.col.sum(), pl.Series([1.0, value]))


WIDE = st.integers(-(2**126), 2**126)


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(st.lists(st.tuples(WIDE, st.integers(0, 2**31)), min_size=1), st.sampled_from(["mean", "sum", "count"]))
def test_outputs_are_the_same_in_polars_and_in_python(rows: list[tuple[int, int]], how: Any) -> None:
    totals, counts = pl.Series([t for t, _ in rows], dtype=pl.Int128), pl.Series([n for _, n in rows])
    built = aggregate.finished(Aggregate(how), 2.0**-40, counts, [totals])
    assert built.to_list() == [aggregate.finish(Aggregate(how), 2.0**-40, count, total) for total, count in rows]


EXACT = st.lists(st.tuples(st.integers(-(2**96), 2**96), st.integers(0, 2**51)), max_size=12)


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(EXACT, st.sampled_from([Aggregate("std", 1.0), Aggregate("var", 0.0), Aggregate("trend")]))
def test_squares_add_up_alike_in_lanes_and_in_one_integer(rows: list[tuple[int, int]], how: Aggregate) -> None:
    """To the last bit, for values as large as may be."""
    frame = pl.DataFrame(rows, schema={"_value": pl.Int128, "_k": pl.Int64}, orient="row")
    lanes = frame.select(lane.sum().alias(str(n)) for n, lane in enumerate(aggregate.lanes(how)))
    built = aggregate.finished(how, 2.0**-40, pl.Series([len(rows)]), list(lanes.iter_columns())).to_list()
    packed = sum(aggregate.packed(how, value, moment) for value, moment in rows)
    assert built == [aggregate.finish(how, 2.0**-40, len(rows), packed)]


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e9, 1e9).map(lambda x: x + 0.0), min_size=1, max_size=9),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 1 / 3, 0.9, 1.0]),
    st.sampled_from(["nearest", "lower", "higher", "midpoint", "linear"]),
)
def test_a_quantile_is_that_of_polars(values: list[float], level: float, pick: Any) -> None:
    how = Aggregate("quantile", level, pick)
    one = aggregate.chosen(how, values)
    pairs = pl.DataFrame({"_point": [0] * len(values), "_value": values})
    assert aggregate.chosen_each(how, pairs)["_out"].to_list() == [one]
    assert one == pytest.approx(pl.Series(values).quantile(level, pick), rel=1e-12)


KEYS = st.tuples(st.text(st.sampled_from("\0\1ab\U0001f6eb\uffff"), max_size=4), st.integers(-(2**63), 2**63 - 1))


@given(KEYS, KEYS)
@settings(derandomize=True, database=None, deadline=None)
def test_packed_keys_sort_as_keys(one: tuple[str, int], other: tuple[str, int]) -> None:
    def order(a: Any, b: Any) -> int:
        return (a > b) - (a < b)

    assert order(online.packed(one), online.packed(other)) == order(one, other)
    assert order(online.packed(one[:1]), online.packed(other[:1])) == order(one[0], other[0])


def test_a_key_is_given_whole() -> None:
    with pytest.raises(DataError, match="key-not-given"):
        online.packed(["a", None])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (pl.String, "é"),
        (pl.Enum(["b", "a"]), "a"),
        (pl.Int64, -5),
        (pl.UInt8, 5),
        (pl.Boolean, True),
        (pl.Date, date(1969, 12, 30)),
        (pl.Datetime("us", "UTC"), datetime(2013, 1, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (pl.String, None),
    ],
    ids=str,
)
def test_one_value_is_compared_as_a_column_is(dtype: Any, value: Any) -> None:
    column = pl.DataFrame({"c": [value]}, schema={"c": dtype})
    assert column.select(meaning.comparable("c", column.schema["c"])).item() == meaning.scalar(value)


def test_other_values_are_not_compared() -> None:
    with pytest.raises(DataError, match="value-not-comparable"):
        meaning.scalar(1.5)
