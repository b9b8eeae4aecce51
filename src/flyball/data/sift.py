"""Sift: of the rows of one file, which keep the contract, which break it, and which only repeat.

**Good** rows keep every rule; **bad** ones break some, and every one that they break is named; **repeats** say again, cell by
cell, what an earlier row of the same file said. Every row is exactly one of the three, so counts add up.

A small file is sifted whole, in memory (`sift`). Of a large one a **survey** streams once over its rows: which rules any row
breaks at all, and a 64-bit hash of every key. Rows whose key's hash nobody shares are told good or bad one by one, streaming;
the others are **contended** and go, a bucket of keys at a time, through the very same `sift`. Two keys of one hash only make
their rows take the longer way. So memory is 8 bytes a row, and a share of it that does not grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from operator import or_

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.errors import DataError
from flyball.data import coerce, contract, quarantine, rules, seal
from flyball.data.contract import Contract, Spec
from flyball.data.quarantine import KEY
from flyball.data.source import LINE

POSITION = "\0position"  # no column of a file or a contract has such a name
BUCKET = "_flyball bucket"  # also the name of a folder, which NUL cannot be in
_UNREAD, _BROKEN, _RAW = "\0unread", "\0broken", "\0raw"
HASH = "\0hash"
_SEED = 0x5EED
"""Of the hash of keys: it is compared within one ingest alone."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of the prepared rows.

    Attributes:
        good: rows that keep the contract, with its columns and types, in the file's order.
        bad: `_line`, `rules` and `row` of those that do not.
        repeats: how many rows only repeat an earlier one of the same file.
        kept, refused: which of the prepared rows are good, and which bad.
    """

    good: pl.DataFrame
    bad: pl.DataFrame
    repeats: int
    kept: pl.Series
    refused: pl.Series


@dataclass(frozen=True, slots=True)
class Survey:
    """A large file at a glance.

    Attributes:
        rows: how many.
        broken: rule -> rows that break it; only of rules that some row breaks.
        keys: the hashes of all keys without a null, sorted.
        grouped: rule that looks at other rows -> positions of the rows that break it.
    """

    rows: int
    broken: Mapping[str, int]
    keys: Hashes
    grouped: Mapping[str, pl.Series]


def complete(columns: Iterable[str], spec: Spec, file: str) -> None:
    """Refuse prepared rows of `file` that lack a column of the contract.

    Raises:
        DataError: `column-missing`.
    """
    there = [c for c in columns if c != LINE and not seal.is_beside(c)]
    for name in spec.names:
        if name not in there:
            close = get_close_matches(name, there, n=1)
            raise DataError(
                "column-missing",
                f"{file}: after preparation there is no column {name!r}, which {spec.name} needs."
                + (f" Did you mean {close[0]!r}?" if close else ""),
                where=spec.place,
                why=f"There are: {', '.join(there) or 'none'}. Nothing of this file was ingested.",
                next=f"Let the preparation yield {name!r}, or take it out of {spec.name}; then run `flyball apply` again.",
            )


def sift(
    prepared: pl.DataFrame,
    observed: type[Contract],
    grouped: Mapping[str, pl.Series] | None = None,
    unjudged: Iterable[str] = (),
) -> Sifted:
    """Check prepared rows against a contract; cells that lie sealed beside them take their place in what comes of it.

    Args:
        prepared: every column of the contract, of any type; others besides.
        grouped: what `Survey.grouped` says where these rows are but some of the file's, which then have `POSITION`.
        unjudged: columns whose cells are not what was said: rules that read one of them are left alone.

    Raises:
        DeclarationError: `rule-does-not-run`.
    """
    spec = contract.spec(observed)
    declared = rules.of(observed)
    typed = prepared.select(_cells(spec, prepared.schema))
    unfit = {c.name: typed[c.name].is_null() & prepared[c.name].is_not_null() for c in spec.columns}
    unfit = {name: mask for name, mask in unfit.items() if mask.any()}
    faults = {f"{name}|dtype": mask for name, mask in unfit.items()}
    checked = declared.single if grouped is not None else {**declared.single, **declared.grouped}
    if sealed := set(unjudged):
        checked = {rule: expr for rule, expr in checked.items() if not sealed & set(expr.meta.root_names())}
    for rule, mask in rules.broken(typed, checked, spec):
        column, _, kind = rule.rpartition("|")
        # A cell that could not be read is not missing as well: one fault, one rule.
        faults[rule] = mask & ~unfit[column] if kind == "nullability" and column in unfit else mask
    for rule, positions in (grouped or {}).items():
        faults[rule] = prepared[POSITION].is_in(positions.implode())
    repeats, clashes = _keys(typed, spec, _any(unfit.values(), typed.height))
    faults[KEY] = clashes
    bad = _any(faults.values(), typed.height) & ~repeats
    named = {rule: mask.filter(bad) for rule, mask in faults.items() if mask.any()}
    rows = prepared.filter(bad)
    good = ~(bad | repeats)
    return Sifted(
        good=typed.filter(good).with_columns(*prepared.filter(good).select(_sealed(spec, prepared.schema))),
        bad=rows.with_columns(mask.alias(f"\0{rule}") for rule, mask in named.items()).select(
            *_kept(spec, prepared.schema, {r: pl.col(f"\0{r}") for r in named})
        ),
        repeats=int(repeats.sum()),
        kept=good,
        refused=bad,
    )


def keys(prepared: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    """The keys of prepared rows, as they are stored, and with `HASH` a hash of each: null where a part of the key is."""
    have = prepared.schema
    cells = {name: seal.stored(name, have) for name in spec.key}
    plain = {name: coerce.cell(name, have[name], spec.dtypes[name]).alias(name) for name in spec.key}
    return prepared.select(*(plain[n] if c is None else c for n, c in cells.items()), _hash(spec, have).alias(HASH))


def survey(prepared: pl.LazyFrame, observed: type[Contract]) -> Survey:
    """Stream over the rows of a large file: once over all columns, once over those of the key.

    Raises:
        pl.exceptions.PolarsError: the rows cannot be read, or a rule does not run.
    """
    spec, declared = contract.spec(observed), rules.of(observed)
    flagged = _flagged(prepared, spec, declared.single)
    flags = [name for name in flagged.collect_schema() if name.startswith("\0?")]
    counts = (
        flagged.select(pl.len().alias("\0rows"), *(pl.col(f).sum() for f in flags))
        .collect(engine="streaming")
        .row(0, named=True)
    )
    grouped = {name: mask for name, expr in declared.grouped.items() if len(mask := _breaking(prepared, spec, expr))}
    by_rule = {name[2:]: int(n) for name, n in counts.items() if name.startswith("\0?") and n}
    return Survey(
        rows=counts["\0rows"],
        broken=by_rule | {name: len(positions) for name, positions in grouped.items()},
        keys=hashes(prepared.select(_hash(spec, prepared.collect_schema())), counts["\0rows"]),
        grouped=grouped,
    )


def hashes(keys: pl.LazyFrame, least: int = 0) -> Hashes:
    """The values of a frame's one column, UInt64, without nulls, sorted; 8 bytes each.

    Args:
        least: how many there are at least, to take the memory at once.
    """
    found, n = np.empty(max(least, 1), np.uint64), 0
    for batch in keys.drop_nulls().collect_batches(maintain_order=False):
        part = batch.to_series().to_numpy()
        if n + len(part) > len(found):
            found.resize(max(n + len(part), n + n // 2), refcheck=False)
        found[n : n + len(part)] = part
        n += len(part)
    found = found[:n]
    found.sort()
    return found


def shared(keys: Hashes) -> Hashes:
    """Those of sorted hashes that stand more than once, each once."""
    return np.unique(keys[1:][keys[1:] == keys[:-1]])


def union(a: Hashes, b: Hashes) -> Hashes:
    """Both, sorted, each once."""
    return np.union1d(a, b)


def count(keys: Hashes, chosen: Hashes) -> int:
    """How many of sorted hashes are among `chosen`, also sorted; one that stands twice counts twice."""
    return int((np.searchsorted(keys, chosen, "right") - np.searchsorted(keys, chosen, "left")).sum())


def among(stored: pl.LazyFrame, spec: Spec, keys: Hashes) -> Hashes:
    """The hashes of stored rows' keys that are in `keys`, sorted, each once."""
    hits = [np.empty(0, np.uint64)]
    for batch in stored.select(_hash(spec, stored.collect_schema())).collect_batches(maintain_order=False):
        part = batch.to_series().drop_nulls().to_numpy()
        at = np.searchsorted(keys, part)
        at[at == len(keys)] = 0
        hits.append(np.unique(part[keys[at] == part]) if len(keys) else part[:0])
    return np.unique(np.concatenate(hits))


def uncontended(prepared: pl.LazyFrame, observed: type[Contract], seen: Survey, contended: Hashes) -> pl.LazyFrame:
    """The good rows whose key is in no dispute, with the contract's columns and types."""
    spec = contract.spec(observed)
    flagged = _of_survey(prepared, observed, seen)
    if len(contended):
        flagged = flagged.filter(~_in(spec, flagged.collect_schema(), contended))
    flags = [pl.col(name) for name in flagged.collect_schema() if name.startswith("\0?")]
    good = flagged.filter(~pl.any_horizontal(flags)) if flags else flagged
    return good.with_columns(_sealed(spec, flagged.collect_schema())).select(spec.names)


def faulty(prepared: pl.LazyFrame, observed: type[Contract], seen: Survey, contended: Hashes) -> pl.LazyFrame:
    """`_line`, `rules` and `row` of the bad rows whose key is in no dispute."""
    spec, schema = contract.spec(observed), prepared.collect_schema()
    whole = prepared.with_columns(pl.struct(schema.names()).alias(_RAW))
    flagged = _of_survey(whole, observed, seen)
    if len(contended):
        flagged = flagged.filter(~_in(spec, flagged.collect_schema(), contended))
    flags = {name[2:]: pl.col(name) for name in flagged.collect_schema() if name.startswith("\0?")}
    if not flags:
        return flagged.head(0).select(_kept(spec, {}, {}))
    bad = flagged.filter(pl.any_horizontal(flags.values())).select(_RAW, *(f"\0?{rule}" for rule in flags))
    return bad.unnest(_RAW).select(_kept(spec, schema, flags))


def in_dispute(prepared: pl.LazyFrame, observed: type[Contract], contended: Hashes, buckets: int) -> pl.LazyFrame:
    """The other rows, as prepared, with `POSITION` and the number of their bucket of keys, `BUCKET`."""
    spec, schema = contract.spec(observed), prepared.collect_schema()
    placed = prepared.with_row_index(POSITION).with_columns(_hash(spec, schema).alias(BUCKET))
    return placed.filter(pl.col(BUCKET).is_in(pl.Series(contended).implode()).fill_null(value=False)).with_columns(
        pl.col(BUCKET) % buckets
    )


def stored_in_dispute(stored: pl.LazyFrame, spec: Spec, contended: Hashes, buckets: int) -> pl.LazyFrame:
    """The stored rows of contended keys, with `BUCKET`."""
    placed = stored.with_columns(_hash(spec, stored.collect_schema()).alias(BUCKET))
    return placed.filter(pl.col(BUCKET).is_in(pl.Series(contended).implode()).fill_null(value=False)).with_columns(
        pl.col(BUCKET) % buckets
    )


def _cells(spec: Spec, schema: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    return [coerce.cell(c.name, schema[c.name], c.dtype).alias(c.name) for c in spec.columns]


def _of_survey(prepared: pl.LazyFrame, observed: type[Contract], seen: Survey) -> pl.LazyFrame:
    """Typed rows, flagged by the rules that the survey found broken, and no others."""
    spec = contract.spec(observed)
    single = {name: expr for name, expr in rules.of(observed).single.items() if name in seen.broken}
    rows = prepared.with_row_index(POSITION) if seen.grouped else prepared
    unfit = {name.removesuffix("|dtype") for name in seen.broken if name.endswith("|dtype")}
    flagged = _flagged(rows, spec, single, unfit)
    if not seen.grouped:
        return flagged
    grouped = [pl.col(POSITION).is_in(found.implode()).alias(f"\0?{name}") for name, found in seen.grouped.items()]
    return flagged.with_columns(grouped)


def _flagged(
    rows: pl.LazyFrame, spec: Spec, single: Mapping[str, pl.Expr], unfit: Iterable[str] | None = None
) -> pl.LazyFrame:
    """Rows with typed cells and a flag `\\0?rule` a rule, true where it is broken; whatever starts with \\0 is kept.

    Args:
        unfit: the columns of which a cell may not say a value of the type; all that change their type by default.
    """
    schema = rows.collect_schema()
    changing = [c for c in spec.columns if schema[c.name] != c.dtype and schema[c.name] != pl.Null]
    wanted = {c.name for c in changing} if unfit is None else set(unfit)
    dtype = {c.name: f"\0?{c.name}|dtype" for c in changing if c.name in wanted}
    cells = {c.name: coerce.cell(c.name, schema[c.name], c.dtype) for c in spec.columns}
    unread = [(cells[name].is_null() & pl.col(name).is_not_null()).alias(flag) for name, flag in dtype.items()]
    ours = [name for name in schema if name.startswith("\0")]
    typed = rows.select(*(cell.alias(name) for name, cell in cells.items()), *unread, *ours)
    flags = []
    for name, expr in single.items():
        column, _, kind = name.rpartition("|")
        flag = ~expr.fill_null(value=True)
        # A cell that could not be read is not missing as well: one fault, one rule.
        flags.append(
            (flag & ~pl.col(dtype[column]) if kind == "nullability" and column in dtype else flag).alias(f"\0?{name}")
        )
    return typed.with_columns(flags)


def _breaking(prepared: pl.LazyFrame, spec: Spec, rule: pl.Expr) -> pl.Series:
    """Positions of the rows that break a rule that looks at other rows; only the columns that it reads are held."""
    named = set() if rule.meta.has_multiple_outputs() else set(rule.meta.root_names())
    schema = prepared.collect_schema()
    read = [c for c in spec.columns if c.name in named] or spec.columns
    cells = [coerce.cell(c.name, schema[c.name], c.dtype).alias(c.name) for c in read]
    broken = prepared.select(cells).with_columns((~rule.fill_null(value=True)).alias(_BROKEN)).select(_BROKEN)
    return broken.with_row_index(POSITION).filter(_BROKEN).select(POSITION).collect(engine="streaming").to_series()


def _hash(spec: Spec, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """A hash of the key, as it is stored; null where a part of it is."""
    cells = []
    for name in spec.key:
        sealed = seal.stored(name, schema)
        cell = sealed if sealed is not None else coerce.cell(name, schema[name], spec.dtypes[name])
        cells.append(_hashable(cell, spec.dtypes[name]))
    if len(cells) == 1:
        return pl.when(cells[0].is_not_null()).then(cells[0].hash(_SEED))
    whole = pl.struct(cell.alias(str(n)) for n, cell in enumerate(cells))
    return pl.when(pl.all_horizontal(cell.is_not_null() for cell in cells)).then(whole.hash(_SEED))


def _hashable(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    # The codes of categories depend on the order in which they were met.
    return cell.cast(pl.String) if isinstance(dtype, pl.Categorical | pl.Enum) else cell


def _in(spec: Spec, schema: Mapping[str, pl.DataType], contended: Hashes) -> pl.Expr:
    return _hash(spec, schema).is_in(pl.Series(contended).implode()).fill_null(value=False)


def _keys(typed: pl.DataFrame, spec: Spec, unread: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(rows that repeat an earlier one, rows whose key another row contradicts).

    A row with a cell that could not be read (`unread`) repeats nothing: its cells are not known to be the same.
    """
    keys = typed.select(spec.key)
    shares = keys.is_duplicated() & ~keys.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if not shares.any():
        return shares, shares
    rows = typed.with_columns(unread.alias(_UNREAD)).with_row_index(POSITION).filter(shares)
    first = rows.filter(~pl.col(_UNREAD)).unique(subset=spec.names, keep="first")
    remaining = pl.concat([first, rows.filter(_UNREAD)])
    repeats = rows.join(remaining, on=POSITION, how="anti")[POSITION]
    clashes = remaining.filter(remaining.select(spec.key).is_duplicated())[POSITION]
    return _at(repeats, typed.height), _at(clashes, typed.height)


def _sealed(spec: Spec, schema: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    """The cells that lie sealed beside those that the contract seals, under their names; a forger may lay others."""
    return [cell for name in spec.sealed if (cell := seal.stored(name, schema)) is not None]


def _kept(spec: Spec, schema: Mapping[str, pl.DataType], faults: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    """A bad row as it is kept: its line, the rules that it breaks, and its cells as JSON.

    Where some are sealed, cells that the contract does not declare are not kept: they may say what is sealed.
    """
    sealed = _sealed(spec, schema)
    columns = [c for c in schema if c != LINE and not c.startswith("\0") and not (sealed and c not in spec.names)]
    line = pl.col(LINE).cast(pl.Int64, strict=False) if LINE in schema else pl.lit(None, dtype=pl.Int64)
    names = [pl.when(broke).then(pl.lit(rule)) for rule, broke in sorted(faults.items())]
    cells = pl.struct(_said(c, schema) for c in columns) if columns else pl.lit(None)
    return [
        line.alias(LINE),
        (pl.concat_list(names).list.drop_nulls() if names else pl.lit([], dtype=pl.List(pl.String))).alias("rules"),
        (cells.struct.json_encode() if columns else pl.lit(None, dtype=pl.String)).alias("row"),
    ]


def _said(column: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """A cell as JSON can say it, without loss; or as it is stored."""
    sealed = seal.stored(column, schema)
    return sealed if sealed is not None else quarantine.said(pl.col(column), schema[column]).alias(column)


def _any(masks: Iterable[pl.Series], height: int) -> pl.Series:
    return reduce(or_, masks, pl.repeat(value=False, n=height, eager=True))


def _at(positions: pl.Series, height: int) -> pl.Series:
    mask = np.zeros(height, dtype=bool)
    mask[positions.to_numpy()] = True
    return pl.Series(mask)
