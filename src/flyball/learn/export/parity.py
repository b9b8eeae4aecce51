"""How far an exported model's answers lie from the estimator's own: the gate before anything is shipped.

Two answers agree when they differ by at most `TOLERANCE`, relative to the native answer where that is larger than one
(a price of 40,000 has no 1e-5 in float32). *Exact* is more: the same bits. Rows of a test set rarely miss a value where
production will, so `probes` takes rows of it and leaves values out, one column at a time.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

Answers = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

TOLERANCE = 1e-5
"""Float32 sums of some hundred leaves differ from float64 sums by about 3e-7; a row in another leaf by 1e-3 and more."""

FAR = 1e300
"""The distance between a number and none: finite, because JSON knows no infinity and the numbers are recorded."""

PROBES_PER_COLUMN = 4
MOST_CELLS = 1 << 22
"""Cells of probes: a matrix of thousands of columns (text) is probed in as many of them as fit."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of answers found."""

    rows: int
    max_abs: float
    """The largest difference; `FAR` where one answered NaN and the other did not."""
    max_scaled: float
    """The largest difference divided by max(1, |native|): what is held against the tolerance."""
    worst_row: int
    """Where that is; -1 when no two answers differ."""
    exact: bool
    """Every answer has the same 64 bits."""

    @property
    def holds(self) -> bool:
        """Whether the export may be shipped."""
        return self.max_scaled <= TOLERANCE


def between(native: Answers, exported: Answers) -> Parity:
    """Compare two sets of answers, each of shape (rows,) or (rows, width); a row is as far apart as its worst number."""
    if native.shape != exported.shape or native.ndim not in (1, 2):
        return Parity(rows=len(native), max_abs=FAR, max_scaled=FAR, worst_row=0, exact=False)
    same = (native == exported) | (np.isnan(native) & np.isnan(exported))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(native - exported))
        scaled = np.where(same, 0.0, apart / np.maximum(1.0, np.abs(native)))
    apart, scaled = (np.nan_to_num(far, nan=FAR, posinf=FAR) for far in (apart, scaled))
    if scaled.ndim == 2:
        scaled = scaled.max(axis=1, initial=0.0)
    worst = int(np.argmax(scaled)) if scaled.any() else -1
    return Parity(
        rows=len(native),
        max_abs=float(apart.max(initial=0.0)),
        max_scaled=float(scaled.max(initial=0.0)),
        worst_row=worst,
        exact=native.astype(np.float64).tobytes() == exported.astype(np.float64).tobytes(),
    )


def probes(matrix: Matrix) -> Matrix:
    """Rows of `matrix` with one value missing each, some for every column: float32 of shape (probes, columns)."""
    rows, columns = matrix.shape
    if rows == 0:
        return matrix
    count = min(columns * PROBES_PER_COLUMN, max(1, MOST_CELLS // columns))
    chosen = np.arange(count)
    probed: Matrix = matrix[chosen % rows].copy()
    probed[chosen, chosen * columns // count] = np.nan
    return probed
