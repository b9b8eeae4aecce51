"""What a node of an expression becomes: its type, which Polars tells, and a closure from a row to its value.

Values are canonical: Float32 is a rounded float, dates are days, moments and durations whole microseconds, members of an Enum
their text, null is None. Literals without a type ("dyn") and what is made of them are **loose**: they give way to the type of
their neighbour.

All inputs of a node are computed, always: Polars computes both branches of a `when`, and fails if one of them fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from ctypes import c_float
from dataclasses import dataclass
from typing import Any

import polars as pl

Row = Mapping[str, Any]
Run = Callable[[Row], Any]

FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""How Polars fails. A panic is a bug of its own, and no PolarsError."""


class Untranslated(Exception):
    """There is no closure that is certain to say what this expression says."""


class Unsure(Exception):
    """For this row the closure may not say what Polars says, or Polars fails."""


@dataclass(frozen=True, slots=True)
class Term:
    """One node.

    Attributes:
        dtype: of its values, when it stands alone.
        run: the value for a row.
        constant: it reads no column; `value` is what it says.
        loose: its type gives way.
    """

    dtype: pl.DataType
    run: Run
    constant: bool = False
    value: Any = None
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A function node: the type that Polars gives it, its inputs and its options."""

    dtype: pl.DataType
    inputs: tuple[Term, ...]
    options: Any


RANGES: dict[str, tuple[int, int]] = {
    **{f"Int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_EXACT_IN_SINGLE = 2**24


def limits(dtype: pl.DataType) -> tuple[int, int] | None:
    """The least and the greatest integer of a type; None if it is no integer type of up to 64 bits."""
    return RANGES.get(str(dtype))


def is_float(dtype: pl.DataType) -> bool:
    """Whether values are floats of 32 or 64 bits."""
    return dtype in (pl.Float32, pl.Float64)


def is_text(dtype: pl.DataType) -> bool:
    """Whether values are text."""
    return dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)


def is_ticks(dtype: pl.DataType) -> bool:
    """Whether values are days or whole microseconds."""
    return dtype == pl.Date or (isinstance(dtype, pl.Datetime | pl.Duration) and dtype.time_unit == "us")


def single(value: float) -> float:
    """The nearest float of 32 bits."""
    return float(c_float(value).value)


def one(apply: Callable[[Any], Any], x: Run) -> Run:
    """Of one input; null stays null."""

    def run(row: Row) -> Any:
        value = x(row)
        return None if value is None else apply(value)

    return run


def two(apply: Callable[[Any, Any], Any], x: Term, y: Term) -> Run:
    """Of two inputs; null if one is null."""
    left, right, fixed = x.run, y.run, y.value

    def run(row: Row) -> Any:
        a, b = left(row), right(row)
        return None if a is None or b is None else apply(a, b)

    def against(row: Row) -> Any:
        a = left(row)
        return None if a is None else apply(a, fixed)

    return against if y.constant and fixed is not None else run


def fixed(dtype: pl.DataType, value: Any, *, loose: bool = False) -> Term:
    """A literal."""
    return Term(dtype, lambda row: value, constant=True, value=value, loose=loose)


def joined(term: Term, dtype: pl.DataType, beside: tuple[Term, ...] = ()) -> Term:
    """`term` in the type that it has in common with its neighbours.

    Raises:
        Untranslated: when the way there is not certain to be without loss.
    """
    if term.dtype == dtype and not (term.constant and term.loose):
        return term
    if term.dtype == pl.Null:
        return Term(dtype, term.run, constant=term.constant)
    if term.loose and not term.constant:
        given = [t.dtype for t in beside if t is not term and not t.loose and t.dtype != pl.Null]
        if any(d not in (pl.Int32, pl.Int64, pl.Float64) for d in given):
            raise Untranslated(dtype)
    if term.constant:
        return fixed(dtype, _literal(term, dtype), loose=term.loose)
    convert = _widened(term.dtype, dtype)
    return Term(dtype, term.run if convert is None else one(convert, term.run), loose=term.loose)


def _literal(term: Term, dtype: pl.DataType) -> Any:
    value, bounds = term.value, limits(dtype)
    if value is None or (is_text(term.dtype) and dtype == pl.String):
        return value
    if isinstance(dtype, pl.Enum) and is_text(term.dtype) and value in dtype.categories:
        return value
    if bounds is not None and isinstance(value, int) and bounds[0] <= value <= bounds[1]:
        return int(value)
    if is_float(dtype) and isinstance(value, bool | int | float):
        return single(value) if dtype == pl.Float32 else float(value)
    raise Untranslated(dtype)


def _widened(source: pl.DataType, dtype: pl.DataType) -> Callable[[Any], Any] | None:
    """How a value changes its type without loss (an integer may round to a double); None if it stays as it is."""
    inner, outer = limits(source), limits(dtype)
    if source == pl.Boolean and outer is not None:
        return int
    if inner is not None and outer is not None and outer[0] <= inner[0] and inner[1] <= outer[1]:
        return None
    if source == pl.Float32 and dtype == pl.Float64:
        return None
    if dtype == pl.Float64 and (source == pl.Boolean or inner is not None):
        return float
    if dtype == pl.Float32 and (source == pl.Boolean or (inner is not None and inner[1] <= _EXACT_IN_SINGLE)):
        return float
    if dtype == pl.String and is_text(source):
        return None
    raise Untranslated(dtype)


def cast(term: Term, dtype: pl.DataType) -> Term:
    """An explicit cast. A value that does not fit fails or is null in Polars: Unsure.

    Raises:
        Untranslated: for types between which no cast is known.
    """
    source, bounds = term.dtype, limits(dtype)
    if term.loose or source == pl.Null:
        raise Untranslated(dtype)  # what stands under a cast of it is typed by rules of its own
    if source == dtype:
        return term
    if bounds is not None and source in (pl.Float32, pl.Float64):
        return Term(dtype, one(_truncated(*bounds), term.run))
    if bounds is not None and limits(source) is not None:
        return Term(dtype, one(_within(*bounds), term.run))
    if is_float(dtype) and limits(source) is not None and dtype == pl.Float32:
        return Term(dtype, one(_rounded, term.run))
    if source == pl.Float64 and dtype == pl.Float32:
        return Term(dtype, one(single, term.run))
    if dtype == pl.Boolean and limits(source) is not None:
        return Term(dtype, one(bool, term.run))
    if dtype == pl.String and limits(source) is not None:
        return Term(dtype, one(str, term.run))
    if isinstance(dtype, pl.Enum) and source == pl.String:
        return Term(dtype, one(_member(frozenset(dtype.categories)), term.run))
    if dtype == pl.Int64 and is_ticks(source):
        return Term(dtype, term.run)
    convert = _widened(source, dtype)
    return Term(dtype, term.run if convert is None else one(convert, term.run))


def _within(low: int, high: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if low <= value <= high:
            return value
        raise Unsure

    return check


def _truncated(low: int, high: int) -> Callable[[float], int]:
    def truncate(value: float) -> int:
        if math.isfinite(value) and low <= (found := math.trunc(value)) <= high:
            return found
        raise Unsure

    return truncate


def _rounded(value: int) -> float:
    if abs(value) <= _EXACT_IN_SINGLE:
        return float(value)
    raise Unsure  # by way of a double it could be rounded twice


def _member(categories: frozenset[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value in categories:
            return value
        raise Unsure

    return check
