"""A column of the encoder: what it was declared as, what it reads, and what was fitted of it; all of it data.

Refused: times (an epoch as a number teaches the calendar, so derive hour, weekday or age in the features), decimals (a feature
says which rounding it means), lists, structs and other shapes.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import polars as pl

from flyball._kernel.errors import DataError, DeclarationError
from flyball._kernel.place import Place
from flyball.learn.encoding import texts
from flyball.learn.encoding.texts import Recipe, Terms

Kind = Literal["category", "number"]
Reads = Literal["text", "integer", "number", "prose"]

MOST_CODES = 1 << 24
"""Codes from here on are no longer distinct in float32."""

_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_TEXTS = (pl.String, pl.Categorical, pl.Enum)


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One declared column: its name, the type that it reads, and what was fitted.

    Attributes:
        vocabulary: sorted; the values of a category, the terms of a text.
        idf, recipe: of a text alone; a column of another kind is stored without them.
    """

    name: str
    reads: Reads
    vocabulary: tuple[str | int, ...] = ()
    idf: tuple[float, ...] | msgspec.UnsetType = msgspec.UNSET
    recipe: Recipe | msgspec.UnsetType = msgspec.UNSET

    @property
    def kind(self) -> Kind | Recipe:
        """What it was declared as."""
        if self.recipe is not msgspec.UNSET:
            return self.recipe
        return "number" if self.reads == "number" else "category"

    @property
    def width(self) -> int:
        """The columns of the matrix that it takes."""
        return len(self.vocabulary) if self.reads == "prose" else 1

    @property
    def text(self) -> tuple[Terms, Recipe] | None:
        """What weighs a text; None of any other column."""
        if self.idf is msgspec.UNSET or self.recipe is msgspec.UNSET:
            return None
        return Terms(vocabulary=tuple(map(str, self.vocabulary)), idf=self.idf), self.recipe


def fit(frame: pl.DataFrame, name: str, kind: Kind | Recipe, where: Place | None) -> Column:
    """One column, fitted; errors as `encode.fit`."""
    dtype = _dtype(frame, name)
    reads = _reading(kind, dtype)
    if reads is None:
        raise _unencodable(name, kind, dtype, where)
    if reads == "number":
        return Column(name=name, reads=reads)
    if isinstance(kind, Recipe):
        terms = texts.fit(frame[name].cast(pl.String).to_list(), kind)
        return Column(name=name, reads=reads, vocabulary=terms.vocabulary, idf=terms.idf, recipe=kind)
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


def _reading(kind: Kind | Recipe, dtype: pl.DataType) -> Reads | None:
    """What a column of this kind and type reads; None where a value has no one number."""
    if isinstance(kind, Recipe):
        return "prose" if isinstance(dtype, _TEXTS) else None
    if kind == "number":
        return "number" if isinstance(dtype, (*_INTEGERS, pl.Float32, pl.Float64, pl.Boolean)) else None
    if isinstance(dtype, _TEXTS):
        return "text"
    return "integer" if isinstance(dtype, _INTEGERS) else None


def _unencodable(name: str, kind: Kind | Recipe, dtype: pl.DataType, where: Place | None) -> DeclarationError:
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
        f"Column {name!r} is a {dtype}, which cannot be a {'text' if isinstance(kind, Recipe) else kind}.",
        where=where,
        why="categories are text or integers of up to 64 bits; numbers are integers, Float32, Float64 or Boolean",
        next=f"cast it in the features, such as {name}.cast(pl.Float64)",
    )


def check(frame: pl.DataFrame, column: Column) -> None:
    """Refuse a frame whose column is missing, or of another type than was fitted."""
    dtype = _dtype(frame, column.name)
    if _reading(column.kind, dtype) != column.reads:
        raise wrong_type(column, str(dtype))


def unsound(column: Column) -> str:
    """What a stored column says that no fitted one does; "" where nothing."""
    values, prose = column.vocabulary, column.reads == "prose"
    if any(type(value) is not {"text": str, "integer": int, "prose": str}.get(column.reads) for value in values):
        return "has a vocabulary that does not hold what the column reads"
    if list(values) != sorted(set(values)):
        return "has a vocabulary that is not sorted"
    if prose != (column.idf is not msgspec.UNSET) or prose != (column.recipe is not msgspec.UNSET):
        return "is a text without weights, or weights of no text"
    if column.idf is msgspec.UNSET or column.recipe is msgspec.UNSET:
        return ""
    if column.recipe.wrong or len(values) > column.recipe.terms:
        return "was cut by an impossible recipe"
    # The weight of a term that every row holds is 1; no training has as many rows as would give it 100.
    if len(column.idf) != len(values) or not all(1 <= weight <= 100 for weight in column.idf):
        return "has not one weight for each term"
    return ""


def _dtype(frame: pl.DataFrame, name: str) -> pl.DataType:
    try:
        return frame.schema[name]
    except KeyError:
        raise DataError(
            "missing-column", f"There is no column {name!r} to encode.", why=f"there are {', '.join(frame.columns)}"
        ) from None


def wrong_type(column: Column, found: str) -> DataError:
    """The error for a value of another type."""
    return DataError(
        "wrong-type",
        f"Column {column.name!r} holds a {found}, where the encoder was fitted on {column.reads} values.",
        why="a value of another type would take another code in silence",
        next="fit the encoder anew, or correct the input",
    )
