"""Cells to the types of a contract, exactly: a cell either says a value of that type, or it says none.

Text is parsed: "12" is an integer and "12.5" is not; "true", "false", "1" and "0" are truth values; times are ISO 8601.
A text without a zone is no instant, for whoever guesses the zone sees a few hours of the future. Typed cells change type
only where no value is lost or invented; of floats and times alone, digits finer than the type may go. What does not fit
becomes null, and the caller sees that it was not null before.
"""

from __future__ import annotations

import polars as pl

_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_TEXTS = (pl.String, pl.Categorical, pl.Enum)


def cell(name: str, have: pl.DataType, want: pl.DataType) -> pl.Expr:
    """The column `name`, which has type `have`, as type `want`; null where a cell does not fit."""
    column = pl.col(name)
    if have == want:
        return column
    if have == pl.Null:
        return column.cast(want)
    if isinstance(have, _TEXTS):
        return _parsed(column.cast(pl.String), want)
    if have.is_temporal() and want.is_temporal():
        return _moved(column, have, want)
    if have.is_numeric() or have == pl.Boolean:
        return _converted(column, have, want)
    return _unfit(want)


def _parsed(text: pl.Expr, want: pl.DataType) -> pl.Expr:
    """A text, read as `want`."""
    match want:
        case pl.Boolean():
            return text.str.to_lowercase().replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
        case pl.Datetime(time_zone=None):
            formats = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f")
            parsed = pl.coalesce(text.str.to_datetime(f, time_unit=want.time_unit, strict=False) for f in formats)
            return _in_range(text, want, parsed)
        case pl.Datetime(time_zone=str(zone)):
            # "%+" reads an offset or Z, and nothing without one; Polars wants to be told that the result is in UTC.
            parsed = text.str.to_datetime("%+", time_unit=want.time_unit, time_zone="UTC", strict=False)
            return _in_range(text, want, parsed).dt.convert_time_zone(zone)
        case pl.Date():
            return text.str.to_date("%Y-%m-%d", strict=False)
        case pl.Time():
            return pl.coalesce(text.str.to_time(f, strict=False) for f in ("%H:%M:%S%.f", "%H:%M"))
        case pl.Float32() | pl.Float64():
            number = text.cast(want, strict=False)
            return pl.when(~number.is_infinite() | ~text.str.contains("[0-9]")).then(number)  # 1e999 is not infinite
        case pl.Decimal(scale=scale):
            number = text.cast(want, strict=False)
            longer = text.str.contains(rf"\.[0-9]{{{scale}}}[0-9]*[1-9]") | text.str.contains("[eE]")
            return pl.when(~longer).then(number)  # 1.239 is not 1.24
        case pl.Duration() | pl.List() | pl.Array() | pl.Struct() | pl.Object():
            return _unfit(want)
    return text.cast(want, strict=False)


def _in_range(text: pl.Expr, want: pl.Datetime, parsed: pl.Expr) -> pl.Expr:
    """Without what 64 bits of nanoseconds cannot count, which Polars wraps around: 9999 would be 1815."""
    years = text.str.slice(0, 4).cast(pl.Int32, strict=False)
    return pl.when(years.is_between(1678, 2261)).then(parsed) if want.time_unit == "ns" else parsed


def _converted(value: pl.Expr, have: pl.DataType, want: pl.DataType) -> pl.Expr:
    """A number or truth value, as `want`."""
    if want == pl.Boolean:
        return pl.when(value == 1).then(pl.lit(True)).when(value == 0).then(pl.lit(False))
    if want == pl.String:
        return value.cast(pl.String) if have.is_integer() or have == pl.Boolean else _unfit(want)
    if not want.is_numeric():
        return _unfit(want)
    if have == pl.Boolean:
        return value.cast(pl.Int8).cast(want)
    converted = value.cast(want, strict=False)
    if have.is_integer() and want.is_integer():
        return converted
    if have.is_float() and want.is_float():
        return pl.when(converted.is_infinite() == value.is_infinite()).then(converted)
    return pl.when(converted.cast(have, strict=False) == value).then(converted)  # 12.5 is no integer, 12.0 is


def _moved(value: pl.Expr, have: pl.DataType, want: pl.DataType) -> pl.Expr:
    """A temporal value, as `want`: other units and other zones, never from a wall clock to an instant."""
    match have, want:
        case pl.Datetime(time_zone=str()), pl.Datetime(time_zone=str(zone)):
            return value.cast(pl.Datetime(want.time_unit, zone), strict=False)
        case (pl.Datetime(time_zone=None) | pl.Date(), pl.Datetime(time_zone=None)) | (pl.Duration(), pl.Duration()):
            return value.cast(want, strict=False)
    return _unfit(want)


def _unfit(want: pl.DataType) -> pl.Expr:
    return pl.lit(None, dtype=want)
