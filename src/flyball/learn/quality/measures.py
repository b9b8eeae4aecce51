"""Metrics as sums over rows: what each row adds (a **column**), and what the metric makes of the columns' weighted means.

    truth      y true or false, s a probability, d what is decided     log_loss brier ... f1 precision recall matthews cost
    classes    y a place among k, s (n, k) probabilities               accuracy log_loss brier macro_f1 ...
    number     y and s numbers                                         mean_absolute_error root_mean_squared_error r2
    quantiles  y a number, s (n, q)                                    pinball_loss coverage width

Because a mean of columns is all that a metric reads, counting rows otherwise (the bootstrap) measures it anew for the price
of a weighted sum. Rankings (ROC AUC, average precision) are no means: they are counted exactly, in whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Outcome = npt.NDArray[np.bool_] | npt.NDArray[np.int64] | npt.NDArray[np.float64]
Means = Mapping[str, Array]
Family = Literal["truth", "classes", "number", "quantiles"]

RANKED = frozenset({"roc_auc", "average_precision", "macro_roc_auc"})


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What some metrics need besides outcomes and scores.

    Attributes:
        decided: (n,) what was decided of each row; None: true where the probability is above one half.
        quantiles: that the numbers of an answer are, ascending.
        costs: of a false positive, of a false negative.
    """

    decided: Flags | None = None
    quantiles: tuple[float, ...] = ()
    costs: tuple[float, float] = (1.0, 1.0)


PLAIN = Terms()


def family(outcome: Outcome, scores: Array) -> Family:
    """Which metrics such rows can show: by the outcome's type and the shape of the scores."""
    if outcome.dtype == np.bool_:
        return "truth"
    if outcome.dtype.kind == "i":
        return "classes"
    return "number" if scores.ndim == 1 else "quantiles"


def columns(names: tuple[str, ...], outcome: Outcome, scores: Array, terms: Terms) -> dict[str, Array]:
    """What each row adds to the metrics `names`: column -> (n,); rankings need none."""
    made = {
        "truth": _of_truth,
        "classes": _of_classes,
        "number": lambda *_: _of_numbers(outcome.astype(np.float64), scores),
        "quantiles": _of_quantiles,
    }[family(outcome, scores)](outcome, scores, terms)
    wanted = {c for m in names for c in READS.get(m, ())}
    every = any(m == "macro_f1" for m in names)
    return {name: make() for name, make in made.items() if name in wanted or (every and name[:5] == "class")}


Made = dict[str, Callable[[], Array]]


def _of_truth(outcome: Outcome, s: Array, terms: Terms) -> Made:
    y = outcome.astype(np.float64)
    d = (s > 0.5 if terms.decided is None else terms.decided).astype(np.float64)
    paid, missed = terms.costs
    return {
        "log_loss": lambda: _log_loss(y, s),
        "squared_error": lambda: np.square(y - s),
        "residual": lambda: y - s,
        "hit": lambda: (d == y).astype(np.float64),
        "true_positive": lambda: y * d,
        "positive": lambda: y,
        "selected": lambda: d,
        "cost": lambda: paid * d * (1 - y) + missed * y * (1 - d),
    }


def _of_classes(y: Outcome, s: Array, _: Terms) -> Made:
    rows, chosen, edge = np.arange(len(y)), s.argmax(axis=1), np.finfo(np.float64).eps
    hit = (chosen == y).astype(np.float64)
    own = s[rows, y.astype(np.intp)]

    def squared() -> Array:
        return np.asarray(np.square(s).sum(axis=1) - np.square(own) + np.square(1 - own))

    made: Made = {
        "hit": lambda: hit,
        "log_loss": lambda: -np.log(np.clip(own, edge, 1.0)),
        "squared_error": squared,
        "residual": lambda: hit - s.max(axis=1),
    }
    for c in range(s.shape[1]):
        made[f"class{c} is"] = partial(_flag, y == c)
        made[f"class{c} said"] = partial(_flag, chosen == c)
        made[f"class{c} hit"] = partial(_flag, (chosen == c) & (y == c))
    return made


def _flag(flags: Flags) -> Array:
    return flags.astype(np.float64)


def _of_numbers(y: Array, s: Array) -> Made:
    return {
        "squared_error": lambda: np.square(y - s),
        "absolute_error": lambda: np.abs(y - s),
        "level": lambda: y - np.median(y),
        "square": lambda: np.square(y - np.median(y)),
    }


def _of_quantiles(outcome: Outcome, s: Array, terms: Terms) -> Made:
    y = outcome.astype(np.float64)
    q = np.array(terms.quantiles or (np.arange(s.shape[1]) + 1) / (s.shape[1] + 1))

    def pinball() -> Array:
        missed = y[:, None] - s
        return np.asarray(np.maximum(q * missed, (q - 1) * missed).mean(axis=1))

    return {
        "pinball": pinball,
        "covered": lambda: ((y >= s[:, 0]) & (y <= s[:, -1])).astype(np.float64),
        "width": lambda: s[:, -1] - s[:, 0],
        **_of_numbers(y, s[:, int(np.abs(q - 0.5).argmin())]),
    }


def _log_loss(y: Array, p: Array) -> Array:
    edge = np.finfo(np.float64).eps  # as scikit-learn: a sure and wrong answer costs 36 nats, not infinity
    p = np.clip(p, edge, 1 - edge)
    return np.asarray(-np.where(y > 0, np.log(p), np.log1p(-p)))


def _r2(m: Means) -> Array:
    variance = m["square"] - m["level"] ** 2
    return np.where(variance > 1e-12 * m["square"], 1 - m["squared_error"] / variance, np.nan)


def _matthews(m: Means) -> Array:
    """Matthews 1975; undefined where nothing, or everything, is true or selected."""
    y, d = m["positive"], m["selected"]
    spread = y * (1 - y) * d * (1 - d)
    return np.where(spread > 0, (m["true_positive"] - y * d) / np.sqrt(np.maximum(spread, 1e-300)), np.nan)


def _false_positives(m: Means) -> Array:
    return (m["selected"] - m["true_positive"]) / (1 - m["positive"])


def _macro_f1(m: Means) -> Array:
    """The mean over classes that are, or are said: a class that neither has nor is given rows says nothing."""
    total, classes = np.zeros_like(next(iter(m.values()))), np.zeros_like(next(iter(m.values())))
    for name in [n.removesuffix(" hit") for n in m if n.endswith(" hit")]:
        both = m[f"{name} is"] + m[f"{name} said"]
        total += np.where(both > 0, 2 * m[f"{name} hit"] / np.where(both > 0, both, 1), 0.0)
        classes += both > 0
    return np.where(classes > 0, total / np.where(classes > 0, classes, 1), np.nan)


_DECIDED = ("true_positive", "positive", "selected")
READS: Mapping[str, tuple[str, ...]] = {
    "log_loss": ("log_loss",),
    "brier": ("squared_error",),
    "accuracy": ("hit",),
    "calibration_error": ("residual",),
    "f1": _DECIDED,
    "precision": _DECIDED,
    "recall": _DECIDED,
    "false_positive_rate": _DECIDED,
    "balanced_accuracy": _DECIDED,
    "matthews": _DECIDED,
    "selection_rate": ("selected",),
    "cost": ("cost",),
    "macro_f1": (),
    "mean_absolute_error": ("absolute_error",),
    "root_mean_squared_error": ("squared_error",),
    "r2": ("squared_error", "level", "square"),
    "pinball_loss": ("pinball",),
    "coverage": ("covered",),
    "width": ("width",),
}
"""Metric -> the columns that it reads; of `macro_f1` those of every class."""

FINISH: Mapping[str, Callable[[Means], Array]] = {
    "log_loss": lambda m: m["log_loss"],
    "brier": lambda m: m["squared_error"],
    "accuracy": lambda m: m["hit"],
    "calibration_error": lambda m: m["binned"],
    "f1": lambda m: 2 * m["true_positive"] / (m["selected"] + m["positive"]),
    "precision": lambda m: m["true_positive"] / m["selected"],
    "recall": lambda m: m["true_positive"] / m["positive"],
    "false_positive_rate": _false_positives,
    "balanced_accuracy": lambda m: (m["true_positive"] / m["positive"] + 1 - _false_positives(m)) / 2,
    "matthews": _matthews,
    "selection_rate": lambda m: m["selected"],
    "cost": lambda m: m["cost"],
    "macro_f1": _macro_f1,
    "mean_absolute_error": lambda m: m["absolute_error"],
    "root_mean_squared_error": lambda m: np.sqrt(m["squared_error"]),
    "r2": _r2,
    "pinball_loss": lambda m: m["pinball"],
    "coverage": lambda m: m["covered"],
    "width": lambda m: m["width"],
}
"""Metric -> what it makes of the weighted means (b,) of its columns."""


class Ranking:
    """ROC AUC and average precision from whole numbers alone: exact, with ties as scikit-learn treats them.

    Only tied groups that hold a positive move either metric, so all but one pass over the rows is over those groups.

    Args:
        y: (n,) in the order of the scores, the highest first.
        scores: (n,) descending.
    """

    def __init__(self, y: Flags, scores: Array) -> None:
        first = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]]) if len(scores) else np.zeros(0, np.intp)
        size = np.diff(np.r_[first, len(scores)])
        self._positives = np.flatnonzero(y)
        held, self._starts = np.unique(np.repeat(np.arange(len(first)), size)[self._positives], return_index=True)
        self._last = first[held] + size[held] - 1
        self._size = size[held]

    def __call__(self, weights: Counts) -> dict[str, Array]:
        """Metric -> (b,), for weights (b, n) in the same order; NaN where it is undefined."""
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


class OneVsRest:
    """The mean over classes of the ROC AUC of each against the rest (Provost and Domingos 2000, unweighted).

    Args:
        y: (n,) places of classes.
        scores: (n, k).
    """

    def __init__(self, y: Outcome, scores: Array) -> None:
        self._orders, self._rankings = [], []
        for c in range(scores.shape[1]):
            order = np.argsort(-scores[:, c], kind="stable")
            self._orders.append(order)
            self._rankings.append(Ranking((y == c)[order], scores[order, c]))

    def __call__(self, weights: Counts) -> dict[str, Array]:
        """Metric -> (b,); a class that is in none of the rows is left out of the mean."""
        each = [
            ranking(weights.take(order, axis=1)).get("roc_auc", np.full(len(weights), np.nan))
            for order, ranking in zip(self._orders, self._rankings, strict=True)
        ]
        known = np.isfinite(each)
        count = known.sum(axis=0)
        total = np.where(known, each, 0.0).sum(axis=0)
        return {"macro_roc_auc": np.where(count > 0, total / np.maximum(count, 1), np.nan)}
