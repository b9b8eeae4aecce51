"""scikit-learn that somebody else fitted, from a skops file: held against our closed list, and asked by itself.

Nothing in the file says what is built: `skops_zip` takes it apart and puts it together anew. What was fitted on a table is
asked with a table of the same names, so that a ColumnTransformer finds its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import skops.io
from sklearn.base import is_classifier, is_regressor
from skops.io.exceptions import UnsupportedTypeException, UntrustedTypesFoundException

from flyball._kernel.errors import DeclarationError, StateError
from flyball.learn.export import adopted, native, skops_zip
from flyball.learn.export.adopted import Dtype, Form
from flyball.learn.export.adopted_look import Look, Seen, shape
from flyball.learn.task import BINARY, REGRESSION, Task

_POLARS: Mapping[Dtype, pl.DataType] = {
    **{"float32": pl.Float32(), "float64": pl.Float64(), "int32": pl.Int32(), "int64": pl.Int64()},
    **{"bool": pl.Boolean(), "string": pl.String()},
}


def look(data: bytes) -> Look:
    """What an estimator reads and answers.

    Raises:
        DeclarationError: `adopted-unsafe`, `adopted-shape`.
    """
    try:
        rebuilt = skops_zip.rebuilt(data)
        fitted = _built(rebuilt)
    except StateError as error:
        raise DeclarationError(
            "adopted-unsafe",
            "The file is not adopted: it holds more than an estimator that is known here.",
            why=f"In the file, {error.why}.",
            next="docs/reference/estimators.md lists what is read; else skl2onnx.to_onnx(estimator, X), and adopt that.",
        ) from error
    named = tuple(map(str, getattr(fitted, "feature_names_in_", ())))
    width = int(getattr(fitted, "n_features_in_", 0))
    if not width:
        raise shape(f"a {type(fitted).__name__} was not fitted")
    inputs = tuple(Seen(name, "", 1) for name in named) if named else tuple(Seen(f"x{i}", "", 1) for i in range(width))
    return Look("sklearn", rebuilt, inputs, "", _task(fitted), named)


def load(data: bytes, form: Form) -> adopted.Run:
    """What asks a stored estimator.

    Raises:
        StateError: `hostile-model`.
    """
    fitted = _built(skops_zip.rebuilt(data))
    return Fitted(fitted, form, _rowwise(fitted))


@dataclass(frozen=True, slots=True)
class Fitted:
    """Asks scikit-learn: with a table where it was fitted on one, else with a matrix."""

    fitted: Any
    form: Form
    rowwise: bool

    def __call__(self, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The probabilities of a classifier, the numbers of a regressor.

        Raises:
            StateError: `adopted-failed`.
        """
        asked: Any = np.column_stack(arrays)
        if self.form.framed:
            asked = pl.DataFrame(
                [
                    pl.Series(each.name, values.ravel().tolist(), dtype=_POLARS[each.dtype])
                    for each, values in zip(self.form.inputs, arrays, strict=True)
                ]
            )
        return answers(self.fitted, asked, self.form)


def own(data: bytes, form: Form, frame: pl.DataFrame) -> npt.NDArray[Any]:
    """What the estimator itself answers to the rows of `frame`, as its owner would ask it: by the whole table.

    Raises:
        StateError: `adopted-failed`.
    """
    table = frame.select(form.columns)
    return answers(_built(skops_zip.rebuilt(data)), table if form.framed else table.to_numpy(), form)


def answers(fitted: Any, asked: Any, form: Form) -> npt.NDArray[Any]:
    """Probabilities, or numbers."""
    try:
        return np.asarray(fitted.predict_proba(asked) if form.task.classifies else fitted.predict(asked))
    except native.FAILURES as error:
        raise adopted.failed(f"scikit-learn says: {type(error).__name__}: {str(error)[:300]}") from error


def _built(data: bytes) -> Any:
    try:
        return skops.io.loads(data, trusted=sorted(skops_zip.ALLOWED))
    except (*native.FAILURES, UnsupportedTypeException, UntrustedTypesFoundException) as error:
        raise skops_zip.refused(f"it cannot be built: {error}") from error


ROWWISE = frozenset(
    {
        *("Pipeline", "ColumnTransformer", "FeatureUnion", "SimpleImputer", "MissingIndicator"),
        *("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "Binarizer", "KBinsDiscretizer"),
        *("OneHotEncoder", "OrdinalEncoder", "DummyClassifier", "DummyRegressor"),
        *("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"),
        *("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"),
        *("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
    }
)
"""What does something to single cells, or asks trees one after the other; see `adopted.Run`."""


def _rowwise(fitted: Any) -> bool:
    settings = fitted.get_params(deep=True)
    parts = [fitted, *(each for each in settings.values() if hasattr(each, "get_params"))]
    alone = all(value in (None, 1) for name, value in settings.items() if name.rpartition("__")[2] == "n_jobs")
    return alone and all(type(each).__name__ in ROWWISE for each in parts)


def _task(fitted: Any) -> Task:
    if is_regressor(fitted):
        return REGRESSION
    if not is_classifier(fitted) or not hasattr(fitted, "predict_proba"):
        raise shape(
            f"a {type(fitted).__name__} is no regressor, and no classifier that gives probabilities",
            "Wrap it: CalibratedClassifierCV(estimator), fitted where it was trained.",
        )
    classes = [value.item() if isinstance(value, np.generic) else value for value in fitted.classes_]
    if classes in ([0, 1], [False, True]):
        return BINARY
    return Task(kind="multiclass", classes=tuple(map(str, classes)))
