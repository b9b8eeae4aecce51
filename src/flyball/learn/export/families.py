"""The families of estimators that can be trained and served: what is known of each is one value, `FAMILY`, in one module.

An estimator belongs to the family of the first class in its line of ancestors that a listed package defines, so a
subclass of LGBMClassifier in an app is LightGBM's, and whatever else has fit and predict is scikit-learn's.

    a new family   a module with a FAMILY, its package here, and a `Kind` with its loader in `predictor`
                   (docs/howto/add-an-estimator-family.md)

The modules are imported when an estimator of theirs is met: that of XGBoost needs a library that need not be there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flyball.learn.export.predictor import Kind, Matrix
from flyball.learn.task import Answers, Task

Makers = Mapping[Kind, Callable[[], bytes]]
"""Of each kind that may serve an estimator, the native one first: what writes its artifact."""

_HOMES: Mapping[str, str] = {
    "lightgbm": "of_lightgbm",
    "xgboost": "of_xgboost",
    "sklearn": "of_sklearn",
    "flyball": "of_rule",
}
"""The package that defines a class -> the module of its family."""


@dataclass(frozen=True, slots=True)
class Family:
    """What there is to know of a family.

    Attributes:
        name: as users call it.
        served: how a model of it will be served, in one sentence, for `plan`.
        answers: (fitted, matrix) -> what it answers itself, float64 (rows,) or (rows, classes): what exports are held against.
        makers: (fitted, features) -> what writes each artifact.
        cannot: (unfitted, task) -> why it cannot learn such a task; "" if it can.
        settings: parameters that make training repeatable, set where an estimator leaves them open.
        few: what is set instead where rows are few, and as it was left open.
        takes_any: it has parameters that `get_params` does not list.
    """

    name: str
    served: str
    answers: Callable[[Any, Matrix], Answers]
    makers: Callable[[Any, int], Makers]
    cannot: Callable[[Any, Task], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    few: Mapping[str, Any] = field(default_factory=dict)
    takes_any: bool = False


def of(estimator: object) -> Family:
    """The family of an estimator, fitted or not."""
    packages = (base.__module__.partition(".")[0] for base in type(estimator).__mro__)
    home = next((_HOMES[package] for package in packages if package in _HOMES), _HOMES["sklearn"])
    return cast("Family", importlib.import_module(f"flyball.learn.export.{home}").FAMILY)
