"""Rules: what a contract asks of rows, as Polars expressions, told apart by what they look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from flyball._kernel.errors import DeclarationError
from flyball.data import masked
from flyball.data.contract import Contract, Spec
from flyball.data.quarantine import KEY


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a contract but the key's, by dataframely's names.

    Attributes:
        single: those that a row keeps or breaks by itself.
        grouped: those that look at other rows of the file too, such as `pl.len().over("origin") >= 10`; and those over
            whatever columns there are, such as `pl.all()`, which must see the contract's columns and no others.
    """

    single: Mapping[str, pl.Expr]
    grouped: Mapping[str, pl.Expr]


def of(observed: type[Contract]) -> Rules:
    """The rules of a contract, told apart by what they look at."""
    # The expressions themselves: `Schema.filter` would check the key by a hash of every row, once more.
    found = {name: rule.expr for name, rule in observed._validation_rules(with_cast=False).items() if name != KEY}
    single = {name: expr for name, expr in found.items() if row_wise(expr) and not expr.meta.has_multiple_outputs()}
    return Rules(single, {name: expr for name, expr in found.items() if name not in single})


def row_wise(expression: pl.Expr) -> bool:
    """Whether each value of an expression follows from its own row alone.

    Every node is asked, since Polars calls `x - x.mean()` separable by rows. What Polars cannot tell (a Python function)
    is not row-wise.
    """
    meta = expression.meta
    try:
        if meta.is_literal():
            return bool(meta.is_scalar())
        return meta.is_row_separable() and meta.is_length_preserving() and all(row_wise(inner) for inner in meta.pop())
    except pl.exceptions.PolarsError:
        return False


def windowed(expression: pl.Expr) -> bool:
    """Whether an expression looks at a group of rows: `.over(...)`."""
    return ".over(" in str(expression)


def broken(typed: pl.DataFrame, checked: Mapping[str, pl.Expr], spec: Spec) -> Iterator[tuple[str, pl.Series]]:
    """(rule, rows that break it) of the rules `checked` that some row breaks; null says nothing against a row.

    Raises:
        DeclarationError: `rule-does-not-run`.
    """
    try:
        kept = typed.with_columns(expr.fill_null(value=True).alias(name) for name, expr in checked.items())
    except Exception as problem:  # a rule may call the user's Python
        raise does_not_run(problem, spec) from problem
    for name in checked:
        if not kept[name].all():
            yield name, ~kept[name]


def does_not_run(problem: BaseException, spec: Spec) -> DeclarationError:
    """What to raise where a rule raised `problem`."""
    return DeclarationError(
        "rule-does-not-run",
        f"A rule of {spec.name} cannot be evaluated: {masked.raised(problem, spec)}",
        where=spec.place,
        why="A rule is a Polars expression over the columns of its contract that yields true or false.",
        next="Mend the rule, then run `flyball plan` again.",
    )
