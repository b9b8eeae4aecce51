"""The rivals that every model is held against, on the same rows: one that always says the same, and a line.

The quantiles of the line are one regression of the mean, moved by the quantiles of what it left over in training. It says that
the spread is the same everywhere, which is what a model must improve on; a linear quantile regression (Koenker and Bassett
1978) is a linear program, and takes minutes where this takes one fit.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flyball.learn.encoding import design
from flyball.learn.encoding.encode import Encoder
from flyball.learn.export.several import Several
from flyball.learn.search import SEED
from flyball.learn.task import Task

LINEAR_ROWS = 50_000
"""The line is fitted on so many of the newest rows: a second where all would take many, and hardly worse."""

MISSING = -2.0
"""The code of a missing category in the linear model: skl2onnx cannot convert a one-hot encoder that has seen NaN."""


@dataclass(frozen=True, slots=True)
class LinearQuantiles:
    """A pipeline that ends in a linear regression, and the quantiles that are wanted; `fitted` makes what answers.

    Attributes:
        line: unfitted; its last step has an `intercept_` once it is.
        quantiles: ascending.
    """

    line: Any
    quantiles: tuple[float, ...]

    def fitted(self, line: Any, left: np.ndarray) -> Several:
        """The fitted line, once for each quantile of what it left over: (rows,) outcome minus answer."""
        parts = []
        for shift in np.quantile(left, self.quantiles):
            moved = copy.deepcopy(line)
            moved[-1].intercept_ = moved[-1].intercept_ + shift
            parts.append(moved)
        return Several(tuple(parts), tuple(range(len(parts))), len(parts))


def baseline(task: Task) -> Any:
    """Always the training rows' share, mean or quantiles; of the unlabelled nothing is known, and every row is as usual."""
    if task.classifies:
        return DummyClassifier(strategy="prior")
    if task.kind == "quantile":
        parts = tuple(DummyRegressor(strategy="quantile", quantile=q) for q in task.quantiles)
        return Several(parts, tuple(range(task.width)), task.width)
    if task.kind == "anomaly":
        return DummyRegressor(strategy="constant", constant=0.0)
    return DummyRegressor(strategy="mean")


def linear(encoder: Encoder, task: Task, strength: float = 1.0) -> Any:
    """One-hot categories, scaled numbers with gaps filled by the median, text as it is, a regularised linear model.

    Fit it on the newest rows alone (`linear_rows`). None for anomalies: without labels there is nothing to draw a line by.

    Args:
        encoder: of the rows: which columns are codes, measures and text.
        task: of the model.
        strength: the inverse of the penalty.
    """
    if task.kind == "anomaly":
        return None
    last: Any = Ridge(alpha=1 / strength, random_state=SEED)
    if task.classifies:
        last = LogisticRegression(C=strength, max_iter=200, random_state=SEED)
    if encoder.texts and not (encoder.categories or encoder.numbers):
        found = Pipeline([("linear", last)])
    else:
        found = Pipeline([("columns", _columns(encoder)), ("linear", last)])
    return LinearQuantiles(found, task.quantiles) if task.kind == "quantile" else found


def linear_rows(encoder: Encoder, task: Task) -> int:
    """The number of newest rows that `linear` is fitted on.

    Fewer for many classes, because each has coefficients of its own; and where other columns stand beside text, because
    they need the rows dense.
    """
    most = LINEAR_ROWS // max(1, len(task.classes) - 1)
    mixed = encoder.texts and (encoder.categories or encoder.numbers)
    return max(1000, min(most, design.CELLS // 4 // encoder.width)) if mixed else max(1000, most)


def _columns(encoder: Encoder) -> ColumnTransformer:
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    codes = make_pipeline(SimpleImputer(strategy="constant", fill_value=MISSING), one_hot)
    measures = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    parts = [
        ("categories", codes, list(encoder.categories)),
        ("numbers", measures, list(encoder.numbers)),
        ("texts", "passthrough", list(encoder.texts)),
    ]
    # Text is a part only where there is some: converters do not expect one that reads nothing.
    return ColumnTransformer([part for part in parts if part[2] or part[0] != "texts"])
