"""Two predictors of one version that say the same bits: one that is fast for a row, one that is fast for many.

LightGBM's C library answers a row in some 7 us, and a hundred in 900; ONNX Runtime over the same trees in doubles (`doubled`)
needs longer for one, and a third of that for a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyball.learn.export.predictor import Kind, Matrix, Predictor
from flyball.learn.task import Answer, Answers


@dataclass(frozen=True, slots=True)
class Paired:
    """See the module; whoever makes one has seen that both agree."""

    alone: Predictor
    together: Predictor

    @property
    def name(self) -> Kind:
        """The kind of both."""
        return self.alone.name

    @property
    def features(self) -> int:
        """The number of columns that both read."""
        return self.alone.features

    def row(self, values: Matrix) -> Answer:
        """The answer to one row: float32 of shape (features,)."""
        return self.alone.row(values)

    def batch(self, matrix: Matrix) -> Answers:
        """The answers to a matrix: float32 of shape (rows, features)."""
        return self.together.batch(matrix)
