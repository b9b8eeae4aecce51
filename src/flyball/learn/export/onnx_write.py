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
from sklearn.base import is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor

from flyball.learn.export import graph, native

FAILURES = (*native.FAILURES, onnx.checker.ValidationError)
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


def estimator(fitted: Any, features: int) -> bytes:
    """A scikit-learn estimator as ONNX; raises whatever the converter raises for what it cannot convert."""
    if isinstance(fitted, (DummyClassifier, DummyRegressor)):
        return _finish(_constant(fitted, features), features, probability=False)
    probability = bool(is_classifier(fitted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = skl2onnx.to_onnx(
            fitted,
            name="flyball",
            initial_types=[(graph.INPUT, FloatTensorType([None, features]))],
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options={"zipmap": False} if probability else None,
        )
    return _finish(model, features, probability=probability)


def _constant(fitted: DummyClassifier | DummyRegressor, features: int) -> Any:
    row = np.zeros((1, features), dtype=np.float32)
    value = fitted.predict_proba(row)[0, 1] if isinstance(fitted, DummyClassifier) else fitted.predict(row)[0]
    first = helper.make_tensor("first", onnx.TensorProto.INT64, [1], [0])
    fill = helper.make_tensor("value", onnx.TensorProto.DOUBLE, [1], [float(value)])
    nodes = [
        helper.make_node("Shape", [graph.INPUT], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("ConstantOfShape", ["rows"], ["variable"], value=fill),
    ]
    answer = helper.make_tensor_value_info("variable", onnx.TensorProto.DOUBLE, [None])
    body = helper.make_graph(nodes, "flyball", [_input(features)], [answer], [first])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _input(features: int) -> Any:
    return helper.make_tensor_value_info(graph.INPUT, onnx.TensorProto.FLOAT, [None, features])


def _finish(model: Any, features: int, *, probability: bool) -> bytes:
    """One input, one answer (rows,), our names: the positive class is the second column of the probabilities."""
    body = model.graph
    last = body.output[-1]
    wanted = last.name
    if probability:
        body.initializer.append(helper.make_tensor("flyball_shape", onnx.TensorProto.INT64, [], [1]))
        body.node.append(helper.make_node("Gather", [wanted, "flyball_shape"], ["flyball_answer"], axis=1))
        wanted = "flyball_answer"
    elif len(last.type.tensor_type.shape.dim) != 1:
        body.initializer.append(helper.make_tensor("flyball_shape", onnx.TensorProto.INT64, [1], [-1]))
        body.node.append(helper.make_node("Reshape", [wanted, "flyball_shape"], ["flyball_answer"]))
        wanted = "flyball_answer"
    kind = onnx.TensorProto.DOUBLE if last.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE else None
    answer = helper.make_tensor_value_info(graph.OUTPUT, kind or onnx.TensorProto.FLOAT, [None])
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
