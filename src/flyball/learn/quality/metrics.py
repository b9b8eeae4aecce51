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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball._kernel import metrics as named
from flyball._kernel.conditions import Measurement, Metric
from flyball._kernel.errors import Bug, DataError
from flyball.learn.quality import measures
from flyball.learn.quality.measures import PLAIN, RANKED, Array, Counts, OneVsRest, Outcome, Ranking, Terms
from flyball.learn.task import Kind

__all__ = ["Array", "Blocks", "Draws", "Outcome", "Panel", "Terms"]  # what is imported from here by name

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

DECISIONS = (
    named.f1,
    named.precision,
    named.recall,
    named.false_positive_rate,
    named.selection_rate,
    named.balanced_accuracy,
    named.matthews,
    named.cost,
)
"""Of decisions, which every answer that is true or false leads to."""

CLASSIFICATION = (
    named.roc_auc,
    named.average_precision,
    named.log_loss,
    named.brier,
    named.calibration_error,
    named.accuracy,
)
REGRESSION = (named.mean_absolute_error, named.root_mean_squared_error, named.r2)
PLAINLY: dict[Kind, tuple[Metric, ...]] = {
    "binary": CLASSIFICATION,
    "anomaly": (named.roc_auc, named.average_precision),
    "multiclass": (
        named.macro_roc_auc,
        named.accuracy,
        named.macro_f1,
        named.log_loss,
        named.brier,
        named.calibration_error,
    ),
    "regression": REGRESSION,
    "quantile": (named.pinball_loss, named.coverage, named.width, *REGRESSION),
}
"""What every evaluation of such a task shows, the first as its headline."""


def measurable(kind: Kind) -> tuple[Metric, ...]:
    """The metrics that held-out rows can show, in the order in which they are shown."""
    return PLAINLY[kind] + (DECISIONS if kind in ("binary", "anomaly") else ())


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
        names: names of metrics of `measurable` for such an outcome.
        outcome: (n,) Boolean, places of classes, or numbers.
        scores: (n,) the probability of true, or predicted numbers; (n, k) of each class, or quantiles.
        rows: indices of the rows that this panel is about; all by default.
        terms: what some metrics need besides, for all n rows.
    """

    def __init__(
        self,
        names: Sequence[str],
        outcome: Outcome,
        scores: Array,
        rows: npt.NDArray[np.intp] | None = None,
        terms: Terms = PLAIN,
    ) -> None:
        if set(names) - RANKED - set(measures.FINISH):
            raise Bug("no-such-metric", f"Rows cannot show {sorted(set(names) - RANKED - set(measures.FINISH))[0]!r}.")
        rows = np.arange(len(outcome)) if rows is None else rows
        self.names = tuple(names)
        self.n = len(rows)
        # By the one number that says how sure an answer is: rankings and bins of equal size need that order.
        sure = scores if scores.ndim == 1 else scores.max(axis=1)
        self._order = rows[np.argsort(-sure[rows], kind="stable")]
        y, s = outcome[self._order], scores[self._order].astype(np.float64)
        self._ranking: Ranking | OneVsRest | None = None
        if RANKED & set(names):
            self._ranking = Ranking(y.astype(np.bool_), s) if s.ndim == 1 else OneVsRest(y, s)
        if terms.decided is not None:
            terms = Terms(terms.decided[self._order], terms.quantiles, terms.costs)
        self._columns = measures.columns(self.names, y, s, terms) if self.n else {}
        self._bins = bin_starts(sure[self._order].astype(np.float64))
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
                finish = measures.FINISH
                known |= {name: finish[name](means) for name in self.names if name in finish}
        nothing = np.full(len(counts), np.nan)
        return np.array([known.get(name, nothing) for name in self.names]).reshape(len(self.names), len(counts))


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
    if outcome.dtype.kind == "i":
        common = int((np.bincount(outcome.astype(np.int64)) >= MIN_CLASS).sum())
        if common < 2:
            return f"{common} classes of {MIN_CLASS} rows or more, fewer than two"
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
        DataError: `scores-not-finite`, or `scores-not-probabilities` for an outcome of truth or classes.
    """
    shaped = scores.ndim == (2 if outcome.dtype.kind == "i" else scores.ndim) and len(outcome) == len(scores)
    if not shaped or outcome.ndim != 1 or not np.isfinite(outcome.astype(np.float64)).all():
        raise Bug(
            "scores-of-other-rows",
            f"{outcome.shape} outcomes meet {scores.shape} scores.",
            why="A metric compares the known outcome and the score of the same rows, one by one.",
        )
    wrong = int(np.count_nonzero(~np.isfinite(scores)))
    if wrong:
        raise DataError(
            "scores-not-finite",
            f"{wrong:,} of {scores.size:,} scores are not finite numbers.",
            why="A metric over them would be undefined, or would silently leave rows out.",
            next="Look at the features of these rows: an estimator has answered NaN or infinity.",
        )
    if outcome.dtype.kind in "bi" and len(scores) and (scores.min() < 0 or scores.max() > 1 + 1e-6):
        raise DataError(
            "scores-not-probabilities",
            f"Scores lie between {scores.min():g} and {scores.max():g}.",
            why="The outcome is true or false, or one of some classes, so a score is a probability.",
            next="Give an estimator with predict_proba, or predict a number instead.",
        )


def value(name: str, outcome: Outcome, scores: Array, terms: Terms = PLAIN) -> float:
    """One metric without an interval; NaN where it is undefined. For a search, which needs thousands of them."""
    check(outcome, scores)
    return float(Panel([name], outcome, scores, terms=terms).estimates[0])


def measure(
    names: Sequence[str], outcome: Outcome, scores: Array, draws: Draws | None = None, terms: Terms = PLAIN
) -> dict[str, Measurement | None]:
    """Each metric with its interval; None for all of them where `unmeasurable` says why."""
    check(outcome, scores)
    draws = draws or Draws(len(outcome))
    if unmeasurable(outcome, draws.blocks):
        return dict.fromkeys(names)
    panel = Panel(names, outcome, scores, terms=terms)
    (values,) = replicate([panel], draws)
    return {m: interval(m, panel.estimates[k], values[k], panel.n) for k, m in enumerate(names)}
