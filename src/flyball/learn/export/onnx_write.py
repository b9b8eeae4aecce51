"""ONNX, written: a fitted estimator converted, reduced to the one answer, and spelled so that same means same bytes.

The converters leave things that change from run to run or say nothing: random graph names, versions of the exporter,
a label beside the probability. After conversion only what leads to the answer is kept, every node and value is
renamed in order, and the header is ours.

Dummy estimators have no converter; their answer is a constant, written here in float64, so that it stays exact.
"""

from __future__ import annotations

import warnings
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxmltools
import skl2onnx
from onnx import helper
from onnxmltools.convert.common.data_types import FloatTensorType as BoostedInput
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import is_classifier, is_outlier_detector
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.pipeline import Pipeline

from flyball.learn.export import graph, native

FAILURES = (*native.FAILURES, NameError, onnx.checker.ValidationError)
"""What conversion raises."""

OPSET, ML_OPSET, IR = 17, 3, 8
"""Versions that every runtime since 2022 reads."""

_BOOSTED_OPSET = 15
"""The highest that onnxmltools writes."""


def boosted(text: str, features: int, *, probability: bool) -> bytes:
    """The trees of a LightGBM text (floored beforehand) as ONNX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = onnxmltools.convert_lightgbm(
            lightgbm.Booster(model_str=text),
            name="flyball",
            initial_types=[(graph.INPUT, BoostedInput([None, features]))],
            target_opset=_BOOSTED_OPSET,
            zipmap=False,
        )
    return _finish(model, features, probability=probability)


def boosted_by_xgboost(fitted: Any, features: int, *, probability: bool) -> bytes:
    """XGBoost's trees as ONNX; raises whatever the converter raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = onnxmltools.convert_xgboost(
            fitted,
            name="flyball",
            initial_types=[(graph.INPUT, BoostedInput([None, features]))],
            target_opset=_BOOSTED_OPSET,
        )
    return _finish(model, features, probability=probability)


def estimator(fitted: Any, features: int) -> bytes:
    """A scikit-learn estimator as ONNX; raises whatever the converter raises for what it cannot convert."""
    if isinstance(fitted, (DummyClassifier, DummyRegressor)):
        return _finish(_constant(fitted, features), features, probability=False)
    probability = bool(is_classifier(fitted))
    outliers = bool(is_outlier_detector(fitted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = skl2onnx.to_onnx(
            fitted,
            name="flyball",
            initial_types=[(graph.INPUT, FloatTensorType([None, features]))],
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options={"zipmap": False}
            if probability
            else {id(_last(fitted)): {"score_samples": True}}
            if outliers
            else None,
        )
    return _finish(model, features, probability=probability, negated=outliers)


def _constant(fitted: DummyClassifier | DummyRegressor, features: int) -> Any:
    values = np.atleast_1d(native.answers(fitted, np.zeros((1, features), dtype=np.float32))[0])
    body = [
        helper.make_tensor("zero", onnx.TensorProto.INT64, [1], [0]),
        helper.make_tensor("width", onnx.TensorProto.INT64, [1], [len(values)]),
        helper.make_tensor("values", onnx.TensorProto.DOUBLE, [1, len(values)], values.tolist()),
    ]
    nodes = [
        helper.make_node("Shape", [graph.INPUT], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Concat", ["rows", "width"], ["size"], axis=0),
        helper.make_node("Expand", ["values", "size"], ["variable"]),
    ]
    answer = helper.make_tensor_value_info("variable", onnx.TensorProto.DOUBLE, [None, len(values)])
    whole = helper.make_graph(nodes, "flyball", [_input(features)], [answer], body)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _input(features: int) -> Any:
    return helper.make_tensor_value_info(graph.INPUT, onnx.TensorProto.FLOAT, [None, features])


def _finish(model: Any, features: int, *, probability: bool, negated: bool = False) -> bytes:
    """One input, one answer, our names: of two classes the second's probability (rows,), of more (rows, classes).

    Args:
        model: what a converter wrote.
        features: columns of the input.
        probability: its last output is a probability of each class.
        negated: its last output is how usual a row is.
    """
    body = model.graph
    last = body.output[-1]
    wanted = last.name
    width = _width(last)
    if probability and width == 2:
        wanted, width = _then(body, "Gather", wanted, [], 1, axis=1), 1
    elif width == 1 and len(last.type.tensor_type.shape.dim) != 1:
        wanted = _then(body, "Reshape", wanted, [1], -1)
    if negated:
        body.node.append(helper.make_node("Neg", [wanted], ["flyball_usual"]))
        wanted = "flyball_usual"
    kind = onnx.TensorProto.DOUBLE if last.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE else None
    answer = helper.make_tensor_value_info(
        graph.OUTPUT, kind or onnx.TensorProto.FLOAT, [None] if width == 1 else [None, width]
    )
    nodes, initializers = _needed(body, wanted)
    _rename(nodes, initializers, {graph.INPUT: graph.INPUT, wanted: graph.OUTPUT})
    finished = helper.make_model(
        helper.make_graph(nodes, "flyball", [_input(features)], [answer], initializers),
        producer_name="flyball",
        ir_version=IR,
        opset_imports=sorted(model.opset_import, key=lambda opset: str(opset.domain)),
    )
    data: bytes = finished.SerializeToString(deterministic=True)
    return data


def _width(output: Any) -> int:
    """Numbers a row of what a converter left."""
    dims = output.type.tensor_type.shape.dim
    return max(1, int(dims[1].dim_value)) if len(dims) == 2 else 1


def _last(fitted: Any) -> Any:
    return fitted[-1] if isinstance(fitted, Pipeline) else fitted


def _then(body: Any, operator: str, value: str, shape: list[int], number: int, **attributes: Any) -> str:
    """The name of what an operator makes of a value and one whole number."""
    body.initializer.append(helper.make_tensor("flyball_number", onnx.TensorProto.INT64, shape, [number]))
    body.node.append(helper.make_node(operator, [value, "flyball_number"], ["flyball_answer"], **attributes))
    return "flyball_answer"


def _needed(body: Any, wanted: str) -> tuple[list[Any], list[Any]]:
    """The nodes and initializers that `wanted` follows from, in their order."""
    names, nodes = {wanted}, []
    for node in reversed(list(body.node)):
        if names.intersection(node.output):
            names.update(node.input)
            nodes.append(node)
    return nodes[::-1], [tensor for tensor in body.initializer if tensor.name in names]


def _rename(nodes: list[Any], initializers: list[Any], names: dict[str, str]) -> None:
    def named(old: str) -> str:
        return names.setdefault(old, f"v{len(names)}") if old else ""

    for tensor in initializers:
        tensor.name = named(tensor.name)
        tensor.doc_string = ""
    for i, node in enumerate(nodes):
        node.input[:] = [named(name) for name in node.input]
        node.output[:] = [named(name) for name in node.output]
        node.name, node.doc_string = f"n{i}", ""
