"""Answering: the one protocol that serving calls, and `load`, which makes one from stored bytes.

A *kind* says how: `lightgbm` (model.txt through the C library), `xgboost` (model.xgb through its C library), `onnx`
(model.onnx through ONNX Runtime), `sklearn` (model.skops through scikit-learn), `rule` (rule.json, and the function of the
app itself: `learn.rule`). Only what a kind needs is imported, when it is loaded: a server of boosted trees
loads neither lightgbm (2.5 s, with pandas and scikit-learn) nor onnxruntime.

Nothing that is read runs code: each kind checks its bytes completely before any library sees them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import Bug, StateError
from flyball.learn.task import Answer, Answers

Kind = Literal["lightgbm", "xgboost", "onnx", "sklearn", "rule"]
Matrix = npt.NDArray[np.float32]

ARTIFACTS: Mapping[Kind, str] = {
    "lightgbm": "model.txt",
    "xgboost": "model.xgb",
    "onnx": "model.onnx",
    "sklearn": "model.skops",
    "rule": "rule.json",
}
"""The artifact that each kind is loaded from."""

_HOMES: Mapping[Kind, str] = {
    "lightgbm": "lightgbm_c",
    "xgboost": "xgboost_c",
    "onnx": "graph",
    "sklearn": "native",
    "rule": "ruled",
}
"""The named lazy loaders: the module of each kind, whose `load` takes the artifact's bytes."""


class Predictor(Protocol):
    """A model that answers: one number a row, or as many as its task has classes or quantiles. Safe to share by threads."""

    @property
    def name(self) -> Kind:
        """Its kind."""

    @property
    def features(self) -> int:
        """The number of columns that it reads."""

    def row(self, values: Matrix) -> Answer:
        """The answer to one row, float32 of shape (features,): a float, or a tuple of `width` of them."""

    def batch(self, matrix: Matrix) -> Answers:
        """The answers to a matrix: float32 of shape (rows, features); float64 of shape (rows,), or (rows, width)."""


def load(kind: Kind, artifacts: Mapping[str, bytes]) -> Predictor:
    """The predictor of `kind` over its artifact, verified.

    Raises:
        StateError: `no-such-artifact`; `hostile-model` when the bytes are not what packaging writes; `rule-needs-its-app`.
    """
    if kind not in ARTIFACTS:
        raise StateError("hostile-model", f"There is no kind of predictor {str(kind)[:40]!r}.", next="flyball apply")
    name = ARTIFACTS[kind]
    if name not in artifacts:
        raise StateError("no-such-artifact", f"The version has no {name}.", next="flyball apply")
    home = importlib.import_module(f"flyball.learn.export.{_HOMES[kind]}")
    return cast("Predictor", home.load(artifacts[name]))


def wrong_shape(shape: tuple[int, ...], dtype: object, features: int) -> Bug:
    """The error for an array that a predictor must not hand to a library."""
    return Bug(
        "wrong-shape", f"A predictor of {features} features was given {dtype} of shape {shape}.", next="report this"
    )
