"""A glance at a file of which nothing was declared: text cells become what all of them are, and persons stay hidden.

Types come from `infer`, so a glance and a first contract agree; which columns seem to hold personal data comes from
`suspects`, by a bounded sample: they are then counted, and not shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from flyball.data import coerce
from flyball.data.drafts import infer, suspects
from flyball.data.sketches import sketch
from flyball.data.sketches.sketch import Sketch
from flyball.data.source import LINE


@dataclass(frozen=True, slots=True)
class Glance:
    """What was seen, and which columns seem personal: column -> what they seem to hold."""

    sketch: Sketch
    hidden: dict[str, str]


def glance(rows: pl.LazyFrame, *, shown: frozenset[str] = frozenset()) -> Glance:
    """Sketch rows as a `source.Reading` has them.

    Args:
        shown: columns that are no personal data, whatever they seem.
    """
    cells = rows.drop(LINE, strict=False)
    if any(dtype == pl.String for dtype in cells.collect_schema().values()) and _from_text(cells):
        draft = infer.infer(cells)
        doubts = {c.name: c.suspect.kind for c in draft.columns if c.suspect is not None}
        cells = cells.rename(dict(draft.renamed)).with_columns(
            _typed(column) for column in draft.columns if column.text and column.dtype not in (None, pl.String())
        )
    else:
        doubts = {name: found.kind for name, found in suspects.suspects(cells).items()}
    hidden = {name: kind for name, kind in doubts.items() if name not in shown}
    return Glance(sketch.of(cells, personal=hidden), hidden)


def _from_text(cells: pl.LazyFrame) -> bool:
    """Whether every cell is text, as formats without types yield them."""
    return all(dtype in (pl.String, pl.Null) for dtype in cells.collect_schema().values())


def _typed(column: infer.Column) -> pl.Expr:
    bare = infer.strip(column.name) if column.stripped else pl.col(column.name)
    if column.clock:
        known = bare.str.strptime(
            pl.Datetime("us") if column.dtype == pl.Datetime else pl.Date(), column.clock, strict=False
        )
        return known.alias(column.name)
    return bare.pipe(lambda cell: _cast(cell, column)).alias(column.name)


def _cast(cell: pl.Expr, column: infer.Column) -> pl.Expr:
    dtype = column.dtype or pl.String()
    return cell if dtype == pl.String else coerce.cell(column.name, pl.String(), dtype)
