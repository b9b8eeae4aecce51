"""The champion's own trees in the shape that peers serve: a scikit-learn pipeline over a pandas frame, and an ONNX session.

Vocabularies are the encoder's, numbers are rounded to float32 as the model was exported for, so every server says the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def columns(model: Path) -> list[dict[str, Any]]:
    """Name, kind and vocabulary of each column, in order."""
    found: list[dict[str, Any]] = json.loads((model / "encoder.json").read_bytes())["columns"]
    return found


def sklearn(model: Path) -> Any:
    """A fitted pipeline: ordinal categories and numbers, then the trees."""
    import lightgbm
    import pandas as pd
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    class Trees(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            self.booster_ = lightgbm.Booster(model_str=(model / "model.txt").read_text())
            self.classes_ = np.array([0, 1])
            return self

        def predict_proba(self, x: Any) -> np.ndarray:
            positive = self.booster_.predict(np.asarray(x, dtype=np.float32), num_threads=1)
            return np.column_stack([1 - positive, positive])

    known = columns(model)
    texts, numbers = ([c for c in known if (c["reads"] == "text") is text] for text in (True, False))
    assert known == texts + numbers, "the transformer puts categories first, as the app does"
    ordinal = OrdinalEncoder(
        categories=[c["vocabulary"] for c in texts], handle_unknown="use_encoded_value", unknown_value=-1
    )
    prepare = ColumnTransformer(
        [("texts", ordinal, [c["name"] for c in texts]), ("numbers", "passthrough", [c["name"] for c in numbers])]
    )
    row = {c["name"]: c["vocabulary"][0] if c in texts else 0.0 for c in known}
    return Pipeline([("prepare", prepare), ("trees", Trees())]).fit(pd.DataFrame([row]), [0])


def onnx(model: Path) -> Callable[[list[dict[str, Any]]], list[float]]:
    """Rows to probabilities, through ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession((model / "model.onnx").read_bytes(), options, ["CPUExecutionProvider"])
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    codes = [
        (c["name"], {value: float(n) for n, value in enumerate(c["vocabulary"])} if c["reads"] == "text" else None)
        for c in columns(model)
    ]

    def answers(rows: list[dict[str, Any]]) -> list[float]:
        values = [[r[name] if known is None else known.get(r[name], -1.0) for name, known in codes] for r in rows]
        found = np.asarray(session.run([wanted.name], {given.name: np.array(values, dtype=np.float32)})[0])
        answered: list[float] = found.reshape(len(rows), -1)[:, -1].tolist()
        return answered

    return answers
