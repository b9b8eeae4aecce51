"""Reached: which of the outcomes that were posted belongs to which answer.

One of a key reaches every answer to that key that was asked before it was settled; one of a prediction reaches the answers to
that question (same key, same moment). Where several reach one answer, the last stored counts: not by when they were received,
since several processes store, and a clock may be set back.
"""

from __future__ import annotations

import polars as pl


def reached(rows: pl.DataFrame, window: pl.DataFrame, keyed: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """The outcome of each row that has one.

    Args:
        rows: `row` (its number), `asked`, `key`.
        window: `asked`, `key` and `id` of every answer by whose id an outcome may be told.
        keyed: outcomes of keys: `seq`, `settled`, `key`, `value`, `label`.
        named: outcomes of predictions: the same, with `prediction`.

    Returns:
        `row`, `seq`, `value`, `label`, by row.
    """
    # Before it meets the rows: a key that one request names a thousand times is one question.
    met = window.join(named.drop("key"), left_on="id", right_on="prediction")
    met = met.sort("seq").unique(("asked", "key"), keep="last")
    by_id = rows.join(met.select("asked", "key", "seq", "value", "label"), on=("asked", "key"))
    found = pl.concat([each.select("row", "seq", "value", "label") for each in (by_key(rows, keyed), by_id)])
    return found.sort("row", "seq").unique("row", keep="last", maintain_order=True)


def by_key(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Rows with the last stored outcome of their key that was settled after they were asked.

    Where keys repeat on both sides, all of their pairs may be more than there is memory: so each row meets one outcome.
    """
    if known["key"].is_duplicated().any():
        # As of each outcome, the last stored of those that were settled then or later.
        last = known.sort("settled").select("key", "settled", seq=pl.col("seq").cum_max(reverse=True).over("key"))
        met = rows.sort("asked").join_asof(
            last,
            left_on="asked",
            right_on="settled",
            by="key",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        return met.drop("settled").join(known, on=("key", "seq"))
    return rows.join(known, on="key").filter(pl.col("asked") < pl.col("settled"))
