"""What became different between two versions of a table: batches, counts, spreads of columns, and rows by key.

Only the batches that one version holds and the other does not can make a key differ, so rows are compared for their keys
alone: memory is bounded by what changed. Spreads are told over all observations of a version, one column at a time.

How far two spreads lie apart is told by psi over twenty places of the earlier version, less what chance alone would give
(see `distance`): below 0.1 little, above 0.25 much. A personal column is compared like any other; none of its values is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball.data import contract, dataset, masked, profile, withdrawal
from flyball.data.contract import Contract, Spec
from flyball.data.dataset import Version
from flyball.data.expectations import distance
from flyball.data.tables import BATCH, Tables

EXAMPLES = 5
"""Corrected rows that are shown."""

_THEN, _NOW = "\0then\0", "\0now\0"  # no column of a contract starts like this


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How one column was spread, and is.

    Attributes:
        nulls: the share of missing cells, then and now; None where a version has no rows.
        mean: of a number or a truth value, then and now.
        psi: how far apart; None where a version has no rows, and for nested types.
    """

    column: str
    dtype: str
    nulls: tuple[float | None, float | None]
    mean: tuple[float | None, float | None]
    psi: float | None


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """One row that says something else now: its key, and of each changed column what it said then and now."""

    key: dict[str, str]
    cells: dict[str, tuple[str, str]]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """From one version of a table to another.

    Attributes:
        then, now: the versions.
        batches_added, batches_gone: held now and not then, and the reverse.
        observations: rows then and now, corrected ones included.
        columns_new, columns_empty: without any value then and with one now, and the reverse: a contract that grew shows so.
        added, gone: keys that the table has now and had not then, and the reverse.
        corrected: keys whose row says something else now.
        by_column: column -> corrected rows in which it changed.
        examples: a few corrected rows, personal columns masked.
    """

    table: str
    then: int
    now: int
    batches_added: list[int]
    batches_gone: list[int]
    observations: tuple[int, int]
    columns_new: list[str]
    columns_empty: list[str]
    spreads: list[Spread]
    added: int
    gone: int
    corrected: int
    by_column: dict[str, int]
    examples: list[Corrected]


def difference(tables: Tables, observed: type[Contract], then: int, now: int) -> Difference:
    """Compare two versions, whichever is the older.

    Raises:
        StateError: `no-such-version`.
    """
    spec = contract.spec(observed)
    frames = [
        dataset.read(tables, observed, Version(table=spec.name, batch=batch)).select(*dataset.schema(spec))
        for batch in (then, now)
    ]
    held = [withdrawal.numbers(withdrawal.held(tables, spec.name, batch)) for batch in (then, now)]
    counts = [_counts(frame, spec) for frame in frames]
    spreads = [_spread(frames, counts, spec, name) for name in spec.names]
    keys = _by_key(frames[0], frames[1], sorted(held[0] ^ held[1]), spec)
    filled = [{n for n in spec.names if c[f"n {n}"]} for c in counts]
    return Difference(
        table=spec.name,
        then=then,
        now=now,
        batches_added=sorted(held[1] - held[0]),
        batches_gone=sorted(held[0] - held[1]),
        observations=(int(counts[0]["rows"] or 0), int(counts[1]["rows"] or 0)),
        columns_new=[n for n in spec.names if n in filled[1] - filled[0]],
        columns_empty=[n for n in spec.names if n in filled[0] - filled[1]],
        spreads=spreads,
        **keys,
    )


def _counts(rows: pl.LazyFrame, spec: Spec) -> Mapping[str, float | None]:
    """Rows, values of each column (`n NAME`), and the mean of those that have one (`mean NAME`)."""
    means = [
        pl.col(c.name).cast(pl.Float64).fill_nan(None).mean().alias(f"mean {c.name}")
        for c in spec.columns
        if c.dtype.is_numeric() or c.dtype == pl.Boolean
    ]
    found = rows.select(pl.len().alias("rows"), *(pl.col(n).count().alias(f"n {n}") for n in spec.names), *means)
    row: dict[str, float | None] = found.collect(engine="streaming").row(0, named=True)
    return row


def _spread(frames: list[pl.LazyFrame], counts: list[Mapping[str, float | None]], spec: Spec, name: str) -> Spread:
    rows = [c["rows"] or 0 for c in counts]
    nulls = [1 - (c[f"n {name}"] or 0) / n if n else None for c, n in zip(counts, rows, strict=True)]
    mean = [c.get(f"mean {name}") for c in counts]
    dtype = spec.column(name).dtype
    apart = None if dtype.is_nested() or dtype == pl.Binary or not all(rows) else _psi(frames, name, dtype)
    return Spread(column=name, dtype=str(dtype), nulls=(nulls[0], nulls[1]), mean=(mean[0], mean[1]), psi=apart)


def _psi(frames: list[pl.LazyFrame], name: str, dtype: pl.DataType) -> float:
    column = pl.col(name).cast(pl.Int64) if dtype.is_temporal() else pl.col(name)
    then, now = (f.select(column).collect(engine="streaming").to_series() for f in frames)
    kind: profile.Kind = "number" if dtype.is_numeric() or dtype.is_temporal() else "category"
    by = profile.edges(then, kind)
    one, other = (np.asarray(profile.profile(values, by).counts, dtype=np.int64) for values in (then, now))
    psi, _, own, theirs = distance.distances(other, one)
    return max(float(psi - own - theirs), 0.0)


def _by_key(then: pl.LazyFrame, now: pl.LazyFrame, batches: list[int], spec: Spec) -> dict[str, Any]:
    """Rows by key: what was added, is gone, and says something else."""
    differing = pl.concat([then, now]).filter(pl.col(BATCH).is_in(batches)).select(spec.key).unique()
    others = [name for name in spec.names if name not in spec.key]
    sides = []
    for frame, mark in ((then, _THEN), (now, _NOW)):
        last = dataset.last(frame.join(differing, on=spec.key, how="semi"), spec)
        renamed = (pl.col(name).alias(mark + name) for name in others)
        sides.append(last.select(*spec.key, pl.lit(value=True).alias(mark), *renamed))
    both = sides[0].join(sides[1], on=spec.key, how="full", coalesce=True).collect(engine="streaming")
    was, is_now = both[_THEN].is_not_null(), both[_NOW].is_not_null()
    kept = both.filter(was & is_now)
    changed = {name: kept[_THEN + name].ne_missing(kept[_NOW + name]) for name in others}
    differs = (
        kept.select(pl.any_horizontal(changed.values())).to_series() if changed else pl.Series([], dtype=pl.Boolean)
    )
    examples = kept.filter(differs).sort(spec.key).head(EXAMPLES) if changed else kept.head(0)
    return {
        "added": int((is_now & ~was).sum()),
        "gone": int((was & ~is_now).sum()),
        "corrected": int(differs.sum()),
        "by_column": {name: int(mask.sum()) for name, mask in changed.items() if mask.any()},
        "examples": [_example(row, spec, others) for row in examples.iter_rows(named=True)],
    }


def _example(row: Mapping[str, object], spec: Spec, others: list[str]) -> Corrected:
    cells = {n: (row[_THEN + n], row[_NOW + n]) for n in others if row[_THEN + n] != row[_NOW + n]}
    then, now = (masked.cells({n: pair[side] for n, pair in cells.items()}, spec) for side in (0, 1))
    return Corrected(key=masked.cells({n: row[n] for n in spec.key}, spec), cells={n: (then[n], now[n]) for n in cells})
