"""How many questions are worth one call of a predictor: measured when a version is made ready, never guessed.

A call of scikit-learn costs as much for one row as for a hundred, one of LightGBM's C library hardly more than its trees. So
each predictor is timed alone and in batches; and batches are used only if they say the same bits as rows alone, since an answer
must not depend on who asked at the same moment (linear algebra sums many rows in another order than one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flyball.learn.export.predictor import Matrix, Predictor
from flyball.learn.task import Answers
from flyball.serve.plan import NEVER

SIZES: Final = (2, 4, 8, 16, 32, 64)
"""Batches that are tried."""

ROWS: Final = SIZES[-1]

PROVEN: Final = (1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 64)
"""Batches of which bits are compared: libraries sum four, eight or sixteen rows otherwise than those that are left over."""

FEW: Final = 16
"""Rows that are compared in any case,"""

CHEAP: Final = 0.005
"""and the seconds which they may take for all to be."""

TURNS: Final = 5
"""The fastest of so many counts: what disturbs a measurement only ever makes it longer."""

WIDEST: Final = 4096
"""Columns up to which a predictor is measured; a wider one answers alone."""


def batches(predictor: Predictor, seconds: Callable[[], float], matrix: npt.NDArray[Any] | None = None) -> int:
    """The least number of questions from which on one call for all is faster; `NEVER` where none is, or bits differ.

    Args:
        predictor: asked with made-up rows; what it raises at them is taken for "never".
        seconds: a monotonic clock.
        matrix: those rows, `ROWS` of them, where it does not read float32.
    """
    if not 0 < predictor.features <= WIDEST:
        return NEVER
    matrix = _rows(predictor.features) if matrix is None else matrix
    try:
        if not _agree(predictor, matrix, seconds):
            return NEVER
        for size in SIZES:
            rows = matrix[:size]
            # The same rows both ways: of one row asked again and again, a processor learns by heart which way the trees go.
            alone_takes = _fastest(lambda rows=rows: [predictor.row(each) for each in rows], seconds)  # type: ignore[misc]
            if _fastest(lambda rows=rows: predictor.batch(rows), seconds) < alone_takes:  # type: ignore[misc]
                return size
    except Exception:  # noqa: BLE001 - made-up rows may be what a rule of the app cannot read: then it is asked alone
        return NEVER
    return NEVER


def _rows(width: int) -> Matrix:
    """Small whole numbers, which are codes as well as measures, and in every other row fractions of all sizes: of products with
    whole numbers nothing is rounded, so that what multiplies and adds in one step looks like what takes two.
    """
    chance = np.random.default_rng(1788)
    found = chance.integers(0, 3, (SIZES[-1], width)).astype(np.float32)
    found[1::2] = chance.normal(size=(SIZES[-1] // 2, width)) * 10 ** chance.uniform(-2, 2, (SIZES[-1] // 2, width))
    return found


def _agree(predictor: Predictor, matrix: Matrix, seconds: Callable[[], float]) -> bool:
    """Whether rows have the same answers alone as at the beginning and the end of batches; of what is slow a few are asked."""
    began = seconds()
    found = [predictor.row(each) for each in matrix[:FEW]]
    if seconds() - began < CHEAP:
        found += [predictor.row(each) for each in matrix[FEW:]]
    alone = np.array(found)
    return all(
        _same(alone[:size], predictor.batch(matrix[:size])[: len(alone)])
        and _same(alone[:size], predictor.batch(np.ascontiguousarray(matrix[size - 1 :: -1]))[::-1][: len(alone)])
        for size in PROVEN
    )


def _same(alone: Answers, together: Answers) -> bool:
    return alone.shape == together.shape and alone.tobytes() == together.astype(alone.dtype).tobytes()


def _fastest(do: Callable[[], object], seconds: Callable[[], float]) -> float:
    taken = []
    for _ in range(TURNS):
        began = seconds()
        do()
        taken.append(seconds() - began)
    return min(taken)
