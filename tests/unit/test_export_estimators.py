"""Which estimators ship in which exact forms: the table of docs/reference/estimators.md, tried one by one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.utils
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.base import is_classifier, is_outlier_detector
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor

from flyball._kernel.errors import DeclarationError
from flyball.learn.export import pack
from flyball.learn.task import ANOMALY, BINARY, REGRESSION, Task

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "estimators.md"
LINE = re.compile(r"^\| `(\w+)` \| ([a-zA-Z, ]+) \|", re.MULTILINE)
KNOWN: dict[str, str] = dict(LINE.findall(PAGE.read_text()))

MATRIX = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
LABELS = (MATRIX[:, 0] > 0).astype(np.int64) + (MATRIX[:, 1] > 0)
CLASSES = Task(kind="multiclass", classes=("a", "b", "c"))
SMALL: dict[str, Any] = {
    "n_estimators": 2,
    "max_iter": 5,
    "max_depth": 2,
    "random_state": 0,
    "cv": 2,
    "verbose": 0,
    "n_neighbors": 3,
    "hidden_layer_sizes": (3,),
    "novelty": True,
    "n_subsamples": None,
    "max_subpopulation": 50,
}
OTHERS = {cls.__name__: cls for cls in (LGBMClassifier, LGBMRegressor, XGBClassifier, XGBRegressor)}
FOUND = {**dict(sklearn.utils.all_estimators()), **OTHERS}


def small(name: str) -> Any:
    made = FOUND[name]
    given: dict[str, Any] = {}
    if name.startswith(("Voting", "Stacking")):
        kind = "Classifier" if name.endswith("Classifier") else "Regressor"
        given["estimators"] = [("a", small(f"DecisionTree{kind}")), ("b", small(f"SGD{kind}"))]
        if name == "VotingClassifier":
            given |= {"voting": "soft", "estimators": [("a", small("GaussianNB")), ("b", DecisionTreeClassifier())]}
        if name == "StackingClassifier":
            given["estimators"] = [("a", small("GaussianNB"))]
    if name == "CalibratedClassifierCV":
        given["estimator"] = LinearSVC()
    if name == "SGDClassifier":
        given["loss"] = "log_loss"
    if name.startswith("LGBM"):
        given |= {"verbose": -1, "min_child_samples": 5}
    open_ = made(**given).get_params(deep=False)
    given |= {k: v for k, v in SMALL.items() if k in open_ and k not in given}
    estimator = made(**given)
    return make_pipeline(MinMaxScaler(), estimator) if name in ("MultinomialNB", "ComplementNB") else estimator


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_an_estimator_ships_as_the_page_says(name: str) -> None:
    estimator, wanted = small(name), KNOWN[name]
    task, outcome = REGRESSION, np.abs(MATRIX[:, 0]) + 0.1
    if is_outlier_detector(estimator):
        task = ANOMALY
    elif is_classifier(estimator):
        task, outcome = CLASSES, LABELS
    fitted = estimator.fit(MATRIX, outcome)
    if wanted == "refused":
        with pytest.raises(DeclarationError, match=r"no-safe-format|not-one-number"):
            pack.pack(fitted, MATRIX, task)
        return
    packed = pack.pack(fitted, MATRIX, task)
    assert ", ".join(packed.kinds) == wanted
    assert all(offer.parity is not None and offer.parity.exact for offer in packed.offers[:1] if offer.shipped)


def test_the_page_speaks_of_what_the_field_uses() -> None:
    assert len(KNOWN) >= 60
    assert {"IsolationForest", "HistGradientBoostingClassifier", "SVC", "KNeighborsClassifier"} <= KNOWN.keys()
    assert CalibratedClassifierCV.__name__ in KNOWN
    assert BINARY.width == 1
