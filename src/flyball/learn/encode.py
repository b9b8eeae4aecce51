"""From typed columns to the float32 matrix that models read: one fitted value, two ways that agree bit for bit.

* A *category* (text or whole numbers) becomes its place in the sorted vocabulary of the training rows; a value never
  seen in training is -1, null is NaN.
* A *number* (integer, float, boolean as 0 or 1) becomes the nearest float32. Null, NaN, infinity and whatever is too
  large for float32 become NaN: one missing value, because estimators disagree about infinity (some raise, some answer).
* `encode` turns a frame into a matrix with Polars; `compile_row` turns one row of plain Python values into a buffer.

Refused: times (an epoch as a number teaches the calendar, so derive hour, weekday or age in the features), decimals
(a feature says which rounding it means), lists, structs and other shapes. Encoders are data: reading one runs no code.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball._kernel.place import Place

Matrix = npt.NDArray[np.float32]
Kind = Literal["category", "number"]
Reads = Literal["text", "integer", "number"]

ARTIFACT = "encoder.json"
"""The name under which every version keeps its encoder."""

UNSEEN = -1.0
"""The code of a category that training never saw."""

LARGEST = float(np.finfo(np.float32).max)
"""Beyond this a number is missing: float32 would make it infinite."""

MOST_CODES = 1 << 24
"""Codes from here on are no longer distinct in float32."""

_NAN = float("nan")
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_TEXTS = (pl.String, pl.Categorical, pl.Enum)


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the matrix: its name, the type that it reads, and for categories the sorted vocabulary."""

    name: str
    reads: Reads
    vocabulary: tuple[str | int, ...] = ()

    @property
    def kind(self) -> Kind:
        """What it was declared as."""
        return "number" if self.reads == "number" else "category"


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """The fitted columns, in the order of the matrix."""

    columns: tuple[Column, ...]
    version: Literal[1] = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the order of the matrix."""
        return tuple(column.name for column in self.columns)

    @property
    def categories(self) -> tuple[int, ...]:
        """Positions of the columns that hold codes."""
        return tuple(i for i, column in enumerate(self.columns) if column.reads != "number")

    @property
    def numbers(self) -> tuple[int, ...]:
        """Positions of the columns that hold measures."""
        return tuple(i for i, column in enumerate(self.columns) if column.reads == "number")

    def encode(self, frame: pl.DataFrame) -> Matrix:
        """The matrix of `frame`: float32, C-contiguous, (rows, columns).

        Raises:
            DataError: `missing-column`, or `wrong-type` when a column is not of the type that was fitted.
        """
        expressions = []
        for column in self.columns:
            dtype = _dtype(frame, column.name)
            if _reading(column.kind, dtype) != column.reads:
                raise _wrong_type(column, str(dtype))
            expressions.append(_number(column.name) if column.reads == "number" else _codes(column))
        matrix: Matrix = np.array(frame.select(expressions).to_numpy(), dtype=np.float32, order="C")
        return matrix

    def to_bytes(self) -> bytes:
        """Deterministic JSON."""
        return msgspec.json.encode(self)


def fit(frame: pl.DataFrame, columns: Sequence[tuple[str, Kind]], *, where: Place | None = None) -> Encoder:
    """Learn the vocabularies of `frame` for `columns`, each a name and what it is.

    Args:
        frame: the training rows, one column of each name.
        columns: in the order that the matrix shall have.
        where: the declaration to point at when one of them cannot be encoded.

    Raises:
        DeclarationError: `no-columns`, `column-twice`, `time-as-number`, `boolean-category`, `unencodable`,
            `too-many-categories`.
        DataError: `missing-column`.
    """
    names = [name for name, _ in columns]
    if not names:
        raise DeclarationError("no-columns", "There is nothing to encode.", where=where, next="declare a feature")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DeclarationError("column-twice", f"Columns are named twice: {', '.join(twice)}.", where=where)
    return Encoder(columns=tuple(_fit(frame, name, kind, where) for name, kind in columns))


def from_bytes(data: bytes) -> Encoder:
    """The Encoder that `to_bytes` wrote.

    Raises:
        StateError: `encoder-damaged`, when `data` is not exactly what an Encoder writes.
    """
    try:
        encoder = msgspec.json.decode(data, type=Encoder)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(str(error)) from error
    if encoder.to_bytes() != data:
        raise _damaged("it is not in the one form that an Encoder writes")
    if not encoder.columns or len(set(encoder.names)) < len(encoder.columns):
        raise _damaged("its columns are none, or named twice")
    for column in encoder.columns:
        values = column.vocabulary
        if any(type(value) is not {"text": str, "integer": int}.get(column.reads) for value in values):
            raise _damaged(f"the vocabulary of {column.name!r} does not hold what the column reads")
        if list(values) != sorted(set(values)):
            raise _damaged(f"the vocabulary of {column.name!r} is not sorted")
    return encoder


def compile_row(encoder: Encoder) -> Callable[[Sequence[object]], Matrix]:
    """A function that encodes one row of plain Python values, given in the order of the columns.

    It returns float32 of shape (columns,): the same buffer at every call, so read it before the next one and compile
    one function per thread. It raises `DataError` `wrong-type` or `wrong-width`.
    """
    width = len(encoder.columns)
    buffer = array("f", bytes(4 * width))
    view: Matrix = np.frombuffer(buffer, dtype=np.float32)
    plan: list[tuple[int, type, dict[object, float] | None]] = []
    for i, column in enumerate(encoder.columns):
        codes: dict[object, float] = {value: float(code) for code, value in enumerate(column.vocabulary)}
        plan.append((i, int if column.reads == "integer" else str, None if column.reads == "number" else codes))

    def row(values: Sequence[object]) -> Matrix:
        if len(values) != width:
            raise DataError("wrong-width", f"A row has {len(values)} values, and the encoder {width} columns.")
        for (i, wanted, codes), value in zip(plan, values, strict=True):
            kind = type(value)
            if value is None:
                buffer[i] = _NAN
            elif codes is not None:
                if kind is not wanted:
                    raise _wrong_type(encoder.columns[i], kind.__name__)
                buffer[i] = codes.get(value, UNSEEN)
            elif kind is float or kind is int or kind is bool:
                buffer[i] = value if -LARGEST <= value <= LARGEST else _NAN  # type: ignore[operator, call-overload]
            else:
                raise _wrong_type(encoder.columns[i], kind.__name__)
        return view

    return row


def _fit(frame: pl.DataFrame, name: str, kind: Kind, where: Place | None) -> Column:
    dtype = _dtype(frame, name)
    reads = _reading(kind, dtype)
    if reads is None:
        raise _unencodable(name, kind, dtype, where)
    if reads == "number":
        return Column(name=name, reads=reads)
    series = frame[name].cast(pl.String) if reads == "text" else frame[name]
    vocabulary = tuple(sorted(series.drop_nulls().unique().to_list()))
    if len(vocabulary) > MOST_CODES:
        raise DeclarationError(
            "too-many-categories",
            f"Column {name!r} has {len(vocabulary):,} categories.",
            where=where,
            why=f"float32 tells at most {MOST_CODES:,} codes apart",
            next="leave the column out, or group its values in a feature",
        )
    return Column(name=name, reads=reads, vocabulary=vocabulary)


def _reading(kind: Kind, dtype: pl.DataType) -> Reads | None:
    """What a column of this kind and type reads; None where a value has no one number."""
    if kind == "number":
        return "number" if isinstance(dtype, (*_INTEGERS, pl.Float32, pl.Float64, pl.Boolean)) else None
    if isinstance(dtype, _TEXTS):
        return "text"
    return "integer" if isinstance(dtype, _INTEGERS) else None


def _unencodable(name: str, kind: Kind, dtype: pl.DataType, where: Place | None) -> DeclarationError:
    if dtype.is_temporal():
        return DeclarationError(
            "time-as-number",
            f"Column {name!r} is a time ({dtype}), and times do not enter a model as numbers.",
            where=where,
            why="an epoch teaches the model the training period; no later row resembles it",
            next=f"derive what matters: {name}.dt.hour(), .dt.weekday(), or an age with .dt.total_hours()",
        )
    if isinstance(dtype, pl.Boolean):
        return DeclarationError(
            "boolean-category",
            f"Column {name!r} is a boolean, declared as a category.",
            where=where,
            why="booleans are the numbers 0 and 1",
            next="declare it as a number",
        )
    return DeclarationError(
        "unencodable",
        f"Column {name!r} is a {dtype}, which cannot be a {kind}.",
        where=where,
        why="categories are text or integers of up to 64 bits; numbers are integers, Float32, Float64 or Boolean",
        next=f"cast it in the features, such as {name}.cast(pl.Float64)",
    )


def _dtype(frame: pl.DataFrame, name: str) -> pl.DataType:
    try:
        return frame.schema[name]
    except KeyError:
        raise DataError(
            "missing-column", f"There is no column {name!r} to encode.", why=f"there are {', '.join(frame.columns)}"
        ) from None


def _number(name: str) -> pl.Expr:
    # By way of Float64 also for integers: Python rounds twice as well, and one rounding fewer would be another bit.
    # NaN is replaced by NaN: division by zero leaves one with the sign bit set, and equal answers start from equal bytes.
    wide = pl.col(name).cast(pl.Float64)
    return pl.when(wide.is_between(-LARGEST, LARGEST)).then(wide).otherwise(_NAN).cast(pl.Float32)


def _codes(column: Column) -> pl.Expr:
    values = pl.col(column.name)
    code = pl.lit(UNSEEN, dtype=pl.Float32)
    if column.vocabulary:
        places = np.arange(len(column.vocabulary), dtype=np.float32)
        if column.reads == "text":
            values, old = values.cast(pl.String), pl.Series(column.vocabulary, dtype=pl.String)
        else:
            # Int128 holds both Int64 and UInt64, so a column that is widened or made unsigned still finds its codes.
            values, old = values.cast(pl.Int128), pl.Series(column.vocabulary, dtype=pl.Int128)
        code = values.replace_strict(old, pl.Series(places), default=UNSEEN, return_dtype=pl.Float32)
    return pl.when(pl.col(column.name).is_null()).then(_NAN).otherwise(code).cast(pl.Float32).alias(column.name)


def _wrong_type(column: Column, found: str) -> DataError:
    return DataError(
        "wrong-type",
        f"Column {column.name!r} holds a {found}, where the encoder was fitted on {column.reads} values.",
        why="a value of another type would take another code in silence",
        next="fit the encoder anew, or correct the input",
    )


def _damaged(why: str) -> StateError:
    return StateError("encoder-damaged", "The stored encoder cannot be read.", why=why, next="flyball apply")
