"""How many questions one call is worth: never where a bit would depend on who asks at the same moment."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from flyball.serve import pace
from flyball.serve.plan import NEVER

WEIGHTS = np.array([0.1, 0.7, 1.3], dtype=np.float32)


class Sums:
    """A weighted sum, rounded after every step; in batches of `fused` rows and more products are not rounded.

    A call takes one tick of the clock that it is, so that batches are always faster.
    """

    name, features = "onnx", 3

    def __init__(self, fused: int) -> None:
        self.fused = fused
        self._ticks = count()
        self._at = 0.0

    def seconds(self) -> float:
        return self._at

    def row(self, values: np.ndarray) -> float:
        return float(self._summed(values[np.newaxis], 1)[0])

    def batch(self, matrix: np.ndarray) -> np.ndarray:
        return self._summed(matrix, len(matrix))

    def _summed(self, matrix: np.ndarray, rows: int) -> np.ndarray:
        self._at = float(next(self._ticks)) * 1e-6
        total = np.zeros(len(matrix), dtype=np.float32)
        for values, weight in zip(matrix.T, WEIGHTS, strict=True):
            exact = values.astype(np.float64) * np.float64(weight)
            total = (total + (exact if rows >= self.fused else exact.astype(np.float32))).astype(np.float32)
        return total.astype(np.float64)


@pytest.mark.parametrize("fused", [2, 8, 20])
def test_what_rounds_otherwise_in_batches_is_asked_alone(fused: int) -> None:
    """A product with a small whole number is exact, and says nothing about how others are rounded."""
    sums = Sums(fused)
    assert pace.batches(sums, sums.seconds) == NEVER  # type: ignore[arg-type]


def test_what_says_the_same_bits_is_asked_together() -> None:
    sums = Sums(1000)
    assert pace.batches(sums, sums.seconds) == 2  # type: ignore[arg-type]


class Slow(Sums):
    """What takes long, by the call and by the row."""

    def __init__(self, call: float, row: float) -> None:
        super().__init__(1 << 30)
        self.takes, self.passed = (call, row), 0.0

    def seconds(self) -> float:
        return self.passed

    def _summed(self, matrix: np.ndarray, rows: int) -> np.ndarray:
        self.passed += self.takes[0] + self.takes[1] * rows
        return super()._summed(matrix, rows)


@pytest.mark.parametrize(
    ("call", "row", "at_most", "found"),
    [
        (0.02, 0.0, 1.5, 2),
        (0.4, 0.0, 2.5, NEVER),
        (0.0, 0.05, 10.0, NEVER),
        (0.0, 0.001, 1.5, NEVER),
    ],
)
def test_a_slow_predictor_does_not_hold_a_start_up_for_long(
    call: float, row: float, at_most: float, found: int
) -> None:
    slow = Slow(call, row)
    assert pace.batches(slow, slow.seconds) == found  # type: ignore[arg-type]
    assert slow.passed < at_most
