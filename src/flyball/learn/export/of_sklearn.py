"""scikit-learn's estimators, and whatever else follows its conventions: natively by skops, or as ONNX."""

from __future__ import annotations

from typing import Any

from flyball.learn.export import native, onnx_write
from flyball.learn.export.families import Family, Makers


def _makers(fitted: Any, features: int) -> Makers:
    return {"sklearn": lambda: native.dump(fitted), "onnx": lambda: onnx_write.estimator(fitted, features)}


FAMILY = Family(
    name="scikit-learn",
    served="by scikit-learn itself, with the same bits, if its types are on the list; as ONNX where it agrees",
    answers=native.answers,
    makers=_makers,
    cannot=native.cannot,
)
