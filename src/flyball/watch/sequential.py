"""Sequential: whether two arms differ, by an interval that may be looked at as often as one likes.

An interval of 95 % is wrong once in twenty looks. A **confidence sequence** is a series of intervals that hold all at once
with the stated error rate: whoever stops at the first that decides is wrong no more often. This is the asymptotic one of
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021, arXiv 2103.06476, theorem 2.2): Robbins' normal mixture, on a variance
that is estimated.

**Exact** for normal units of known variance, at every number of them and for every rule of stopping. **Asymptotic** in that
units are few, skewed, and their variance is estimated; hence `BURN` and `SKEWED`. Where an entity answers again and again, its
units are what its arm is worth in independent answers (`arms`): the time of the sequence is then its information, by which
estimates from more and more of the same data move as the theorem asks (Jennison and Turnbull, Group Sequential Methods, 2000,
chapter 3). That is exact where entities answer equally often; for others the simulations of the tests stand.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BURN = 100
"""Entities of each arm, all with outcomes, below which nothing is said."""
PLANNED = 2000
"""Units of both arms at which the interval is nearest to one that is looked at once: at half, or thrice as many, it is some
hundredths wider than it could be."""


SKEWED = 0.2
"""The skewness of the difference above which nothing is said: of one arm, 25 units for each squared skewness of a unit
(Cochran, Sampling Techniques, 3rd ed., section 2.15). So three clicks among a hundred entities decide nothing."""


class Arm(NamedTuple):
    """The units of one arm, or of many tests at once: what they are worth in independent ones, their mean, and the second and
    third central moment of one.
    """

    n: Array | float
    mean: Array | float
    variance: Array | float
    third: Array | float


class Difference(NamedTuple):
    """This arm's mean minus the other's, and the interval."""

    estimate: Array
    low: Array
    high: Array


def mixture(error_rate: float, planned: int = PLANNED) -> float:
    """The variance of the mixture (`r` above) whose interval is the narrowest at about `planned` units (there, appendix C)."""
    ease = -2 * math.log(error_rate)
    return (ease + math.log(ease) + 1) / planned


def stretch(n: Array | float, error_rate: float, planned: int = PLANNED) -> Array:
    """How many standard errors the interval of `n` units reaches to either side, where 1.96 holds at one look only.

    sqrt(2 (t + 1) / t * log(sqrt(t + 1) / error_rate)), with t the units times the variance of the mixture.
    """
    t = np.asarray(n, dtype=np.float64) * mixture(error_rate, planned)
    return np.asarray(np.sqrt(2 * (t + 1) / t * np.log(np.sqrt(t + 1) / error_rate)))


def difference(mine: Arm, theirs: Arm, error_rate: float, planned: int = PLANNED) -> Difference:
    """The difference of two arms, at one look; at all looks together wrong with no more than the error rate.

    Without an end where an arm has fewer than `BURN` units or shows no spread, and where the difference is skewed: then nothing
    is known of how far it may err.
    """
    n, other = np.asarray(mine.n, dtype=np.float64), np.asarray(theirs.n, dtype=np.float64)
    estimate = np.asarray(np.subtract(mine.mean, theirs.mean), dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.divide(mine.variance, n) + np.divide(theirs.variance, other))
        skewed = np.abs(np.divide(mine.third, n**2) - np.divide(theirs.third, other**2)) / error**3
        known = (np.minimum(n, other) >= BURN) & (np.minimum(mine.variance, theirs.variance) > 0) & (skewed <= SKEWED)
        reach = np.where(known, error * stretch(n + other, error_rate, planned), np.inf)
    return Difference(estimate, estimate - reach, estimate + reach)
