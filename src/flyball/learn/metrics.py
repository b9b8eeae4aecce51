"""How good, and how sure: metrics as weighted sums over rows, and intervals from redrawing the rows.

A **panel** is one version's answers on some rows, sorted once; given how often each row counts, it returns every metric.
Counting each row once gives the estimates; counting them as a **draw** does (the bootstrap: n rows, with replacement) gives
one replicate. All panels see the same draw, so the difference of two versions is a difference on the same rows.

An interval is the percentile interval, with two exceptions whose plain bootstrap is biased away from zero: the calibration
error (reflected around its estimate) and gaps between groups (all pairs at once, so many small groups make it wide, not bad).
What cannot be measured (no rows, one class only) is None, with the reason from `unmeasurable`; never a NaN, never a guess.

Refused here: scores that are not finite, or not probabilities where a probability is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball._kernel import conditions
from flyball._kernel.conditions import Measurement
from flyball._kernel.errors import Bug, DataError

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Outcome = npt.NDArray[np.bool_] | npt.NDArray[np.float64]
Blocks = npt.NDArray[np.int64]

LEVEL = 0.95
BINS = 15
"""Bins of equal size by score, ties kept together, for `calibration_error`."""
MIN_ROWS = 50
"""Fewer rows than this are not measured: the bootstrap cannot see what so few rows leave out."""
MIN_CLASS = 10
"""Fewer rows of either class than this are not measured."""
MIN_BLOCKS = 5
"""Rows of fewer blocks than this are not measured: drawing one block again and again would look like certainty."""
MIN_DEFINED = 0.95
"""Share of the replicates in which a metric must be defined for an interval to be given."""
SEED = 1788
CELLS = 1 << 17
"""Counts that are held at once: a megabyte, which stays in the cache of one core."""

RANKED = frozenset({"roc_auc", "average_precision"})
CLASSIFICATION = (
    conditions.roc_auc,
    conditions.average_precision,
    conditions.log_loss,
    conditions.brier,
    conditions.calibration_error,
    conditions.accuracy,
)
REGRESSION = (conditions.mean_absolute_error, conditions.root_mean_squared_error, conditions.r2)


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """How rows are redrawn: the same for every panel, the same in every run.

    Attributes:
        n: number of rows.
        replicates: number of draws.
        seed: of NumPy's PCG64.
        blocks: (n,) int, rows with the same number are drawn together; for rows that share a cause, such as a day's weather.
    """

    n: int
    replicates: int = 1000
    seed: int = SEED
    blocks: Blocks | None = None

    @property
    def units(self) -> int:
        """How many things are drawn, as many times: rows, or blocks."""
        return self.n if self.blocks is None else len(np.unique(self.blocks))

    def chunks(self, cells: int = CELLS) -> Iterator[Counts]:
        """How often each row counts, (some replicates, n) at a time; the same numbers whatever `cells` is."""
        rng = np.random.default_rng(self.seed)
        block = None if self.blocks is None else np.unique(self.blocks, return_inverse=True)[1]
        units = self.units
        rows = max(1, cells // max(self.n, 1))
        for start in range(0, self.replicates, rows):
            b = min(rows, self.replicates - start)
            drawn = rng.integers(0, units, size=(b, units)) + np.arange(b)[:, None] * units
            counts = np.bincount(drawn.ravel(), minlength=b * units).reshape(b, units)
            yield counts if block is None else counts.take(block, axis=1)


class Panel:
    """The metrics of one version on some of the rows, ready to be weighed.

    Args:
        names: names of metrics of `CLASSIFICATION` for a Boolean outcome, else of `REGRESSION`.
        outcome: (n,) Boolean, or numbers.
        scores: (n,) the probability of true, or predicted numbers.
        rows: indices of the rows that this panel is about; all by default.
    """

    def __init__(
        self, names: Sequence[str], outcome: Outcome, scores: Array, rows: npt.NDArray[np.intp] | None = None
    ) -> None:
        if set(names) - RANKED - set(_FINISH):
            raise Bug("no-such-metric", f"Rows cannot show {sorted(set(names) - RANKED - set(_FINISH))[0]!r}.")
        rows = np.arange(len(outcome)) if rows is None else rows
        self.names = tuple(names)
        self.n = len(rows)
        self._order = rows[np.argsort(-scores[rows], kind="stable")]
        y, s = outcome[self._order], scores[self._order].astype(np.float64)
        self._ranking = _Ranking(y.astype(np.bool_), s) if RANKED & set(names) else None
        read = [c for m in names for c in _READS.get(m, ())] if self.n else []
        self._columns = {c: _COLUMNS[c](y.astype(np.float64), s) for c in read}
        self._bins = bin_starts(s)
        self.estimates = self(np.ones((1, len(outcome)), dtype=np.int64))[:, 0]

    def __call__(self, counts: Counts) -> Array:
        """The metrics, (names, b), for the counts (b, n) of all rows; NaN where a metric is undefined."""
        weights = np.take(counts, self._order, axis=1, mode="clip")
        known = self._ranking(weights) if self._ranking is not None else {}
        if self._columns:
            real = weights.astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                total = real.sum(axis=1)
                means = {name: np.einsum("bn,n->b", real, c) / total for name, c in self._columns.items()}
                if "calibration_error" in self.names:
                    off = np.add.reduceat(real * self._columns["residual"], self._bins, axis=1)
                    means["binned"] = np.abs(off).sum(axis=1) / total
                known |= {name: _FINISH[name](means) for name in self.names if name in _FINISH}
        nothing = np.full(len(counts), np.nan)
        return np.array([known.get(name, nothing) for name in self.names]).reshape(len(self.names), len(counts))


class _Ranking:
    """ROC AUC and average precision from whole numbers alone: exact, with ties as scikit-learn treats them.

    Only tied groups that hold a positive move either metric, so all but one pass over the rows is over those groups.
    """

    def __init__(self, y: npt.NDArray[np.bool_], scores: Array) -> None:
        first = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]]) if len(scores) else np.zeros(0, np.intp)
        size = np.diff(np.r_[first, len(scores)])
        self._positives = np.flatnonzero(y)
        held, self._starts = np.unique(np.repeat(np.arange(len(first)), size)[self._positives], return_index=True)
        self._last = first[held] + size[held] - 1
        self._size = size[held]

    def __call__(self, weights: Counts) -> dict[str, Array]:
        if not len(self._positives):
            return {}
        total = np.cumsum(weights, axis=1)
        gain = weights.take(self._positives, axis=1, mode="clip")
        here = total.take(self._last, axis=1, mode="clip")
        if self._size.max() > 1:
            gain = np.add.reduceat(gain, self._starts, axis=1)
        true = np.cumsum(gain, axis=1)
        positives, negatives = true[:, -1], total[:, -1] - true[:, -1]
        # Twice the pairs lost: a positive against each negative down to its group (the sum of gain * true is closed) ...
        lost = 2 * _dot(gain, here) - positives**2 - _dot(gain, gain)
        if self._size.max() > 1:  # ... less half of those that tie with it
            before = self._last - self._size
            lost -= _dot(gain, here - np.where(before < 0, 0, total.take(before, axis=1, mode="clip")) - gain)
        precision = true / np.maximum(here, 1, out=here)
        precision *= gain
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = np.where(positives * negatives > 0, 1 - lost / (2.0 * positives * negatives), np.nan)
            average = np.where(positives > 0, precision.sum(axis=1) / positives, np.nan)
        return {"roc_auc": auc, "average_precision": average}


def _dot(a: Counts, b: Counts) -> Counts:
    return np.asarray(np.einsum("bg,bg->b", a, b))


def _log_loss(y: Array, p: Array) -> Array:
    edge = np.finfo(np.float64).eps  # as scikit-learn: a sure and wrong answer costs 36 nats, not infinity
    p = np.clip(p, edge, 1 - edge)
    return np.asarray(-np.where(y > 0, np.log(p), np.log1p(-p)))


def _r2(means: Mapping[str, Array]) -> Array:
    variance = means["square"] - means["level"] ** 2
    return np.where(variance > 1e-12 * means["square"], 1 - means["squared_error"] / variance, np.nan)


_COLUMNS: Mapping[str, Callable[[Array, Array], Array]] = {
    "log_loss": _log_loss,
    "hit": lambda y, s: ((s > 0.5) == (y > 0)).astype(np.float64),
    "residual": lambda y, s: y - s,
    "squared_error": lambda y, s: np.square(y - s),
    "absolute_error": lambda y, s: np.abs(y - s),
    "level": lambda y, s: y - np.median(y),
    "square": lambda y, s: np.square(y - np.median(y)),
}
_READS: Mapping[str, tuple[str, ...]] = {
    "log_loss": ("log_loss",),
    "brier": ("squared_error",),
    "accuracy": ("hit",),
    "calibration_error": ("residual",),
    "mean_absolute_error": ("absolute_error",),
    "root_mean_squared_error": ("squared_error",),
    "r2": ("squared_error", "level", "square"),
}
_FINISH: Mapping[str, Callable[[Mapping[str, Array]], Array]] = {
    "log_loss": lambda m: m["log_loss"],
    "brier": lambda m: m["squared_error"],
    "accuracy": lambda m: m["hit"],
    "calibration_error": lambda m: m["binned"],
    "mean_absolute_error": lambda m: m["absolute_error"],
    "root_mean_squared_error": lambda m: np.sqrt(m["squared_error"]),
    "r2": _r2,
}


def bin_starts(scores: Array, bins: int = BINS) -> npt.NDArray[np.intp]:
    """Where each bin starts in `scores` (sorted, high to low): equal sizes, but tied scores share a bin."""
    wanted = np.arange(bins) * len(scores) // bins
    return np.unique(np.searchsorted(-scores, -scores[wanted], side="left")) if len(scores) else wanted[:0]


def replicate(panels: Sequence[Panel], draws: Draws) -> list[Array]:
    """Every panel on every draw: per panel (names, replicates). Memory is bounded by a few times `CELLS`, or n, numbers."""
    out = [np.empty((len(p.names), draws.replicates)) for p in panels]
    at = 0
    for counts in draws.chunks():
        for panel, values in zip(panels, out, strict=True):
            values[:, at : at + len(counts)] = panel(counts)
        at += len(counts)
    return out


def interval(name: str, estimate: float, values: Array, n: int) -> Measurement | None:
    """The estimate with its 95 % interval from replicates (r,), or None where it is undefined too often.

    Percentiles. For `calibration_error`, noise adds to an absolute value and redrawing adds as much again: there the lower
    end is the reflected upper one (the basic bootstrap, Davison and Hinkley 1997, 5.2.1), so both ends err to the wide side.
    """
    defined = values[np.isfinite(values)]
    if not np.isfinite(estimate) or len(defined) < MIN_DEFINED * len(values) or not len(defined):
        return None
    low, high = (float(q) for q in np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    if name == "calibration_error":
        high = max(high, float(estimate))
        low = max(0.0, 2 * float(estimate) - high)
    return Measurement(estimate=float(estimate), low=low, high=high, n=n)


def gap(estimates: Array, values: Array, n: int) -> Measurement | None:
    """The greatest difference between groups, from each group's estimate (k,) and replicates (k, r).

    The greatest of many noisy differences is large even where all groups are alike, and redrawing makes it larger still. So
    the interval covers every pair at once (a bootstrapped Tukey range, studentized maximum over pairs), and is exact for two.
    """
    enough = MIN_DEFINED * values.shape[1]
    values = values[:, np.isfinite(values).all(axis=0)]
    if len(estimates) < 2 or not np.isfinite(estimates).all() or values.shape[1] < max(1, enough):
        return None
    i, j = np.triu_indices(len(estimates), 1)
    pairs = estimates[i] - estimates[j]
    drawn = values[i] - values[j]
    spread = drawn.std(axis=1)
    far = np.abs(drawn - pairs[:, None]) / np.where(spread > 0, spread, np.inf)[:, None]
    reach = float(np.quantile(far.max(axis=0), LEVEL)) * spread
    size = np.abs(pairs)
    low, high = float((size - reach).max()), float((size + reach).max())
    return Measurement(estimate=float(size.max()), low=max(0.0, low), high=high, n=n)


def unmeasurable(outcome: Outcome, blocks: Blocks | None = None) -> str:
    """Why metrics on these rows would say nothing, or ""."""
    if len(outcome) < MIN_ROWS:
        return f"{len(outcome)} rows, fewer than {MIN_ROWS}"
    if outcome.dtype == np.bool_:
        true = int(np.count_nonzero(outcome))
        for what, count in (("true", true), ("false", len(outcome) - true)):
            if count < MIN_CLASS:
                return f"{count} rows with the outcome {what}, fewer than {MIN_CLASS}"
    units = MIN_BLOCKS if blocks is None else len(np.unique(blocks))
    return f"rows of {units} blocks, fewer than {MIN_BLOCKS}" if units < MIN_BLOCKS else ""


def check(outcome: Outcome, scores: Array) -> None:
    """Refuse scores that no metric can be told of.

    Raises:
        Bug: `scores-of-other-rows`, when the lengths differ or an outcome is not known.
        DataError: `scores-not-finite`, or `scores-not-probabilities` for a Boolean outcome.
    """
    if outcome.shape != scores.shape or outcome.ndim != 1 or not np.isfinite(outcome.astype(np.float64)).all():
        raise Bug(
            "scores-of-other-rows",
            f"{outcome.shape} outcomes meet {scores.shape} scores.",
            why="A metric compares the known outcome and the score of the same rows, one by one.",
        )
    wrong = int(np.count_nonzero(~np.isfinite(scores)))
    if wrong:
        raise DataError(
            "scores-not-finite",
            f"{wrong:,} of {len(scores):,} scores are not finite numbers.",
            why="A metric over them would be undefined, or would silently leave rows out.",
            next="Look at the features of these rows: an estimator has answered NaN or infinity.",
        )
    if outcome.dtype == np.bool_ and len(scores) and (scores.min() < 0 or scores.max() > 1):
        raise DataError(
            "scores-not-probabilities",
            f"Scores lie between {scores.min():g} and {scores.max():g}.",
            why="The outcome is Boolean, so a score is the probability that it is true.",
            next="Give an estimator with predict_proba, or predict a number instead.",
        )


def value(name: str, outcome: Outcome, scores: Array) -> float:
    """One metric without an interval; NaN where it is undefined. For a search, which needs thousands of them."""
    check(outcome, scores)
    return float(Panel([name], outcome, scores).estimates[0])


def measure(
    names: Sequence[str], outcome: Outcome, scores: Array, draws: Draws | None = None
) -> dict[str, Measurement | None]:
    """Each metric with its interval; None for all of them where `unmeasurable` says why."""
    check(outcome, scores)
    draws = draws or Draws(len(outcome))
    if unmeasurable(outcome, draws.blocks):
        return dict.fromkeys(names)
    panel = Panel(names, outcome, scores)
    (values,) = replicate([panel], draws)
    return {m: interval(m, panel.estimates[k], values[k], panel.n) for k, m in enumerate(names)}
