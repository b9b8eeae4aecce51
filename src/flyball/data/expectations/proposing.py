"""Proposing expectations from the data, as code that a person cuts down.

Everything that could be expected of a table is measured as it stands; a threshold is what was found, with slack, so what is
proposed holds of the data it was read from. Whether the data is right, it cannot know: that is for whoever reads it.
Nothing of a personal column but its completeness is proposed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import dataframely as dy
import polars as pl

from flyball._kernel.conditions import Condition, Measurement, Metric, Outcome
from flyball.data.contract import Column, Personal, Ref
from flyball.data.expectations import expect, measuring
from flyball.data.expectations.expect import Columns, Expected, Rows
from flyball.data.expectations.measuring import Standing

FEW = 12
"""Values of a column up to which the balance of each is proposed."""
MANY = 1_000
"""Different values up to which their number is."""
OFTEN = 0.05
"""Outliers beyond this share are how the column is spread."""
DRIFTS = 0.25
"""A psi beyond which a spread is said to have shifted (Siddiqi 2006)."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One line of code, the condition that it is, and what was found."""

    code: str
    condition: Condition
    found: Measurement | None


def propose(standing: Standing) -> list[Proposal]:
    """Expectations that the table keeps as it stands."""
    wanted = [metric >= 0.0 for metric in _table(standing)]
    wanted += [metric >= 0.0 for column in standing.spec.columns for metric in _column(column, standing)]
    low = measuring.judge(wanted, standing)
    proposed = [
        Proposal(_code(condition), condition, verdict.measurement)
        for each, verdict in zip(wanted, low, strict=True)
        for condition in _threshold(expect.metric_of(each), verdict.measurement)
    ]
    judged = measuring.judge([p.condition for p in proposed], standing)
    return [
        p for p, verdict in zip(proposed, judged, strict=True) if p.found is None or verdict.outcome is Outcome.PASS
    ]


def _table(standing: Standing) -> Iterator[Metric]:
    rows = Rows(standing.of)
    yield rows.rows
    yield rows.rows_per_day
    yield rows.volume
    if len(standing.spec.key) < len(standing.spec.columns):
        yield rows.duplicates


def _column(column: Column, standing: Standing) -> Iterator[Metric]:
    spec, of = standing.spec, Columns(Ref(standing.of, column.name))
    late = column.name in spec.late
    if column.nullable and not late:
        yield of.completeness
    if column.key or column.name in spec.with_role(Personal):
        return
    if column.dtype.is_numeric():
        yield of.quantile(0.25)
        yield of.quantile(0.75)
        yield of.outliers
    elif column.dtype == pl.Boolean:
        yield of.share(True)
    elif column.dtype in (pl.String, pl.Enum, pl.Categorical):
        values = _values(standing, column)
        if values is not None and len(values) <= FEW:
            yield from (of.share(value) for value in values)
        elif values is not None:
            yield of.distinct
    else:
        return
    if not late:
        yield of.drift


def _values(standing: Standing, column: Column) -> list[str] | None:
    """The values of a category, where there are few enough to expect something of."""
    found = standing.rows.select(pl.col(column.name).cast(pl.String)).drop_nulls().unique().limit(MANY + 1)
    values = found.collect(engine="streaming").to_series().sort().to_list()
    return values if len(values) <= MANY else None


def _threshold(metric: Expected, found: Measurement | None) -> Iterator[Condition]:
    """What was found, with slack; of drift, which only a second version shows, the usual limit."""
    if metric.name == "drift":
        yield metric <= DRIFTS
        return
    if found is None:
        return
    value = found.estimate
    match metric.name:
        case "rows" | "rows_per_day" | "volume":
            if _down(value / 2):
                yield metric >= _down(value / 2)
        case "completeness":
            yield metric >= _cut(max(0.0, found.low - (1 - found.low) / 2 - 0.002))
        case "share":
            yield metric >= _cut(found.low / 2)
            if 2 * found.high < 1:
                yield metric <= _cut(2 * found.high) + 0.001
        case "distinct":
            yield metric <= _up(2 * value)
        case "quantile" if metric.level < 0.5:
            # That the median stays between what were the quartiles.
            yield replace(metric, level=0.5) >= _down(found.low)
        case "quantile":
            yield replace(metric, level=0.5) <= _up(found.high)
        case "outliers" if found.high > OFTEN:
            return  # a skewed spread, of which the tail is no fault
        case _:
            yield metric <= min(1.0, _cut(2 * found.high) + 0.001)


def _cut(share: float) -> float:
    """Three decimals, rounded down."""
    return math.floor(share * 1_000) / 1_000


def _down(value: float) -> float:
    """Two digits, towards less."""
    return _digits(value, math.floor)


def _up(value: float) -> float:
    """Two digits, towards more."""
    return _digits(value, math.ceil)


def _digits(value: float, towards: Callable[[float], int]) -> float:
    if not value:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{towards(value / unit) * unit:.6g}")


def _code(condition: Condition) -> str:
    metric = expect.metric_of(condition)
    of = metric.table
    # A column that has an alias is named by its attribute.
    named = next((a for a in dir(of) if isinstance(c := getattr(of, a), dy.Column) and c.name == metric.column), "")
    inside = {"quantile": f"({metric.level:g})", "share": f"({metric.value!r})"}.get(metric.name, "")
    about = f"fb.column({of.__name__}.{named})" if metric.column else f"fb.table({of.__name__})"
    return f"{about}.{metric.name}{inside} {condition.op} {condition.threshold:.6g}"
