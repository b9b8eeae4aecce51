"""What is told from a sample of a table: quantiles, outliers, how far a spread has moved, and what gives the outcome away.

Plain functions of frames of some hundred thousand rows at most. Nothing is drawn by chance that is not seeded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.conditions import Measurement
from flyball.data import interval, profile
from flyball.data.contract import Spec
from flyball.data.expectations import distance
from flyball.data.expectations.expect import Expected

HALF = "_half"
"""Boolean: on which side of a fixed coin a row of a sample fell."""
MEASURED = frozenset({"quantile", "outliers", "drift", "leakage"})
FAR = 3.5
"""The robust z-score of an outlier (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)."""
FEW = 200
"""Rows below which spreads are not compared."""
RARE = 25
"""Rows of each outcome that a half must have to tell what gives it away."""
REPLICATES = 500
SEED = 1788
SUSPECT = 0.95
"""A single honest column seldom ranks an outcome so well."""

Array = npt.NDArray[np.float64]
Found = tuple[Measurement | None, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows drawn from a table, each with `HALF`.

    Attributes:
        rows: as the table stands.
        before, since: of the version that was believed before, and of what came after it; empty where there is none.
    """

    spec: Spec
    rows: pl.DataFrame
    before: pl.DataFrame
    since: pl.DataFrame


def measure(metric: Expected, sample: Sample) -> Found:
    """One metric of `MEASURED`."""
    match metric.name:
        case "quantile":
            return quantile(numbers(sample.rows[metric.column]), metric.level)
        case "outliers":
            return outliers(numbers(sample.rows[metric.column]))
        case "leakage":
            return leakage(sample.rows, sample.spec, metric.column)
        case _:
            return drift(sample, metric.column)


def numbers(values: pl.Series) -> Array:
    """The finite values, ascending."""
    found = values.drop_nulls().cast(pl.Float64).to_numpy()
    return np.sort(found[np.isfinite(found)])


def quantile(ascending: Array, level: float) -> Found:
    """The least value that the share `level` of the values does not exceed, between order statistics."""
    n = len(ascending)
    between = interval.ranks(n, level)
    if between is None:
        return None, f"{n} values are too few to bound the {level:g} quantile"
    low, high = (float(ascending[rank - 1]) for rank in between)
    return Measurement(estimate=float(ascending[math.ceil(n * level) - 1]), low=low, high=high, n=n), ""


def outliers(ascending: Array) -> Found:
    """The share of values farther than `FAR` from the median, in units of the spread of the middle half."""
    n = len(ascending)
    if not n:
        return None, "there is no value"
    apart = np.abs(ascending - np.median(ascending))
    # 0.6745 and 0.7979 make either spread that of a normal distribution's standard deviation.
    unit = float(np.median(apart)) / 0.6745 or float(apart.mean()) / 0.7979
    hits = int((apart > FAR * unit).sum())
    low, high = interval.wilson(hits, n)
    return Measurement(estimate=hits / n, low=low, high=high, n=n), ""


def drift(sample: Sample, column: str) -> Found:
    """The psi of what came since, against what was believed before, less what it would be by chance.

    The interval is that of both counts drawn again (percentile bootstrap, seeded), no narrower than the estimate.
    """
    before, since = sample.before, sample.since
    if not before.height:
        return None, "no earlier version is believed yet"
    if min(before.height, since.height) < FEW:
        return None, f"{since.height} rows came since {before.height}; fewer than {FEW} are not compared"
    edges = profile.edges(before[column], kind(before[column].dtype))
    then = np.array(profile.profile(before[column], edges).counts)
    now = np.array(profile.profile(since[column], edges).counts)
    psi, _, own, theirs = distance.distances(now, then)
    rng, n, m = np.random.default_rng(SEED), int(now.sum()), int(then.sum())
    again, _, own_again, theirs_again = distance.distances(
        rng.multinomial(n, now / n, size=REPLICATES), rng.multinomial(m, then / m, size=REPLICATES)
    )
    # Drawn again from samples, their own noise is in it twice.
    low, high = np.quantile(again - own_again - theirs_again - own - theirs, [0.025, 0.975])
    estimate = max(0.0, float(psi - own - theirs))
    return Measurement(
        estimate=estimate, low=max(0.0, min(float(low), estimate)), high=max(float(high), estimate), n=n
    ), ""


def leakage(rows: pl.DataFrame, spec: Spec, column: str) -> Found:
    """How well a column alone ranks the outcome; of several outcomes the greatest."""
    found = [each for outcome in spec.outcomes if (each := _ranks(rows, outcome, column)) is not None]
    if not found:
        return None, f"fewer than {2 * RARE} rows of either outcome are known"
    return max(found, key=lambda each: each.estimate), ""


def leaks(rows: pl.DataFrame, spec: Spec) -> list[tuple[str, float]]:
    """(column, leakage) of every column that a question may carry and that ranks the outcome suspiciously, the worst first."""
    scores = []
    for column in looked_at(spec):
        found, _ = leakage(rows, spec, column)
        if found is not None and found.low >= SUSPECT:
            scores.append((column, found.estimate))
    return sorted(scores, key=lambda each: (-each[1], each[0]))


def looked_at(spec: Spec) -> list[str]:
    """The columns in which leakage is sought."""
    counted = (pl.String, pl.Enum, pl.Categorical, pl.Boolean)
    return [c.name for c in spec.request if c.dtype.is_numeric() or c.dtype in counted]


def kind(dtype: pl.DataType) -> profile.Kind:
    """How a column is cut."""
    return "number" if dtype.is_numeric() else "category"


def _ranks(rows: pl.DataFrame, outcome: str, column: str) -> Measurement | None:
    """The area under the curve by which one half's rates of each bin or category, the missing included, rank the other half.

    Rates of rare categories are drawn towards the mean, and are never scored on the rows they come from: a column of many
    categories (a name, say) would otherwise always seem to know.
    """
    finite = pl.col(outcome).is_finite() if rows.schema[outcome].is_float() else pl.col(outcome).is_not_null()
    settled = rows.filter(finite)
    truth = _truth(settled[outcome])
    half = settled[HALF].to_numpy()
    if not settled.height or min(_least(truth[half]), _least(truth[~half])) < RARE:
        return None
    edges = profile.edges(settled[column], kind(settled[column].dtype))
    groups = 2 * half.astype(np.int64) + truth.astype(np.int64)
    table = profile.counted(settled[column], groups, 4, edges).reshape(2, 2, edges.width)
    areas = [
        _area(table[score], (table[fit][1] + truth.mean()) / (table[fit].sum(axis=0) + 1))
        for fit, score in ((0, 1), (1, 0))
    ]
    area, hits = float(np.mean(areas)), int(truth.sum())
    # Both areas compare the same two halves, so where there is little to find they are one measurement, not two.
    low, high = interval.of_auc(area, hits // 2, (len(truth) - hits) // 2)
    return Measurement(estimate=area, low=low, high=high, n=len(truth))


def _area(counts: npt.NDArray[np.int64], rates: Array) -> float:
    """The chance that a hit has a greater rate than another row, ties by half: (2, places) counts, (places,) rates."""
    _, place = np.unique(rates, return_inverse=True)
    rest, hits = (np.bincount(place, weights=row) for row in counts)
    below = np.cumsum(rest) - rest
    return float((hits * (below + rest / 2)).sum() / (hits.sum() * rest.sum()))


def _truth(values: pl.Series) -> npt.NDArray[np.bool_]:
    """The outcome as yes or no: above the median of a number, or the most frequent category against the rest."""
    if values.dtype == pl.Boolean:
        return values.to_numpy().astype(bool)
    if values.dtype.is_numeric():
        found = values.cast(pl.Float64).to_numpy()
        return np.asarray(found > np.median(found)) if len(found) else np.zeros(0, dtype=bool)
    text = values.cast(pl.String)
    return (text == text.mode().sort()[0]).to_numpy().astype(bool) if len(text) else np.zeros(0, dtype=bool)


def _least(truth: npt.NDArray[np.bool_]) -> int:
    return int(min(truth.sum(), (~truth).sum()))
