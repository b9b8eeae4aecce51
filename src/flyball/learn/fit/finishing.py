"""Learning what follows a score, on rows that no estimator has seen: calibration, the threshold, and thresholds of groups.

    sigmoid    two numbers, for few rows (Platt 1999)           isotonic   any rising curve, from a thousand rows on
    threshold  the answer from which on a metric is best, or mistakes cost least
    groups     each group's own, at which its rate is that of all rows at the common threshold (Hardt, Price, Srebro 2016)

A threshold lies half way between two answers that were seen: the shipped estimator, which learned from these rows as well, says
something near, and of trees many rows say the same; a threshold at an answer would decide about all of them by a rounding.
A score that does not rise with the outcome becomes one number by either calibration: none turns an order round.
"""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from flyball.learn.finish import EDGE, Calibration, Finish, Knots, Sigmoid
from flyball.learn.quality import measures, metrics
from flyball.learn.quality.evaluate import LEVELS
from flyball.learn.quality.measures import Array, Flags
from flyball.learn.task import Task
from flyball.learn.treatment import Costs, Decide, Treatment

MOST = 4096
"""Thresholds that are looked at: each answer where there are fewer, else at even shares of them."""

SHARES = 256
"""Steps of the curve from an anomaly's score to the share of training rows that were more usual."""

Groups = npt.NDArray[np.object_]


def learn(treatment: Treatment, task: Task, outcome: measures.Outcome, scores: Array) -> Finish:
    """The calibration and the common threshold.

    Args:
        outcome: (n,) of validation rows.
        scores: (n,) or (n, width), of an estimator that has not seen them.
    """
    if task.kind == "quantile":
        return Finish(ascending=True)
    if task.kind != "binary" and treatment.decide is None:
        return Finish()
    found = Finish(calibration=calibration(treatment, outcome.astype(np.bool_), scores))
    if treatment.decide is None:
        return found
    return msgspec.structs.replace(found, threshold=threshold(treatment.decide, outcome, found.answers(scores)))


def calibration(treatment: Treatment, outcome: Flags, scores: Array) -> Calibration | None:
    """From scores to probabilities that hold, where that is declared and both outcomes are there to learn from."""
    if treatment.calibrate is None or outcome.all() or not outcome.any():
        return None
    if treatment.calibrate == "sigmoid":
        return platt(outcome, scores)
    rising = IsotonicRegression(out_of_bounds="clip").fit(scores, outcome.astype(np.float64))
    return _knots(rising.X_thresholds_, rising.y_thresholds_)


STEPS = 100
"""Of Newton's method; six are enough for most."""


def platt(outcome: Flags, scores: Array) -> Sigmoid:
    """The two numbers, by Newton's method with backtracking (Lin, Lin and Weng, Machine Learning 68, 2007).

    The targets are Platt's, (k + 1) / (n + 2), so that scores which tell all rows apart do not lead to infinity. Sums of NumPy
    alone: the same numbers whatever the number of threads.
    """
    clipped = np.clip(scores, EDGE, 1 - EDGE)
    z = np.log(clipped) - np.log1p(-clipped)
    true = int(outcome.sum())
    target = np.where(outcome, (true + 1) / (true + 2), 1 / (len(outcome) - true + 2))
    mean = float(target.mean())
    slope, shift = 0.0, math.log(mean / (1 - mean))
    for _ in range(STEPS):
        p = np.exp(-np.logaddexp(0, -(slope * z + shift)))
        off, w = p - target, p * (1 - p)
        a, b = float((off * z).sum()), float(off.sum())
        if max(abs(a), abs(b)) < 1e-9 * len(z):
            break
        aa, ab, bb = float((w * z * z).sum()) + 1e-12, float((w * z).sum()), float(w.sum()) + 1e-12
        d_slope, d_shift = (ab * b - bb * a) / (aa * bb - ab * ab), (ab * a - aa * b) / (aa * bb - ab * ab)
        size, loss = 1.0, _logistic(slope * z + shift, target)
        while _logistic((slope + size * d_slope) * z + shift + size * d_shift, target) > loss and size > 1e-10:
            size /= 2
        slope, shift = slope + size * d_slope, shift + size * d_shift
    return Sigmoid(slope=slope, shift=shift) if slope > 0 else Sigmoid(slope=0.0, shift=math.log(mean / (1 - mean)))


def _logistic(x: Array, target: Array) -> float:
    return float((np.logaddexp(0, x) - target * x).sum())


def usual(scores: Array) -> Knots:
    """From an anomaly's score to the share of these rows whose score is at most as high."""
    known = np.sort(scores)
    at = np.unique(known[np.linspace(0, len(known) - 1, SHARES + 1).round().astype(np.intp)])
    shares = np.searchsorted(known, at, side="right") / len(known)
    # What is more usual than all of them is so at once, however many are tied for the most usual.
    return _knots(np.r_[np.nextafter(at[0], -np.inf), at], np.r_[0.0, shares])


def _knots(x: Array, y: Array) -> Knots:
    x, at = np.unique(x.astype(np.float64), return_index=True)
    if len(x) == 1:  # a line needs two points
        x, at = np.r_[x, x + 1.0], np.r_[at, at]
    return Knots(x=tuple(x.tolist()), y=tuple(np.clip(y[at], 0.0, 1.0).tolist()))


def threshold(decide: Decide, outcome: measures.Outcome, answers: Array) -> float:
    """The answer from which on deciding "true" is best; of equally good ones the one nearest to one half."""
    at = _candidates(answers)
    means = _means(outcome.astype(np.float64), answers, at)
    if isinstance(decide, Costs):
        means["cost"] = decide.false_positive * (means["selected"] - means["true_positive"])
        means["cost"] += decide.false_negative * (means["positive"] - means["true_positive"])
        good = -means["cost"]
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            good = measures.FINISH[decide.metric.name](means) * (1 if decide.metric.better == "higher" else -1)
    good = np.where(np.isfinite(good), good, -np.inf)
    best = np.flatnonzero(good >= good.max() - 1e-12)
    return float(at[best[np.abs(at[best] - 0.5).argmin()]])


def of_groups(
    rate: str, finish: Finish, by: str, seen: tuple[measures.Outcome, Array, Groups], *, part: float = 1.0
) -> Finish:
    """Thresholds of groups at which `rate` is in each what it is of all rows at the common threshold, or part of the way there.

    Args:
        rate: `selection_rate`, `recall` or `false_positive_rate`.
        part: how far each group's rate moves from what it is: 1 makes them equal.
        finish: the plain one; decides above one half where it has no threshold.
        by: the column of the groups; those that are too small to be measured keep the common threshold.
        seen: outcomes (n,), answers (n,) and groups (n,) of validation rows.
    """
    outcome, answers, groups = seen
    common = float(np.nextafter(0.5, 1)) if finish.threshold is None else finish.threshold
    y = outcome.astype(np.bool_)
    taking = {"selection_rate": np.ones_like(y), "recall": y, "false_positive_rate": ~y}[rate]
    wanted = float((answers[taking] >= common).mean()) if taking.any() else 0.0
    found: dict[str, float] = {}
    for name, _ in sorted(Counter(groups.tolist()).items(), key=lambda each: (-each[1], each[0]))[:LEVELS]:
        mine = groups == name
        if not metrics.unmeasurable(y[mine]):
            own = answers[mine & taking]
            now = float((own >= common).mean())
            found[name] = _reaches(now + part * (wanted - now), own)
    return msgspec.structs.replace(finish, threshold=common, by=by, thresholds=dict(sorted(found.items())))


def _reaches(wanted: float, answers: Array) -> float:
    """The threshold that selects the share of `answers` which is nearest to `wanted`."""
    at = _between(answers)
    share = 1 - np.searchsorted(np.sort(answers), at) / len(answers)
    return float(at[np.abs(share - wanted).argmin()])


def _candidates(answers: Array) -> Array:
    found = _between(answers)
    return found if len(found) <= MOST else found[np.linspace(0, len(found) - 1, MOST).round().astype(np.intp)]


def _between(answers: Array) -> Array:
    """Thresholds that decide differently about these answers, ascending: from all are true to none is."""
    seen = np.unique(answers)
    low, high = np.r_[0.0, seen], np.r_[seen, max(1.0, np.nextafter(seen[-1], np.inf))]
    middle = (low + high) / 2
    return np.asarray(np.where(middle > low, middle, high))  # two neighbours may have no number between them


def _means(y: Array, answers: Array, at: Array) -> dict[str, Array]:
    """What metrics of decisions read, at each threshold of `at` (ascending)."""
    order = np.argsort(answers, kind="stable")
    below = np.searchsorted(answers[order], at, side="left")
    true = np.r_[0.0, np.cumsum(y[order])]
    n, positives = len(y), true[-1]
    selected, hits = (n - below) / n, (positives - true[below]) / n
    positive = np.full(len(at), positives / n)
    return {
        "selected": selected,
        "true_positive": hits,
        "positive": positive,
        "hit": hits + (1 - positive) - (selected - hits),
    }
