"""XGBoost's estimators: served by XGBoost's own library with the same bits, or as ONNX. Needs the extra `xgboost`."""

from __future__ import annotations

from typing import Any

from sklearn.base import is_classifier

from flyball.learn.export import native, onnx_write, xgboost_json
from flyball.learn.export.families import Family, Makers
from flyball.learn.task import Task


def _makers(fitted: Any, features: int) -> Makers:
    probability = bool(is_classifier(fitted))
    return {
        "xgboost": lambda: xgboost_json.canonical(bytes(fitted.get_booster().save_raw("json"))),
        "onnx": lambda: onnx_write.boosted_by_xgboost(fitted, features, probability=probability),
    }


def _cannot(estimator: Any, task: Task) -> str:
    missing = estimator.get_params().get("missing")
    if missing is not None and missing == missing:
        return f"its missing={missing} takes a number for none; flyball writes NaN where a value is missing"
    return native.cannot(estimator, task)


FAMILY = Family(
    name="XGBoost",
    served="by XGBoost's own library, with the same bits; as ONNX where it agrees",
    answers=native.answers,
    makers=_makers,
    cannot=_cannot,
    settings={"verbosity": 0},
)
