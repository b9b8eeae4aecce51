"""What closures are tried on before they answer: the borders of every column's type, of the literals and zones that an
expression names, and random rows.

The rules of the nodes are meant to be exact; this is the belt to their braces, and notices a Polars that has changed its mind.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from flyball._kernel import clock
from flyball.learn.features.closures import times
from flyball.learn.features.closures.reading import Reading
from flyball.learn.features.closures.term import FAILURES, Run, Unsure, is_float, is_text, limits, single

RANDOM = 150
LITTLE = 16
"""Fewer rows than these show nothing."""
_FLOATS: tuple[float, ...] = (
    0.0,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
    5e-324,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    0.1,
    -0.5,
    0.5,
)
_FLOATS += (1.0, -1.0, 1.5, 2.5, 2.675, 1e16, 2.0**53, 2.0**53 + 2, 1e-300)
_TEXTS = (
    "",
    "a",
    "A",
    " b ",
    "Ab cD",
    "ß",
    "İ",
    "Σ",
    "é",
    "e\u0301",
    "😀x",
    "\x00",
    "\x1c",
    "x" * 300,
    "0",
    "-1.5",
    "null",
)
_YEAR_1, _YEAR_9999 = -62_135_596_800 * times.SECOND, 253_402_300_799 * times.SECOND
_MOMENTS: tuple[int, ...] = (
    0,
    -1,
    1,
    -times.DAY,
    951_782_400_000_000,
    1_709_164_800_000_000,
    1_735_603_200_000_000,
    times.LAST - 1,
    times.LAST,
)
_MOMENTS += (_YEAR_1, _YEAR_9999, -5_364_662_400_000_000, 4_294_967_296_000_000, 1_709_251_199_999_999)


def rows(schema: Mapping[str, pl.DataType], readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Rows as requests carry them: each border of each column at least once, beside what else there may be."""
    chance = random.Random(1788)  # noqa: S311 - repeatable is what it must be
    literals = [value for reading in readings for value in reading.literals if value is not None]
    zones = sorted({zone for reading in readings for zone in reading.zones})
    borders = {name: [None, *_borders(dtype, literals, zones)] for name, dtype in schema.items()}

    def cell(name: str) -> Any:
        if chance.random() < 0.3:
            return chance.choice(borders[name])
        return _random(schema[name], borders[name], chance)

    count = max((len(b) for b in borders.values()), default=0)
    found = [{n: b[i] if i < len(b) else cell(n) for n, b in borders.items()} for i in range(count)]
    # Borders meet those of other columns, too.
    found += [{n: chance.choice(b) for n, b in borders.items()} for _ in range(count)]
    found += [{n: cell(n) for n in schema} for _ in range(RANDOM)]
    return found


def _borders(dtype: pl.DataType, literals: Sequence[Any], zones: Sequence[str]) -> list[Any]:
    whole = [v for v in literals if type(v) is int]
    bounds = limits(dtype)
    if bounds is not None:
        low, high = bounds
        near = [int(v) + d for v in literals if type(v) in (int, float) and math.isfinite(v) for d in (-1, 0, 1)]
        return [v for v in dict.fromkeys((low, low + 1, -2, -1, 0, 1, 2, 3, high - 1, high, *near)) if low <= v <= high]
    if dtype == pl.Boolean:
        return [True, False]
    if is_float(dtype):
        beside = [math.nextafter(v, d) for v in literals if type(v) in (int, float) for d in (-math.inf, v, math.inf)]
        return [single(v) for v in (*_FLOATS, *beside)] if dtype == pl.Float32 else [*_FLOATS, *beside]
    if isinstance(dtype, pl.Enum):
        return list(dtype.categories)
    if is_text(dtype):
        return [*_TEXTS, *(t for v in literals if type(v) is str for t in (v, v + "x", "x" + v, v[:-1], v.swapcase()))]
    if dtype == pl.Date:
        days = {v // times.DAY for v in _MOMENTS} | {d for v in whole for d in (v - 1, v, v + 1)}
        return [found for day in sorted(days) if (found := _date(day)) is not None]
    if isinstance(dtype, pl.Duration):
        return [timedelta(microseconds=v) for v in (0, 1, -1, 999_999, -999_999, -times.DAY - 1, times.HOUR, 10**16)]
    return list(_datetimes(dtype, whole, zones))


def _date(day: int) -> date | None:
    ordinal = day + date(1970, 1, 1).toordinal()
    return date.fromordinal(ordinal) if 1 <= ordinal <= date.max.toordinal() else None


def _datetimes(dtype: pl.DataType, literals: Sequence[int], zones: Sequence[str]) -> Iterator[datetime]:
    own = getattr(dtype, "time_zone", None)
    moments = {*_MOMENTS, *(m for v in literals for m in (v - 1, v, v + 1))}
    for zone in {*zones, *((own,) if own else ())}:
        since, offset = times.offsets(zone)
        recent = [m for m in since if m > 1_500_000_000 * times.SECOND][:4]
        for change in (*since[:2], *recent, *since[-2:]):
            moments |= {change - 1, change, change + 1, change - times.HOUR, change + times.HOUR}
        moments |= {change + o for change, o in zip(since[-2:], offset[-2:], strict=True)}
    for moment in sorted(moments):
        if _YEAR_1 <= moment <= _YEAR_9999:
            yield _datetime(moment, aware=own is not None)


def _datetime(moment: int, *, aware: bool) -> datetime:
    found = clock.from_micros(moment)
    return found.astimezone(UTC) if aware else found.replace(tzinfo=None)


def _random(dtype: pl.DataType, borders: Sequence[Any], chance: random.Random) -> Any:
    bounds = limits(dtype)
    if bounds is not None:
        low, high = (max(bounds[0], -1000), min(bounds[1], 1000)) if chance.random() < 0.7 else bounds
        return chance.randint(low, high)
    if is_float(dtype):
        value = chance.uniform(-100, 100) if chance.random() < 0.7 else chance.gauss(0, 1) * 10 ** chance.randint(-9, 9)
        return single(value) if dtype == pl.Float32 else value
    if dtype == pl.Boolean or isinstance(dtype, pl.Enum):
        return chance.choice(borders)
    if is_text(dtype):
        return "".join(chance.choices("abcXYZ 019-_é", k=chance.randint(0, 12)))
    moment = chance.randrange(0, times.LAST)
    if dtype == pl.Date:
        return _date(moment // times.DAY)
    if isinstance(dtype, pl.Duration):
        return timedelta(microseconds=moment // 1000 * chance.choice((-1, 1)))
    return _datetime(moment, aware=getattr(dtype, "time_zone", None) is not None)


def equal(a: object, b: object) -> bool:
    """To the last bit: of one type, zeros of one sign. All NaN are one."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return a == b


def holds(run: Run, expression: pl.Expr, frame: pl.DataFrame, cells: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether a closure says what Polars says, wherever it is sure.

    Args:
        run: the closure.
        expression: what it is a closure of.
        frame: the rows as Polars holds them.
        cells: the same as closures take them; None where one cannot be taken.
    """
    sure, said = [], []
    for position, row in enumerate(cells):
        try:
            value = run(row) if row is not None else _unsure()
        except Unsure:
            continue
        sure.append(position)
        said.append(value)
    if len(sure) < LITTLE:
        return False
    try:
        found = frame[sure].select(expression.alias("value"))["value"].to_list()
    except FAILURES:
        return False
    return len(found) == len(said) and all(map(equal, said, found))


def _unsure() -> Any:
    raise Unsure
