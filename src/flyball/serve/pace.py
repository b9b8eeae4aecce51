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

ROWS: Final = 4 * SIZES[-1]
"""Made-up rows that are compared, at most: sums of another order have other bits in one row of twenty, for some models."""

PROVEN: Final = (1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 64)
"""Batches of which bits are compared: libraries sum four, eight or sixteen rows otherwise than those that are left over."""

FEW: Final = 16
"""Rows that are compared in any case,"""

CHEAP: Final = 0.25
"""and as many more as are asked alone within so many seconds."""

TURNS: Final = 5
"""The fastest of so many counts: what disturbs a measurement only ever makes it longer."""

LONG: Final = 0.01
"""Seconds of a count beyond which one is enough: beside them a disturbance is little."""

LONGEST: Final = 2.0
"""Seconds after which a predictor is asked alone without more ado: a start waits for it, and so does a change of the route."""

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
    matrix, until = _rows(predictor.features) if matrix is None else matrix, seconds() + LONGEST
    try:
        if not _agree(predictor, matrix, seconds, until):
            return NEVER
        for size in SIZES:
            if seconds() > until:
                break
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


def _agree(predictor: Predictor, matrix: Matrix, seconds: Callable[[], float], until: float) -> bool:
    """Whether rows have the same answers alone as at the beginning and the end of batches; of what is slow few are asked."""
    began, found = seconds(), list[Any]()
    for each in matrix:
        if seconds() > until or (len(found) >= FEW and seconds() - began > CHEAP):
            break
        found.append(predictor.row(each))
    alone = np.array(found)
    return all(
        seconds() <= until and _both_ways(predictor, matrix[at : at + size], alone[at : at + size])
        for at in range(0, len(alone), SIZES[-1])
        for size in PROVEN
    )


def _both_ways(predictor: Predictor, rows: Matrix, alone: Answers) -> bool:
    few, upside_down = len(alone), np.ascontiguousarray(rows[::-1])
    return _same(alone, predictor.batch(rows)[:few]) and _same(alone, predictor.batch(upside_down)[::-1][:few])


def _same(alone: Answers, together: Answers) -> bool:
    return alone.shape == together.shape and alone.tobytes() == together.astype(alone.dtype).tobytes()


def _fastest(do: Callable[[], object], seconds: Callable[[], float]) -> float:
    taken = []
    for _ in range(TURNS):
        began = seconds()
        do()
        taken.append(seconds() - began)
        if taken[-1] > LONG:
            break
    return min(taken)
