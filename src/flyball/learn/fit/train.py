"""Training: an encoder and an estimator, fitted on the rows whose outcome was known in time.

Beside the declared model a **baseline** (the share of the outcome in the training rows) and a **linear** model are always
trained on the same rows: a model that does not beat them is not worth its upkeep, and the baseline is the last fallback.
Everything random starts from one seed, and threads never change the result, so the same rows give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from flyball._kernel.errors import DataError, DeclarationError
from flyball.learn import adopted, rule
from flyball.learn import model as models
from flyball.learn.build import build
from flyball.learn.encoding import design, encode
from flyball.learn.encoding.encode import Encoder
from flyball.learn.export import families, ruled
from flyball.learn.export.several import Several
from flyball.learn.features.declare import Output
from flyball.learn.fit import automatic
from flyball.learn.fit.rivals import LINEAR_ROWS, LinearQuantiles, baseline, linear, linear_rows
from flyball.learn.model import Model
from flyball.learn.search import SEED
from flyball.learn.task import Task

REPEATABLE: Mapping[str, Any] = {"random_state": SEED}
"""Set on an estimator, and on those within it, where it was left open; a family adds its own (`Family.settings`)."""

FEW = 20_000
"""Training rows below which more than one thread does not pay."""
_JOBS = re.compile(r"(.*__)?n_jobs")

__all__ = ["LINEAR_ROWS", "baseline", "check", "declared", "encoder", "fit", "linear", "linear_rows"]

_QUANTILE: Mapping[str, Callable[[float], dict[str, Any]]] = {
    "LGBMRegressor": lambda q: {"objective": "quantile", "alpha": q},
    "XGBRegressor": lambda q: {"objective": "reg:quantileerror", "quantile_alpha": q},
    "GradientBoostingRegressor": lambda q: {"loss": "quantile", "alpha": q},
    "HistGradientBoostingRegressor": lambda q: {"loss": "quantile", "quantile": q},
    "QuantileRegressor": lambda q: {"quantile": q},
}
"""How a regressor that learns a quantile is told which."""


def encoder(frame: pl.DataFrame, outputs: tuple[Output, ...]) -> Encoder:
    """Fit the encoder on the training rows alone: a category that only the test span knows is unseen there too."""
    columns: list[tuple[str, Any]] = [(o.name, o.text or o.kind) for o in outputs]
    return encode.fit(frame, columns)


def declared(model: Model, knobs: Mapping[str, Any], task: Task, encoder: Encoder) -> Any:
    """The declared estimator, unfitted, with knobs applied and its randomness tied down; for quantiles one for each.

    Args:
        model: the declaration.
        knobs: a value for each knob.
        task: of the model.
        encoder: of the rows: what a rule decodes them with; it tells algorithms by default which columns are codes.

    Raises:
        DeclarationError: `model-function-failed`, `estimator-of-other-kind`.
    """
    estimator = _built(model, knobs, task, encoder)
    if isinstance(estimator, rule.Rule):
        return ruled.Bound(estimator.function, encoder, task)
    if task.kind != "quantile":
        return tied(estimator)
    parts = tuple(tied(clone(estimator).set_params(**_quantile(estimator, q))) for q in task.quantiles)
    return Several(parts, tuple(range(task.width)), task.width)


def check(model: Model) -> str:
    """Build the estimator with the knobs that are tried first, so that `plan` finds what `apply` would stumble over.

    Returns:
        How the model will be served, in a sentence.

    Raises:
        DeclarationError: as `declared`; `outcome-of-unknown-kind`.
    """
    if (file := adopted.of(model)) is not None:
        return adopted.check(model, file)
    task, knobs = models.task(model), {name: range_.start for name, (_, range_) in model.knobs.ranges.items()}
    if model.build is None:
        return "The search chooses the algorithm; each is served with the same bits by its own library."
    estimator = _able(model, build(model, knobs), task)
    family = families.of(estimator)
    return f"{type(estimator).__name__} ({family.name}) is served {family.served}."


def fit(
    estimator: Any,
    matrix: design.Rows,
    labels: np.ndarray,
    task: Task,
    weights: np.ndarray | None = None,
    rows: int | None = None,
) -> Any:
    """Fit, and return what answers: the estimator, or `Several` around it where the rows do not hold every class.

    Args:
        estimator: of `declared`, `linear` or `baseline`.
        matrix: float32, (rows, features), dense or CSR.
        labels: (rows,) as the task has them; those of an anomaly are not looked at.
        task: of the model.
        weights: (rows,) how much each row counts; None: all the same.
        rows: fit on so many of the last rows.

    Raises:
        DeclarationError: `estimator-takes-no-weights`, `text-too-wide`.
        DataError: `one-class-only`.
    """
    if isinstance(estimator, ruled.Bound):
        return estimator
    if rows is not None and matrix.shape[0] > rows:
        matrix, labels = matrix[-rows:], labels[-rows:]
        weights = None if weights is None else weights[-rows:]
    if isinstance(estimator, LinearQuantiles):
        line = _fit(estimator.line, matrix, labels, weights)
        return estimator.fitted(line, labels - line.predict(design.suited(line, matrix)))
    if isinstance(estimator, Several):
        parts = tuple(_fit(part, matrix, labels, weights) for part in estimator.parts)
        return Several(parts, estimator.places, estimator.width)
    if task.kind == "anomaly":
        # The baseline wants labels, whatever they are; a detector does not look at any.
        return _fit(estimator, matrix, np.zeros(matrix.shape[0]), weights)
    if not task.classifies:
        return _fit(estimator, matrix, labels, weights)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(
            "one-class-only",
            f"All of {len(labels):,} training rows have the same outcome.",
            why="Nothing can be told apart.",
            next="Ingest more history, or train up to a later time: flyball apply --until.",
        )
    if task.kind == "binary" or (len(classes) == task.width > 2):
        return _fit(estimator, matrix, labels, weights)
    seen = tuple(int(place) for place in classes)
    return Several((_fit(estimator, matrix, np.searchsorted(classes, labels), weights),), seen, task.width)


def _built(model: Model, knobs: Mapping[str, Any], task: Task, encoder: Encoder) -> Any:
    if model.build is None:
        return automatic.build(model.knobs(**knobs), task, encoder)
    return _able(model, build(model, knobs), task)


def _able(model: Model, estimator: Any, task: Task) -> Any:
    """What the model function returned, if it can learn the task."""
    why = ""
    if not isinstance(estimator, rule.Rule):
        if isinstance(estimator, type):
            why = f"{estimator.__name__} is a class: call it"
        elif not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
            why = "it has no fit and get_params"
        else:
            why = families.of(estimator).cannot(estimator, task)
        if not why and task.kind == "quantile" and _quantile(estimator, 0.5) is None:
            why = f"it learns no quantile; those that do are {', '.join(_QUANTILE)}"
    if why:
        wanted = {"binary": "classifier", "multiclass": "classifier", "anomaly": "detector of outliers"}
        raise DeclarationError(
            "estimator-of-other-kind",
            f"The model {model.name!r} cannot learn by {type(estimator).__name__}.",
            where=model.place,
            why=f"To predict {model.predicts} is a task of the kind {task.kind}, and {why}.",
            next=f"Return a {wanted.get(task.kind, 'regressor')}, such as {_SUCH_AS[task.kind]}, or fb.rule(function).",
        )
    return estimator


_SUCH_AS = {
    "binary": "LGBMClassifier",
    "multiclass": "LGBMClassifier",
    "regression": "LGBMRegressor",
    "quantile": "LGBMRegressor",
    "anomaly": "IsolationForest",
}


def _quantile(estimator: Any, quantile: float) -> Any:
    """The parameters that make a regressor learn a quantile; None for one that cannot."""
    prefix = ""
    while isinstance(estimator, Pipeline):
        prefix, estimator = f"{prefix}{estimator.steps[-1][0]}__", estimator.steps[-1][1]
    names = [base.__name__ for base in type(estimator).__mro__ if base.__name__ in _QUANTILE]
    return {prefix + name: value for name, value in _QUANTILE[names[0]](quantile).items()} if names else None


def tied(estimator: Any) -> Any:
    """The estimator, and those within it, with what makes them repeatable wherever that was left open."""
    params = estimator.get_params(deep=True)
    within = {f"{name}__": part for name, part in params.items() if hasattr(part, "get_params")}
    chosen: dict[str, Any] = {}
    for prefix, part in {"": estimator, **within}.items():
        family, open_ = families.of(part), part.get_params(deep=False)
        for name, value in {**family.settings, **REPEATABLE}.items():
            if (name in open_ and open_[name] is None) or (family.takes_any and name not in open_):
                chosen[prefix + name] = value
    return estimator.set_params(**chosen)


def _fit(estimator: Any, matrix: design.Rows, labels: np.ndarray | None, weights: np.ndarray | None) -> Any:
    """Fit, and from then on answer on one thread: forests on several add their trees up in any order.

    Few rows are fitted on one thread where the declaration left that open: two that wait for one another by spinning take ten
    times as long on a busy machine, and the trees are the same (`deterministic`).
    """
    family = families.of(estimator)
    if family.few and matrix.shape[0] < FEW and _open(estimator, family):
        estimator = estimator.set_params(**family.few)
    fitted = estimator.fit(design.suited(estimator, matrix), labels, **_weighted(estimator, weights))
    jobs = {name: 1 for name, value in fitted.get_params(deep=True).items() if _JOBS.fullmatch(name) and value}
    return fitted.set_params(**jobs) if jobs and families.of(fitted).name == "scikit-learn" else fitted


def _open(estimator: Any, family: families.Family) -> bool:
    """Whether what is set for few rows is as the family's own settings left it."""
    params = estimator.get_params(deep=False)
    return all(params.get(name) == family.settings.get(name) for name in family.few)


def _weighted(estimator: Any, weights: np.ndarray | None) -> dict[str, Any]:
    if weights is None:
        return {}
    name, last = "sample_weight", estimator
    while isinstance(last, Pipeline):
        name, last = f"{last.steps[-1][0]}__{name}", last.steps[-1][1]
    if not has_fit_parameter(last, "sample_weight"):
        raise DeclarationError(
            "estimator-takes-no-weights",
            f"{type(last).__name__} cannot count some rows more than others.",
            why="The model declares weights=, and its fit takes no sample_weight.",
            next="Leave weights out, or return an estimator that takes them.",
        )
    return {name: weights}
