"""Questions as they were asked, made again from what the journal keeps of them: a frame of the contract's types.

A cell comes back as the very value that was asked with, or its question is left out: nothing is coerced. Personal columns are
kept as keyed hashes, so whom a question was about is found by hashing whoever is in the tables likewise. Somebody who is in
none of them is null, which reads nothing, as a stranger does. Values stay in memory, and are never told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_float
from datetime import date, datetime, time, timedelta
from typing import Any

import msgspec
import polars as pl

from flyball._kernel import ids
from flyball.cycle import answering
from flyball.cycle.session import Session
from flyball.data import contract
from flyball.data.contract import Personal
from flyball.learn.features.declare import Latest, Window
from flyball.learn.model import Model
from flyball.serve.journal import Answer

ASKED = pl.Datetime("us", "UTC")
People = Mapping[str, Mapping[str, object]]
"""Personal column of the question -> recorded hash -> the value that tables hold."""

_HASH = re.compile(r"[0-9a-f]{64}")
_DIGITS = 32
"""Of a hash that are kept in memory: 128 bits."""
_SLICE = 100_000
_PARSED: Mapping[type[pl.DataType], type] = {
    pl.Datetime: datetime,
    pl.Date: date,
    pl.Time: time,
    pl.Duration: timedelta,
}


def columns(model: Model) -> dict[str, pl.DataType]:
    """What is needed of a question to know its features again: the columns that they read, and its key."""
    spec = contract.spec(model.question)
    needed = {*spec.key, *model.features.reads(model.question)}
    return {name: dtype for name, dtype in spec.dtypes.items() if name in needed}


def questions(
    dtypes: Mapping[str, pl.DataType], answers: Sequence[Answer], people: People
) -> tuple[pl.DataFrame, list[int]]:
    """The questions of these answers, and `_asked`.

    Args:
        dtypes: the columns that are wanted.
        answers: with their inputs as they were recorded.
        people: whom the recorded hashes of personal columns mean.

    Returns:
        One row each, in order, of those whose every cell is a value of its column's type; and their places in `answers`.
    """
    cells: dict[str, list[Any]] = {}
    strange: set[int] = set()
    for name, dtype in dtypes.items():
        fit, known = _fit(dtype), people.get(name)
        found = cells[name] = [answer.inputs.get(name) for answer in answers]
        for place, cell in enumerate(found):
            if cell is None:
                continue
            if known is not None and type(cell) is str and _HASH.fullmatch(cell):
                found[place] = known.get(cell)
                continue
            try:
                found[place] = fit(cell)
            except (ValueError, msgspec.ValidationError):
                strange.add(place)
    places = [place for place in range(len(answers)) if place not in strange]
    asked = pl.Series("_asked", [answers[p].asked for p in places], dtype=pl.Int64).cast(ASKED)
    made = [_series(name, dtype, [cells[name][p] for p in places]) for name, dtype in dtypes.items()]
    return pl.DataFrame([*made, asked]), places


class Register:
    """Who is in the tables that questions of a model are looked up in, by the hash that the journal would keep.

    Each table is read once, when the first question comes; of everybody 32 digits of the hash and the value are kept.
    """

    def __init__(self, session: Session, model: Model) -> None:
        self._session, self._model = session, model
        self._secret = session.signer.secret(answering.SUBJECTS)
        self._columns = [n for n in contract.spec(model.question).with_role(Personal) if n in columns(model)]
        self._frames: dict[str, pl.DataFrame] = {}

    def people(self, answers: Sequence[Answer]) -> People:
        """Whom the hashes in these answers mean; strangers are left out."""
        return {name: self._known(name, answers) for name in self._columns}

    def _known(self, name: str, answers: Sequence[Answer]) -> dict[str, object]:
        if name not in self._frames:
            self._frames[name] = self._everybody(name)
        said = {cell for a in answers if type(cell := a.inputs.get(name)) is str and _HASH.fullmatch(cell)}
        wanted = pl.DataFrame({"hash": list(said)}, schema={"hash": pl.String})
        found = wanted.with_columns(short=pl.col("hash").str.slice(0, _DIGITS)).join(
            self._frames[name], on="short", how="inner"
        )
        return dict(found.select("hash", "value").iter_rows())

    def _everybody(self, name: str) -> pl.DataFrame:
        spec, looked = contract.spec(self._model.question), set[tuple[type[contract.Contract], str]]()
        for feature in self._model.features.features:
            if not isinstance(feature, Latest | Window):
                continue
            pairs = zip(feature.by.question, feature.by.table, strict=True)
            looked |= {(feature.table, theirs) for ours, theirs in pairs if ours == name}
            if feature.table is self._model.question and name in spec.key:
                looked.add((feature.table, name))
        # What a feature is looked up by has values of one kind on both sides, so one table's are as good as the other's.
        return pl.concat(
            [pl.DataFrame(schema={"short": pl.String, "value": spec.dtypes[name]})]
            + [self._hashed(table, column, spec.dtypes[name]) for table, column in sorted(looked, key=str)],
        ).unique("short")

    def _hashed(self, table: type[contract.Contract], column: str, dtype: pl.DataType) -> pl.DataFrame:
        """Everybody in one table, in any batch of it; a value that the question's type cannot hold was never asked about."""
        spec = contract.spec(table)
        rows = self._session.tables.scan(
            spec.name, self._session.tables.head(spec.name).batch, {column: spec.dtypes[column]}
        )
        values = rows.select(pl.col(column).cast(dtype, strict=False)).unique().collect(engine="streaming").to_series()
        values = values.drop_nulls()
        # A part at a time, for the texts of all would be held twice.
        short = pl.Series(dtype=pl.String)
        for first in range(0, len(values), _SLICE):
            part = [ids.keyed_hash(self._secret, str(value))[:_DIGITS] for value in values.slice(first, _SLICE)]
            short.append(pl.Series(part, dtype=pl.String))
        return pl.DataFrame({"short": short, "value": values})


def _fit(dtype: pl.DataType) -> Callable[[Any], Any]:
    """From a cell as the journal has it to the value that was asked with; raises where it is none of the type."""
    match dtype:
        case pl.Boolean():
            return _of(bool)
        case pl.Enum():
            categories = frozenset(dtype.categories)
            return _of(str, lambda value: value in categories)
        case pl.String() | pl.Categorical():
            return _of(str)
        case pl.Float64():
            return _of(float)
        case pl.Float32():
            return _of(float, lambda value: c_float(value).value == value or value != value)
    if dtype.is_integer():
        low, high = pl.select(dtype.min(), high=dtype.max()).row(0)  # type: ignore[attr-defined]
        return _of(int, lambda value: low <= value <= high)
    if type(dtype) in _PARSED:
        return lambda cell: msgspec.convert(cell, _PARSED[type(dtype)])
    raise ValueError(f"no request carries a cell that is {dtype}")


def _of(kind: type, holds: Callable[[Any], bool] = lambda _: True) -> Callable[[Any], Any]:
    def fit(cell: Any) -> Any:
        if type(cell) is not kind or not holds(cell):
            raise ValueError("not a value of the column")
        return cell

    return fit


def _series(name: str, dtype: pl.DataType, cells: list[Any]) -> pl.Series:
    match dtype:
        case pl.Datetime(time_zone=str()):
            return pl.Series(name, cells, dtype=ASKED).dt.convert_time_zone(str(dtype.time_zone)).cast(dtype)
        case pl.Datetime():
            return pl.Series(name, cells, dtype=pl.Datetime("us")).cast(dtype)
        case pl.Duration():
            return pl.Series(name, cells, dtype=pl.Duration("us")).cast(dtype)
    return pl.Series(name, cells, dtype=dtype, strict=True)
