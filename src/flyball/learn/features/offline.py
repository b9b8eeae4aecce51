"""Every feature of every question of the past, as it was known when each was asked.

The rows of a table are laid out once by (entity, moment known), and all questions find their places in that order: then a
window that adds up is the difference of two running totals (`sums`), any other window looks at a range of rows (`scan`), and
`latest` is a running maximum (`newest`). What is taken, computed or called from the request looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from flyball._kernel.errors import DataError
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.learn.features import called, meaning, newest, scan, sums
from flyball.learn.features.declare import Called, Computed, FeatureSet, Given, Latest, Looked, Window
from flyball.learn.features.meaning import NEVER
from flyball.learn.features.timeline import Past


def build(
    features: FeatureSet,
    question: type[Contract],
    questions: pl.DataFrame,
    tables: Mapping[str, pl.LazyFrame],
) -> pl.DataFrame:
    """The features of every question, one row each, in the order of `questions`.

    Args:
        features: what to build.
        question: the contract of the questions.
        questions: the request columns of `question` (key included) and `_asked`.
        tables: contract name -> observation frame (contract columns, `_batch`, `_known`, `_outcome_known`).

    Returns:
        One column per output of `features`. A window is Float64, or Int64 where it counts; anything else of its column's type.

    Raises:
        DeclarationError: what `meaning.check` refuses; `function-not-row-wise`, `function-yields-otherwise`.
        DataError: `table-not-given`, `column-not-given`, `two-versions-at-once`, `number-too-large`.
    """
    meaning.check(features, question)
    spec = contract.spec(question)
    _need(questions.columns, {*features.reads(question), *spec.key, "_asked"}, "the questions")
    questions = questions.with_row_index("_row").sort("_asked")
    parts = [questions.select("_row"), *requested(features, questions)]
    for table in features.tables():
        wanted = [f for f in features.features if isinstance(f, Looked) and f.table is table]
        parts += _looked_up(wanted, question, questions, tables)
    outputs = [o.name for o in features.outputs(question)]
    return pl.concat(parts, how="horizontal").sort("_row").select(outputs)


def versions(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Add to versions `_id` (their place), `_chain` (the same for all of one key), `_until` (NEVER if current still); when the
    row and its outcome were first known: `_known_first`, `_settled_first`.

    Args:
        rows: `key`, `_known` (Int64 microseconds), `_batch` and anything else, such as `_settled`.
        key: the key columns.

    Raises:
        DataError: `two-versions-at-once`.
    """
    rows = rows.with_row_index("_id")
    moments = [name for name in ("_known", "_settled") if name in rows.columns]
    # Equal keys have equal hashes: where hashes are unique, and they nearly always are, there is nothing to compare.
    hashes = rows.select(key).hash_rows()
    ordered = hashes.sort()
    twice = ordered.filter(ordered == ordered.shift(1)).unique()
    if twice.is_empty():
        alike = {f"{name}_first": name for name in moments}
        return rows.with_columns(_chain="_id", _until=pl.lit(NEVER), **alike)
    again = rows.filter(hashes.is_in(twice.implode())).select("_id", *key, "_batch", *moments)
    again = again.with_columns(_chain=pl.col("_id").min().over(key)).sort("_chain", "_known", "_batch")
    double = again.filter(again.select("_chain", "_known", "_batch").is_duplicated())
    if double.height:
        raise meaning.twice(double["_batch"][0])
    firsts = [pl.col(name).cum_min().over("_chain").alias(f"{name}_first") for name in moments]
    again = again.select("_id", "_chain", *firsts, _until=pl.col("_known").shift(-1).over("_chain").fill_null(NEVER))
    found = {"_chain": rows["_id"].to_numpy().copy(), "_until": np.full(rows.height, NEVER)}
    found |= {f"{name}_first": rows[name].to_numpy().copy() for name in moments}
    for name, values in found.items():
        values[again["_id"].to_numpy()] = again[name].to_numpy()
    return rows.with_columns(pl.Series(name, values) for name, values in found.items())


def requested(features: FeatureSet, questions: pl.DataFrame) -> list[pl.DataFrame]:
    """What is taken, computed or called from the request."""
    found: list[pl.DataFrame] = []
    for feature in features.features:
        match feature:
            case Given():
                found.append(questions.select(feature.name))
            case Computed():
                found.append(meaning.of_each(questions, **{feature.name: feature.expression.polars}))
            case Called():
                found.append(called.each(feature, questions).to_frame())
            case _:
                continue
    return found


def _looked_up(
    features: Sequence[Latest | Window],
    question: type[Contract],
    questions: pl.DataFrame,
    tables: Mapping[str, pl.LazyFrame],
) -> list[pl.DataFrame]:
    """The outputs of the features of one table, for questions sorted by `_asked`."""
    table = features[0].table
    spec = contract.spec(table)
    if spec.name not in tables:
        raise DataError(
            "table-not-given",
            f"There is no table {spec.name}.",
            where=spec.place,
            why="A feature looks it up.",
            next="Ingest it with `flyball apply`.",
        )
    frame = tables[spec.name]
    _need(frame.collect_schema().names(), set(meaning.columns(spec)), spec.name)
    reads = {*spec.key, *(name for f in features for name in f.by.table)}
    for feature in features:
        reads |= set(feature.columns) if isinstance(feature, Latest) else feature.value.columns
    times = [t for t in meaning.times(spec) if spec.outcome_time or t.meta.output_name() != "_settled"]
    rows = versions(frame.select(*sorted(reads), *times).collect(), spec.key)
    points = questions.select(_asked=meaning.micros("_asked"))
    if table is question:
        chains = rows.select(*spec.key, "_chain").unique("_chain")
        mine = questions.select(spec.key).join(chains, on=spec.key, how="left", maintain_order="left")
        points = points.with_columns(_own=mine["_chain"])
    else:
        points = points.with_columns(_own=pl.lit(None, pl.UInt32))
    found: list[pl.DataFrame] = []
    pasts: dict[object, Past] = {}
    for feature in features:
        by = feature.by
        if by not in pasts:
            ours = questions.select(meaning.entity(by.question, questions.schema)).to_series()
            pasts[by] = Past(rows, points, ours, rows.select(meaning.entity(by.table, rows.schema)).to_series())
        if isinstance(feature, Latest):
            built = newest.build(feature, pasts[by], spec)
        else:
            built = (sums if feature.aggregate.adds else scan).build(feature, pasts[by])
        found.append(pasts[by].back(built))
    return found


def _need(given: Sequence[str], wanted: set[str], whose: str) -> None:
    missing = sorted(wanted - set(given))
    if missing:
        raise DataError(
            "column-not-given",
            f"{whose} lack the column {missing[0]!r}."
            if whose == "the questions"
            else f"{whose} lacks {missing[0]!r}.",
            why="The features read it.",
            next="Give observation frames as `Tables.read` yields them, and questions with their request columns.",
        )
