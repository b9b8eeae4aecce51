"""Expressions over a request, compiled: a Python closure where it is proved to say what Polars says, to the last bit.

A frame of one row costs Polars 0.1 ms and more, whatever is computed; a closure costs a microsecond or two. An expression is
read node by node (`closures`), and what comes out is tried against Polars before it may answer (`closures.proof`). One that is
not understood, or differs once, stays with Polars for good; a row of which a closure is not sure goes to Polars whole.

The truth is what Polars says **on many rows**, as when features are built for training: on one row it divides by a literal
otherwise than on two (`x / 3` may differ in the last bit). So it is asked with the row twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from flyball.learn.features.closures import proof
from flyball.learn.features.closures.reading import Reading
from flyball.learn.features.closures.taking import Take, take
from flyball.learn.features.closures.term import Run, Unsure, Untranslated, is_float, is_text, limits


class Compiled:
    """Answers expressions over a request; a missing column is null.

    Attributes:
        names: of the expressions, in order.
        closures: name -> a closure over what `take` returns, or None where Polars computes.
    """

    def __init__(
        self, expressions: Mapping[str, pl.Expr], schema: Mapping[str, pl.DataType], closures: Mapping[str, Run | None]
    ) -> None:
        self.names = tuple(expressions)
        self.closures = dict(closures)
        self._schema = dict(schema)
        self._expressions = [e.alias(name) for name, e in expressions.items()]
        self._left = [e.alias(name) for name, e in expressions.items() if closures[name] is None]
        read = {c for n, e in expressions.items() if closures[n] is not None for c in e.meta.root_names()}
        self._takes: list[tuple[str, Take]] = [(n, take(t)) for n, t in schema.items() if n in read]
        self._runs = tuple(closures[name] for name in expressions)

    def take(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The cells that closures read, as Polars would hold them.

        Raises:
            Unsure: for a value that is not of its column's plain Python type.
        """
        get = request.get
        return {n: None if (value := get(n)) is None else taken(value) for n, taken in self._takes}

    def __call__(self, request: Mapping[str, object]) -> Sequence[object]:
        """The values of all expressions, in order.

        Raises:
            polars.exceptions.PolarsError: what Polars fails with for this row.
        """
        try:
            row = self.take(request)
            if not self._left:
                return [run(row) for run in self._runs]  # type: ignore[misc]  # none is None
            values: list[object] = [None if run is None else run(row) for run in self._runs]
        except Unsure:
            return self._asked(request, self._expressions)
        rest = iter(self._asked(request, self._left))
        return [next(rest) if run is None else value for run, value in zip(self._runs, values, strict=True)]

    def _asked(self, request: Mapping[str, object], expressions: list[pl.Expr]) -> Sequence[object]:
        row = tuple([request.get(n) for n in self._schema])
        return pl.DataFrame([row, row], schema=self._schema, orient="row").select(expressions).row(0)


def compile(expressions: Mapping[str, pl.Expr], schema: Mapping[str, pl.DataType]) -> Compiled:  # noqa: A001 - as re.compile
    """Compile row-wise expressions over the columns of `schema`.

    Args:
        expressions: name -> what is computed.
        schema: the columns of a request; those that the expressions read, and any others.
    """
    found: dict[str, Run | None] = dict.fromkeys(expressions)
    readings: dict[str, Reading] = {}
    empty = pl.DataFrame(schema=schema)
    for name, expression in expressions.items():
        reading = Reading(empty)
        try:
            term = reading.term(expression)
        except Untranslated:
            continue
        # Times are no input of a model, and their canonical form is none to give back.
        given = (
            term.dtype == pl.Boolean or is_float(term.dtype) or is_text(term.dtype) or limits(term.dtype) is not None
        )
        if given and reading.columns:
            found[name], readings[name] = term.run, reading
    if readings:
        _prove(expressions, schema, found, readings)
    return Compiled(expressions, schema, found)


def _prove(
    expressions: Mapping[str, pl.Expr],
    schema: Mapping[str, pl.DataType],
    found: dict[str, Run | None],
    readings: Mapping[str, Reading],
) -> None:
    """Take back every closure that differs from Polars on one row."""
    read = {n: t for n, t in schema.items() if any(n in r.columns for r in readings.values())}
    rows = proof.rows(read, list(readings.values()))
    frame = pl.DataFrame([tuple(row.values()) for row in rows], schema=read, orient="row")
    takes = {n: take(t) for n, t in read.items()}
    cells = [_taken(row, takes) for row in rows]
    for name in readings:
        run = found[name]
        if run is not None and not proof.holds(run, expressions[name], frame, cells):
            found[name] = None


def _taken(row: Mapping[str, Any], takes: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any] | None:
    try:
        return {n: None if value is None else takes[n](value) for n, value in row.items()}
    except Unsure:
        return None
