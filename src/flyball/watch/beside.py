"""Beside: how a candidate answers otherwise than the champion, on the questions that both answered; no outcome is needed.

    prediction_shift   the greatest difference of the two spreads: of numbers the Kolmogorov-Smirnov distance, of classes the
                       total variation of what was decided; 0 to 1, whatever the unit
    disagreement       the share of questions that the two decide otherwise; of numbers the mean of their distance, in the
                       outcome's own unit

A version is meant to differ, or nobody would train it: these guards say how much is too much before outcomes can tell. A shift
may be small where every answer changed, since what one question gains another loses; so there are two.

The interval of a shift holds for any spread and any number of questions (Massart 1990 for numbers, Weissman et al. 2003 for
classes), and is wide: some 0.09 to either side at 1,000 questions, 0.03 at 10,000. Questions are taken to be independent.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import polars as pl

from flyball._kernel import metrics as named
from flyball._kernel.conditions import Measurement
from flyball.data.interval import of_mean, wilson
from flyball.learn.quality import metrics
from flyball.learn.quality.measures import Array
from flyball.learn.reference import Says
from flyball.watch import settled

Found = tuple[Measurement | None, str]

NAMES: Final = (named.prediction_shift.name, named.disagreement.name)
FEW = 50
"""Questions below which nothing is said."""


def measure(name: str, says: Says, mine: pl.DataFrame, theirs: pl.DataFrame) -> Found:
    """One of `NAMES`, of rows of `live.Live.frame`: those of the candidate, and those of the champion."""
    both = settled.paired(settled.answered(mine, says.task), settled.answered(theirs, says.task))
    if both[0].height < FEW:
        return None, f"{both[0].height} questions that both answered, fewer than {FEW}"
    if name == named.disagreement.name:
        return _apart(says, *both), ""
    if says.task.classes:
        return _shares(len(says.task.classes), both[0]["decision"], both[1]["decision"]), ""
    return _spread(both[0]["output"].to_numpy(), both[1]["output"].to_numpy()), ""


def _apart(says: Says, mine: pl.DataFrame, theirs: pl.DataFrame) -> Measurement:
    n = mine.height
    if says.task.truth or says.task.classes:
        one, other = (_decided(says, rows) for rows in (mine, theirs))
        other_wise = int((one != other).sum())
        low, high = wilson(other_wise, n)
        return Measurement(estimate=other_wise / n, low=low, high=high, n=n)
    distance = (mine["output"] - theirs["output"]).abs().to_numpy()
    mean = float(distance.mean())
    low, high = of_mean(mean, float(distance.std(ddof=1)), n)
    return Measurement(estimate=mean, low=max(low, 0.0), high=high, n=n)


def _decided(says: Says, rows: pl.DataFrame) -> pl.Series:
    """What was decided: as recorded, or above one half."""
    if says.task.truth:
        return rows.select(pl.coalesce(pl.col("decision") == "true", pl.col("output") > 0.5)).to_series()
    return rows["decision"].fill_null("")


def _spread(mine: Array, theirs: Array) -> Measurement:
    """The Kolmogorov-Smirnov distance; each of the two spreads is known within Massart's bound."""
    n = len(mine)
    places = np.concatenate([mine, theirs])
    below = [np.searchsorted(np.sort(each), places, side="right") / n for each in (mine, theirs)]
    found = float(np.abs(below[0] - below[1]).max())
    return _within(found, reach(0, n), n)


def _shares(classes: int, mine: pl.Series, theirs: pl.Series) -> Measurement:
    """Half the sum of the differences of the shares; each of the two is known within Weissman's bound."""
    n = len(mine)
    counts = [dict(each.fill_null("").value_counts().iter_rows()) for each in (mine, theirs)]
    found = sum(abs(counts[0].get(c, 0) - counts[1].get(c, 0)) for c in counts[0].keys() | counts[1].keys()) / (2 * n)
    return _within(found, reach(classes, n), n)


def reach(classes: int, n: int) -> float:
    """How far a shift of `n` questions may lie from what was found, of classes or (0) of numbers."""
    if classes:
        return math.sqrt(2 * math.log((2.0**classes - 2) / _EACH) / n)
    return 2 * math.sqrt(math.log(2 / _EACH) / (2 * n))


_EACH: Final = (1 - metrics.LEVEL) / 2
"""Of the chance of an error, what each of two spreads has."""


def _within(found: float, reach: float, n: int) -> Measurement:
    return Measurement(estimate=found, low=max(0.0, found - reach), high=min(1.0, found + reach), n=n)
