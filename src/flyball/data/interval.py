"""95 % intervals in closed form, of what is found in rows: a share, a mean, a quantile, an area under the curve.

Each looks at the rows as a sample of what the source could have sent: so few rows give a wide interval, and a verdict on
them is inconclusive. Rows are taken to be independent; where they are not (ten rows of one order), an interval is too narrow.
"""

from __future__ import annotations

import math

Z = 1.959964


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    p, z2 = hits / n, Z * Z
    middle, reach = p + z2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At the ends the terms cancel, and rounding must not say that what was seen is impossible.
    low = 0.0 if hits == 0 else (middle - reach) / (1 + z2 / n)
    return low, 1.0 if hits == n else (middle + reach) / (1 + z2 / n)


def of_mean(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """By the central limit theorem; `deviation` is that of the values, not of their mean."""
    reach = Z * deviation / math.sqrt(n)
    return mean - reach, mean + reach


def ranks(n: int, q: float) -> tuple[int, int] | None:
    """The order statistics (from 1) between which the q-quantile lies; None where n values cannot bound it.

    Distribution-free (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2): the number of values below the
    quantile is binomial, here by its normal approximation, rounded to the wide side.
    """
    middle, reach = n * q, Z * math.sqrt(n * q * (1 - q))
    low, high = math.floor(middle - reach), math.ceil(middle + reach) + 1
    return (low, high) if low >= 1 and high <= n else None


def of_auc(area: float, hits: int, rest: int) -> tuple[float, float]:
    """Of an area under the ROC curve (Hanley and McNeil 1982).

    Their error vanishes where the ranking is perfect, which few rows do not show: at the ends the rule of three (Jovanovic
    and Levy 1997) of the rarer class is the least reach.
    """
    one, two = area / (2 - area), 2 * area * area / (1 + area)
    square = area * (1 - area) + (hits - 1) * (one - area * area) + (rest - 1) * (two - area * area)
    reach = Z * math.sqrt(max(square, 0.0) / (hits * rest))
    if area in (0.0, 1.0):
        reach = 3 / min(hits, rest)
    return max(0.0, area - reach), min(1.0, area + reach)
