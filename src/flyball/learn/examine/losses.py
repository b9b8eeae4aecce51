"""One loss a row for every task, so that all of an examination is measured in one way: the mean of it, less is better.

    binary, multiclass   log loss, in nats                     regression   squared error
    quantile             pinball loss, the mean of quantiles   anomaly      1 - ROC AUC, by rows

Each is proper for what the task answers: the truth has the least of it on average (Gneiting and Raftery, Strictly proper
scoring rules, JASA 102, 2007). An anomaly's score is a rank and no probability, so there a row's loss is its share in 1 - ROC
AUC: the placement values of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988); their mean and variance are those of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from flyball.learn.task import Answers, Kind, Task

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_] | npt.NDArray[np.int64] | npt.NDArray[np.float64]
Loss = Literal["log_loss", "squared_error", "pinball_loss", "ranking_loss"]

NAMES: Mapping[Kind, Loss] = {
    "binary": "log_loss",
    "multiclass": "log_loss",
    "regression": "squared_error",
    "quantile": "pinball_loss",
    "anomaly": "ranking_loss",
}
"""What the loss of each task is called."""

EDGE = float(np.finfo(np.float64).eps)
"""A sure and wrong answer costs 36 nats, not infinity (as in `metrics`)."""


def of_rows(task: Task, outcome: Labels, answers: Answers) -> Array:
    """(n,) the loss of each row.

    Args:
        task: decides on the loss.
        outcome: (n,) Boolean, codes of classes, or numbers.
        answers: (n,) or (n, width).
    """
    answers = answers.astype(np.float64, copy=False)  # in float32 nothing lies between 1 - EDGE and 1
    if task.kind == "binary":
        p = np.clip(answers, EDGE, 1 - EDGE)
        return np.asarray(-np.where(outcome, np.log(p), np.log1p(-p)))
    if task.kind == "multiclass":
        own = np.take_along_axis(answers, outcome.astype(np.intp)[:, None], axis=1)[:, 0]
        return np.asarray(-np.log(np.clip(own, EDGE, 1.0)))
    if task.kind == "quantile":
        short = outcome.astype(np.float64)[:, None] - answers
        levels = np.array(task.quantiles)
        return np.asarray(np.maximum(levels * short, (levels - 1) * short).mean(axis=1))
    if task.kind == "anomaly":
        return _ranking(outcome.astype(np.bool_), answers)
    return np.asarray(np.square(outcome.astype(np.float64) - answers))


def surplus(task: Task, outcome: Labels, answers: Answers) -> Array | None:
    """(n,) the loss beyond what the answers themselves lead to expect, zero on average for probabilities that hold.

    An answer of one half admits that it does not know; its loss is high, and no fault. None where an answer admits nothing.
    """
    answers = answers.astype(np.float64, copy=False)
    if task.kind == "binary":
        p = np.clip(answers, EDGE, 1 - EDGE)
        return np.asarray(-(outcome.astype(np.float64) - p) * (np.log(p) - np.log1p(-p)))
    if task.kind == "multiclass":
        p = np.clip(answers, EDGE, 1.0)
        return np.asarray(of_rows(task, outcome, answers) + (p * np.log(p)).sum(axis=1))
    return None


def lean(task: Task, outcome: Labels, answers: Answers) -> Array | None:
    """(n,) how far each answer lies too low: its mean is zero for answers without a bias; None where that has no meaning.

    Of several classes the hit less the probability of the class that was answered; of quantiles the share of outcomes above
    the middle one, less what it promises.
    """
    if task.kind == "anomaly":
        return None
    if task.kind == "multiclass":
        return np.asarray((answers.argmax(axis=1) == outcome).astype(np.float64) - answers.max(axis=1))
    if task.kind == "quantile":
        above = outcome.astype(np.float64) > answers[:, task.middle]
        return np.asarray(above.astype(np.float64) - (1 - task.quantiles[task.middle]))
    return np.asarray(outcome.astype(np.float64) - answers)


def constant(task: Task, labels: Labels, n: int) -> Answers:
    """What always answers the same would answer `n` rows, after `labels`: shares, the mean, or the quantiles."""
    if task.kind == "multiclass":
        shares = np.bincount(labels.astype(np.intp), minlength=task.width) / max(len(labels), 1)
        return np.tile(shares, (n, 1))
    if task.kind == "quantile":
        return np.tile(np.quantile(labels.astype(np.float64), task.quantiles), (n, 1))
    return np.full(n, 0.5 if task.kind == "anomaly" else float(labels.mean()))


def misplaced(outcome: npt.NDArray[np.bool_], scores: Array) -> Array:
    """(n,) the share of the other class that each row is ranked wrongly against; a tie counts half (Sun and Xu 2014).

    Midranks give it in n log n, where pairs would take n squared (IEEE Signal Processing Letters 21, 2014).
    """
    among_true, among_false = _ranks(scores[outcome], scores), _ranks(scores[~outcome], scores)
    true = int(np.count_nonzero(outcome))
    above_false = (among_false[0] + among_false[1]) / 2
    above_true = (among_true[0] + among_true[1]) / 2
    lost = np.where(outcome, 1 - above_false / max(len(scores) - true, 1), above_true / max(true, 1))
    return np.asarray(lost, dtype=np.float64)


def _ranks(among: Array, scores: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """How many of `among` lie below each score, and how many do not lie above it."""
    ordered = np.sort(among)
    return np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")


def _ranking(outcome: npt.NDArray[np.bool_], scores: Array) -> Array:
    """Rows whose mean is 1 - ROC AUC, and whose variance about it is DeLong's: each class counts for one half."""
    lost = misplaced(outcome, scores)
    whole = float(lost[outcome].mean()) if outcome.any() else 0.5
    true = int(np.count_nonzero(outcome))
    weight = np.where(outcome, len(outcome) / max(true, 1), len(outcome) / max(len(outcome) - true, 1))
    return np.asarray(whole + weight * (lost - whole))
