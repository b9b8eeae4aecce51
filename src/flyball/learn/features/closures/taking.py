"""From a request's value to the one that Polars would hold in its column.

Only what a decoded request carries is taken; of anything else Polars makes what it makes, or fails.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from flyball._kernel import clock
from flyball.learn.features.closures import times
from flyball.learn.features.closures.term import Unsure, is_text, limits, single

Take = Callable[[Any], Any]
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_WALL_EPOCH = datetime(1970, 1, 1)


def take(dtype: pl.DataType) -> Take:
    """How a value of a column of this type is taken; a null is never asked about.

    Raises:
        Unsure: when called: for a value that is not of the expected Python type.
    """
    bounds = limits(dtype)
    if bounds is not None:
        return _integer(*bounds)
    if dtype == pl.Boolean:
        return _exactly(bool)
    if dtype in (pl.Float32, pl.Float64):
        return _float(exact=2**24 if dtype == pl.Float32 else 2**53, rounded=dtype == pl.Float32)
    if isinstance(dtype, pl.Enum):
        return _member(frozenset(dtype.categories))
    if is_text(dtype):
        return _text
    if dtype == pl.Date:
        return _day
    if isinstance(dtype, pl.Duration):
        return _duration
    if isinstance(dtype, pl.Datetime):
        return _wall if dtype.time_zone is None else _moment(dtype.time_zone)
    return _never


def _never(value: Any) -> Any:
    raise Unsure


def _exactly(kind: type) -> Take:
    def check(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise Unsure

    return check


def _integer(low: int, high: int) -> Take:
    def check(value: Any) -> Any:
        if type(value) is int and low <= value <= high:
            return value
        raise Unsure

    return check


def _float(*, exact: int, rounded: bool) -> Take:
    def convert(value: Any) -> float:
        if type(value) is float:
            return single(value) if rounded else value
        if type(value) is int and -exact <= value <= exact:
            return float(value)
        raise Unsure

    return convert


def _member(categories: frozenset[str]) -> Take:
    def check(value: Any) -> Any:
        if type(value) is str and value in categories:
            return value
        raise Unsure

    return check


def _text(value: Any) -> Any:
    if type(value) is str:
        if value.isascii():
            return value
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unsure from None
        return value
    raise Unsure


def _day(value: Any) -> int:
    if type(value) is date:
        return value.toordinal() - _EPOCH_DAY
    raise Unsure


def _duration(value: Any) -> int:
    if type(value) is timedelta:
        return value // clock.MICROSECOND
    raise Unsure


def _wall(value: Any) -> int:
    if type(value) is datetime and value.tzinfo is None:
        return (value - _WALL_EPOCH) // clock.MICROSECOND
    raise Unsure


def _moment(name: str) -> Take:
    """A moment in UTC or at an offset is one. In the column's zone its offset must be what Polars says, too: a wall time that
    the clocks skip is none, and two versions of the time zone database may differ.
    """
    at = times.offset_at(name)

    def convert(value: Any) -> int:
        if type(value) is not datetime or value.tzinfo is None:
            raise Unsure
        zone = value.tzinfo
        moment = (value - clock.EPOCH) // clock.MICROSECOND
        if zone is UTC or type(zone) is timezone:
            return moment
        offset = value.utcoffset()
        if (
            not isinstance(zone, ZoneInfo)
            or zone.key != name
            or offset is None
            or offset // clock.MICROSECOND != at(moment)
        ):
            raise Unsure
        return moment

    return convert
