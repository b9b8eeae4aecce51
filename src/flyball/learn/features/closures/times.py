"""Times: days and whole microseconds since 1970, and what a clock on the wall of a zone shows.

What a zone's clock shows comes from Polars itself: its offsets are asked for once, from 1970 to 2100, so that Python's time
zone data, which is of another version, cannot differ. Moments before and after are left to Polars.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import date
from functools import cache
from typing import Any

import polars as pl

from flyball.learn.features.closures.term import Call, Run, Term, Unsure, Untranslated, is_ticks, one, two

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
LAST = 4_102_444_800 * SECOND
"""2100-01-01."""
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LAST_DAY = date.max.toordinal()
_INT64 = 2**63


@cache
def offsets(zone: str) -> tuple[Sequence[int], Sequence[int]]:
    """Since when (microseconds) which offset from UTC (microseconds) holds in a zone, from 1970 to 2100.

    Two changes within half a day are not told apart; the time zone database has none in these years.
    """
    grid = range(0, LAST + 1, DAY // 2)
    found = _asked(zone, grid)
    changes = [i for i in range(1, len(found)) if found[i] != found[i - 1]]
    low, high = [grid[i - 1] for i in changes], [grid[i] for i in changes]
    while any(b - a > SECOND for a, b in zip(low, high, strict=True)):
        middle = [(a + b) // (2 * SECOND) * SECOND for a, b in zip(low, high, strict=True)]
        for i, offset in enumerate(_asked(zone, middle)):
            if offset == found[changes[i]]:
                high[i] = middle[i]
            else:
                low[i] = middle[i]
    return (0, *high), (found[0], *(found[i] for i in changes))


def _asked(zone: str, moments: Sequence[int]) -> list[int]:
    utc = pl.Series("t", moments, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    wall = utc.dt.convert_time_zone(zone).dt.replace_time_zone(None).to_physical()
    return (wall - utc.to_physical()).to_list()


def offset_at(zone: str) -> Callable[[int], int]:
    """A moment -> the zone's offset then, both in microseconds; raises Unsure before 1970 and from 2100 on."""
    since, offset = offsets(zone)

    def at(moment: int) -> int:
        if 0 <= moment < LAST:
            return offset[bisect_right(since, moment) - 1]
        raise Unsure

    return at


def wall(term: Term) -> Run:
    """What the clock on the wall shows, in microseconds, for a moment or a day."""
    if term.dtype == pl.Date:
        return one(lambda day: day * DAY, term.run)
    if not isinstance(term.dtype, pl.Datetime) or term.dtype.time_unit != "us":
        raise Untranslated(term.dtype)
    if term.dtype.time_zone in (None, "UTC"):
        return term.run
    at = offset_at(str(term.dtype.time_zone))
    return one(lambda moment: moment + at(moment), term.run)


def arithmetic(op: str, dtype: pl.DataType, left: Term, right: Term) -> Term:
    """Differences of moments, and moments moved by durations.

    Raises:
        Untranslated: for other units than microseconds, and other combinations.
    """
    if left.dtype == pl.Null or right.dtype == pl.Null or not (is_ticks(dtype) and op in ("Plus", "Minus")):
        raise Untranslated(op)
    sign = 1 if op == "Plus" else -1
    scale = 1
    kinds = (type(left.dtype), type(right.dtype), type(dtype))
    if not (is_ticks(left.dtype) and is_ticks(right.dtype)):
        raise Untranslated(op)
    if kinds == (pl.Date, pl.Date, pl.Duration) and op == "Minus":
        scale = DAY
    elif not (
        (kinds == (pl.Datetime, pl.Datetime, pl.Duration) and op == "Minus" and left.dtype == right.dtype)
        or (kinds == (pl.Datetime, pl.Duration, pl.Datetime) and left.dtype == dtype)
        or kinds == (pl.Duration, pl.Duration, pl.Duration)
    ):
        raise Untranslated(op)

    def apply(a: int, b: int) -> int:
        found = (a + sign * b) * scale
        if -_INT64 < found < _INT64:
            return found
        raise Unsure

    return Term(dtype, two(apply, left, right))


# --- what a clock and a calendar show


def _clock(apply: Callable[[int], int]) -> Callable[[Call], Term]:
    def build(call: Call) -> Term:
        if call.inputs[0].dtype == pl.Date:
            raise Untranslated(call.dtype)
        return Term(call.dtype, one(apply, wall(call.inputs[0])))

    return build


def _calendar(apply: Callable[[date], Any]) -> Callable[[Call], Term]:
    def shown(at: int) -> Any:
        day = at // DAY + _EPOCH_DAY
        if 1 <= day <= _LAST_DAY:
            return apply(date.fromordinal(day))
        raise Unsure

    def build(call: Call) -> Term:
        return Term(call.dtype, one(shown, wall(call.inputs[0])))

    return build


def _weekday(call: Call) -> Term:
    return Term(call.dtype, one(lambda at: (at // DAY + 3) % 7 + 1, wall(call.inputs[0])))


def _day(call: Call) -> Term:
    return Term(call.dtype, one(lambda at: at // DAY, wall(call.inputs[0])))


def _in_zone(call: Call) -> Term:
    x = call.inputs[0]
    if not isinstance(x.dtype, pl.Datetime) or not isinstance(call.dtype, pl.Datetime) or x.dtype.time_zone is None:
        raise Untranslated(call.dtype)
    return Term(call.dtype, x.run)


def _without_zone(call: Call) -> Term:
    x = call.inputs[0]
    match call.options:
        case [None, "Raise"] if isinstance(x.dtype, pl.Datetime):
            return Term(call.dtype, wall(x))
    raise Untranslated(call.options)


def _since_epoch(unit: int) -> Callable[[Call], Term]:
    def build(call: Call) -> Term:
        x = call.inputs[0]
        if not isinstance(x.dtype, pl.Datetime) or x.dtype.time_unit != "us":
            raise Untranslated(x.dtype)
        return Term(call.dtype, one(lambda moment: moment // unit, x.run))

    return build


def _total(unit: int) -> Callable[[Call], Term]:
    """Whole units, towards zero; or with a fraction, which Polars computes by the inverse."""
    inverse = 1.0 / unit

    def build(call: Call) -> Term:
        x = call.inputs[0]
        if not isinstance(x.dtype, pl.Duration) or x.dtype.time_unit != "us":
            raise Untranslated(x.dtype)
        match call.options:
            case {"fractional": False}:
                return Term(call.dtype, one(lambda v: v // unit if v >= 0 else -(-v // unit), x.run))
            case {"fractional": True}:
                return Term(call.dtype, one(lambda v: float(v) * inverse, x.run))
        raise Untranslated(call.options)

    return build


_SHOWN: dict[str, Callable[[Call], Term]] = {
    "Hour": _clock(lambda at: at // HOUR % 24),
    "Minute": _clock(lambda at: at // (60 * SECOND) % 60),
    "Second": _clock(lambda at: at // SECOND % 60),
    "Millisecond": _clock(lambda at: at // 1000 % 1000),
    "Microsecond": _clock(lambda at: at % SECOND),
    "WeekDay": _weekday,
    "Date": _day,
    "Day": _calendar(lambda day: day.day),
    "Month": _calendar(lambda day: day.month),
    "Year": _calendar(lambda day: day.year),
    "Quarter": _calendar(lambda day: (day.month + 2) // 3),
    "OrdinalDay": _calendar(lambda day: day.toordinal() - date(day.year, 1, 1).toordinal() + 1),
    "Week": _calendar(lambda day: day.isocalendar().week),
    "IsoYear": _calendar(lambda day: day.isocalendar().year),
    "ConvertTimeZone": _in_zone,
    "ReplaceTimeZone": _without_zone,
    "TimeStamp.Milliseconds": _since_epoch(1000),
    "TimeStamp.Microseconds": _since_epoch(1),
    "TotalDays": _total(DAY),
    "TotalHours": _total(HOUR),
    "TotalMinutes": _total(60 * SECOND),
    "TotalSeconds": _total(SECOND),
    "TotalMilliseconds": _total(1000),
}
FUNCTIONS: dict[str, Callable[[Call], Term]] = {f"TemporalExpr.{name}": build for name, build in _SHOWN.items()}
