"""Training: an encoder and an estimator, fitted on the rows whose outcome was known in time.

Beside the declared model a **baseline** (the share of the outcome in the training rows) and a **linear** model are always
trained on the same rows: a model that does not beat them is not worth its upkeep, and the baseline is the last fallback.
Everything random starts from one seed, and threads never change the result, so the same rows give the same bytes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flyball.learn import encode
from flyball.learn.features.declare import Output
from flyball.learn.model import Model
from flyball.learn.search import SEED

REPEATABLE: Mapping[str, Any] = {
    "random_state": SEED,
    "deterministic": True,  # LightGBM: the same trees whatever the number of threads ...
    "force_row_wise": True,  # ... and no timing decides on the layout of its histograms
    "verbose": -1,
}
"""Set on an estimator where it has the parameter, or takes any, and the declaration left it open."""


MISSING = -2.0
"""The code of a missing category in the linear model: skl2onnx cannot convert a one-hot encoder that has seen NaN."""


def encoder(frame: pl.DataFrame, outputs: tuple[Output, ...]) -> encode.Encoder:
    """Fit the encoder on the training rows alone: a category that only the test span knows is unseen there too."""
    return encode.fit(frame, [(o.name, o.kind) for o in outputs])


def declared(model: Model, knobs: Mapping[str, float]) -> Any:
    """The declared estimator, unfitted, with knobs applied and its randomness tied down."""
    estimator = model.build(model.knobs(**knobs)) if inspect.signature(model.build).parameters else model.build()
    open_ = estimator.get_params(deep=False)
    takes_any = type(estimator).__module__.startswith("lightgbm")
    chosen = {
        k: v for k, v in REPEATABLE.items() if (k in open_ and open_[k] is None) or (takes_any and k not in open_)
    }
    if takes_any and open_.get("n_jobs") is None:
        # Written into the booster's own text: left to the machine, the same training would give other bytes elsewhere.
        chosen["n_jobs"] = 2
    return estimator.set_params(**chosen)


def baseline(*, classifies: bool) -> Any:
    """Always the training rows' share (or mean)."""
    return DummyClassifier(strategy="prior") if classifies else DummyRegressor(strategy="mean")


def linear(outputs: tuple[Output, ...], *, classifies: bool) -> Pipeline:
    """One-hot categories, scaled numbers with gaps filled by the median, a regularised linear model."""
    kinds = [o.kind for o in outputs]
    categories = [i for i, kind in enumerate(kinds) if kind == "category"]
    numbers = [i for i, kind in enumerate(kinds) if kind == "number"]
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer(
        [
            ("categories", make_pipeline(SimpleImputer(strategy="constant", fill_value=MISSING), one_hot), categories),
            (
                "numbers",
                make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()),
                numbers,
            ),
        ]
    )
    last = LogisticRegression(max_iter=200, random_state=SEED) if classifies else Ridge(random_state=SEED)
    return Pipeline([("columns", columns), ("linear", last)])


def fit(estimator: Any, matrix: np.ndarray, labels: np.ndarray) -> Any:
    """Fit in place and return it. `matrix` is float32, rows by features; `labels` one number per row."""
    return estimator.fit(matrix, labels)
