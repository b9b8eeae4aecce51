"""scikit-learn, natively: what cannot be exported exactly is stored by skops and answers as the estimator itself.

Loading trusts `skops_zip.ALLOWED`, a list of ours; what a file asks for is never read. Milliseconds a row, and a server
that loads one loads scikit-learn: the last resort, not the usual way.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import skops.io
from sklearn.base import is_classifier, is_regressor
from skops.io.exceptions import UnsupportedTypeException, UntrustedTypesFoundException

from flyball._kernel.errors import DeclarationError
from flyball.learn import task
from flyball.learn.export import predictor, skops_zip

FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What estimators, converters and loaders raise: they have no class of their own."""


class Estimator:
    """One estimator, as it was fitted."""

    name: Literal["sklearn"] = "sklearn"

    def __init__(self, fitted: Any) -> None:
        self._fitted = fitted
        self.features = int(fitted.n_features_in_)

    def row(self, values: predictor.Matrix) -> float:
        """The answer to one row: float32 of shape (features,).

        Linear algebra sums one row and many in different orders: the last bit may differ from `batch`.
        """
        if values.shape != (self.features,):
            raise predictor.wrong_shape(values.shape, values.dtype, self.features)
        return float(self.batch(values[np.newaxis])[0])

    def batch(self, matrix: predictor.Matrix) -> task.Answers:
        """The answers to a float32 matrix of shape (rows, features): float64 of shape (rows,)."""
        if matrix.ndim != 2 or matrix.shape[1] != self.features or matrix.dtype != np.float32:
            raise predictor.wrong_shape(matrix.shape, matrix.dtype, self.features)
        return answers(self._fitted, matrix) if len(matrix) else np.zeros(0, dtype=np.float64)


def answers(fitted: Any, matrix: predictor.Matrix) -> task.Answers:
    """What `fitted` itself answers to a matrix: the probability of its second class, or the number it predicts.

    Raises:
        DeclarationError: `not-one-number`, when it is neither a classifier of two classes with probabilities nor a
            regressor of one number.
    """
    if is_classifier(fitted) and hasattr(fitted, "predict_proba"):
        probabilities = np.asarray(fitted.predict_proba(matrix))
        if probabilities.ndim == 2 and probabilities.shape[1] == 2:
            return probabilities[:, 1].astype(np.float64)
    elif is_regressor(fitted):
        numbers = np.asarray(fitted.predict(matrix))
        if numbers.size == len(matrix):
            return numbers.reshape(len(matrix)).astype(np.float64)
    raise DeclarationError(
        "not-one-number",
        f"{type(fitted).__name__} does not answer one number a row.",
        why="a model is a classifier of two classes that gives probabilities, or a regressor of one number",
        next="choose such an estimator; check that training saw both classes",
    )


def dump(fitted: Any) -> bytes:
    """`fitted` as a skops file of the one form that `load` accepts.

    Raises:
        StateError: `hostile-model`, when it holds types that are not on our list.
        TypeError: when skops cannot write it at all.
    """
    return skops_zip.rebuilt(skops.io.dumps(fitted))


def load(data: bytes) -> Estimator:
    """The estimator in `data`.

    Raises:
        StateError: `hostile-model`.
    """
    checked = skops_zip.rebuilt(data)
    try:
        return Estimator(skops.io.loads(checked, trusted=sorted(skops_zip.ALLOWED)))
    except (*FAILURES, UnsupportedTypeException, UntrustedTypesFoundException) as error:
        raise skops_zip.refused(f"it cannot be built: {error}") from error
