"""Curves of an evaluation: how scores lie, how they rank, and whether they hold. Bounded in size, and of no single row."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from flyball.data.interval import Z
from flyball.learn.quality import metrics
from flyball.learn.quality.metrics import Array, Outcome

POINTS = 200
"""Points of a curve, at most."""
BARS = 40
"""Bars of a histogram."""


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of similar score: the mean score, the mean outcome and its 95 % interval."""

    n: int
    score: float
    outcome: float
    low: float
    high: float


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts between `edges` (bars + 1): of scores by outcome, or by whether the likeliest class was it; else of errors."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


def covered(outcome: Outcome, scores: Array, quantiles: tuple[float, ...]) -> tuple[Bin, ...]:
    """One bin a quantile: the share that it promises to be at or below it, and the share that is; with Wilson intervals."""
    bins = []
    for k, promised in enumerate(quantiles):
        below = outcome.astype(np.float64) <= scores[:, k]
        low, high = wilson(float(below.mean()), len(below))
        bins.append(Bin(n=len(below), score=promised, outcome=float(below.mean()), low=low, high=high))
    return tuple(bins)


def calibration(outcome: Outcome, scores: Array) -> tuple[Bin, ...]:
    """The bins of `calibration_error`, low scores first, with Wilson intervals for shares and normal ones for means."""
    order = np.argsort(-scores, kind="stable")
    y, s = outcome[order].astype(np.float64), scores[order]
    bins = []
    for rows in np.split(np.arange(len(s)), metrics.bin_starts(s)[1:])[::-1]:
        n, p = len(rows), float(y[rows].mean())
        reach = Z * float(y[rows].std()) / n**0.5
        low, high = wilson(p, n) if outcome.dtype == np.bool_ else (p - reach, p + reach)
        bins.append(Bin(n=n, score=float(s[rows].mean()), outcome=p, low=low, high=high))
    return tuple(bins)


def wilson(p: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    reach = Z / (1 + Z * Z / n) * (p * (1 - p) / n + Z * Z / (4 * n * n)) ** 0.5
    return middle - reach, middle + reach


def _passed(outcome: Outcome, scores: Array) -> tuple[Array, Array]:
    """True and false positives at each distinct threshold, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    true = np.cumsum(outcome[order], dtype=np.float64)[last]
    return true, last + 1 - true


def roc(outcome: Outcome, scores: Array) -> tuple[tuple[float, float], ...]:
    """(false positive rate, true positive rate) at some thresholds; empty where one outcome is missing."""
    true, false = (np.r_[0.0, part] for part in _passed(outcome, scores))
    if not (true[-1] and false[-1]):
        return ()
    true, false = true / true[-1], false / false[-1]
    length = true + false  # of the curve up to here, since it never turns back
    return _points(false, true, np.searchsorted(length, np.linspace(0, length[-1], POINTS)))


def precision_recall(outcome: Outcome, scores: Array) -> tuple[tuple[float, float], ...]:
    """(recall, precision) at some thresholds; empty where nothing is true."""
    true, false = _passed(outcome, scores)
    if not true[-1]:
        return ()
    recall = true / true[-1]
    return _points(recall, true / (true + false), np.searchsorted(recall, np.linspace(recall[0], 1, POINTS)))


def _points(x: Array, y: Array, at: npt.NDArray[np.intp]) -> tuple[tuple[float, float], ...]:
    at = np.unique(np.minimum(at, len(x) - 1))
    return tuple((round(float(a), 6), round(float(b), 6)) for a, b in zip(x[at], y[at], strict=True))


def histogram(outcome: Outcome, scores: Array) -> Histogram:
    """How scores lie by outcome, or errors (outcome - score)."""
    if outcome.dtype == np.bool_:
        edges = np.linspace(0, max(0.05, np.ceil(scores.max() * 20) / 20), BARS + 1)
        parts = {"true": scores[outcome.astype(np.bool_)], "false": scores[~outcome.astype(np.bool_)]}
    else:
        errors = outcome.astype(np.float64) - scores
        reach = float(np.quantile(np.abs(errors), 0.995)) or 1.0
        edges = np.linspace(-reach, reach, BARS + 1)
        parts = {"error": np.clip(errors, -reach, reach)}  # the last bars hold what lies beyond
    counts = {name: tuple(int(c) for c in np.histogram(part, edges)[0]) for name, part in parts.items()}
    # Significant digits: numbers may be of any size.
    return Histogram(edges=tuple(float(f"{e:.7g}") for e in edges), counts=counts)
