"""A condition on rows that a person can say: one column, one operator, one literal. Never an expression.

    tailnum = 'N14228'        scheduled < '2013-02-01T00:00:00Z'        distance >= 2500

The literal is read as a value of the column's type, exactly as a cell of a file would be (see `coerce`), so what it selects
does not depend on who reads it. An unknown column, a literal that is no value of it, or anything more is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal, cast

import polars as pl

from flyball._kernel.errors import DataError
from flyball.data import coerce
from flyball.data.contract import Spec

Op = Literal["=", "!=", "<", "<=", ">", ">="]
Value = str | int | float | bool | Decimal | date | datetime | time | timedelta | bytes

_SAID = re.compile(r"\s*([^\W\d]\w*)\s*(<=|>=|!=|=|<|>)\s*(?:'((?:[^']|'')*)'|([^\s']+))\s*")


@dataclass(frozen=True, slots=True)
class Where:
    """Rows whose `column` stands in relation `op` to `value`; a null never does."""

    column: str
    op: Op
    value: Value

    def __str__(self) -> str:
        text = self.value.decode() if isinstance(self.value, bytes) else str(self.value)
        said = text.replace("'", "''")
        return f"{self.column} {self.op} '{said}'"


def parse(text: str, spec: Spec) -> Where:
    """Read `column operator literal`; a literal with spaces or quotes stands in single quotes, a quote in it twice.

    Raises:
        DataError: `where-not-understood`.
    """
    found = _SAID.fullmatch(text)
    if found is None:
        raise _not_understood(spec, "it is not a column, an operator and a literal.")
    column, op, quoted, bare = found.groups()
    said = quoted.replace("''", "'") if quoted is not None else bare
    if column not in spec.names:
        raise _not_understood(spec, f"{spec.name} has no column {column!r}: it has {', '.join(spec.names)}.")
    return Where(column, cast("Op", op), _literal(said, spec, column))


def expr(where: Where) -> pl.Expr:
    """True for the rows that are meant, false for all others, those with null included."""
    column, value = pl.col(where.column), pl.lit(where.value)
    match where.op:
        case "=":
            chosen = column == value
        case "!=":
            chosen = column != value
        case "<":
            chosen = column < value
        case "<=":
            chosen = column <= value
        case ">":
            chosen = column > value
        case ">=":
            chosen = column >= value
    return chosen.fill_null(value=False)


def _literal(said: str, spec: Spec, column: str) -> Value:
    want = spec.column(column).dtype
    try:
        read = pl.select(pl.lit(said).alias(column)).select(coerce.cell(column, pl.String(), want))
    except pl.exceptions.PolarsError:
        raise _not_understood(spec, f"the literal is no value of {column}, which is {want}.") from None
    value: Value | None = read.item()
    if value is None:
        raise _not_understood(spec, f"the literal is no value of {column}, which is {want}.")
    return value


def _not_understood(spec: Spec, why: str) -> DataError:
    # The text itself is not repeated: it may name a person.
    return DataError(
        "where-not-understood",
        f"The condition on {spec.name} cannot be read.",
        where=spec.place,
        why=f"Of it, {why}" if why.startswith("it ") else f"{why[0].upper()}{why[1:]}",
        next="Write column, operator and literal, such as: tailnum = 'N14228'",
    )
