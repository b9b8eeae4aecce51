"""When rows lie: how many a day, and at which hours of the week. Exact, and the same in any order of merging.

Days are counted in spans of 2**coarse days: one where `SPANS` of them suffice, two where they do not, and so on. Times are
microseconds since 1970 as they are written: in UTC where they have a zone.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

SPANS = 4096
DAY = 86_400_000_000
HOUR = DAY // 24
_THURSDAY = 3
"""Day 0, the first of 1970; Monday is 0."""


class Days(msgspec.Struct, frozen=True, array_like=True):
    """Rows by span of days, and by hour of the week.

    Attributes:
        coarse: a span has 2**coarse days.
        starts: spans that have rows, ascending: days since 1970, divided by 2**coarse.
        counts: rows of each.
        week: 168 counts, from Monday at midnight; empty where the column has dates only.
    """

    coarse: int = 0
    starts: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    week: tuple[int, ...] = ()


EMPTY = Days()


class Gap(msgspec.Struct, frozen=True):
    """Days without a row, between days that have some: days since 1970, both included."""

    first: int
    last: int


def of(micros: Counts, times: Counts, *, hours: bool) -> Days:
    """Of different times and how often each occurs; both (rows,)."""
    if not len(micros):
        return EMPTY
    days = micros // DAY
    starts, at = np.unique(days, return_inverse=True)
    counts = np.bincount(at, weights=times).astype(np.int64)
    hour = ((days + _THURSDAY) % 7) * 24 + (micros % DAY) // HOUR
    week = np.bincount(hour, weights=times, minlength=168).astype(np.int64) if hours else np.zeros(0, dtype=np.int64)
    return _fit(0, starts, counts, tuple(week.tolist()))


def merge(a: Days, b: Days) -> Days:
    """Of both together."""
    if not a.starts or not b.starts:
        return a if a.starts else b
    coarse = max(a.coarse, b.coarse)
    starts = np.concatenate([np.asarray(x.starts, dtype=np.int64) >> (coarse - x.coarse) for x in (a, b)])
    counts = np.concatenate([np.asarray(x.counts, dtype=np.int64) for x in (a, b)])
    week = tuple(x + y for x, y in zip(a.week, b.week, strict=True)) if a.week and b.week else a.week or b.week
    return _fit(coarse, starts, counts, week)


def gaps(found: Days) -> list[Gap]:
    """The longest first; at the width of the spans."""
    width = 1 << found.coarse
    pairs = zip(found.starts, found.starts[1:], strict=False)
    holes = [Gap((a + 1) * width, b * width - 1) for a, b in pairs if b > a + 1]
    return sorted(holes, key=lambda g: (g.first - g.last, g.first))


def _fit(coarse: int, starts: Counts, counts: Counts, week: tuple[int, ...]) -> Days:
    while True:
        there, at = np.unique(starts, return_inverse=True)
        if len(there) <= SPANS:
            summed = np.bincount(at, weights=counts).astype(np.int64)
            return Days(coarse, tuple(there.tolist()), tuple(summed.tolist()), week)
        starts, coarse = starts >> 1, coarse + 1
