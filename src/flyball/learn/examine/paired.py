"""Whether a version really differs from the champion: the same rows, answered by both.

    loss       the mean difference of the loss, its interval from the blocks' sums and from redrawing the blocks (the paired
               bootstrap, which supposes nothing about the form of the distribution)
    roc_auc    DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988) by midranks (Sun and Xu, IEEE SPL 21, 2014)
    decisions  McNemar (Psychometrika 12, 1947): of the rows that one of both decides rightly, how many are whose; exact
               binomial, and mid-p, which is less timid (Fagerland, Lydersen and Laake, BMC Med. Res. Meth. 13, 2013)

DeLong's p and McNemar's take every row for itself. Where rows share causes they are too sure, so the effect beside each has its
interval by blocks (for the AUC: Obuchowski, Biometrics 53, 1997), and that interval is what should be believed.
Every difference is this version less the champion.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr

from flyball._kernel.conditions import Measurement
from flyball.learn import sampling
from flyball.learn.examine import losses, means
from flyball.learn.examine.losses import Array, Labels, Loss
from flyball.learn.examine.subject import Decisions, Rows, silent
from flyball.learn.quality.metrics import LEVEL, SEED
from flyball.learn.task import Answers, Task

REPLICATES, REDRAWN = 1000, 20_000
"""Draws of the bootstrap, and units that are redrawn, at most: a sample of them where there are more."""
DRAWN = 1 << 21
"""Units that are drawn at once."""


class Delong(msgspec.Struct, frozen=True, kw_only=True):
    """ROC AUC of both. `interval` and `p` (two-sided) are DeLong's; `difference` has its interval by blocks."""

    ours: float
    theirs: float
    difference: Measurement
    low: float
    high: float
    p: float


class Mcnemar(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions: rows that only this version decided rightly, rows that only the champion did; two-sided p.

    Attributes:
        difference: of the share of right decisions, with its interval by blocks.
    """

    n: int
    ours: int
    theirs: int
    exact: float
    mid: float
    difference: Measurement


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """This version against the champion. `why`: not compared, and why; "" otherwise.

    Attributes:
        loss: which; `difference`: of its mean, below zero where this version is better.
        redrawn: the same with the paired bootstrap's interval.
        relative: the difference as a share of the champion's loss; None where that is zero.
    """

    why: str = ""
    n: int = 0
    loss: Loss = "log_loss"
    difference: Measurement | None = None
    redrawn: Measurement | None = None
    relative: float | None = None
    roc_auc: Delong | None = None
    decisions: Mcnemar | None = None


def paired(
    task: Task, rows: Rows, ours: Answers, theirs: Answers, decided: tuple[Decisions, Decisions] | None = None
) -> Paired:
    """Compare two versions on rows that neither has seen.

    Args:
        task: decides on the loss.
        rows: (n,) their matrix is not read.
        ours: (n,) or (n, width).
        theirs: the same of the champion.
        decided: (n,) what each decides; None where nothing is decided.
    """
    why = silent(task, rows)
    why = why or ("" if ours.shape == theirs.shape else "the champion answers something of another shape")
    if why:
        return Paired(why=why)
    before = losses.of_rows(task, rows.outcome, theirs)
    apart = losses.of_rows(task, rows.outcome, ours) - before
    base = float(before.mean())
    right: Labels = rows.outcome
    return Paired(
        n=len(rows),
        loss=losses.NAMES[task.kind],
        difference=means.mean(apart, rows.blocks),
        redrawn=redrawn(apart, means.numbered(rows.blocks, len(rows))),
        relative=float(apart.mean()) / base if base else None,
        roc_auc=delong(rows.outcome.astype(np.bool_), ours, theirs, rows) if task.truth else None,
        decisions=None if decided is None else mcnemar(decided[0] == right, decided[1] == right, rows),
    )


def redrawn(values: Array, own: npt.NDArray[np.intp], seed: int = SEED) -> Measurement:
    """The mean of (n,) differences with the percentile interval of 1,000 draws of their units (own: 0 ... units - 1)."""
    sums, sizes = np.bincount(own, values), np.bincount(own).astype(np.float64)
    kept = sampling.drawn(len(sums), REDRAWN, seed)
    # Of a sample of the units the interval is as wide as theirs: it is brought back to the width of all of them.
    narrow = float(np.sqrt(len(kept) / len(sums)))
    sums, sizes = sums[kept], sizes[kept]
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, REPLICATES, step := max(1, DRAWN // len(sums))):
        chosen = rng.integers(0, len(sums), size=(min(step, REPLICATES - start), len(sums)))
        drawn.append(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    estimate, middle = float(values.mean()), float(sums.sum() / sizes.sum())
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measurement(
        estimate=estimate,
        low=estimate + narrow * float(low - middle),
        high=estimate + narrow * float(high - middle),
        n=len(values),
    )


def delong(outcome: npt.NDArray[np.bool_], ours: Array, theirs: Array, rows: Rows) -> Delong:
    """The difference of two ROC AUCs on the same rows; `rows` for their blocks. Both classes must be there."""
    lost = [losses.misplaced(outcome, scores) for scores in (ours, theirs)]
    aucs = [1 - float(each[outcome].mean()) for each in lost]
    apart = lost[1] - lost[0]
    effect = aucs[0] - aucs[1]
    sides = [apart[outcome], apart[~outcome]]
    error = float(np.sqrt(sum(np.var(side, ddof=1) / len(side) for side in sides)))
    size = np.where(outcome, len(sides[0]), len(sides[1]))
    influence = (apart - effect) / size
    by_blocks = means.mean(effect + len(apart) * influence, rows.blocks)
    if by_blocks is None:
        by_blocks = Measurement(estimate=effect, low=effect, high=effect, n=len(apart))
    z = effect / error if error else 0.0
    return Delong(
        ours=aucs[0],
        theirs=aucs[1],
        difference=by_blocks,
        low=effect - 1.959964 * error,
        high=effect + 1.959964 * error,
        p=float(2 * ndtr(-abs(z))),
    )


def mcnemar(ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_], rows: Rows) -> Mcnemar:
    """Compare who decided rightly, (n,) each; `rows` for their blocks."""
    only_ours, only_theirs = int(np.count_nonzero(ours & ~theirs)), int(np.count_nonzero(theirs & ~ours))
    together, fewer = only_ours + only_theirs, min(only_ours, only_theirs)
    below = float(bdtr(fewer, together, 0.5)) if together else 1.0
    here = below - (float(bdtr(fewer - 1, together, 0.5)) if fewer else 0.0)
    apart = ours.astype(np.float64) - theirs.astype(np.float64)
    difference = means.mean(apart, rows.blocks)
    if difference is None:
        difference = Measurement(estimate=float(apart.mean()), low=-1.0, high=1.0, n=len(apart))
    return Mcnemar(
        n=len(apart),
        ours=only_ours,
        theirs=only_theirs,
        exact=min(1.0, 2 * below),
        mid=2 * below - here if together else 1.0,
        difference=difference,
    )
