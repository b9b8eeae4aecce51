"""What a window makes of the values of its rows: the same number for a million questions of the past and for one now.

Two families, told by what must be kept:

    mean sum count std var trend        add up: running totals answer any span, and a correction is a difference
    min max n_unique quantile since     look at each value of the span again

Totals are integers and exact, so neither order nor batching can matter. What `std`, `var` and `trend` need (squares, products
with time) adds up as well: for one question in one wide integer of **lanes**, for a million in columns of 128 bits.

Quantiles follow definition 7 of Hyndman and Fan (1996): the place of level q among n sorted values is q * (n - 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import polars as pl

How = Literal["mean", "sum", "count", "std", "var", "trend", "min", "max", "n_unique", "quantile", "since"]
Pick = Literal["nearest", "lower", "higher", "midpoint", "linear"]

ADDS: Final = frozenset({"mean", "sum", "count", "std", "var", "trend"})
DAY: Final = 86_400_000_000
"""Microseconds: a trend is told per day."""
ORIGIN: Final = 946_684_800_000_000
"""Microseconds from 1970 to 2000: a trend counts time from there, so that its squares stay small."""

_LANE = 256
_MASK, _SIGN = (1 << _LANE) - 1, 1 << (_LANE - 1)
_HALF = 48


@dataclass(frozen=True, slots=True)
class Aggregate:
    """How values become one.

    Attributes:
        level: of a quantile, from 0 to 1; of `std` and `var`, the degrees of freedom that are taken off.
        pick: what a quantile takes where its place lies between two values.
    """

    how: How
    level: float = 0.0
    pick: Pick = "nearest"

    @property
    def adds(self) -> bool:
        """Whether running totals are enough."""
        return self.how in ADDS

    @property
    def squares(self) -> bool:
        """Whether it needs more totals than that of the values."""
        return self.how in ("std", "var", "trend")

    @property
    def empty(self) -> float | int | None:
        """What it is of no rows."""
        return {"count": 0, "n_unique": 0, "sum": 0.0}.get(self.how)

    @property
    def dtype(self) -> type[pl.DataType]:
        """The type of its output."""
        return pl.Int64 if self.how in ("count", "n_unique") else pl.Float64


def of(expression: pl.Expr) -> tuple[pl.Expr, Aggregate] | None:
    """Split `col.mean()` into the row-wise part and the aggregate; None where it is none of them."""
    # Polars has no public way to ask for the kind of the root node; its JSON form is documented as readable.
    node: Any = json.loads(expression.meta.serialize(format="json"))
    if node == "Len":
        return pl.lit(value=True), Aggregate("count")
    found = _aggregate(node) if isinstance(node, dict) else None
    return None if found is None else (expression.meta.pop()[-1], found)


def _aggregate(node: dict[str, Any]) -> Aggregate | None:
    match node:
        case {"Agg": {"Mean": _}}:
            return Aggregate("mean")
        case {"Agg": {"Sum": _}}:
            return Aggregate("sum")
        case {"Agg": {"Count": {"include_nulls": False}}}:
            return Aggregate("count")
        case {"Agg": {"NUnique": _}}:
            return Aggregate("n_unique")
        case {"Agg": {"Min": {"propagate_nans": False}}}:
            return Aggregate("min")
        case {"Agg": {"Max": {"propagate_nans": False}}}:
            return Aggregate("max")
        case {"Agg": {"Median": _}}:
            return Aggregate("quantile", 0.5, "linear")
        case {"Agg": {"Std": [_, int(ddof)]}}:
            return Aggregate("std", float(ddof))
        case {"Agg": {"Var": [_, int(ddof)]}}:
            return Aggregate("var", float(ddof))
        case {
            "Function": {"input": [_, {"Literal": {"Dyn": level}}], "function": {"Quantile": {"method": str(method)}}}
        }:
            number, pick = float(next(iter(level.values()))), method.lower()
            fits = [each for each in get_args(Pick) if each == pick and 0 <= number <= 1]
            return Aggregate("quantile", number, fits[0]) if fits else None
    return None


# --- one question


def packed(aggregate: Aggregate, value: int, moment: int) -> int:
    """What a value that counts from `moment` (microseconds) adds to the one total of a series: its lanes in one integer."""
    if not aggregate.squares:
        return value
    if aggregate.how == "trend":
        time = moment - ORIGIN
        return _pack((value, time, time * time, time * value))
    return _pack((value, value * value))


def finish(aggregate: Aggregate, unit: float, count: int, total: int) -> float | int | None:
    """The output of an aggregate that adds up, from count and total; `unit` is what one of the value's units is worth."""
    match aggregate.how:
        case "count":
            return count
        case "sum":
            return float(total) * unit
        case "mean":
            return float(total) / float(count) * unit if count else None
        case "trend":
            return slope(unit, count, *_unpack(total, 4))
        case _:
            return spread(aggregate, unit, count, *_unpack(total, 2))


def spread(aggregate: Aggregate, unit: float, count: int, total: int, squares: int) -> float | None:
    """Variance or standard deviation, from exact sums; None with too few values."""
    if count <= aggregate.level:
        return None
    variance = (count * squares - total * total) / (count * (count - int(aggregate.level)))
    return variance * (unit * unit) if aggregate.how == "var" else math.sqrt(variance) * unit


def slope(unit: float, count: int, total: int, time: int, times: int, product: int) -> float | None:
    """The least-squares slope of the values over time, per day; None where all are of one moment."""
    below = count * times - time * time
    return (count * product - time * total) * DAY / below * unit if below else None


def chosen(aggregate: Aggregate, values: Sequence[Any]) -> float | int | None:
    """The output of an aggregate that looks at each value, none of which is null."""
    if not values:
        return aggregate.empty
    match aggregate.how:
        case "n_unique":
            return len(set(values))
        case "min":
            return float(min(values))
        case "max":
            return float(max(values))
        case _:
            return _quantile(aggregate, sorted(values))


def _quantile(aggregate: Aggregate, values: Sequence[float]) -> float:
    place = aggregate.level * (len(values) - 1)
    low, part = math.floor(place), place - math.floor(place)
    below, above = values[low], values[math.ceil(place)]
    match aggregate.pick:
        case "lower":
            return below
        case "higher":
            return above
        case "nearest":
            return above if part >= 0.5 else below
        case "midpoint":
            return below + (above - below) * 0.5 if part else below
        case _:
            return below + (above - below) * part


def _pack(lanes: Sequence[int]) -> int:
    return sum(lane << (_LANE * n) for n, lane in enumerate(lanes))


def _unpack(total: int, lanes: int) -> list[int]:
    found = []
    for _ in range(lanes):
        low = total & _MASK
        low = low - (_MASK + 1) if low >= _SIGN else low
        found.append(low)
        total = (total - low) >> _LANE
    return found


# --- a million


def lanes(aggregate: Aggregate) -> tuple[pl.Expr, ...]:
    """The columns that add up, from `_value` (an exact integer, or null) and `_k` (microseconds): the value first.

    A square of a 128-bit value needs more bits than there are, so it is kept in halves: 2**31 of them fit.
    """
    value = pl.col("_value")
    if not aggregate.squares:
        return (value,)
    wide = value.cast(pl.Int128)
    low = wide & pl.lit((1 << _HALF) - 1, pl.Int128)
    high = (wide - low) // pl.lit(1 << _HALF, pl.Int128)
    if aggregate.how == "trend":
        time = pl.when(value.is_not_null()).then((pl.col("_k") - ORIGIN).cast(pl.Int128))
        return wide, time, time * time, time * high, time * low
    return wide, high * high, high * low, low * low


def finished(aggregate: Aggregate, unit: float, count: pl.Series, totals: Sequence[pl.Series]) -> pl.Series:
    """`finish` for many: the same operations, bit for bit."""
    if aggregate.how == "count":
        return count
    if not aggregate.squares:
        total = totals[0].cast(pl.Float64)
        if aggregate.how == "sum":
            return total * unit
        some = pl.when(pl.lit(count) > 0)
        return pl.select(some.then(pl.lit(total) / pl.lit(count.cast(pl.Float64)) * unit)).to_series()
    rows = zip(count.to_list(), *(t.to_list() for t in totals), strict=True)
    if aggregate.how == "trend":
        made = [slope(unit, n, v, t, tt, (th << _HALF) + tl) for n, v, t, tt, th, tl in rows]
    else:
        made = [
            spread(aggregate, unit, n, v, (hh << (2 * _HALF)) + (hl << (_HALF + 1)) + ll) for n, v, hh, hl, ll in rows
        ]
    return pl.Series(made, dtype=pl.Float64)


def chosen_each(aggregate: Aggregate, found: pl.DataFrame) -> pl.DataFrame:
    """`chosen` for many: from `_point` and `_value`, one row for each value, to `_point` and `_out`, one for each point."""
    simple = {"n_unique": pl.col("_value").n_unique(), "min": pl.col("_value").min(), "max": pl.col("_value").max()}
    if aggregate.how in simple:
        return found.group_by("_point").agg(_out=simple[aggregate.how].cast(aggregate.dtype))
    values = found.sort("_point", "_value")
    groups = values.group_by("_point", maintain_order=True).agg(_n=pl.len().cast(pl.Int64))
    groups = groups.with_columns(_first=pl.col("_n").cum_sum() - pl.col("_n"), _at=aggregate.level * (pl.col("_n") - 1))
    groups = groups.with_columns(_part=pl.col("_at") - pl.col("_at").floor())
    below = values["_value"].gather(groups.select(pl.col("_first") + pl.col("_at").floor().cast(pl.Int64)).to_series())
    above = values["_value"].gather(groups.select(pl.col("_first") + pl.col("_at").ceil().cast(pl.Int64)).to_series())
    low, high, part = pl.lit(below), pl.lit(above), pl.col("_part")
    picked = {
        "lower": low,
        "higher": high,
        "nearest": pl.when(part >= 0.5).then(high).otherwise(low),
        "midpoint": pl.when(part > 0).then(low + (high - low) * 0.5).otherwise(low),
        "linear": low + (high - low) * part,
    }
    return groups.select("_point", _out=picked[aggregate.pick])
