"""Leaks: features that tell the outcome too well, and features that only name the row.

A feature alone is told by its **unexplained** share: 2 (1 - ROC AUC) of what ranks two outcomes, the mean over the classes of
several, 1 - R2 of a number. It is learned on one half of the rows (bins of the feature and their mean outcome), measured on
the other, and the other way round; halves are of whole days or groups. What all other features reach together is told by a few
boosted trees. All of it is suspicion: a feature that was known when asked may be as good as that.
"""

from __future__ import annotations

from typing import Literal

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt

from flyball.learn.encoding.encode import Encoder, Matrix
from flyball.learn.task import Task

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Why = Literal["equal", "alone", "presence", "identifies"]
Measure = Literal["roc_auc", "r2", "rows_per_value"]

LEAST = 100
"""Fewer rows tell nothing."""
BINS, LEAST_BINS, BINNED = 64, 8, 20
"""Quantile bins of a number: as many as hold so many rows each."""
PRIOR = 5.0
"""Rows that the mean outcome of a bin is drawn by towards the mean of all."""
EQUAL = 1e-3
"""Unexplained by what is the outcome, but for what bins of it lose."""
PERFECT = 0.02
"""Unexplained: a ROC AUC of .99, an R2 of .98."""
STRONG = 0.5
"""Unexplained by a feature that can be suspected at all: a ROC AUC of .75, an R2 of .5."""
AHEAD = 0.5
"""A suspect leaves less than this part of what all the others together leave unexplained."""
TOGETHER = 3
"""Suspects that are looked for together: two that leak the same would hide each other."""
NAMED = 0.5
"""Values for each row of a feature that identifies rows: two rows share one at most, on average."""
SEED = 1788
TREES = {
    "num_leaves": 15,
    "learning_rate": 0.15,
    "min_data_in_leaf": 10,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": SEED,
    "verbose": -1,
}
ROUNDS = 40


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """A suspect.

    Attributes:
        why: `equal` to the label, or one value of it for each of its own; `alone` it ranks the outcome implausibly well;
            its `presence` does; or it `identifies` rows.
        measure: of `alone` and `others`; of what identifies rows, how many of them share a value.
        others: what the features that are weaker, and no suspects, reach together; None where that was not asked.
        n: rows that it was found on.
    """

    feature: str
    why: Why
    measure: Measure
    alone: float
    others: float | None = None
    n: int


def targets(labels: npt.NDArray[np.generic], task: Task) -> Array:
    """(n, k) numbers that a mean is learned of: one column a class where there are several."""
    if task.classes:
        return np.asarray(labels[:, None] == np.arange(len(task.classes)), dtype=np.float64)
    return np.asarray(labels, dtype=np.float64)[:, None]


def outcome(
    matrix: Matrix, encoder: Encoder, labels: npt.NDArray[np.generic], task: Task, halves: Places
) -> list[Leak]:
    """Features that tell the outcome.

    Args:
        matrix: (n, columns) rows that train.
        labels: (n,).
        halves: (n,) 0 or 1.
    """
    n, target = len(labels), targets(labels, task)
    ranked = task.classifies
    if min(np.bincount(halves, minlength=2)) < LEAST // 2 or not _differs(target, halves):
        return []
    alone = np.array(
        [_alone(matrix[:, i], i in encoder.categories, target, halves, ranked) for i in range(matrix.shape[1])]
    )
    missing = [_missing(matrix[:, i], target, halves, ranked) for i in range(matrix.shape[1])]
    ahead = _ahead(matrix, encoder, target, halves, alone)
    found = []
    for i, name in enumerate(encoder.names):
        why, left, others = _suspected(alone[i], missing[i], ahead.get(i))
        if why == "alone" and _is(matrix[:, i], target, ranked):
            why = "equal"
        if why:
            told = [
                None if each is None else round(float(1 - each / (2 if ranked else 1)), 6) for each in (left, others)
            ]
            measure: Measure = "roc_auc" if ranked else "r2"
            found.append(Leak(feature=name, why=why, measure=measure, alone=told[0] or 0.0, others=told[1], n=n))
    return found


def _suspected(alone: float, missing: float, others: float | None) -> tuple[Why | None, float, float | None]:
    """Why a feature is suspected, if it is, and by which unexplained shares: its own, and that of the others."""
    if missing <= alone + PERFECT and missing <= STRONG:
        return "presence", missing, others
    if alone <= PERFECT or others is not None:
        return ("equal" if alone <= EQUAL else "alone"), alone, others
    return None, alone, None


def _alone(values: Matrix, category: bool, target: Array, halves: Places, ranked: bool) -> float:
    """What a feature leaves unexplained by itself."""
    found = _unexplained(_learned(_bins(values, category), target, halves), target, ranked)
    return found if ranked or category else min(found, _unexplained_by_line(values, target[:, 0]))


def identifying(matrix: Matrix, encoder: Encoder, rows: int) -> list[Leak]:
    """Features that name the row: categories of nearly as many values as rows, and numbers that count the rows up.

    Args:
        matrix: (n, columns) rows that train, in the order of asking.
        rows: that the encoder was fitted on; `matrix` may be a sample of them.
    """
    found = []
    for i, column in enumerate(encoder.columns):
        there = matrix[:, i][~np.isnan(matrix[:, i])]
        if len(there) < LEAST:
            continue
        if column.kind == "category":
            filled = rows * len(there) / len(matrix)
            named = len(column.vocabulary) >= NAMED * filled
            shared = filled / max(1, len(column.vocabulary))
        else:
            distinct = len(np.unique(there))
            steps = np.sign(np.diff(there))
            named = distinct >= NAMED * len(there) and max((steps >= 0).mean(), (steps <= 0).mean()) >= 1 - 1 / LEAST
            shared = len(there) / distinct
        if named:
            found.append(
                Leak(
                    feature=column.name,
                    why="identifies",
                    measure="rows_per_value",
                    alone=round(shared, 6),
                    n=len(there),
                )
            )
    return found


def _ahead(matrix: Matrix, encoder: Encoder, target: Array, halves: Places, alone: Array) -> dict[int, float]:
    """The strongest features that are far ahead of all weaker ones together, and what those leave unexplained."""
    ranked = _ranked(target)
    order = np.argsort(alone, kind="stable")
    strong = [int(i) for i in order[:TOGETHER] if alone[i] <= STRONG]
    for k in range(1, len(strong) + 1):
        others = _together(matrix, encoder, order[k:], target, halves)
        # Three standard errors at least: a few rows put any of many features ahead by luck.
        sure = [i for i in strong[:k] if alone[i] + 3 * _error(alone[i], target, ranked) < AHEAD * others]
        if sure:
            return dict.fromkeys(sure, others)
    return {}


def _together(matrix: Matrix, encoder: Encoder, columns: npt.NDArray[np.intp], target: Array, halves: Places) -> float:
    """What these columns together leave unexplained, by a few trees that learn on one half and are measured on the other."""
    if not len(columns):
        return 1.0
    rows, scores, ranked = matrix[:, np.sort(columns)], np.empty_like(target), _ranked(target)
    categories = [k for k, i in enumerate(np.sort(columns)) if i in encoder.categories]
    classes = target.shape[1] > 1
    kind = (
        {"objective": "multiclass", "num_class": target.shape[1]}
        if classes
        else {"objective": "binary" if ranked else "l2"}
    )
    label = target.argmax(axis=1).astype(np.float64) if classes else target[:, 0]
    for half in (0, 1):
        learn, rest = halves == half, halves != half
        data = lightgbm.Dataset(rows[learn], label[learn], categorical_feature=_small(rows, categories))
        booster = lightgbm.train({**TREES, **kind}, data, ROUNDS)
        scores[rest] = np.asarray(booster.predict(rows[rest], num_threads=1)).reshape(-1, target.shape[1])
    return _unexplained(scores, target, ranked)


def _small(rows: Matrix, categories: list[int]) -> list[int]:
    """Categories of few values, which trees can take as such; the codes of others are cut as numbers."""
    return [k for k in categories if np.nanmin(rows[:, k], initial=0) >= 0 and np.nanmax(rows[:, k], initial=0) < BINS]


def _bins(values: Matrix, category: bool) -> Places:
    """(n,) the bin of each value: a category's own, a number's quantile; missing ones are a bin."""
    missing = np.isnan(values)
    if category or missing.all():
        return np.unique(np.where(missing, -2.0, values), return_inverse=True)[1].astype(np.int64)
    bins = min(BINS, max(LEAST_BINS, len(values) // BINNED))
    cuts = np.unique(np.quantile(values[~missing], np.arange(1, bins) / bins))
    return np.where(missing, len(cuts) + 1, np.searchsorted(cuts, values, side="left")).astype(np.int64)


def _learned(code: Places, target: Array, halves: Places) -> Array:
    """(n, k) the mean outcome of each row's bin in the half that the row is not in."""
    width, scores = int(code.max()) + 1, np.empty_like(target)
    for half in (0, 1):
        learn, rest = halves == half, halves != half
        prior, count = target[learn].mean(axis=0), np.bincount(code[learn], minlength=width)
        for k in range(target.shape[1]):
            sums = np.bincount(code[learn], weights=target[learn, k], minlength=width)
            scores[rest, k] = ((sums + PRIOR * prior[k]) / (count + PRIOR))[code[rest]]
    return scores


def _unexplained(scores: Array, target: Array, ranked: bool) -> float:
    if not ranked:
        spread = float(((target - target.mean(axis=0)) ** 2).sum())
        return min(1.0, float(((target - scores) ** 2).sum()) / spread) if spread else 1.0
    aucs = [
        roc_auc(scores[:, k], target[:, k] > 0) for k in range(target.shape[1]) if 0 < target[:, k].sum() < len(target)
    ]
    return min(1.0, 2 * (1 - float(np.mean(aucs)))) if aucs else 1.0


def _unexplained_by_line(values: Matrix, target: Array) -> float:
    """1 - the squared correlation, if the number is nearly always there: what bins are too coarse for."""
    there = ~np.isnan(values)
    if there.mean() < 1 - 1 / LEAST or np.ptp(values[there]) == 0 or np.ptp(target[there]) == 0:
        return 1.0
    return max(0.0, 1 - float(np.corrcoef(values[there].astype(np.float64), target[there])[0, 1]) ** 2)


def roc_auc(scores: Array, positive: npt.NDArray[np.bool_]) -> float:
    """The chance that a positive row scores above a negative one, ties counting half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))


def _error(left: float, target: Array, ranked: bool) -> float:
    """The standard error of an unexplained share (Hanley and McNeil 1982; of R2 by the delta method)."""
    if not ranked:
        return float(2 * max(1 - left, 0.0) ** 0.5 * left / len(target) ** 0.5)
    auc = 1 - left / 2
    n = float(target.sum(axis=0).min())
    m = len(target) - n
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (m - 1) * (q2 - auc**2)) / max(n * m, 1)
    return float(2 * max(variance, 0.0) ** 0.5)


def _missing(values: Matrix, target: Array, halves: Places, ranked: bool) -> float:
    """What a feature's being there leaves unexplained; nothing, where it decides without exception against all chance."""
    missing = np.isnan(values).astype(np.int64)
    if min(int(missing.sum()), len(missing) - int(missing.sum())) < LEAST // 4:
        return 1.0
    if target.shape[1] == 1 and ranked:
        base = float(target.mean())
        for side in (target[missing == 0, 0], target[missing == 1, 0]):
            if min(base, 1 - base) * len(side) >= LEAST // 4 and np.ptp(side) == 0:
                return min(STRONG, _unexplained(_learned(missing, target, halves), target, ranked))
    return _unexplained(_learned(missing, target, halves), target, ranked)


def _is(values: Matrix, target: Array, ranked: bool) -> bool:
    """Whether a number is the label, to what float32 tells."""
    return not ranked and bool(np.isclose(values, target[:, 0], rtol=1e-6, atol=0).mean() > 1 - 1 / LEAST)


def _ranked(target: Array) -> bool:
    return bool(np.isin(target, (0.0, 1.0)).all())


def _differs(target: Array, halves: Places) -> bool:
    return all(bool(np.ptp(target[halves == half], axis=0).any()) for half in (0, 1))
