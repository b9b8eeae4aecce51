"""Quarantine: rows that break their contract are kept, with every rule that they broke, and can be replayed.

`sift` tells rows apart in one pass: **good** ones keep every rule; **bad** ones break some; **repeats** say again, cell by
cell, what an earlier row of the same file said. Every row is exactly one of the three, so counts add up.

Rules are dataframely's, by its names (`distance|min`), and three of ours: `column|dtype`, a cell that does not say a value
of the column's type; `primary_key`, rows of one file that share a key and contradict one another; `ragged`, a line of the
file that is no row at all, kept as raw text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from operator import or_

import numpy as np
import polars as pl

from flyball._kernel.errors import DataError, DeclarationError
from flyball.data import coerce, contract
from flyball.data.contract import Contract, Spec
from flyball.data.source import LINE, TEXT
from flyball.data.tables import BATCH, Tables

SCHEMA: Mapping[str, pl.DataType] = {
    BATCH: pl.Int64(),
    "_source": pl.String(),
    "_file": pl.String(),
    LINE: pl.Int64(),
    "rules": pl.List(pl.String()),
    "row": pl.String(),
}
"""`row` is a JSON object: the cells as prepared, or for a ragged line its `text`. A row without `rules` is no quarantined
row: it is the batch's own account, and its `row` is what the batch's fact says."""

KEY, RAGGED = "primary_key", "ragged"
_POSITION, _UNREAD = "\0position", "\0unread"  # no column of a file or a contract has such a name


def table(name: str) -> str:
    """The quarantine of a table is a table too."""
    return f"{name}__quarantine"


def read(tables: Tables, name: str, batch: int) -> pl.LazyFrame:
    """The quarantined rows of the batches up to `batch` of the table `name`; columns as `SCHEMA` tells."""
    return tables.scan(table(name), batch, SCHEMA).filter(pl.col("rules").is_not_null())


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of the prepared rows of one file.

    Attributes:
        good: rows that keep the contract, with its columns and types, in the file's order.
        bad: `_line`, `rules` and `row` of those that do not.
        repeats: how many rows only repeat an earlier one of the same file.
    """

    good: pl.DataFrame
    bad: pl.DataFrame
    repeats: int


def sift(prepared: pl.DataFrame, observed: type[Contract], file: str) -> Sifted:
    """Check prepared rows against a contract; `file` names them in errors.

    Raises:
        DataError: `column-missing`.
        DeclarationError: `rule-does-not-run`.
    """
    spec = contract.spec(observed)
    _complete(prepared, spec, file)
    typed = prepared.select(spec.names).with_columns(
        coerce.cell(c.name, prepared.schema[c.name], c.dtype).alias(c.name) for c in spec.columns
    )
    unfit = {c.name: typed[c.name].is_null() & prepared[c.name].is_not_null() for c in spec.columns}
    unfit = {name: mask for name, mask in unfit.items() if mask.any()}
    faults = {f"{name}|dtype": mask for name, mask in unfit.items()}
    for rule, mask in broken(typed, rules(observed), spec):
        column, _, kind = rule.rpartition("|")
        # A cell that could not be read is not missing as well: one fault, one rule.
        faults[rule] = mask & ~unfit[column] if kind == "nullability" and column in unfit else mask
    repeats, clashes = _keys(typed, spec, _any(unfit.values(), typed.height))
    faults[KEY] = clashes
    bad = _any(faults.values(), typed.height) & ~repeats
    return Sifted(
        good=typed.filter(~(bad | repeats)),
        bad=_rows(prepared, {rule: mask for rule, mask in faults.items() if mask.any()}, bad),
        repeats=int(repeats.sum()),
    )


def ragged(lines: pl.DataFrame) -> pl.DataFrame:
    """`_line`, `rules` and `row` of the lines of a file that are no rows."""
    rules = pl.lit([RAGGED], dtype=pl.List(pl.String))
    return lines.select(LINE, rules.alias("rules"), pl.struct(TEXT).struct.json_encode().alias("row"))


def by_rule(bad: pl.DataFrame) -> dict[str, int]:
    """Rule -> number of rows that broke it; a row that broke two counts under both."""
    counts = bad.select(pl.col("rules").explode()).to_series().drop_nulls().value_counts(name="rows").sort("rules")
    return dict(counts.iter_rows())


def _complete(prepared: pl.DataFrame, spec: Spec, file: str) -> None:
    there = [c for c in prepared.columns if c != LINE]
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


def rules(observed: type[Contract]) -> dict[str, pl.Expr]:
    """Name -> expression of every rule of a contract but the key's, as dataframely has them."""
    # The expressions themselves: `Schema.filter` would check the key by a hash of every row, once more.
    return {name: rule.expr for name, rule in observed._validation_rules(with_cast=False).items() if name != KEY}


def broken(typed: pl.DataFrame, checked: Mapping[str, pl.Expr], spec: Spec) -> Iterator[tuple[str, pl.Series]]:
    """(rule, rows that break it) of the rules `checked` that some row breaks; null says nothing against a row.

    Raises:
        DeclarationError: `rule-does-not-run`.
    """
    try:
        kept = typed.with_columns(expr.fill_null(value=True).alias(name) for name, expr in checked.items())
    except pl.exceptions.PolarsError as problem:
        raise DeclarationError(
            "rule-does-not-run",
            f"A rule of {spec.name} cannot be evaluated: {problem}",
            where=spec.place,
            why="A rule is a Polars expression over the columns of its contract that yields true or false.",
            next="Mend the rule, then run `flyball plan` again.",
        ) from problem
    for name in checked:
        if not kept[name].all():
            yield name, ~kept[name]


def _keys(typed: pl.DataFrame, spec: Spec, unread: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(rows that repeat an earlier one, rows whose key another row contradicts).

    A row with a cell that could not be read (`unread`) repeats nothing: its cells are not known to be the same.
    """
    keys = typed.select(spec.key)
    shared = keys.is_duplicated() & ~keys.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if not shared.any():
        return shared, shared
    rows = typed.with_columns(unread.alias(_UNREAD)).with_row_index(_POSITION).filter(shared)
    first = rows.filter(~pl.col(_UNREAD)).unique(subset=spec.names, keep="first")
    remaining = pl.concat([first, rows.filter(_UNREAD)])
    repeats = rows.join(remaining, on=_POSITION, how="anti")[_POSITION]
    clashes = remaining.filter(remaining.select(spec.key).is_duplicated())[_POSITION]
    return _at(repeats, typed.height), _at(clashes, typed.height)


def _rows(prepared: pl.DataFrame, faults: Mapping[str, pl.Series], bad: pl.Series) -> pl.DataFrame:
    """The bad rows as they are kept."""
    rows = prepared.filter(bad)
    line = pl.col(LINE).cast(pl.Int64, strict=False) if LINE in rows.columns else pl.lit(None, dtype=pl.Int64)
    names = [pl.when(mask.filter(bad)).then(pl.lit(rule)) for rule, mask in sorted(faults.items())]
    cells = pl.struct(_said(c, t) for c, t in rows.schema.items() if c != LINE).struct.json_encode()
    empty = pl.lit([], dtype=pl.List(pl.String))
    return rows.select(
        line.alias(LINE),
        (pl.concat_list(names).list.drop_nulls() if names else empty).alias("rules"),
        cells.alias("row"),
    )


def _said(column: str, dtype: pl.DataType) -> pl.Expr:
    """A cell as JSON can say it, without loss."""
    if dtype == pl.Binary:
        return pl.col(column).bin.encode("base64")
    if dtype.is_float():
        return pl.col(column).cast(pl.String)  # JSON has no NaN and no infinity
    return pl.col(column)


def _any(masks: Iterable[pl.Series], height: int) -> pl.Series:
    return reduce(or_, masks, pl.repeat(value=False, n=height, eager=True))


def _at(positions: pl.Series, height: int) -> pl.Series:
    mask = np.zeros(height, dtype=bool)
    mask[positions.to_numpy()] = True
    return pl.Series(mask)
