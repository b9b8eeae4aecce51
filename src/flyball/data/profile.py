"""Profiles: how a column is spread, as counts that can be added and taken away again.

**Edges** say how a column is cut; they are chosen once, from a reference. A number falls into quantile bins of the reference
(ties are never cut apart), or below, or above all of them; a category is one that the reference knows well, or "other".
A **profile** counts the values by those edges, and the missing ones. Profiles of the same edges merge, in any order and
grouping, to the profile of all rows; one that is contained can be subtracted again. Both are exact, so any window is a sum.

Refused: values of persons. A model never reads a personal column, and a category is named only if `KNOWN_WELL` reference rows
share it, so neither a key nor a rare value gets in: it is counted as "other".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.errors import Bug

Counts = npt.NDArray[np.int64]
Kind = Literal["category", "number"]

BINS = 20
"""Quantile bins of a number, and categories that are told apart, at most."""
KNOWN_WELL = 10
"""Reference rows that must share a category for it to be named."""
FINE = 1 << 30
"""Steps into which the range of the reference is cut for sums: whole numbers, so that adding is exact in any order."""
TINY = float(np.finfo(np.float64).tiny)
"""The least normal number: a model library may have told the processor to take smaller ones for zero."""
LARGEST = float(np.finfo(np.float32).max)
FAR = 1 << 10
"""Ranges of the reference beyond which a value is summed as if it lay there; its bin is the outer one anyway."""


class Edges(msgspec.Struct, frozen=True, kw_only=True):
    """How a column is cut.

    Attributes:
        cuts: numbers: the ascending upper ends of the bins, each included; the first ends what lies below the reference.
        categories: the categories that are told apart, sorted.
        origin, step: sums are kept in whole steps from the origin.
    """

    kind: Kind
    cuts: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    origin: float = 0.0
    step: float = 1.0

    @property
    def width(self) -> int:
        """How many counts a profile has: of each bin or category, of what lies beyond (or "other"), of the missing."""
        return len(self.cuts) + len(self.categories) + 2

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each count, to show."""
        if self.kind == "category":
            return (*self.categories, "(other)", "(none)")
        if not self.cuts:
            return ("any", "(none)")
        return ("below", *(f"≤ {cut:g}" for cut in self.cuts[1:]), "above", "(none)")


class Profile(msgspec.Struct, frozen=True, array_like=True):
    """What was counted; stored as a list, since a reference holds thousands.

    Attributes:
        counts: (edges.width,) by bin or category; the last is of the missing.
        total: the sum of a number's values, in steps from the origin.
        low, high: the least and the greatest number; None where there is none. After `subtract` only bounds of them.
    """

    counts: tuple[int, ...]
    total: int = 0
    low: float | None = None
    high: float | None = None

    @property
    def n(self) -> int:
        """How many values, missing ones included."""
        return sum(self.counts)

    @property
    def missing(self) -> int:
        """How many of them were missing."""
        return self.counts[-1]


def edges(values: pl.Series, kind: Kind) -> Edges:
    """Edges by which `values`, the reference, is cut evenly."""
    if kind == "category":
        found = values.drop_nulls().cast(pl.String).value_counts()
        name = found.columns[0]
        known = found.filter(pl.col("count") >= KNOWN_WELL).sort("count", name, descending=[True, False])
        return Edges(kind=kind, categories=tuple(sorted(known[name].head(BINS).to_list())))
    numbers = _numbers(values)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        return Edges(kind=kind)
    low, high = float(numbers.min()), float(numbers.max())
    ends = np.quantile(numbers, np.arange(1, BINS + 1) / BINS, method="inverted_cdf")
    below = np.nextafter(low, -np.inf)
    if abs(below) < TINY:
        below = -TINY
    cuts = np.unique(np.r_[below, ends])
    step = (high - low) / FINE or max(abs(low), 1.0) / FINE
    return Edges(kind=kind, cuts=tuple(float(c) for c in cuts), origin=low, step=step)


def profile(values: pl.Series, by: Edges) -> Profile:
    """The profile of `values`; a number that is not finite, or beyond float32, counts as missing, as it does for a model."""
    return profiles(values, np.zeros(len(values), dtype=np.int64), 1, by)[0]


def counted(values: pl.Series, groups: Counts, n: int, by: Edges) -> Counts:
    """The counts of each group: (n, width).

    Args:
        groups: (rows,) the group of each value, below `n`.
    """
    place = groups * by.width + _places(values, by)
    return np.bincount(place, minlength=n * by.width).reshape(n, by.width).astype(np.int64, copy=False)


def profiles(values: pl.Series, groups: Counts, n: int, by: Edges) -> list[Profile]:
    """The profile of each group; as `counted`."""
    counts = counted(values, groups, n, by)
    if by.kind == "category":
        return [Profile(tuple(row)) for row in counts.tolist()]
    numbers = _numbers(values)
    there = ~np.isnan(numbers)
    kept, of = numbers[there], groups[there]
    totals = np.zeros(n, dtype=np.int64)
    far = float(FAR * FINE)
    with np.errstate(over="ignore"):
        steps = np.clip((kept - by.origin) / by.step, -far, far)
    np.add.at(totals, of, np.rint(steps).astype(np.int64))
    lows, highs = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(lows, of, kept)
    np.maximum.at(highs, of, kept)
    made = []
    for row, total, low, high in zip(counts.tolist(), totals.tolist(), lows.tolist(), highs.tolist(), strict=True):
        any_ = low <= high
        made.append(Profile(tuple(row), total, low if any_ else None, high if any_ else None))
    return made


def empty(by: Edges) -> Profile:
    """The profile of no rows: what merging starts from."""
    return Profile((0,) * by.width)


def merge(*parts: Profile) -> Profile:
    """The profile of all their rows together."""
    return reduce(_merge, parts)


def _merge(a: Profile, b: Profile) -> Profile:
    _fit(a, b)
    counts = tuple(x + y for x, y in zip(a.counts, b.counts, strict=True))
    return Profile(counts, a.total + b.total, _least((a.low, b.low)), _greatest((a.high, b.high)))


def _fit(a: Profile, b: Profile) -> None:
    if len(a.counts) != len(b.counts):
        raise Bug(
            "profiles-do-not-fit",
            f"Profiles of {len(a.counts)} and {len(b.counts)} counts meet.",
            why="Only profiles of the same edges can be added or compared.",
        )


def _least(values: Iterable[float | None]) -> float | None:
    return min((v for v in values if v is not None), default=None)


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def _numbers(values: pl.Series) -> npt.NDArray[np.float64]:
    """As float64: missing is NaN, and so is what is beyond float32, as to a model. Zero has one sign, for equal bytes."""
    numbers: npt.NDArray[np.float64] = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan) + 0.0


def _places(values: pl.Series, by: Edges) -> Counts:
    """(rows,) which count each value belongs to."""
    last = by.width - 1
    if by.kind == "number":
        numbers = _numbers(values)
        found = np.searchsorted(np.asarray(by.cuts), numbers, side="left")
        return np.where(np.isnan(numbers), last, found).astype(np.int64)
    text = values.cast(pl.String)
    known = pl.Series(by.categories, dtype=pl.String)
    codes = pl.Series(range(len(known)), dtype=pl.Int64)
    found_ = text.replace_strict(known, codes, default=last - 1, return_dtype=pl.Int64) if len(known) else None
    named = np.full(len(text), last - 1) if found_ is None else found_.to_numpy()
    return np.where(text.is_null().to_numpy(), last, named).astype(np.int64)
