"""Training: an encoder and an estimator, fitted on the rows whose outcome was known in time.

Beside the declared model a **baseline** (the share of the outcome in the training rows) and a **linear** model are always
trained on the same rows: a model that does not beat them is not worth its upkeep, and the baseline is the last fallback.
Everything random starts from one seed, and threads never change the result, so the same rows give the same bytes.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.learn import encode
from flyball.learn.features.declare import Output
from flyball.learn.model import Model, classifies
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
    estimator = _built(model, knobs)
    open_ = estimator.get_params(deep=False)
    takes_any = type(estimator).__module__.startswith("lightgbm")
    chosen = {
        k: v for k, v in REPEATABLE.items() if (k in open_ and open_[k] is None) or (takes_any and k not in open_)
    }
    if takes_any and open_.get("n_jobs") is None:
        # Written into the booster's own text: left to the machine, the same training would give other bytes elsewhere.
        chosen["n_jobs"] = 2
    return estimator.set_params(**chosen)


def _built(model: Model, knobs: Mapping[str, float]) -> Any:
    """What the model function returns.

    Raises:
        DeclarationError: `model-function-failed`, with the user's line; `estimator-of-other-kind`.
    """
    try:
        estimator = model.build(model.knobs(**knobs)) if inspect.signature(model.build).parameters else model.build()
    except Exception as error:
        mine = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == model.build.__code__.co_filename]
        raise DeclarationError(
            "model-function-failed",
            f"The function of the model {model.name!r} failed: {type(error).__name__}: {error}",
            where=Place(mine[-1].filename, mine[-1].lineno or 0) if mine else model.place,
            why=f"It was called with {', '.join(f'{n}={v:g}' for n, v in knobs.items()) or 'no knobs'}.",
            next="Mend that line, then run the same command again.",
        ) from error
    wanted = "classifier" if classifies(model) else "regressor"
    if not hasattr(estimator, "fit") or not (is_classifier if classifies(model) else is_regressor)(estimator):
        raise DeclarationError(
            "estimator-of-other-kind",
            f"The model {model.name!r} predicts {model.predicts}, and {type(estimator).__name__} is no {wanted}.",
            where=model.place,
            why=f"A {'Boolean is classified' if classifies(model) else 'number is estimated'}.",
            next=f"Return a {wanted}, such as {'LGBMClassifier' if classifies(model) else 'LGBMRegressor'}.",
        )
    return estimator


def check(model: Model) -> None:
    """Build the estimator with the knobs that are tried first, so that `plan` finds what `apply` would stumble over."""
    _built(model, {name: range_.start for name, (_, range_) in model.knobs.ranges.items()})


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
