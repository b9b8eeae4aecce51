"""Rules: the app's own function answers, exactly; there is nothing to convert."""

from __future__ import annotations

from typing import Any

from flyball.learn.export import ruled
from flyball.learn.export.families import Family, Makers
from flyball.learn.export.predictor import Matrix
from flyball.learn.task import Answers, Task


def _answers(fitted: Any, matrix: Matrix) -> Answers:
    bound: ruled.Bound = fitted
    return bound.batch(matrix)


def _makers(fitted: Any, features: int) -> Makers:
    del features
    return {"rule": lambda: ruled.stored(fitted)}


def _cannot(estimator: Any, task: Task) -> str:
    del estimator, task
    return ""


FAMILY = Family(
    name="rule",
    served="by the app's own function; no ONNX, because only its fingerprint is stored, never code",
    answers=_answers,
    makers=_makers,
    cannot=_cannot,
)
