"""Overfitted, underfitted, or hungry for rows: the loss on rows that were fitted against rows that were not, as a verdict.

**Skill** is the share of a constant answer's loss that a model takes away, so 0 has learned nothing and 1 is never wrong.

    underfits               no skill on unseen rows that could be told, nor much on seen ones; or boosted trees with modest
                            settings do better, on the rows that both were fitted on as well as on unseen ones
    overfits                less than half (`HALF`) of the skill on seen rows is left on unseen ones of the same time; or those
                            trees do better on unseen rows, although they know the fitted ones less well
    more data would help    the last doubling of the rows took 1 % of the loss away, and the curve reached all there are
    fits                    none of these could be told

The verdict is the first of them that holds. These are rules of thumb, the numbers beside it are measurements. Without refits,
or where the curve ends before half of the rows, seen rows are compared with the held-out ones, which a later time may have
changed: an overfitted model cannot be told from a changed world, and the verdict says `apart` instead of `overfits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor

from flyball._kernel.conditions import Measurement
from flyball.learn.examine import losses, means, refit
from flyball.learn.examine.losses import Array, Loss
from flyball.learn.examine.refit import Parted
from flyball.learn.examine.subject import REFUSALS, Answer, Fit, Omitted, Rows, Subject, silent
from flyball.learn.quality.metrics import LEVEL
from flyball.learn.search import SEED
from flyball.learn.task import Answers, Task

ROWS = 10_000
"""Rows of each side, at most."""
SHARES = (0.25, 0.5, 1.0)
HALF, LITTLE, WORTHWHILE = 0.5, 0.1, 0.01
"""Skill that must be left; skill on seen rows that is little; share of the loss that a doubling must take away."""

Fitness = Literal["underfits", "overfits", "apart", "more data would help", "fits", "unknown"]


_MODEST: dict[str, Any] = {
    "n_estimators": 100,
    "num_leaves": 15,
    "learning_rate": 0.05,
    "n_jobs": 1,
    "verbose": -1,
    "random_state": SEED,
    "deterministic": True,
    "force_row_wise": True,
}


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the learning curve: the mean loss on the rows that were fitted, and on unseen ones of the same time."""

    rows: int
    seen: float
    unseen: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """What more rows, and another model, would do. Everything is measured on the same kept rows.

    Attributes:
        of: training rows that there are: the curve ends where its last point does.
        points: by rows, ascending.
        gain: of the last doubling: the loss before less after, above zero where it helped.
        gap: loss on kept rows less that on fitted ones, of the last point; `left`: the share of the skill that is left.
        boosted: the loss of the last point less that of boosted trees with modest settings; above zero where those are better.
        boosted_seen: the loss of those on the rows that they were fitted on.
    """

    of: int
    points: tuple[Point, ...]
    gain: Measurement | None
    gap: Measurement | None
    left: float | None
    boosted: Measurement | None
    boosted_seen: float | None


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict and its numbers.

    Attributes:
        why: there is none, and why; "" otherwise.
        seen: the mean loss on training rows; `unseen`: on held-out rows.
        gap: unseen less seen.
        skill_seen: `skill_unseen`: the shares of a constant's loss that it takes away there; None where that is zero.
        better: the loss of the constant less that of the version, on held-out rows.
    """

    why: str = ""
    verdict: Fitness = "unknown"
    loss: Loss = "log_loss"
    seen: float | None = None
    unseen: float | None = None
    gap: Measurement | None = None
    skill_seen: float | None = None
    skill_unseen: float | None = None
    better: Measurement | None = None
    curve: Curve | None = None
    omitted: tuple[Omitted, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Lost:
    """What was lost on some rows, by the model and by the constant."""

    rows: Rows
    model: Array
    constant: Array

    @property
    def skill(self) -> float | None:
        whole = float(self.constant.mean())
        return 1 - float(self.model.mean()) / whole if whole > 0 else None


def diagnose(subject: Subject, *, refits: bool) -> Diagnosis:
    """Compare seen and unseen rows; with `refits`, and where `fit` is given, also along a learning curve."""
    task, train = subject.task, subject.train
    why = silent(task, subject.test) or ("no training rows are at hand" if train is None else silent(task, train))
    if why or train is None:
        return Diagnosis(why=why)
    index = subject.test.within(ROWS, subject.seed)
    given = None if subject.answers is None else subject.answers[index]
    try:
        seen = _lost(task, train.at(train.within(ROWS, subject.seed)), subject.answer, train)
        unseen = _lost(task, subject.test.at(index), subject.answer, train, given)
    except REFUSALS as error:
        return Diagnosis(why=f"the version cannot answer its own training rows: {type(error).__name__}")
    curve, omitted = None, "not asked to train anew" if not refits or subject.fit is None else ""
    if not omitted and subject.fit is not None:
        curve, omitted = _curve(task, subject.fit, refit.part(train, subject.seed))
    gap = _apart(unseen, seen)
    better = means.mean(unseen.constant - unseen.model, unseen.rows.blocks)
    found = Diagnosis(
        loss=losses.NAMES[task.kind],
        seen=float(seen.model.mean()),
        unseen=float(unseen.model.mean()),
        gap=gap,
        skill_seen=seen.skill,
        skill_unseen=unseen.skill,
        better=better,
        curve=curve,
        omitted=(Omitted(what="learning curve", why=omitted),) if omitted else (),
    )
    return msgspec.structs.replace(found, verdict=_verdict(found))


def _verdict(found: Diagnosis) -> Fitness:
    curve, learned = found.curve, found.skill_seen or 0.0
    if found.better is not None and found.better.low <= 0 and learned < LITTLE:
        return "underfits"
    reached = curve is not None and 2 * curve.points[-1].rows >= curve.of
    if curve is not None and _beaten(curve):
        if (curve.boosted_seen or 0.0) < curve.points[-1].seen:
            return "underfits"
        if reached:
            return "overfits"
    # A sample is overfitted more easily than all rows, so a curve that ends early says nothing of the version.
    if curve is not None and reached and curve.left is not None:
        if curve.left < HALF and curve.gap is not None and curve.gap.low > 0:
            return "overfits"
    elif learned > 0 and found.gap is not None and found.gap.low > 0 and (found.skill_unseen or 0.0) < HALF * learned:
        return "apart"
    if curve is not None and reached and curve.gain is not None and curve.gain.low > 0:
        return "more data would help" if curve.gain.estimate >= WORTHWHILE * curve.points[-1].unseen else "fits"
    return "fits"


def _beaten(curve: Curve) -> bool:
    """Whether boosted trees are better by something that matters."""
    boosted = curve.boosted
    return boosted is not None and boosted.low > 0 and boosted.estimate >= WORTHWHILE * curve.points[-1].unseen


def _curve(task: Task, fit: Fit, parted: Parted) -> tuple[Curve | None, str]:
    """The curve, or why there is none."""
    why = silent(task, parted.kept)
    points: list[Point] = []
    on_kept: list[tuple[float, Array]] = []
    gap, left = None, None
    for share in SHARES if not why else ():
        rows = parted.fitted.at(np.arange(round(share * len(parted.fitted))))
        answer = refit.tried(fit, task, rows)
        if isinstance(answer, str):
            why = answer
            continue
        try:
            seen, kept = _lost(task, rows, answer, rows), _lost(task, parted.kept, answer, rows)
        except REFUSALS as error:
            why = f"rows cannot be answered: {type(error).__name__}"
            continue
        points.append(Point(rows=len(rows), seen=float(seen.model.mean()), unseen=float(kept.model.mean())))
        on_kept.append((share, kept.model))
        gap = _apart(kept, seen)
        left = kept.skill / seen.skill if seen.skill and seen.skill > 0 and kept.skill is not None else None
    if not points or on_kept[-1][0] < 1:
        return None, why
    before = dict(on_kept).get(SHARES[-2])
    gain = None if before is None else means.mean(before - on_kept[-1][1], parted.kept.blocks)
    boosted = _boosted(task, parted)
    return Curve(
        of=parted.of,
        points=tuple(points),
        gain=gain,
        gap=gap,
        left=left,
        boosted=means.mean(on_kept[-1][1] - boosted[1], parted.kept.blocks) if boosted is not None else None,
        boosted_seen=None if boosted is None else float(boosted[0].mean()),
    ), ""


def _boosted(task: Task, parted: Parted) -> tuple[Array, Array] | None:
    """The losses of boosted trees on the rows that they are fitted on, and on the kept ones; None for anomalies."""
    rows, kept = parted.fitted, parted.kept
    if task.kind == "anomaly":
        return None
    if task.classifies:
        known, answers = _asked(LGBMClassifier(**_MODEST), rows, kept)
    elif task.kind == "regression":
        known, answers = _asked(LGBMRegressor(**_MODEST), rows, kept)
    else:
        each = [_asked(LGBMRegressor(objective="quantile", alpha=q, **_MODEST), rows, kept) for q in task.quantiles]
        known, answers = (np.sort(np.stack(part, axis=1), axis=1) for part in zip(*each, strict=True))
    return losses.of_rows(task, rows.outcome, known), losses.of_rows(task, kept.outcome, answers)


def _asked(estimator: Any, rows: Rows, kept: Rows) -> tuple[Answers, Answers]:
    # The booster is asked itself: scikit-learn's wrapper warns of names that a matrix does not have.
    booster = estimator.fit(rows.matrix, rows.outcome, sample_weight=rows.weights).booster_
    known, answers = (np.asarray(booster.predict(part.dense), dtype=np.float64) for part in (rows, kept))
    return known, answers


def _lost(task: Task, rows: Rows, answer: Answer, fitted: Rows, answers: Answers | None = None) -> _Lost:
    """`fitted`: the rows after which the constant answers."""
    answers = answer(rows.dense) if answers is None else answers
    constant = losses.constant(task, fitted.outcome, len(rows))
    return _Lost(rows, losses.of_rows(task, rows.outcome, answers), losses.of_rows(task, rows.outcome, constant))


def _apart(unseen: _Lost, seen: _Lost) -> Measurement | None:
    """The mean loss of the one less that of the other: blocks of the two are never the same."""
    n = len(unseen.rows)
    inside = np.arange(n + len(seen.rows)) < n
    own = [means.numbered(part.rows.blocks, len(part.rows)) for part in (unseen, seen)]
    blocks = np.concatenate([own[0], own[1] + int(own[0].max()) + 1])
    found, _ = means.difference(np.concatenate([unseen.model, seen.model]), inside, blocks, LEVEL)
    return found
