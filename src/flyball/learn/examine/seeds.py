"""Whether another seed would be another model: the same rows fitted again, from `SEEDS` other seeds.

The spread of the loss over seeds is held against its standard error over rows. A spread that is smaller says that the seed
decides less than which rows were held out. A spread of exactly zero says that the estimator draws nothing at all.
"""

from __future__ import annotations

from itertools import combinations

import msgspec
import numpy as np

from flyball.learn.examine import losses, means, refit
from flyball.learn.examine.losses import Loss
from flyball.learn.examine.subject import REFUSALS, Subject, silent
from flyball.learn.task import Answers

SEEDS = 3
ROWS = 5_000
"""Held-out rows that the refitted models answer, at most."""


class Seeds(msgspec.Struct, frozen=True, kw_only=True):
    """Refits that differ in their seed alone.

    Attributes:
        why: not examined, and why; "" otherwise.
        rows: that each was fitted on, a sample of the training rows.
        losses: mean loss on held-out rows, one a seed.
        spread: their standard deviation; `error`: the standard error of the first over rows.
        moved: how far two of them lie apart on one row, on average (of an answer's one number, or that which stands for it).
        flipped: share of decisions in which two of them differ, on average; None where nothing is decided.
    """

    why: str = ""
    rows: int = 0
    loss: Loss = "log_loss"
    losses: tuple[float, ...] = ()
    spread: float | None = None
    error: float | None = None
    moved: float | None = None
    flipped: float | None = None

    @property
    def steady(self) -> bool:
        """Whether the seed decides less than which rows were held out."""
        return self.spread is not None and self.error is not None and self.spread <= self.error


def seeds(subject: Subject, *, refits: bool) -> Seeds:
    """Fit anew and compare on held-out rows."""
    task, train, fit = subject.task, subject.train, subject.fit
    why = silent(task, subject.test)
    if not refits or fit is None or train is None:
        return Seeds(why=why or "not asked to train anew")
    if why:
        return Seeds(why=why)
    index = subject.test.within(ROWS, subject.seed)
    test = subject.test.at(index)
    rows = train.at(train.within(refit.ROWS, subject.seed))
    found: list[Answers] = []
    for each in range(1, SEEDS + 1):
        answer = refit.tried(fit, task, rows, subject.seed + each)
        if isinstance(answer, str):
            return Seeds(why=answer)
        try:
            found.append(answer(test.dense))
        except REFUSALS as error:
            return Seeds(why=f"rows cannot be answered: {type(error).__name__}")
    lost = [losses.of_rows(task, test.outcome, answers) for answers in found]
    whole = [float(each.mean()) for each in lost]
    own = means.numbered(test.blocks, len(test))
    headlines = [task.headline(answers) for answers in found]
    decided = [subject.decided(answers, index) for answers in found]
    flips = [float(np.mean(a != b)) for a, b in combinations(decided, 2) if a is not None and b is not None]
    return Seeds(
        rows=len(rows),
        loss=losses.NAMES[task.kind],
        losses=tuple(whole),
        spread=float(np.std(whole, ddof=1)),
        error=means.spread((lost[0] - whole[0]) / len(test), own),
        moved=float(np.mean([np.abs(a - b).mean() for a, b in combinations(headlines, 2)])),
        flipped=float(np.mean(flips)) if flips else None,
    )
