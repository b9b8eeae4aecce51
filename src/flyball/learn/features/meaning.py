"""What both times share: which declarations can be kept exactly, and how a value becomes a number that can.

A **version** is one row of an observation frame: contract columns, `_batch`, `_known` and, with outcomes, `_outcome_known`.
It is **current** for questions asked after its `_known`, up to and including the `_known` of the next version of its key.
A **point** is a question's moment, entity and key. Moments are whole microseconds since 1970; NEVER stands for none.

Totals are exact, so order and batching can never matter: true is 1, integers are themselves, and floats are counted in
whole 2**-40ths (about 1e-12), half to even. What does not add up (`aggregate`) takes values as they are, as floats.
NaN and infinities are no values: a window skips them like nulls, in `count` too.
An empty window has sum 0, count and n_unique 0, and anything else null. A **gap** shifts the moment from which a row counts.

Refused: expressions that look at more than their own row, columns that are not there, entities that cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import chain

import polars as pl

from flyball._kernel import clock, durations
from flyball._kernel.errors import DataError, DeclarationError
from flyball.data import contract, rules
from flyball.data.contract import Contract, Spec
from flyball.learn.features.declare import Called, Computed, Feature, FeatureSet, Given, Latest, Window

NEVER = 2**63 - 1
"""The moment that does not come: a version that is current still, an outcome that has not settled."""

FOREVER = 2**60
"""Microseconds that are longer than there are years: a longer span covers no more, and would not fit beside a moment."""

SCALE = 2.0**40
LIMIT = 2.0**56
"""Floats below this in size fit: 2**96 after scaling, so that 2**31 of them add up within 128 bits."""

_EPOCH_DAY = date(1970, 1, 1)


def micros(column: str) -> pl.Expr:
    """Microseconds of a time column, as Int64."""
    return pl.col(column).cast(pl.Int64)


def span(duration: timedelta) -> int:
    """Microseconds of a duration, at most FOREVER: all of `timedelta.max` would not fit into 64 bits."""
    return min(duration // clock.MICROSECOND, FOREVER)


def times(spec: Spec) -> tuple[pl.Expr, ...]:
    """`_known`, `_batch`, `_settled` (NEVER while unsettled) and `_event` of a version, as Int64."""
    settled = micros("_outcome_known").fill_null(NEVER) if spec.outcome_time else pl.lit(NEVER)
    return micros("_known"), pl.col("_batch"), settled.alias("_settled"), micros(spec.event_time).alias("_event")


def columns(spec: Spec) -> tuple[str, ...]:
    """All columns of the observation frame of a contract."""
    return (*spec.names, "_batch", "_known", *(("_outcome_known",) if spec.outcome_time else ()))


def comparable(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as text or Int64, so that equality and order are the same in Polars, Python and SQL."""
    return pl.col(name).cast(pl.String if _is_text(dtype) else pl.Int64)


def scalar(value: object) -> str | int | None:
    """`comparable` for one Python value of a request."""
    match value:
        case None | str():
            return value
        case int():
            return int(value)
        case datetime():
            return clock.micros(value)
        case date():
            return (value - _EPOCH_DAY).days
        case _:
            raise DataError(
                "value-not-comparable",
                f"A value that is {type(value).__name__} was given, and no key or entity is.",
                why="Keys and entities are text, integers, Booleans, dates or times with a zone.",
                next="Send a value of the column's type.",
            )


def entity(columns: tuple[str, ...], dtypes: Mapping[str, pl.DataType]) -> pl.Expr:
    """Whom a row is about: `comparable`, and one text of several columns; null where one of them is."""
    if len(columns) == 1:
        return comparable(columns[0], dtypes[columns[0]])
    parts = [comparable(name, dtypes[name]).cast(pl.String) for name in columns]
    # Each with its length before it, so that no two entities are spelt alike.
    return pl.concat_str([pl.concat_str(part.str.len_chars().cast(pl.String), pl.lit(":"), part) for part in parts])


def whose(columns: tuple[str, ...]) -> Callable[[Mapping[str, object]], str | int | None]:
    """`entity` for one request."""
    if len(columns) == 1:
        name = columns[0]
        return lambda request: scalar(request.get(name))

    def joined(request: Mapping[str, object]) -> str | None:
        parts = [scalar(request.get(name)) for name in columns]
        return None if None in parts else "".join(f"{len(str(part))}:{part}" for part in parts)

    return joined


@lru_cache(maxsize=1024)
def dtype(window: Window) -> pl.DataType:
    """The type of a window's row-wise expression."""
    return _schema(window.table, window.value.polars)


def of_each(rows: pl.DataFrame, /, **made: pl.Expr) -> pl.DataFrame:
    """What row-wise expressions make of each row, also of one alone as of the same among others."""
    reads = sorted({name for expression in made.values() for name in expression.meta.root_names()})
    whole = laid(rows.select(reads)) if reads else rows
    named = [expression.alias(name) for name, expression in made.items()]  # no keywords: a feature may be named `self`
    return whole.with_columns(named).select(*made).head(rows.height)


def laid(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows so that Polars computes with each as with one of many; one row alone is there twice.

    Polars divides a column by a literal by way of the literal's inverse, but as it is where a chunk has one row, or where a
    column is one value that it repeats (which is what one row becomes): that differs in the last bit.
    """
    whole = pl.concat([rows, rows]) if rows.height == 1 else rows
    return pl.DataFrame([c.rechunk() if 1 in c.chunk_lengths() else c for c in whole.get_columns()])


def value(window: Window, whole: type[pl.DataType] = pl.Int128) -> pl.Expr:
    """What a row adds to the total of a window, as an exact integer, or what it is looked at for; null where it does not count.

    Args:
        whole: the type of integers that need not fit into 64 bits; narrower only where it is known that they do.
    """
    kind, expression, how = dtype(window), window.value.polars, window.aggregate.how
    if how in ("min", "max", "quantile"):
        return _finite(expression)
    if how == "n_unique":
        return _finite(expression) if kind.is_float() else expression.cast(pl.String if _is_text(kind) else pl.Int64)
    if how in ("since", "count"):
        there = expression.is_finite() if kind.is_float() else expression.is_not_null()
        return pl.when(there).then(pl.lit(1, pl.Int64))
    if kind.is_float():
        return scaled(window).round(0, mode="half_to_even").cast(whole)
    return expression.cast(pl.Int64 if kind == pl.Boolean or kind in _SMALL else whole)


def scaled(window: Window) -> pl.Expr:
    """What a float adds, before it is rounded to a whole number."""
    wide = window.value.polars.cast(pl.Float64)
    # Cut off at the limit so that the cast holds; `fitting` refuses what was cut.
    return pl.when(wide.is_finite()).then(wide.clip(-LIMIT, LIMIT)) * SCALE


def _finite(expression: pl.Expr) -> pl.Expr:
    """As a float that is a number, of one zero."""
    wide = expression.cast(pl.Float64)
    return pl.when(wide.is_finite()).then(wide + 0.0)


def own(window: Window) -> pl.Expr:
    """When what a window reads of a version was known: it, or its outcome; NEVER if that has not settled."""
    return pl.col("_settled") if window.on_outcome else pl.col("_known")


def counts(window: Window) -> pl.Expr:
    """The moment from which on a version counts: when its row, or its outcome, was first known, and a gap after that.

    A correction says something else of a row, and does not make it a new one: what settles a month later would otherwise count
    anew in a window of a day. From `_known_first` and `_settled_first`; NEVER for a version that does not count.
    """
    first = pl.col("_settled_first") if window.on_outcome else pl.col("_known_first")
    return pl.when(own(window) < NEVER - span(window.gap)).then(first + span(window.gap)).otherwise(NEVER)


def fitting(window: Window, values: pl.Series) -> None:
    """Raise DataError `number-too-large` if a value of a window is beyond what can be summed exactly."""
    if values.dtype == pl.Int128 and dtype(window).is_float():
        bound = int(LIMIT * SCALE)
        if (~values.is_between(-bound, bound, closed="none")).any():
            raise DataError(
                "number-too-large",
                f"The window {window.name!r} meets a number of 2**56 or more in size.",
                where=window.place,
                why="Windows add up exactly, in whole 2**-40ths within 128 bits.",
                next="Divide the expression by a constant, or bound the column in its contract (max=...).",
            )


def unit(window: Window) -> float:
    """What one unit of a window's total is worth."""
    return 1 / SCALE if dtype(window).is_float() else 1.0


def twice(batch: int) -> DataError:
    """The error of a batch that holds two versions of one key."""
    return DataError(
        "two-versions-at-once",
        f"Batch {batch} holds two rows with the same key.",
        why="The later version of a key is the one of the later batch: here it cannot be told.",
        next="Ingest the later row as a batch of its own.",
    )


def check(features: FeatureSet, question: type[Contract]) -> None:
    """Refuse what cannot be built exactly.

    Raises:
        DeclarationError: `no-such-column`, `leaks-outcome`, `expression-not-row-wise`, `expression-does-not-fit`,
            `feature-of-unusable-type`, `not-comparable`, `span-not-positive`, `feature-name-taken`.
    """
    names: set[str] = set()
    for feature in features.features:
        problem = next(_problems(feature, question), None)
        if problem is not None:
            code, what, why = problem
            raise DeclarationError(
                code,
                f"The feature {feature.name!r} {what}",
                where=feature.place,
                why=why,
                next="Mend the feature, then run `flyball plan` again.",
            )
        for output in feature.outputs(question):
            if output.name in names or output.name.startswith("_"):
                raise DeclarationError(
                    "feature-name-taken",
                    f"The feature {feature.name!r} yields {output.name!r}, a name that is taken.",
                    where=feature.place,
                    why="A model's inputs are told by their names; those with a leading underscore are flyball's.",
                    next="Rename the feature.",
                )
            names.add(output.name)


_SMALL = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)
_ROW_WISE = "Each value follows from its own row: then it is the same for one question and for a million."

Problem = tuple[str, str, str]


def _problems(feature: Feature, question: type[Contract]) -> Iterator[Problem]:
    asks = contract.spec(question)
    match feature:
        case Given():
            yield from _missing([feature.name], asks)
        case Computed():
            yield from _missing(sorted(feature.expression.columns), asks)
            if not rules.row_wise(feature.expression.polars):
                yield "expression-not-row-wise", f"is computed by {feature.expression}.", _ROW_WISE
        case Called():
            yield from _missing(feature.reads, asks)
        case Latest():
            looks = contract.spec(feature.table)
            if not feature.columns:
                yield (
                    "no-such-column",
                    f"takes no column of {looks.name}.",
                    "Keys, times and outcomes are not taken unasked.",
                )
            yield from _missing(feature.columns, looks)
            yield from _entity(feature, asks, looks)
            if feature.max_age is not None and feature.max_age < timedelta(0):
                yield (
                    "span-not-positive",
                    f"has max_age={durations.short(feature.max_age)}.",
                    "An age is counted back from the question.",
                )
            for name in feature.columns:
                if looks.column(name).dtype.is_decimal() or looks.column(name).dtype in (pl.Int128, pl.UInt128):
                    yield (
                        "feature-of-unusable-type",
                        f"takes {looks.name}.{name}.",
                        "A model reads floats and integers.",
                    )
        case Window():
            looks = contract.spec(feature.table)
            yield from _missing(sorted(feature.value.columns), looks)
            yield from _entity(feature, asks, looks)
            yield from _window(feature)


def _window(window: Window) -> Iterator[Problem]:
    if not window.over or min(window.over) <= timedelta(0):
        spans = ", ".join(durations.short(span) for span in window.over) or "no span"
        yield "span-not-positive", f"covers {spans}.", "A window covers a span of time before the question."
    if window.gap < timedelta(0):
        yield (
            "span-not-positive",
            f"has gap={durations.short(window.gap)}.",
            "A window that ends after the question would see the future.",
        )
    if not rules.row_wise(window.value.polars):
        yield "expression-not-row-wise", f"takes the {window.aggregate.how} of {window.value}.", _ROW_WISE
    try:
        kind = dtype(window)
    except pl.exceptions.PolarsError as problem:
        yield "expression-does-not-fit", f"cannot be computed from {window.table.__name__}.", str(problem)
    else:
        how = window.aggregate.how
        number = kind.is_integer() or kind.is_float() or kind == pl.Boolean
        if how == "n_unique":
            if not (_is_comparable(kind) or kind.is_float()):
                yield "feature-of-unusable-type", f"tells apart {kind}.", "Such values cannot be compared exactly."
        elif how not in ("count", "since") and not number:
            yield "feature-of-unusable-type", f"takes the {how} of {kind}.", "Only numbers and Booleans have one."
        if kind in (pl.Int128, pl.UInt128) or (kind == pl.UInt64 and how == "n_unique"):
            yield "feature-of-unusable-type", f"takes the {how} of {kind}.", "Totals are kept within 128 bits."


def _entity(feature: Latest | Window, asks: Spec, looks: Spec) -> Iterator[Problem]:
    by = feature.by
    yield from chain(_missing(by.question, asks), _missing(by.table, looks))
    for ours, theirs in zip(by.question, by.table, strict=True):
        names = f"{asks.name}.{ours} and {looks.name}.{theirs}"
        if theirs in looks.late or ours in asks.late:
            yield "leaks-outcome", f"is looked up by {names}.", "Whose row it is must be known when the row is known."
            return
        left, right = asks.column(ours).dtype, looks.column(theirs).dtype
        alike = left == right or (_is_text(left) and _is_text(right)) or (left.is_integer() and right.is_integer())
        if not (alike and _is_comparable(left) and _is_comparable(right)):
            yield "not-comparable", f"is looked up by {names}.", f"{left} and {right} cannot be compared exactly."
    for column in looks.columns:
        if column.key and not _is_comparable(column.dtype):
            yield "not-comparable", f"looks at {looks.name}.", f"Its key {column.name!r} is {column.dtype}."


def _missing(names: list[str] | tuple[str, ...], spec: Spec) -> Iterator[Problem]:
    for name in names:
        if name not in spec.names:
            yield (
                "no-such-column",
                f"reads {name!r}, and {spec.name} has no such column.",
                f"It has {', '.join(spec.names)}.",
            )


def _schema(table: type[Contract], expression: pl.Expr) -> pl.DataType:
    # Some expressions have a type before they are tried, and then cannot be computed.
    return pl.DataFrame(schema=contract.spec(table).dtypes).select(expression.alias("value")).schema["value"]


def _is_text(kind: pl.DataType) -> bool:
    return kind in (pl.String, pl.Categorical) or isinstance(kind, pl.Enum)


def _is_comparable(kind: pl.DataType) -> bool:
    if isinstance(kind, pl.Datetime):
        return kind.time_unit == "us" and kind.time_zone is not None
    return _is_text(kind) or kind in (*_SMALL, pl.Int64, pl.Boolean, pl.Date)
