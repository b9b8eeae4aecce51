"""Means of rows that share causes, with their intervals, from sums alone: no redrawing, so they cost next to nothing.

A mean over rows is a sum of what each row adds, its **influence**. Rows of one block (a day) are added up first, and the
blocks' sums are taken as independent: the cluster-robust variance (Liang and Zeger, Biometrika 73, 1986; Cameron, Gelbach and
Miller, Review of Economics and Statistics 90, 2008), with Student's t by the number of blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from flyball._kernel.conditions import Measurement
from flyball.learn.quality.metrics import LEVEL, MIN_BLOCKS

Array = npt.NDArray[np.float64]
Blocks = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def numbered(blocks: Blocks | None, n: int) -> npt.NDArray[np.intp]:
    """(n,) the block of each row, from 0 on; every row on its own where there are none."""
    return np.arange(n) if blocks is None else np.unique(blocks, return_inverse=True)[1]


def mean(values: Array, blocks: Blocks | None = None, level: float = LEVEL) -> Measurement | None:
    """The mean of `values` (n,) with its interval; None for rows of fewer than `MIN_BLOCKS` blocks.

    Args:
        values: (n,) finite.
        blocks: (n,) rows with the same number share a cause.
        level: of the interval; of several that shall hold together, 1 - 0.05 / how many.
    """
    if not len(values):
        return None
    estimate = float(values.mean())
    own = numbered(blocks, len(values))
    return _measured(estimate, (values - estimate) / len(values), own, level, len(values))


def difference(values: Array, inside: Mask, blocks: Blocks | None, level: float) -> tuple[Measurement | None, float]:
    """The mean of the rows inside minus that of the others, and how probable so large a one is if there were none.

    Returns:
        The measurement, None where fewer than `MIN_BLOCKS` blocks hold rows of either side; and the one-sided p, then 1.
    """
    n, k = len(values), int(np.count_nonzero(inside))
    own = numbered(blocks, n)
    held = min(len(np.unique(own[inside])), len(np.unique(own[~inside])))
    if k in (0, n) or held < MIN_BLOCKS:
        return None, 1.0
    within, without = float(values[inside].mean()), float(values[~inside].mean())
    influence = np.where(inside, (values - within) / k, -(values - without) / (n - k))
    found = _measured(within - without, influence, own, level, k, held)
    if found is None:
        return None, 1.0
    error = spread(influence, own)
    if error == 0:
        return found, 0.0 if within > without else 1.0
    return found, float(stdtr(held - 1, -(within - without) / error))


def spread(influence: Array, own: npt.NDArray[np.intp]) -> float:
    """The standard error of a sum of influences, added up by blocks."""
    sums = np.bincount(own, influence)
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums - sums.mean()).sum())) if len(sums) > 1 else 0.0


def _measured(
    estimate: float, influence: Array, own: npt.NDArray[np.intp], level: float, n: int, held: int | None = None
) -> Measurement | None:
    """The estimate with Student's interval; `held` blocks decide on its degrees of freedom, all by default."""
    held = int(own.max()) + 1 if held is None else held
    if held < MIN_BLOCKS:
        return None
    reach = float(stdtrit(held - 1, (1 + level) / 2)) * spread(influence, own)
    return Measurement(estimate=estimate, low=estimate - reach, high=estimate + reach, n=n)
