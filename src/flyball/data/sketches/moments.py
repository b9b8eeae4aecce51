"""Sums of numbers, and of their squares, exact: added in any order and grouping they are the same to the last bit.

A float is a whole number times a power of two, and so is a sum of floats; it is kept as that whole number (Kulisch's long
accumulator). A square of a float needs twice the digits: it is its rounded value plus a remainder that is a float as well
(Dekker 1971), and both are summed.
"""

from __future__ import annotations

import math
from fractions import Fraction

import msgspec
import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_LEAST = 1126
"""The last digit of the least float, as frexp and 53 digits split it, is 2**-1126."""
_HALF = 27
_WIDE = 2.0**500
"""Squares beyond are not finite; such a column has no deviation."""
_TINY = 2.0**-240
"""Squares below are taken for zero: their remainders could fall below the least float."""
_SPLIT = 2.0**27 + 1
CHUNK = 1 << 20
"""Values at once: sums of halves of 27 digits stay below 2**53, where float64 counts exactly."""


class Moments(msgspec.Struct, frozen=True, array_like=True):
    """Of finite numbers: how many, the sum, the sum of squares.

    Attributes:
        total, squares: whole numbers in hexadecimal, in units of 2**-1126.
        wide: whether some number was too large for its square.
    """

    n: int = 0
    total: str = "0"
    squares: str = "0"
    wide: bool = False


EMPTY = Moments()


def of(values: Numbers, times: Counts) -> Moments:
    """The moments of `values`, each `times` over; both (rows,), the values finite, the counts below 2**26 in sum."""
    if not len(values):
        return EMPTY
    wide = bool((np.abs(values) > _WIDE).any())
    squares = 0
    if not wide:
        square, rest = _squared(np.where(np.abs(values) < _TINY, 0.0, values))
        squares = _sum(square, times) + (_sum(rest, times) if rest.any() else 0)
    return Moments(int(times.sum()), _hex(_sum(values, times)), _hex(squares), wide)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both together."""
    total, squares = (int(x, 16) + int(y, 16) for x, y in ((a.total, b.total), (a.squares, b.squares)))
    wide = a.wide or b.wide
    return Moments(a.n + b.n, _hex(total), "0" if wide else _hex(squares), wide)


def mean(found: Moments) -> float | None:
    """The mean, rounded once; None without values, or where it is beyond float64."""
    return _float(Fraction(int(found.total, 16), found.n << _LEAST)) if found.n else None


def deviation(found: Moments) -> float | None:
    """The sample standard deviation; None for fewer than two values, or for such as have no finite square."""
    if found.n < 2 or found.wide:
        return None
    total, squares = int(found.total, 16), int(found.squares, 16)
    apart = max(0, ((found.n * squares) << _LEAST) - total * total)
    spread = Fraction(apart, (found.n * (found.n - 1)) << (2 * _LEAST))
    variance = _float(spread)
    return math.sqrt(variance) if variance is not None else None


def _sum(values: Numbers, times: Counts) -> int:
    """The exact sum, in units of 2**-1126."""
    found = 0
    for start in range(0, len(values), CHUNK):
        part, n = values[start : start + CHUNK], times[start : start + CHUNK]
        mantissa, exponent = np.frexp(part)
        whole = np.ldexp(mantissa, 53).astype(np.int64)
        base = int(exponent.min())
        place = exponent.astype(np.int64) - base
        high = np.bincount(place, weights=(whole >> _HALF) * n)
        low = np.bincount(place, weights=(whole & ((1 << _HALF) - 1)) * n)
        for at in np.flatnonzero((high != 0) | (low != 0)).tolist():
            both = (int(high[at]) << _HALF) + int(low[at])
            found += both << (at + base + _LEAST - 53)
    return found


def _squared(x: Numbers) -> tuple[Numbers, Numbers]:
    """(x * x rounded, what the rounding left out)."""
    square = x * x
    turned = _SPLIT * x
    high = turned - (turned - x)
    low = x - high
    return square, ((high * high - square) + 2 * high * low) + low * low


def _hex(number: int) -> str:
    return f"{number:x}"


def _float(found: Fraction) -> float | None:
    try:
        return float(found)
    except OverflowError:
        return None
