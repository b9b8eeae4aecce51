"""Bias of data that is learned from: how large each group of a protected column is, and how often its label is true.

Shares have Wilson's interval (1927), the difference between a group's label rate and that of all others Newcombe's hybrid of
two Wilson intervals (1998, method 10); both at 95 %. A share is compared with a reference only where one is given: what
would be right is for people to say.

A group is named only if `sketch.NAMED` rows share it; the others are counted together. Numbers are cut into fifths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from flyball._kernel.errors import DataError
from flyball.data import interval
from flyball.data.sketches import sketch

FIFTHS = 5
GROUPS = 12
"""Different numbers up to which each is a group of its own."""
SUPPORT = 30
"""Labelled rows below which a label rate says little."""
MOST = 50
"""Groups of a column that are named: the largest."""

REST, NONE = "(rare groups)", "(none)"


class Share(msgspec.Struct, frozen=True):
    """A share with its 95 % interval."""

    estimate: float
    low: float
    high: float


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group of a protected column.

    Attributes:
        share: of all rows.
        reference: what the share should be, where that was said.
        labelled: rows whose label is known; positive: those of them where it is true.
        rate: positive / labelled; None without labelled rows.
        apart: the rate minus that of all other rows; None where either side has none.
        weak: fewer than `SUPPORT` labelled rows.
    """

    name: str
    rows: int
    share: Share
    reference: float | None = None
    labelled: int = 0
    positive: int = 0
    rate: Share | None = None
    apart: Share | None = None
    weak: bool = False


class Bias(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of one protected column: the largest first, numbers from least to greatest.

    Attributes:
        label: what the rate is of; "" where no label was asked for.
        rate: over all groups.
    """

    column: str
    label: str
    rows: int
    rate: Share | None
    groups: tuple[Group, ...]


def bias(
    rows: pl.LazyFrame,
    protected: Sequence[str],
    label: str = "",
    reference: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[Bias, ...]:
    """The groups of each protected column.

    Args:
        label: a column of truth values, or of numbers that are 0 or 1; null is not known.
        reference: column -> group -> share; `{}` for a column: all its groups alike.

    Raises:
        DataError: `label-not-binary`.
    """
    given = reference or {}
    schema = rows.collect_schema()
    made = []
    for column in protected:
        group, order = _group(rows, column, schema[column])
        kept = rows.select(group.alias("group"), _label(rows, label).alias("label"))
        counted = kept.group_by("group").agg(
            pl.len().alias("rows"), pl.col("label").is_not_null().sum().alias("labelled"), pl.col("label").sum()
        )
        judged = _judged(column, label, counted.collect(), given.get(column))
        ranked = sorted(judged.groups, key=lambda g: order.index(g.name) if g.name in order else len(order))
        made.append(msgspec.structs.replace(judged, groups=tuple(ranked)))
    return tuple(made)


def wilson(hits: int, n: int) -> Share:
    """The share of `hits` among `n` > 0, with Wilson's interval."""
    return Share(hits / n, *interval.wilson(hits, n))


def newcombe(a: Share, b: Share) -> Share:
    """The difference a - b of two shares of different rows, with Newcombe's interval."""
    apart = a.estimate - b.estimate
    below = math.hypot(a.estimate - a.low, b.high - b.estimate)
    above = math.hypot(a.high - a.estimate, b.estimate - b.low)
    return Share(apart, apart - below, apart + above)


def _group(rows: pl.LazyFrame, column: str, dtype: pl.DataType) -> tuple[pl.Expr, list[str]]:
    """(the group of each row, as text; the names of groups that have an order)."""
    cell = pl.col(column)
    if not dtype.is_numeric():
        return cell.cast(pl.String), []
    cell = cell.fill_nan(None) if dtype.is_float() else cell
    few = rows.select(cell.drop_nulls().unique()).head(GROUPS + 1).collect().to_series()
    if len(few) <= GROUPS:
        return cell.cast(pl.String), few.sort().cast(pl.String).to_list()
    ends = [cell.quantile(k / FIFTHS, interpolation="lower").alias(str(k)) for k in range(1, FIFTHS + 1)]
    cuts = sorted(set(rows.select(ends).collect().row(0)))
    names = [f"≤ {upto:g}" if k == 0 else f"over {cuts[k - 1]:g}, ≤ {upto:g}" for k, upto in enumerate(cuts)]
    group = pl.lit(None, dtype=pl.String)
    for upto, name in reversed(list(zip(cuts, names, strict=True))):
        group = pl.when(cell <= upto).then(pl.lit(name)).otherwise(group)
    return group, names


def _label(rows: pl.LazyFrame, label: str) -> pl.Expr:
    if not label:
        return pl.lit(None, dtype=pl.Boolean)
    dtype = rows.collect_schema()[label]
    if dtype == pl.Boolean:
        return pl.col(label)
    number = pl.col(label)
    binary = dtype.is_numeric() and rows.select(number.drop_nulls().is_in([0, 1]).all()).collect().item()
    if not binary:
        raise DataError(
            "label-not-binary",
            f"The column {label!r} is {dtype}, and holds more than two values.",
            why="A label rate is the share of rows whose label is true.",
            next="Name a column of truth values, or of 0 and 1, or none: then only the sizes of the groups are told.",
        )
    return number.cast(pl.Boolean)


def _judged(column: str, label: str, found: pl.DataFrame, reference: Mapping[str, float] | None) -> Bias:
    named, counts = _named(found)
    rows, labelled, positive = (sum(c[k] for c in counts.values()) for k in range(3))
    if reference is not None and not reference and named:
        reference = dict.fromkeys(named, 1 / len(named))
    groups = []
    for name, (n, known, true) in counts.items():
        rate = wilson(true, known) if known else None
        others = wilson(positive - true, labelled - known) if labelled > known else None
        groups.append(
            Group(
                name=name,
                rows=n,
                share=wilson(n, rows),
                reference=reference.get(name) if reference is not None else None,
                labelled=known,
                positive=true,
                rate=rate,
                apart=newcombe(rate, others) if rate and others else None,
                weak=bool(label) and known < SUPPORT,
            )
        )
    overall = wilson(positive, labelled) if labelled else None
    return Bias(column=column, label=label, rows=rows, rate=overall, groups=tuple(groups))


def _named(found: pl.DataFrame) -> tuple[list[str], dict[str, tuple[int, int, int]]]:
    """(the groups that may be named, the counts of these and of what is left)."""
    counts: dict[str, tuple[int, int, int]] = {}
    rest, none = (0, 0, 0), (0, 0, 0)
    for name, *each in found.sort("rows", "group", descending=[True, False]).iter_rows():
        n, known, true = (int(x or 0) for x in each)
        if name is None:
            none = (n, known, true)
        elif n >= sketch.NAMED and len(counts) < MOST:
            counts[name] = (n, known, true)
        else:
            rest = (rest[0] + n, rest[1] + known, rest[2] + true)
    named = list(counts)
    for key, (n, known, true) in ((REST, rest), (NONE, none)):
        if n:  # a group may have that very name
            same = counts.get(key, (0, 0, 0))
            counts[key] = (same[0] + n, same[1] + known, same[2] + true)
    return named, counts
