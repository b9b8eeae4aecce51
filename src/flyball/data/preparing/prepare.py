"""Preparation: small steps from rows to rows, for the four phases of cleaning; `chain` makes one of many.

    irrelevant rows, repeats    keep  drop_repeats
    structural faults           rename  split  unite;  trim  squeeze  cases  mojibake
                                categories  truth  number  moment  date  hhmm
    outliers                    clip  mark_outliers
    missing values              nulls  fill  carry_forward
    other tables                merge, with a lookup

Each call returns a function LazyFrame -> LazyFrame that keeps `_line`; a plain function of yours is as good a step.
Refused: bounds and fills that are computed from the rows. They would be fitted on what the model is tested on, and another
file would give others: what must be learned from data belongs into the model's pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Literal

import polars as pl

from flyball._kernel import place
from flyball._kernel.errors import DataError, DeclarationError
from flyball.data.preparing.cells import (
    cases,
    categories,
    cells,
    date,
    hhmm,
    mojibake,
    moment,
    number,
    squeeze,
    trim,
    truth,
)
from flyball.data.preparing.lookup import Lookup, lookup
from flyball.data.source import LINE, Preparation

__all__ = [
    "carry_forward",
    "cases",
    "categories",
    "cells",
    "chain",
    "clip",
    "date",
    "drop_repeats",
    "fill",
    "hhmm",
    "keep",
    "lookup",
    "mark_outliers",
    "merge",
    "mojibake",
    "moment",
    "nulls",
    "number",
    "rename",
    "split",
    "squeeze",
    "trim",
    "truth",
    "unite",
]

Bound = int | float | None
_AT, _CARRIED, _ORDER = "\0at", "\0carried", "\0order"  # no column of a file has such a name


def chain(*steps: Preparation) -> Preparation:
    """One preparation of many steps, in order."""

    def chained(rows: pl.LazyFrame) -> pl.LazyFrame:
        for step in steps:
            rows = step(rows)
        return rows

    return chained


# Irrelevant rows, and repeats -----------------------------------------------------------------------------------------


def keep(where: pl.Expr) -> Preparation:
    """Drops the rows for which `where` is false. A row for which it is null stays: the contract judges it.

    Dropped rows are no part of what `apply` counts as read; `flyball data changes` counts them.
    """
    return lambda rows: rows.filter(where.fill_null(value=True))


def drop_repeats(*by: str) -> Preparation:
    """Drops rows that say again what an earlier row of the file said in the columns `by` (none named: in all).

    Rows with a null there repeat nothing. Exact repeats need no step: ingest counts them as duplicates. This is for rows
    that may differ in what does not matter, and it keeps the first of them. Memory grows by the distinct keys.
    """

    def step(rows: pl.LazyFrame) -> pl.LazyFrame:
        columns = by or [c for c in rows.collect_schema().names() if c != LINE]
        unknown = pl.any_horizontal(pl.col(c).is_null() for c in by) if by else pl.lit(value=False)
        return rows.filter(unknown | pl.struct(columns).is_first_distinct())

    return step


# Structural faults of columns -----------------------------------------------------------------------------------------


def rename(names: Mapping[str, str]) -> Preparation:
    """Other names for columns, old -> new; a column that is not there is an error."""
    return lambda rows: rows.rename(dict(names), strict=True)


def split(column: str, *, into: Sequence[str], by: str) -> Preparation:
    """The parts of a cell as new columns; a cell of more or fewer parts gives none. The column itself stays."""
    count = len(into)

    def step(rows: pl.LazyFrame) -> pl.LazyFrame:
        parts = pl.col(column).str.split(by)
        fits = parts.list.len() == count
        return rows.with_columns(
            pl.when(fits).then(parts.list.get(i, null_on_oob=True)).alias(name) for i, name in enumerate(into)
        )

    return step


def unite(into: str, *columns: str, by: str = " ") -> Preparation:
    """One column of many, parted by `by`; null where any of them is null. They stay."""
    return lambda rows: rows.with_columns(pl.concat_str(columns, separator=by).alias(into))


# Outliers -------------------------------------------------------------------------------------------------------------


def clip(column: str, *, low: Bound = None, high: Bound = None) -> Preparation:
    """Numbers beyond a bound become the bound (winsorising). A cell that is no number stays.

    Raises:
        DeclarationError: `bounds-from-data`: a bound is a number that you know, never one that the rows tell.
    """
    below, above = _beyond(column, low, high)
    cell = pl.col(column)
    return lambda rows: rows.with_columns(
        pl.when(below).then(pl.lit(low)).when(above).then(pl.lit(high)).otherwise(cell).alias(column)
    )


def mark_outliers(column: str, *, low: Bound = None, high: Bound = None, flag: str | None = None) -> Preparation:
    """Numbers beyond a bound become null; `flag` names a Boolean column that says where. Raises as `clip` does."""
    below, above = _beyond(column, low, high)
    outside = (below | above).fill_null(value=False)
    marks = [outside.alias(flag)] if flag else []
    return lambda rows: rows.with_columns(pl.when(~outside).then(pl.col(column)).alias(column), *marks)


def _beyond(column: str, low: Bound, high: Bound) -> tuple[pl.Expr, pl.Expr]:
    bounds: list[object] = [b for b in (low, high) if b is not None]
    if not bounds or not all(isinstance(b, int | float) for b in bounds):
        raise DeclarationError(
            "bounds-from-data",
            f"The bounds of {column!r} are no numbers.",
            where=place.here(),
            why="A bound that the rows tell would be fitted on what the model is tested on, and differ from file to file.",
            next="Name a bound that the world sets, or let the model's pipeline learn it from the rows it is trained on.",
        )
    # NaN, also as text, is greater than all numbers here, and beyond no bound.
    value = pl.col(column).cast(pl.Float64, strict=False).fill_nan(None)
    never = pl.lit(value=False)
    return (value < low if low is not None else never), (value > high if high is not None else never)


# Missing values -------------------------------------------------------------------------------------------------------


def nulls(*words: str, columns: Iterable[str] = ()) -> Preparation:
    """Cells that say nothing in so many words ("N/A", "-", "unknown") become null; in all columns, if none is named."""
    return cells(columns, lambda text: pl.when(~text.is_in(words)).then(text))


def fill(column: str, value: str | float | bool, *, flag: str | None = None) -> Preparation:
    """Null becomes `value`, a constant that you know; `flag` names a Boolean column that says where it was filled."""
    missing = pl.col(column).is_null()
    marks = [missing.alias(flag)] if flag else []
    return lambda rows: rows.with_columns(pl.col(column).fill_null(pl.lit(value)), *marks)


def carry_forward(column: str, *, by: Iterable[str], at: str, within: timedelta) -> Preparation:
    """Null becomes the last earlier value of the same `by`, no older than `within`.

    Strictly from the past: rows of the same moment never fill one another. Only rows of the same file are seen, so the
    first rows of a file stay null; `fb.latest` sees all that was known when the question is asked, and is mostly what
    you want. Never carry an outcome. Sorts, so it holds the file in memory.

    Args:
        column: what is carried.
        by: whose values they are: columns that tell one series from another.
        at: Datetime or Date column; a text one is read as ISO 8601 with a zone. A row without it is left alone.
        within: how old a carried value may be.

    Raises (when rows are prepared):
        DataError: `carried-without-time`.
    """
    keys = tuple(by)

    def step(rows: pl.LazyFrame) -> pl.LazyFrame:
        schema = rows.collect_schema()
        time = pl.col(at)
        if schema[at] == pl.String:
            time = time.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
        elif schema[at] == pl.Null:  # a typed file without a single time
            time = time.cast(pl.Datetime("us", "UTC"))
        elif not isinstance(schema[at], pl.Datetime | pl.Date):
            raise DataError(
                "carried-without-time",
                f"{column!r} cannot be carried forward: {at!r} is {schema[at]}.",
                why="Only a time tells which value was earlier, and how old it is.",
                next="Name a column of times, or of text in ISO 8601 with a zone.",
            )
        told = rows.with_columns(time.alias(_AT)).with_row_index(_ORDER).sort(_AT, _ORDER, maintain_order=True)
        past = told.filter(pl.col(column).is_not_null() & pl.col(_AT).is_not_null())
        # Of several values of one moment none is the last; the last line of the file at least is the same each time.
        past = past.select(*keys, _AT, pl.col(column).alias(_CARRIED))
        timed = told.filter(pl.col(_AT).is_not_null()).join_asof(
            past, on=_AT, by=list(keys), tolerance=within, allow_exact_matches=False, check_sortedness=False
        )
        untimed = told.filter(pl.col(_AT).is_null()).with_columns(pl.lit(None, schema[column]).alias(_CARRIED))
        both = pl.concat([timed, untimed]).sort(_ORDER)
        return both.with_columns(pl.coalesce(column, _CARRIED).alias(column)).drop(_AT, _CARRIED, _ORDER)

    return step


# Other tables ---------------------------------------------------------------------------------------------------------


def merge(
    other: Lookup,
    *,
    on: Mapping[str, str] | Iterable[str],
    take: Sequence[str],
    expect: Literal["many-to-one", "one-to-one"] = "many-to-one",
    how: Literal["left", "inner"] = "left",
) -> Preparation:
    """Columns of another table, looked up by key.

    Args:
        other: the table, from `lookup("planes.csv")`; its content is part of the source's recipe.
        on: the key: names that both have, or name here -> name there. Null finds nothing.
        take: the columns of the other table that are added; none of them may be here already.
        expect: how often a key may occur here; over there it always stands once.
        how: `left` keeps rows that find nothing, with null; `inner` drops them.

    Raises (when rows are prepared):
        DataError: `merge-refused`, when keys repeat that must not, or a name is taken; `lookup-unreadable`.
    """
    keys = dict(on) if isinstance(on, Mapping) else {name: name for name in on}

    def step(rows: pl.LazyFrame) -> pl.LazyFrame:
        here = rows.collect_schema().names()
        found = other.rows().select(*(pl.col(there).alias(name) for name, there in keys.items()), *take)
        known = found.select(*keys).drop_nulls()
        taken = sorted(set(take) & set(here))
        if taken:
            raise _refused(other, f"The column {taken[0]!r} is here already.", "Rename one of them before the merge.")
        if known.is_duplicated().any():
            count = int(known.is_duplicated().sum())
            raise _refused(other, f"{count:,} of its rows share a key with another.", "Let each key stand there once.")
        if expect == "one-to-one":
            return rows.join(found.lazy(), on=list(keys), how=how, validate="1:1", maintain_order="left")
        return rows.join(found.lazy(), on=list(keys), how=how, maintain_order="left")

    return step


def _refused(other: Lookup, what: str, advice: str) -> DataError:
    return DataError(
        "merge-refused",
        f"{other.path} cannot be merged: {what}",
        where=other.place,
        why="A merge adds columns; it never multiplies rows, and never hides a column.",
        next=advice,
    )
