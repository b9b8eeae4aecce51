"""scikit-learn, natively: what cannot be exported exactly is stored by skops and answers as the estimator itself.

Loading trusts `skops_zip.ALLOWED`, a list of ours; what a file asks for is never read. Milliseconds a row, and a server
that loads one loads scikit-learn: the last resort, not the usual way.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import skops.io
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from skops.io.exceptions import UnsupportedTypeException, UntrustedTypesFoundException

from flyball._kernel.errors import DeclarationError
from flyball.learn import task
from flyball.learn.export import predictor, several, skops_zip

FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What estimators, converters and loaders raise: they have no class of their own."""


class Estimator:
    """One estimator, as it was fitted."""

    name: Literal["sklearn"] = "sklearn"

    def __init__(self, fitted: Any) -> None:
        self._fitted = fitted
        self.features = int(fitted.n_features_in_)
        classes = len(getattr(fitted, "classes_", ())) if is_classifier(fitted) else 1
        self.width = 1 if classes <= 2 else classes

    def row(self, values: predictor.Matrix) -> task.Answer:
        """The answer to one row: float32 of shape (features,).

        Linear algebra sums one row and many in different orders: the last bit may differ from `batch`.
        """
        if values.shape != (self.features,):
            raise predictor.wrong_shape(values.shape, values.dtype, self.features)
        answer = self.batch(values[np.newaxis])[0]
        return float(answer) if self.width == 1 else tuple(answer.tolist())

    def batch(self, matrix: predictor.Matrix) -> task.Answers:
        """The answers to a float32 matrix of shape (rows, features): float64 of shape (rows,), or (rows, width)."""
        if matrix.ndim != 2 or matrix.shape[1] != self.features or matrix.dtype != np.float32:
            raise predictor.wrong_shape(matrix.shape, matrix.dtype, self.features)
        if not len(matrix):
            return np.zeros((0,) if self.width == 1 else (0, self.width), dtype=np.float64)
        return answers(self._fitted, matrix)


def answers(fitted: Any, matrix: predictor.Matrix) -> task.Answers:
    """What `fitted` itself answers to a matrix: float64, (rows,) or (rows, classes).

    Of two classes the probability of the second, of more that of each; a regressor's number; a detector's strangeness,
    which is `-score_samples`: higher is stranger.

    Raises:
        DeclarationError: `not-one-number`, when it is none of these.
    """
    if is_classifier(fitted) and hasattr(fitted, "predict_proba"):
        probabilities = np.asarray(fitted.predict_proba(matrix), dtype=np.float64)
        if probabilities.ndim == 2 and probabilities.shape[1] > 1:
            return probabilities[:, 1] if probabilities.shape[1] == 2 else np.ascontiguousarray(probabilities)
    elif is_outlier_detector(fitted):
        return -np.asarray(fitted.score_samples(matrix), dtype=np.float64).reshape(len(matrix))
    elif is_regressor(fitted):
        numbers = np.asarray(fitted.predict(matrix))
        if numbers.size == len(matrix):
            return numbers.reshape(len(matrix)).astype(np.float64)
    raise DeclarationError(
        "not-one-number",
        f"{type(fitted).__name__} does not answer as a model does.",
        why="a model is a classifier of two or more classes that gives probabilities, a regressor of one number, or a "
        "detector of outliers",
        next="choose such an estimator; check that training saw both classes",
    )


def cannot(estimator: Any, kind: task.Task) -> str:
    """Why an estimator of scikit-learn's conventions cannot learn such a task; "" if it can."""
    if kind.kind == "anomaly":
        fits = is_outlier_detector(estimator)
        return "" if fits else "it is no detector of outliers, and there are no labels to learn from"
    if not kind.classifies:
        return "" if is_regressor(estimator) else "it is no regressor"
    if not is_classifier(estimator):
        return "it is no classifier"
    return "" if hasattr(estimator, "predict_proba") else _NO_PROBABILITIES


_NO_PROBABILITIES = "it gives no probabilities; wrap it: CalibratedClassifierCV(estimator)"


def dump(fitted: Any) -> bytes:
    """`fitted` as a skops file of the one form that `load` accepts.

    Raises:
        StateError: `hostile-model`, when it holds types that are not on our list.
        TypeError: when skops cannot write it at all.
    """
    return skops_zip.rebuilt(skops.io.dumps(fitted))


def load(data: bytes) -> predictor.Predictor:
    """The estimator in `data`; or several of them, joined.

    Raises:
        StateError: `hostile-model`.
    """
    return several.loaded(data, _one, skops_zip.refused)


def _one(data: bytes) -> Estimator:
    checked = skops_zip.rebuilt(data)
    try:
        return Estimator(skops.io.loads(checked, trusted=sorted(skops_zip.ALLOWED)))
    except (*FAILURES, UnsupportedTypeException, UntrustedTypesFoundException) as error:
        raise skops_zip.refused(f"it cannot be built: {error}") from error
