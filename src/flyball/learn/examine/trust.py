"""Whether the numbers of an answer mean what they say: calibration, as one line through the answers.

    binary       the logit of the outcome on the logit of the answer (Cox, Biometrika 45, 1958)
    multiclass   the same for each class against all others (classwise: Kull et al., NeurIPS 2019)
    regression   the outcome on the answer                         quantile   the share of outcomes below each quantile

A **slope** of one and an intercept of zero are calibrated. A slope below one: the answers are too extreme, as of a model that
overfits; above one: too timid. The intercept of a probability is measured at slope one (in the large): below zero the
answers are too high. `evaluate` draws the curve; this says it in numbers, with intervals by blocks.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import expit, stdtrit

from flyball._kernel.conditions import Measurement
from flyball.learn.examine import means
from flyball.learn.examine.losses import EDGE, Array
from flyball.learn.examine.subject import Omitted, Rows, silent
from flyball.learn.quality.metrics import LEVEL, MIN_CLASS, Blocks
from flyball.learn.task import Answers, Task

CLASSES = 20
"""Classes that are shown, the largest."""
STEPS, FLAT = 50, 1e-9
"""Steps of Newton, at most, and where they end."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers are worth as numbers. `of` is the class, or the quantile; "" where there is one answer.

    Attributes:
        slope: calibrated at one. None for a quantile.
        intercept: calibrated at zero; in the outcome's unit for a number, in logits for a probability. For a quantile
            the share of outcomes at or below it, less what it promises.
    """

    of: str = ""
    n: int
    slope: Measurement | None
    intercept: Measurement


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """The lines; why there are none in `why`, and which are missing in `omitted`."""

    why: str = ""
    lines: tuple[Line, ...] = ()
    omitted: tuple[Omitted, ...] = ()


def trust(task: Task, rows: Rows, answers: Answers) -> Trust:
    """The calibration of the answers to held-out rows.

    Args:
        task: decides on what is compared.
        rows: (n,) their matrix is not read.
        answers: (n,) or (n, width).
    """
    why = silent(task, rows)
    if task.kind == "anomaly":
        why = "the score of an anomaly is a rank among training rows, and promises no probability"
    if why:
        return Trust(why=why)
    if task.kind == "quantile":
        return Trust(lines=_quantiles(task, rows, answers))
    if task.kind == "regression":
        line = _linear(rows.outcome.astype(np.float64), answers, rows.blocks)
        return Trust(lines=(line,)) if line is not None else Trust(why="all answers are the same")
    if task.kind == "binary":
        line = _logistic("", rows.outcome.astype(np.bool_), answers, rows.blocks)
        return (
            Trust(lines=(line,))
            if line is not None
            else Trust(why="the answers part the outcomes, or are all the same")
        )
    return _classes(task, rows, answers)


def _classes(task: Task, rows: Rows, answers: Answers) -> Trust:
    sizes = np.bincount(rows.outcome.astype(np.intp), minlength=task.width)
    lines, omitted = [], []
    for k in np.argsort(-sizes, kind="stable")[:CLASSES]:
        name, size = task.classes[k], int(sizes[k])
        line = None
        if min(size, len(rows) - size) >= MIN_CLASS:
            line = _logistic(name, rows.outcome == k, answers[:, k], rows.blocks)
        if line is None:
            omitted.append(Omitted(what=name, why=f"{size} rows of it, or answers that part it from the others"))
        else:
            lines.append(line)
    if task.width > CLASSES:
        omitted.append(Omitted(what=f"{task.width - CLASSES} classes", why=f"beyond the {CLASSES} largest"))
    return Trust(lines=tuple(lines), omitted=tuple(omitted))


def _quantiles(task: Task, rows: Rows, answers: Answers) -> tuple[Line, ...]:
    below = (rows.outcome.astype(np.float64)[:, None] <= answers).astype(np.float64) - np.array(task.quantiles)
    found = [(f"{q:g}", means.mean(below[:, k], rows.blocks)) for k, q in enumerate(task.quantiles)]
    return tuple(Line(of=of, n=len(rows), slope=None, intercept=each) for of, each in found if each is not None)


def _linear(outcome: Array, answers: Array, blocks: Blocks | None) -> Line | None:
    """Least squares, about the mean answer, so that the intercept is the mean error where most answers are."""
    centred = answers - answers.mean()
    total = float(np.square(centred).sum())
    if total <= 1e-12 * max(1.0, float(np.square(answers).sum())):
        return None
    slope = float((centred * (outcome - outcome.mean())).sum()) / total
    error = outcome - outcome.mean() - slope * centred
    bias = means.mean(outcome - answers, blocks)
    found = _interval(slope, centred * error / total, blocks)
    return None if bias is None or found is None else Line(n=len(outcome), slope=found, intercept=bias)


def _logistic(of: str, outcome: npt.NDArray[np.bool_], answers: Array, blocks: Blocks | None) -> Line | None:
    """Newton's method on two coefficients, and on one for the intercept in the large; the sandwich for both."""
    p = np.clip(answers.astype(np.float64, copy=False), EDGE, 1 - EDGE)
    logit, y = np.log(p) - np.log1p(-p), outcome.astype(np.float64)
    ones = np.ones_like(logit)
    both = _newton(np.stack([ones, logit], axis=1), y, np.zeros_like(y), np.array([0.0, 1.0]))
    large = _newton(ones[:, None], y, logit, np.zeros(1))
    if both is None or large is None:
        return None
    slope = _interval(float(both[0][1]), both[1][:, 1], blocks)
    intercept = _interval(float(large[0][0]), large[1][:, 0], blocks)
    return None if slope is None or intercept is None else Line(of=of, n=len(y), slope=slope, intercept=intercept)


def _newton(x: Array, y: Array, offset: Array, start: Array) -> tuple[Array, Array] | None:
    """The coefficients and (n, k) each row's influence on them; None where they run away or are not determined."""
    beta = start
    for _ in range(STEPS):
        p = expit(x @ beta + offset)
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        if not np.isfinite(hessian).all() or np.linalg.cond(hessian) > 1e12:
            return None
        step = np.linalg.solve(hessian, x.T @ (y - p))
        # Far from the answer a full step may jump over it: half a logit at a time is slow, and never lost.
        beta = beta + step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < FLAT:
            return beta, np.asarray((x * (y - p)[:, None]) @ np.linalg.inv(hessian).T)
        if np.abs(beta).max() > 50:
            return None
    return None


def _interval(estimate: float, influence: Array, blocks: Blocks | None) -> Measurement | None:
    own = means.numbered(blocks, len(influence))
    held = int(own.max()) + 1
    reach = float(stdtrit(max(held - 1, 1), (1 + LEVEL) / 2)) * means.spread(influence, own)
    if not np.isfinite(estimate + reach):
        return None
    return Measurement(estimate=estimate, low=estimate - reach, high=estimate + reach, n=len(influence))
