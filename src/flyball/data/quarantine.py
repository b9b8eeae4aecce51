"""Quarantine: rows that break their contract are kept, with every rule that they broke, and can be replayed.

Rules are dataframely's, by its names (`distance|min`), and three of ours: `column|dtype`, a cell that does not say a value
of the column's type; `primary_key`, rows of one file that share a key and contradict one another; `ragged`, a line of the
file that is no row at all, kept as raw text.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from flyball.data.source import LINE, RULE, TEXT
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

REFUSED: Mapping[str, pl.DataType] = {name: SCHEMA[name] for name in (LINE, "rules", "row")}
"""The columns of a refused row before it is known whose it is."""

KEY, RAGGED = "primary_key", "ragged"


def table(name: str) -> str:
    """The quarantine of a table is a table too."""
    return f"{name}__quarantine"


def read(tables: Tables, name: str, batch: int) -> pl.LazyFrame:
    """The quarantined rows of the batches up to `batch` of the table `name`; columns as `SCHEMA` tells."""
    return tables.scan(table(name), batch, SCHEMA).filter(pl.col("rules").is_not_null())


def account(said: bytes, source: str, file: str) -> pl.LazyFrame:
    """What a batch says of itself, as the row that lies beside its refused rows."""
    row = pl.LazyFrame({LINE: [None], "rules": [None], "row": [said.decode()]}, schema=REFUSED)
    return of_file(row, source, file)


def of_file(refused: pl.LazyFrame, source: str, file: str) -> pl.LazyFrame:
    """Refused rows (`_line`, `rules`, `row`) as they lie in the table, but for their batch."""
    named = refused.with_columns(_source=pl.lit(source), _file=pl.lit(file))
    return named.select(name for name in SCHEMA if name != BATCH)


def ragged(lines: pl.LazyFrame) -> pl.LazyFrame:
    """`_line`, `rules` and `row` of the lines of a file that are no rows."""
    rule = pl.col(RULE) if RULE in lines.collect_schema() else pl.lit(RAGGED)
    return lines.select(LINE, pl.concat_list(rule).alias("rules"), pl.struct(TEXT).struct.json_encode().alias("row"))


def is_line() -> pl.Expr:
    """Whether what is kept is a line that is no row, whatever the rule that says why: nothing of it is there but its text."""
    return pl.col("row").str.contains(rf'^\{{"{TEXT}":("([^"\\]|\\.)*"|null)\}}$')


def by_rule(bad: pl.LazyFrame) -> dict[str, int]:
    """Rule -> number of rows that broke it; a row that broke two counts under both."""
    rules = bad.select(pl.col("rules").explode()).drop_nulls()
    counts = rules.group_by("rules").agg(pl.len().alias("rows")).sort("rules").collect(engine="streaming")
    return dict(counts.iter_rows())


def said(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A cell as JSON can say it: bytes in base64, and a float as text, for JSON has no NaN and no infinity.

    Within a list or struct floats stay numbers, and what is not finite there is null.
    """
    return cell.cast(pl.String) if dtype.is_float() else _in_base64(cell, dtype)


def _in_base64(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if "Binary" not in str(dtype):
        return cell
    match dtype:
        case pl.List(inner=pl.DataType() as inner):
            return cell.list.eval(_in_base64(pl.element(), inner))
        case pl.Array(inner=pl.DataType() as inner):
            return cell.arr.to_list().list.eval(_in_base64(pl.element(), inner))
        case pl.Struct():
            fields = [_in_base64(cell.struct.field(n), t).alias(n) for n, t in pl.Schema(dtype.to_schema()).items()]
            return pl.when(cell.is_not_null()).then(pl.struct(fields))
    return cell.bin.encode("base64") if dtype == pl.Binary else cell
