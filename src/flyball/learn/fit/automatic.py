"""What `fb.auto` builds of the knobs that `algorithms` declares: an unfitted estimator of the task.

All of them are exported with their own bits: boosted trees by LightGBM's text, the rest by scikit-learn's own numbers.
"""

from __future__ import annotations

from typing import Any

from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import IsolationForest

from flyball._kernel.errors import Bug
from flyball.learn.algorithms import Algorithms, Boosted, Forest
from flyball.learn.encoding.encode import Encoder
from flyball.learn.fit.rivals import linear
from flyball.learn.knobs import Params
from flyball.learn.task import Task


def build(knobs: Params, task: Task, encoder: Encoder) -> Any:
    """The estimator of the knobs, unfitted; of quantiles one regressor, which is fitted once for each.

    Args:
        knobs: of the class that `algorithms.knobs(task)` gives.
        task: of the model.
        encoder: of the rows: which columns are codes, measures and text.
    """
    match knobs:
        case Algorithms(algorithm="linear"):
            return linear(encoder, task, knobs.strength)
        case Boosted():
            return _boosted(knobs, task)
        case Forest():
            return IsolationForest(n_estimators=knobs.trees, max_samples=knobs.rows)
    raise Bug("not-automatic", f"{type(knobs).__name__} are no knobs of fb.auto.")


def _boosted(knobs: Boosted, task: Task) -> Any:
    kind = LGBMClassifier if task.classifies else LGBMRegressor
    return kind(
        n_estimators=knobs.trees,
        learning_rate=knobs.rate,
        num_leaves=knobs.leaves,
        min_child_samples=knobs.min_rows,
        colsample_bytree=knobs.columns,
        subsample=knobs.rows,
        subsample_freq=1,
        reg_lambda=knobs.penalty,
    )
