"""ONNX that somebody else exported: looked into, cut to the one tensor that answers, and asked.

Refused, before a session exists, is what `graph.reaching` finds, as in our own: files besides the file, operators of other
domains, functions, and graphs within nodes. Inputs must be columns: tensors (rows,) or (rows, k) of float, double, int32,
int64, bool or text. A ZipMap, which makes a Python dictionary of every row, is cut off: its input is the same numbers. Labels
are left out: they follow from the probabilities. What a runtime was told in metadata is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import polars as pl
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from flyball._kernel.errors import DeclarationError
from flyball.learn.export import adopted, graph
from flyball.learn.export.adopted import Dtype, Form
from flyball.learn.export.adopted_look import Look, Seen, shape
from flyball.learn.task import BINARY, REGRESSION, Task

_TYPES: Mapping[int, Dtype] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "string",
}
_REAL = (TensorProto.FLOAT, TensorProto.DOUBLE)
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def look(data: bytes) -> Look:
    """What a file of ONNX reads and answers.

    Raises:
        DeclarationError: `adopted-format`, `adopted-unsafe`, `adopted-shape`.
    """
    model = safe(data)
    inputs = tuple(_seen(value) for value in _inputs(model))
    if not inputs:
        raise shape("it reads nothing")
    output, classes, width = _answer(model)
    _cut(model, output)
    prepared = model.SerializeToString(deterministic=True)
    task, told = _task(classes, width)
    return Look("onnx", prepared, inputs, output, task, told=told)


def load(data: bytes, form: Form) -> adopted.Run:
    """What asks a stored model.

    Raises:
        StateError: `hostile-model`.
    """
    try:
        model = safe(data)
    except DeclarationError as error:
        raise adopted.refused(error.why) from error
    rowwise = all(node.op_type in ROWWISE for node in model.graph.node)
    return Session(graph.session(model.SerializeToString(deterministic=True), adopted.refused), form, rowwise)


ROWWISE = frozenset(
    {
        *("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"),
        *("Cast", "Identity", "Concat", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice"),
        *("Gather", "ArrayFeatureExtractor", "ZipMap"),
        *("Scaler", "Imputer", "OneHotEncoder", "LabelEncoder", "Add", "Sub", "Mul", "Div"),
    }
)
"""Operators that do something to single cells, or ask trees; see `adopted.Run`."""


@dataclass(frozen=True, slots=True)
class Session:
    """Asks ONNX Runtime."""

    session: Any
    form: Form
    rowwise: bool

    def __call__(self, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The tensor that answers.

        Raises:
            StateError: `adopted-failed`.
        """
        asked = {each.name: values for each, values in zip(self.form.inputs, arrays, strict=True)}
        try:
            found: npt.NDArray[Any] = self.session.run([self.form.output], asked)[0]
        except graph.FAILURES as error:
            raise adopted.failed(f"ONNX Runtime says: {error}") from error
        return found


def own(data: bytes, form: Form, frame: pl.DataFrame) -> npt.NDArray[Any]:
    """What the file itself answers to the rows of `frame`, as its owner would ask it: with its ZipMap, by whole columns.

    Raises:
        StateError: `adopted-failed`.
    """
    asked: dict[str, Any] = {}
    for each in form.inputs:
        kind = np.object_ if each.dtype == "string" else np.dtype(each.dtype)
        columns = [frame[name].to_numpy().astype(kind) for name in each.columns]
        asked[each.name] = columns[0] if each.flat else np.column_stack(columns)
    loaded = graph.session(safe(data).SerializeToString(deterministic=True), adopted.refused)
    names = [value.name for value in loaded.get_outputs()]
    wanted = _answer(safe(data))[0]
    at = next((i for i, name in enumerate(names) if name == wanted), len(names) - 1)
    try:
        found = loaded.run(None, asked)[at]
    except graph.FAILURES as error:
        raise adopted.failed(f"ONNX Runtime says: {error}") from error
    return np.array([list(row.values()) for row in found]) if isinstance(found, list) else np.asarray(found)


def safe(data: bytes) -> Any:
    """The parsed model, if nothing in it reaches outside.

    Raises:
        DeclarationError: `adopted-format`, `adopted-unsafe`.
    """
    if len(data) > graph.LARGEST:
        raise unsafe(f"it has {len(data):,} bytes; the limit is {graph.LARGEST:,}")
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise _no_onnx() from error
    if not model.graph.node or not model.graph.output:
        raise _no_onnx()
    model.DiscardUnknownFields()
    del model.metadata_props[:]
    if why := graph.reaching(model):
        raise unsafe(why)
    return model


def _inputs(model: Any) -> list[Any]:
    known = {tensor.name for tensor in model.graph.initializer}  # which old exporters list as inputs as well
    return [value for value in model.graph.input if value.name not in known]


def _seen(value: Any) -> Seen:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if not value.type.HasField("tensor_type") or tensor.elem_type not in _TYPES or len(dims) not in (1, 2):
        raise shape(f"its input {value.name[:60]!r} is no tensor of rows and columns of numbers or texts")
    if dims[0].dim_value > 0:
        raise shape(
            f"its input {value.name[:60]!r} takes exactly {dims[0].dim_value} rows",
            "Export it with a number of rows that is open: a dynamic first axis.",
        )
    flat = len(dims) == 1
    return Seen(value.name, _TYPES[tensor.elem_type], 1 if flat else int(dims[1].dim_value), flat)


def _answer(model: Any) -> tuple[str, tuple[str, ...], int]:
    """The tensor that answers, the classes where it is of classes, and how many numbers a row it has (0: not said)."""
    by_output = {name: node for node in model.graph.node for name in node.output}
    maps = [v for v in model.graph.output if v.name in by_output and by_output[v.name].op_type == "ZipMap"]
    reals = [v for v in model.graph.output if v.type.tensor_type.elem_type in _REAL]
    if len(maps) == 1:
        node = by_output[maps[0].name]
        classes = _classes([node])
        return node.input[0], classes, len(classes)
    named = [v for v in reals if "prob" in v.name.lower()]
    (chosen,) = reals if len(reals) == 1 else named if len(named) == 1 else (None,)
    if chosen is None:
        why = (
            "answers labels alone" if not reals else f"answers by {len(reals)} tensors, and does not say which is meant"
        )
        raise shape(f"it {why}", "Export it with one output of probabilities, or of one number a row.")
    dims = chosen.type.tensor_type.shape.dim
    if len(dims) > 2:
        raise shape("it does not answer one number, or one a class, to a row")
    width = 1 if len(dims) == 1 else int(dims[1].dim_value) if dims else 0
    labelled = len(model.graph.output) > len(reals)
    classes = _classes(model.graph.node) if labelled or width > 1 else ()
    if not classes and width > 1:
        classes = tuple(map(str, range(width)))
    if classes and width and len(classes) != width:
        raise shape(f"it has {len(classes)} classes, and answers {width} numbers")
    return chosen.name, classes, width or len(classes)


def _classes(nodes: Sequence[Any]) -> tuple[str, ...]:
    """The names of the classes, where all that is said of them is the same."""
    found = {
        tuple(value.decode(errors="replace") for value in attribute.strings) or tuple(map(str, attribute.ints))
        for node in nodes
        for attribute in node.attribute
        if attribute.name in _LABELS and (attribute.strings or attribute.ints)
    }
    return next(iter(found)) if len(found) == 1 else ()


def _task(classes: tuple[str, ...], width: int) -> tuple[Task, tuple[str, ...]]:
    if len(classes) > graph.MOST_NUMBERS or width > graph.MOST_NUMBERS:
        raise shape(f"it answers more than {graph.MOST_NUMBERS} numbers")
    if classes in (("0", "1"), ("False", "True")):
        return BINARY, ()
    if len(classes) > 1:
        if len(set(classes)) < len(classes) or not all(
            each and each.isprintable() and len(each) <= 100 for each in classes
        ):
            raise shape("its classes have no names that can be told apart")
        return Task(kind="multiclass", classes=classes), ()
    if width not in (0, 1):
        raise shape("it does not say what its numbers stand for")
    return REGRESSION, ("It answers one number: if that is a probability, declare the outcome as dy.Bool.",)


def _cut(model: Any, output: str) -> None:
    """Leave one output; of a ZipMap what goes into it."""
    kept = [value for value in model.graph.output if value.name == output]
    if not kept:
        kept = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None])]
        rest = [node for node in model.graph.node if node.op_type != "ZipMap"]
        del model.graph.node[:]
        model.graph.node.extend(rest)
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _no_onnx() -> DeclarationError:
    return DeclarationError(
        "adopted-format",
        "The file is no ONNX model.",
        why="Adopted are ONNX (name it .onnx), and scikit-learn's estimators as skops wrote them (name it .skops).",
        next="Convert it where it was trained: skl2onnx.to_onnx(estimator, X), or skops.io.dump(estimator, 'model.skops').",
    )


def unsafe(why: str) -> DeclarationError:
    """The error for a file that reaches outside of itself."""
    return DeclarationError(
        "adopted-unsafe",
        "The file is not adopted: it reaches beyond what a model needs.",
        why=f"In the file, {why}.",
        next="Export it as one file, with the operators of ai.onnx and ai.onnx.ml alone.",
    )
