"""ONNX: what is refused before a session exists, and the predictor over what is left.

Our own form of a model, and the only one that is loaded: one input `x` (float32, (rows, features)), one output `answer`
(float32 or float64, (rows,) or (rows, width)), operators of the standard domains.

Refused: more bytes than `LARGEST`; tensors that live in other files (a path in the model would be read); domains other
than ONNX's own (they name native code to be loaded); model-local functions, and graphs inside nodes (loops that need not
end); training information. The size is looked at before anything is parsed. What is adopted is held to the same (`reaching`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from flyball._kernel.errors import StateError
from flyball.learn import task
from flyball.learn.export import predictor, several

LARGEST = 1 << 28
"""Bytes of a model; 256 MiB hold several million tree nodes."""

MOST_NODES = 10_000
MOST_NUMBERS = 1000
INPUT, OUTPUT = "x", "answer"
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
FAILURES = (
    *(runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf, runtime.NoSuchFile),
    *(runtime.NotImplemented, runtime.RuntimeException, runtime.EngineError, runtime.NoModel, RuntimeError),
)
"""What the runtime raises: a class for every way to be wrong, and no common one."""


class Graph:
    """One ONNX Runtime session on one thread."""

    name: Literal["onnx"] = "onnx"

    def __init__(self, data: bytes, features: int, width: int = 1) -> None:
        self._session = session(data, refused)
        self.features, self.width = features, width
        self._shape = (features,)
        self._outputs = [OUTPUT]

    def row(self, values: predictor.Matrix) -> task.Answer:
        """The answer to one row: float32 of shape (features,)."""
        if values.shape != self._shape or values.dtype != np.float32:
            raise predictor.wrong_shape(values.shape, values.dtype, self.features)
        answers = self._run(values[np.newaxis])
        return float(answers.item()) if self.width == 1 else tuple(self._right(answers, 1)[0].tolist())

    def batch(self, matrix: predictor.Matrix) -> task.Answers:
        """The answers to a float32 matrix of shape (rows, features): float64 of shape (rows,), or (rows, width)."""
        if matrix.ndim != 2 or matrix.shape[1] != self.features or matrix.dtype != np.float32:
            raise predictor.wrong_shape(matrix.shape, matrix.dtype, self.features)
        return self._right(self._run(np.ascontiguousarray(matrix)), len(matrix))

    def _right(self, answers: Any, rows: int) -> task.Answers:
        if answers.size != rows * self.width:
            raise refused(f"it answers {answers.size} numbers to {rows} rows")
        return np.asarray(answers, dtype=np.float64).reshape((rows,) if self.width == 1 else (rows, self.width))

    def _run(self, matrix: predictor.Matrix) -> Any:
        try:
            return self._session.run(self._outputs, {INPUT: matrix})[0]
        except FAILURES as error:
            raise refused(f"the runtime says: {error}") from error


def session(data: bytes, refusal: Callable[[str], StateError]) -> Any:
    """An ONNX Runtime session on one thread, over a model that was looked at.

    Args:
        refusal: the error, by the reason, for a model that the runtime does not take.

    Raises:
        StateError: that one.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except FAILURES as error:
        raise refusal(f"the runtime says: {error}") from error


def load(data: bytes) -> predictor.Predictor:
    """A predictor over an ONNX model that `check` accepts; or over several of them, joined.

    Raises:
        StateError: `hostile-model`.
    """
    return several.loaded(data, lambda part: Graph(*check(part)), refused)


def check(data: bytes) -> tuple[bytes, int, int]:
    """The model in `data`, the features that it reads and the numbers that it answers, after refusing what reaches outside.

    The bytes returned are what was checked, written anew: two parsers of one file need not see the same model.

    Raises:
        StateError: `hostile-model`, with the first thing that does not hold.
    """
    if len(data) > LARGEST:
        raise refused(f"it has {len(data):,} bytes; the limit is {LARGEST:,}")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise refused("it is not an ONNX model") from error
    model.DiscardUnknownFields()
    if len(model.metadata_props):
        raise refused("it defines functions, how to train, or settings of a runtime")
    if why := reaching(model):
        raise refused(why)
    return model.SerializeToString(deterministic=True), *_shape(model.graph)


def reaching(model: Any) -> str:
    """What of a parsed model reaches outside of it, or need not end; "" where nothing does."""
    foreign = sorted({each.domain for each in (*model.opset_import, *model.graph.node)} - DOMAINS)
    if foreign:
        return f"it needs operators of the domain {foreign[0][:60]!r}, which are native code that is not ONNX's own"
    if len(model.functions) or len(model.training_info):
        return "it defines functions, or how to train"
    if len(model.graph.node) > MOST_NODES:
        return f"it has {len(model.graph.node):,} nodes; the limit is {MOST_NODES:,}"
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or len(attribute.graphs) or attribute.ref_attr_name:
                return f"node {node.name[:60]!r} holds a graph of its own, which need not end"
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.DEFAULT or len(tensor.external_data):
            return f"tensor {tensor.name[:60]!r} lives in another file"
    return ""


def refused(why: str) -> StateError:
    """The error for a model that must not reach the runtime."""
    return StateError(
        "hostile-model", "A stored ONNX model is refused.", why=why, next="flyball reproduce, or flyball apply"
    )


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of the graph: initializers, sparse ones, and those in attributes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _shape(graph: Any) -> tuple[int, int]:
    inputs: Sequence[Any] = graph.input
    outputs: Sequence[Any] = graph.output
    if [value.name for value in inputs] != [INPUT] or [value.name for value in outputs] != [OUTPUT]:
        raise refused(f"it does not read {INPUT!r} and answer {OUTPUT!r}")
    read, answer = inputs[0].type.tensor_type, outputs[0].type.tensor_type
    if read.elem_type != onnx.TensorProto.FLOAT or answer.elem_type not in _FLOATS or len(read.shape.dim) != 2:
        raise refused("it does not turn float32 rows into numbers")
    features = int(read.shape.dim[1].dim_value)
    if features < 1:
        raise refused("it does not say how many features it reads")
    dims = answer.shape.dim
    width = 1 if len(dims) == 1 else int(dims[1].dim_value) if len(dims) == 2 else 0
    if not 1 <= width <= MOST_NUMBERS:
        raise refused("it does not say how many numbers it answers")
    return features, width
