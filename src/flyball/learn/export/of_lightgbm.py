"""LightGBM's estimators: served by LightGBM's own library with the same bits, or as ONNX."""

from __future__ import annotations

from functools import partial
from typing import Any

from sklearn.base import is_classifier

from flyball.learn.export import boosted, native, onnx_write
from flyball.learn.export.families import Family, Makers
from flyball.learn.task import Task


def _makers(fitted: Any, features: int) -> Makers:
    floored = partial(boosted.floor, fitted.booster_.model_to_string())
    probability = bool(is_classifier(fitted))
    return {
        "lightgbm": lambda: floored().encode(),
        "onnx": lambda: onnx_write.boosted(floored(), features, probability=probability),
    }


def _cannot(estimator: Any, task: Task) -> str:
    if str(estimator.get_params().get("objective")) in ("multiclassova", "multiclass_ova", "ova", "ovr"):
        return "its probabilities of the classes do not sum to one; leave the objective out"
    return native.cannot(estimator, task)


FAMILY = Family(
    name="LightGBM",
    served="by LightGBM's own library, with the same bits; as ONNX where it agrees",
    answers=native.answers,
    makers=_makers,
    cannot=_cannot,
    settings={
        "deterministic": True,  # the same trees whatever the number of threads ...
        "force_row_wise": True,  # ... and no timing decides on the layout of its histograms
        "verbose": -1,
        "n_jobs": 2,  # left to the machine, sums of another number of threads could give other bytes elsewhere
    },
    few={"n_jobs": 1},
    takes_any=True,
)
