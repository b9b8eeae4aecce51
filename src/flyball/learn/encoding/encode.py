"""From typed columns to the float32 matrix that models read: one fitted value, two ways that agree bit for bit.

* A *category* (text or whole numbers) becomes its place in the sorted vocabulary of the training rows; a value never
  seen in training is -1, null is NaN.
* A *number* (integer, float, boolean as 0 or 1) becomes the nearest float32. Null, NaN, infinity and whatever is too
  large for float32 become NaN: one missing value, because estimators disagree about infinity (some raise, some answer).
* A *text* becomes a column for each of its terms (`texts`); no text is all zeros.
* `encode` turns a frame into a matrix with Polars; `compile_row` turns one row of plain Python values into a buffer.

What a column can be, and what is refused, is in `fitted`. Encoders are data: reading one runs no code.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain
from types import NoneType
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball._kernel.place import Place
from flyball.learn.encoding import fitted, texts
from flyball.learn.encoding.fitted import Column
from flyball.learn.encoding.fitted import Kind as Kind
from flyball.learn.encoding.texts import Recipe, Terms, Weighed
from flyball.learn.task import Answers

Matrix = npt.NDArray[np.float32]
_Text = tuple[Terms, Recipe]

ARTIFACT = "encoder.json"
"""The name under which every version keeps its encoder."""

UNSEEN = -1.0
"""The code of a category that training never saw."""

LARGEST = float(np.finfo(np.float32).max)
"""Beyond this a number is missing: float32 would make it infinite."""

CELLS = 1 << 24
"""Cells of a chunk, at most: 64 MB."""

_NAN = float("nan")


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """The fitted columns, in the order of the matrix; a text is as many columns of it as it has terms."""

    columns: tuple[Column, ...]
    version: Literal[1] = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The declared columns, in the order of the matrix."""
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """The columns of the matrix."""
        return sum(column.width for column in self.columns)

    @property
    def groups(self) -> tuple[tuple[str, range], ...]:
        """Each declared column with its columns of the matrix."""
        ends = [0, *accumulate(column.width for column in self.columns)]
        return tuple((c.name, range(*ends[i : i + 2])) for i, c in enumerate(self.columns))

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each column of the matrix; that of a term is "column: term"."""
        return tuple(
            chain.from_iterable(
                [f"{c.name}: {term}" for term in c.vocabulary] if c.reads == "prose" else [c.name] for c in self.columns
            )
        )

    @property
    def categories(self) -> tuple[int, ...]:
        """Places in the matrix that hold codes."""
        return self._places("text", "integer")

    @property
    def numbers(self) -> tuple[int, ...]:
        """Places in the matrix that hold measures."""
        return self._places("number")

    @property
    def texts(self) -> tuple[int, ...]:
        """Places in the matrix that hold weights of terms: from 0 to 1, and never missing."""
        return self._places("prose")

    @property
    def _prose(self) -> bool:
        return any(column.reads == "prose" for column in self.columns)

    def _places(self, *reads: str) -> tuple[int, ...]:
        columns = zip(self.columns, self.groups, strict=True)
        return tuple(chain.from_iterable(places for column, (_, places) in columns if column.reads in reads))

    def encode(self, frame: pl.DataFrame) -> Matrix:
        """The matrix of `frame`: float32, C-contiguous, (rows, width). With text, `chunks` needs less memory at once.

        Raises:
            DataError: `missing-column`, or `wrong-type` when a column is not of the type that was fitted.
        """
        if not self._prose:
            return plain(frame, self.columns)
        matrix: Matrix = np.zeros((frame.height, self.width), dtype=np.float32)
        for column, (_, places) in zip(self.columns, self.groups, strict=True):
            if (text := column.text) is None:
                matrix[:, places.start] = plain(frame, [column])[:, 0]
            else:
                found = weighed(frame, column, text)
                rows = np.repeat(np.arange(frame.height), np.diff(found.ends))
                matrix[rows, found.places + places.start] = found.weights
        return matrix

    def chunks(self, frame: pl.DataFrame) -> Iterator[Matrix]:
        """The matrix of `frame` in pieces of at most `CELLS` cells, one of no rows where it has none; whole without text."""
        rows = CELLS // self.width if self._prose else frame.height
        for start in range(0, max(1, frame.height), max(1, rows)):
            yield self.encode(frame.slice(start, rows))

    def answers(self, frame: pl.DataFrame, batch: Callable[[Matrix], Answers]) -> Answers:
        """What `batch` answers to `frame`, chunk by chunk: (rows,) or (rows, width of the answer)."""
        found = [batch(chunk) for chunk in self.chunks(frame)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def to_bytes(self) -> bytes:
        """Deterministic JSON."""
        return msgspec.json.encode(self)


def fit(frame: pl.DataFrame, columns: Sequence[tuple[str, Kind | Recipe]], *, where: Place | None = None) -> Encoder:
    """Learn the vocabularies of `frame` for `columns`, each a name and what it is; a recipe says that it is a text.

    Args:
        frame: the training rows, one column of each name.
        columns: in the order that the matrix shall have.
        where: the declaration to point at when one of them cannot be encoded.

    Raises:
        DeclarationError: `no-columns`, `column-twice`, `time-as-number`, `boolean-category`, `unencodable`,
            `too-many-categories`.
        DataError: `missing-column`; `no-terms`, when all that there is are texts that share nothing.
    """
    names = [name for name, _ in columns]
    if not names:
        raise DeclarationError("no-columns", "There is nothing to encode.", where=where, next="declare a feature")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DeclarationError("column-twice", f"Columns are named twice: {', '.join(twice)}.", where=where)
    encoder = Encoder(columns=tuple(fitted.fit(frame, name, kind, where) for name, kind in columns))
    if not encoder.width:
        raise DataError(
            "no-terms",
            f"No term of {', '.join(names)} is shared by enough of {frame.height:,} rows.",
            where=where,
            why="A term enters if min_rows rows of the training hold it, and there is nothing else to learn from.",
            next="Train on more rows, lower min_rows, or add a feature.",
        )
    return encoder


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
    if not encoder.width or len(set(encoder.names)) < len(encoder.columns):
        raise _damaged("its columns are none, or named twice")
    for column in encoder.columns:
        if problem := fitted.unsound(column):
            raise _damaged(f"{column.name!r} {problem}")
    return encoder


def plain(frame: pl.DataFrame, columns: Sequence[Column]) -> Matrix:
    """The columns that are no text: (rows, columns). Errors as `Encoder.encode`."""
    expressions = []
    for column in columns:
        fitted.check(frame, column)
        expressions.append(_number(column.name) if column.reads == "number" else _codes(column))
    matrix: Matrix = np.array(frame.select(expressions).to_numpy(), dtype=np.float32, order="C")
    return matrix


def weighed(frame: pl.DataFrame, column: Column, text: _Text) -> Weighed:
    """The weights of a text column, row by row and without the zeros. Errors as `Encoder.encode`."""
    fitted.check(frame, column)
    return texts.weighed(*text, frame[column.name].cast(pl.String))


def compile_row(encoder: Encoder) -> Callable[[Sequence[object]], Matrix]:
    """A function that encodes one row of plain Python values, given in the order of the declared columns.

    It returns float32 of shape (width,): the same buffer at every call, so read it before the next one and compile
    one function per thread. It raises `DataError` `wrong-type` or `wrong-width`.
    """
    columns, given = encoder.columns, len(encoder.columns)
    buffer = array("f", bytes(4 * encoder.width))
    view: Matrix = np.frombuffer(buffer, dtype=np.float32)
    cells: list[tuple[int, int, type, dict[object, float] | None]] = []
    prose: list[_Prose] = []
    for place, (column, (_, places)) in enumerate(zip(columns, encoder.groups, strict=True)):
        if (text := column.text) is not None:
            prose.append((place, places.start, texts.weigher(*text)))
            continue
        wanted = int if column.reads == "integer" else str
        cells.append((place, places.start, wanted, None if column.reads == "number" else _codes_of(column)))
    write = _writer(buffer, prose, columns) if prose else None

    def row(values: Sequence[object]) -> Matrix:
        if len(values) != given:
            raise DataError("wrong-width", f"A row has {len(values)} values, and the encoder {given} columns.")
        for place, i, wanted, codes in cells:
            value = values[place]
            kind = type(value)
            if value is None:
                buffer[i] = _NAN
            elif codes is not None:
                if kind is not wanted:
                    raise fitted.wrong_type(columns[place], kind.__name__)
                buffer[i] = codes.get(value, UNSEEN)
            elif kind is float or kind is int or kind is bool:
                buffer[i] = value if -LARGEST <= value <= LARGEST else _NAN  # type: ignore[operator, call-overload]
            else:
                raise fitted.wrong_type(columns[place], kind.__name__)
        if write is not None:
            write(values)
        return view

    return row


def compile_rows(encoder: Encoder) -> Callable[[Sequence[Sequence[object]]], Matrix]:
    """As `compile_row` of many rows at once, with the same bits and the same errors: float32 of shape (rows, width).

    A column at a time, for a third of what row by row takes. What is out of the ordinary (a text, a value of another type, an
    integer that no float32 holds) goes row by row.
    """
    one, width = compile_row(encoder), encoder.width
    codes = {
        place: ({int if c.reads == "integer" else str, NoneType}, _codes_of(c))
        for place, c in enumerate(encoder.columns)
        if c.reads in ("text", "integer")
    }
    numbers = [place for place in range(len(encoder.columns)) if place not in codes]

    def slowly(rows: Sequence[Sequence[object]]) -> Matrix:
        found = np.empty((len(rows), width), dtype=np.float32)
        for n, values in enumerate(rows):
            found[n] = one(values)
        return found

    def matrix(rows: Sequence[Sequence[object]]) -> Matrix:
        if set(map(len, rows)) != {len(encoder.columns)}:
            return slowly(rows)
        columns = list(zip(*rows, strict=True))
        found = np.empty((len(rows), width), dtype=np.float32)
        for place, (kinds, code) in codes.items():
            if not kinds.issuperset(map(type, columns[place])):
                return slowly(rows)
            found[:, place] = [code.get(value, UNSEEN) for value in columns[place]]
        if numbers:
            measured = [columns[place] for place in numbers]
            kinds = set(map(type, chain.from_iterable(measured)))
            if not kinds <= _NUMBERS:
                return slowly(rows)
            try:
                wide = np.array(measured, dtype=np.float64)
            except OverflowError:
                return slowly(rows)
            size = np.abs(wide)
            if int in kinds and (size >= LARGEST).any():
                return slowly(rows)  # an integer is compared before it is rounded
            found[:, numbers] = np.where(size <= LARGEST, wide, _NAN).T
        return found

    return slowly if encoder._prose else matrix


_NUMBERS = {float, int, bool, NoneType}

_Prose = tuple[int, int, Callable[[str | None], list[tuple[int, float]]]]
"""Of a text: its place among the values, its first in the buffer, and what weighs it."""


def _writer(
    buffer: array[float], prose: Sequence[_Prose], columns: Sequence[Column]
) -> Callable[[Sequence[object]], None]:
    """What writes the texts of a row; of the terms of the row before only what was written is cleared."""
    written: list[int] = []

    def write(values: Sequence[object]) -> None:
        for i in written:
            buffer[i] = 0.0
        written.clear()
        for place, start, weigh in prose:
            value = values[place]
            if value is not None and type(value) is not str:
                raise fitted.wrong_type(columns[place], type(value).__name__)
            for term, weight in weigh(value):
                written.append(start + term)
                buffer[start + term] = weight

    return write


def _codes_of(column: Column) -> dict[object, float]:
    """Value -> its code; what is not in it is `UNSEEN`."""
    return {None: _NAN, **{value: float(code) for code, value in enumerate(column.vocabulary)}}


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


def _damaged(why: str) -> StateError:
    return StateError("encoder-damaged", "The stored encoder cannot be read.", why=why, next="flyball apply")
