"""Training anew, to examine: on a sample of the training rows, of which one fifth of the blocks is kept to look at.

What is kept lies in the *same time* as what is fitted, so it shows what the model makes of unseen rows, apart from what a
later time does to them. Estimators are built by the caller and fitted here with another seed where one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import FlyballError
from flyball.learn import finish
from flyball.learn.examine import means
from flyball.learn.examine.subject import REFUSALS, Answer, Fit, Rows
from flyball.learn.export import pack
from flyball.learn.export.several import Several
from flyball.learn.finish import Finish
from flyball.learn.fit import train
from flyball.learn.quality.metrics import MIN_BLOCKS, MIN_CLASS
from flyball.learn.task import Task

ROWS = 10_000
"""Training rows that take part, at most; four fifths of them are fitted."""
CLASSES = 100
"""Classes of a model that is fitted anew, at most: boosting grows a tree for each, so that a thousand take minutes a fit."""
KEPT = 5
"""One block in so many is looked at, not fitted; more where they are few."""


@dataclass(frozen=True, slots=True, eq=False)
class Parted:
    """Training rows in random order, to be fitted from the front on, and those that are kept. Both are samples of `of` rows."""

    fitted: Rows
    kept: Rows
    of: int


def part(rows: Rows, seed: int) -> Parted:
    """Part a sample of the training rows by their blocks."""
    sample = rows.at(rows.within(ROWS, seed))
    rng = np.random.default_rng(seed)
    own = means.numbered(sample.blocks, len(sample))
    units = int(own.max()) + 1
    kept = (rng.permutation(units) < max(units // KEPT, min(MIN_BLOCKS, units // 2)))[own]
    order = rng.permutation(np.flatnonzero(~kept))
    return Parted(sample.at(order), sample.at(kept), len(rows))


def fit_of(build: Callable[[], Any], task: Task, ending: Finish = finish.NOTHING) -> Fit:
    """A `Fit` of estimators, as `train` fits them.

    Args:
        build: the declared estimator, unfitted (`train.declared`); a new one at each call.
        task: of the model.
        ending: what makes an answer of a score: that of the version, since a refit has no span to learn one of its own.
    """

    def fit(rows: Rows, seed: int | None) -> Answer:
        estimator = build() if seed is None else reseeded(build(), seed)
        fitted = train.fit(estimator, rows.matrix, rows.outcome, task, rows.weights)
        return lambda matrix: ending.answers(pack.answers(fitted, matrix, task))

    return fit


def reseeded(estimator: Any, seed: int) -> Any:
    """The estimator with `random_state` set wherever it, or a part of it, has one; several of them one by one."""
    if isinstance(estimator, Several):
        return replace(estimator, parts=tuple(reseeded(part, seed) for part in estimator.parts))
    if not hasattr(estimator, "get_params"):
        return estimator
    places = [name for name in estimator.get_params(deep=True) if name.split("__")[-1] == "random_state"]
    return estimator.set_params(**dict.fromkeys(places, seed))


def tried(fit: Fit, task: Task, rows: Rows, seed: int | None = None) -> Answer | str:
    """Fit, or say why these rows cannot be fitted."""
    labels: npt.NDArray[Any] = rows.outcome
    if task.width > CLASSES:
        return f"{task.width:,} classes, more than {CLASSES}"
    if task.classifies:
        fewest = np.bincount(labels.astype(np.intp), minlength=max(task.width, 2)).min()
        if fewest < (MIN_CLASS if task.kind == "binary" else 2):
            return f"{fewest} rows of the rarest class among {len(rows):,}"
    try:
        return fit(rows, seed)
    except (*REFUSALS, FlyballError) as error:
        return f"fitting anew failed: {type(error).__name__}"
