"""A model that somebody else trained, answering: over typed columns, since our float32 matrix cannot hold a text or an int64.

A `Form` (`adopted.json`) says which column goes into which input of the file, and what its numbers are. A row is an object
array of plain Python values in the order of the columns, many rows are as many lines of it; each input is built from its
columns in the type that the file asks for, as `numpy.asarray(column, dtype)` would, so the answers are the file's own, bit for
bit. A number that is missing is NaN where the input is of floats; elsewhere nothing stands for it, and the question is refused.
The kinds are `onnx` and `sklearn` (`adopted_onnx`, `adopted_native`): what is loaded was checked when it was adopted, and is
checked again. Light: a server of one loads the library of that one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.errors import Bug, DataError, StateError
from flyball.learn.export.predictor import ARTIFACTS, Kind
from flyball.learn.task import Answer, Answers, Task

ARTIFACT = "adopted.json"
"""The name under which an adopted version keeps its form."""

ROWS = 8192
"""Rows of a frame that are made into Python values at a time."""

Dtype = Literal["float32", "float64", "int32", "int64", "bool", "string"]
Cells = npt.NDArray[np.object_]
"""(columns,) or (rows, columns): plain Python values."""

_NUMPY: Mapping[Dtype, Any] = {
    **{"float32": np.float32, "float64": np.float64, "int32": np.int32, "int64": np.int64},
    **{"bool": np.bool_, "string": np.object_},
}
_HOMES: Mapping[str, str] = {"onnx": "adopted_onnx", "sklearn": "adopted_native"}
"""The named lazy loaders: the module of each kind, with `look` and `load`."""


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the file.

    Attributes:
        columns: that it takes, in order.
        flat: it is a tensor (rows,), and not (rows, columns).
    """

    name: str
    dtype: Dtype
    columns: tuple[str, ...]
    flat: bool = False


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What a version keeps of how its file is asked.

    Attributes:
        file: SHA-256 of the file as it was given.
        inputs: of scikit-learn one a column.
        output: of ONNX, the name of the tensor that answers.
        framed: of scikit-learn: it was fitted on a table with these names, and is asked with one.
    """

    kind: Literal["onnx", "sklearn"]
    file: str
    inputs: tuple[Input, ...]
    task: Task
    output: str = ""
    framed: bool = False
    version: Literal[1] = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in the order of a row."""
        return tuple(name for each in self.inputs for name in each.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The same, as an `Encoder` calls them."""
        return self.columns

    @property
    def width(self) -> int:
        """The number of columns, as an `Encoder` has it."""
        return len(self.columns)

    def encode(self, frame: pl.DataFrame) -> Any:
        """The rows of a frame that has these columns, as `Adopted` reads them; as `Encoder.encode`."""
        return cells(frame, self.columns)

    def answers(self, frame: pl.DataFrame, batch: Any) -> Answers:
        """What `batch` answers to a frame that has these columns: (rows,) or (rows, width); as `Encoder.answers`."""
        found = [batch(cells(piece, self.columns)) for piece in frame.iter_slices(ROWS)] if frame.height else []
        width = self.task.width
        return np.concatenate(found) if found else np.zeros((0,) if width == 1 else (0, width), dtype=np.float64)


def cells(frame: pl.DataFrame, columns: Sequence[str]) -> Cells:
    """The rows of a frame as plain Python values: (rows, columns)."""
    found: Cells = np.empty((frame.height, len(columns)), dtype=np.object_)
    for place, name in enumerate(columns):
        found[:, place] = frame[name].to_list()
    return found


def compile_row(form: Form) -> Any:
    """A function of the values of one row that gives the row; as `encode.compile_row`, but a new array at every call."""
    count = len(form.columns)

    def row(values: Sequence[object]) -> Cells:
        if len(values) != count:
            raise DataError("wrong-width", f"A row has {len(values)} values, and the model {count} columns.")
        found: Cells = np.empty(count, dtype=np.object_)
        found[:] = values
        return found

    return row


def probes(form: Form, rows: int, known: Mapping[str, Sequence[Any]]) -> Cells | None:
    """Made-up rows, by which it is seen whether rows alone and together have the same answers: (rows, columns).

    Of every column values that the model knows, since a category that it does not know is nothing but zeros, whose sum is never
    rounded; of floats in some rows numbers of all sizes as well.

    Args:
        known: by column; where they are missing, codes of floats, and None is returned where there are texts or whole numbers.
    """
    chance, odd = np.random.default_rng(1788), 4 if known else 2
    found: Cells = np.empty((rows, form.width), dtype=np.object_)
    dtypes = [each.dtype for each in form.inputs for _ in each.columns]
    for place, (name, dtype) in enumerate(zip(form.columns, dtypes, strict=True)):
        values = (False, True) if dtype == "bool" else known.get(name) or (_CODES if dtype.startswith("float") else ())
        if not values:
            return None
        cells = [values[n] for n in chance.integers(0, len(values), rows).tolist()]
        if dtype.startswith("float"):
            wide = chance.normal(size=rows) * 10 ** chance.uniform(-2, 2, rows)
            cells[1::odd] = wide[1::odd].tolist()
        elif dtype.startswith("int"):
            cells = [int(each) for each in cells]
        found[:, place] = cells
    return found


_CODES = (0.0, 1.0, 2.0)


Run = Callable[[Sequence[npt.NDArray[Any]]], npt.NDArray[Any]]
"""Asks the library: arrays, one for each input, to whatever it answers. Its `rowwise` says whether it is known to compute each
row by itself: trees, and what is done to single cells. Products of matrices are summed in an order that depends on how many
rows there are, and some differ in one row of a hundred alone: no trial tells them for sure.
"""


@dataclass(frozen=True, slots=True)
class Adopted:
    """One adopted model, ready to answer. Safe to share by threads."""

    form: Form
    run: Run
    rowwise: bool = False

    @property
    def name(self) -> Kind:
        """The kind of library that answers."""
        return self.form.kind

    @property
    def features(self) -> int:
        """The number of columns that it reads."""
        return len(self.form.columns)

    def row(self, values: Cells) -> Answer:
        """The answer to one row, (columns,) of plain Python values.

        Raises:
            DataError: `adopted-value-missing`.
        """
        if values.shape != (self.features,):
            raise self._wrong(values)
        answer = self.batch(values[np.newaxis])[0]
        return tuple(answer.tolist()) if self.form.task.width > 1 else float(answer)

    def batch(self, matrix: Cells) -> Answers:
        """The answers to (rows, columns) of plain Python values: float64 of shape (rows,), or (rows, width).

        Raises:
            DataError: `adopted-value-missing`.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self.features or matrix.dtype != np.object_:
            raise self._wrong(matrix)
        rows, width = len(matrix), self.form.task.width
        if not rows:
            return np.zeros((0,) if width == 1 else (0, width), dtype=np.float64)
        listed, arrays, start = matrix.tolist(), [], 0
        for each in self.form.inputs:
            end = start + len(each.columns)
            arrays.append(array(each, listed if len(self.form.inputs) == 1 else [row[start:end] for row in listed]))
            start = end
        return numbers(self.run(arrays), rows, self.form.task)

    def _wrong(self, found: Cells) -> Bug:
        return Bug(
            "wrong-shape",
            f"An adopted model of {self.features} columns was given {found.dtype} of shape {found.shape}.",
            next="report this",
        )


def array(each: Input, rows: Sequence[Sequence[Any]]) -> npt.NDArray[Any]:
    """The tensor of one input from its cells, row by row: (rows, columns), or (rows,) where it is flat.

    Raises:
        DataError: `adopted-value-missing`.
    """
    lacks = [place for row in rows if None in row for place, value in enumerate(row) if value is None]
    if lacks:
        if each.dtype not in ("float32", "float64"):
            raise missing(each.columns[lacks[0]], each.dtype)
        rows = [[_NAN if value is None else value for value in row] for row in rows]
    if each.dtype == "float32":
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, as for whoever casts it himself
            found = np.array(rows, dtype=np.float32)
    else:
        found = np.array(rows, dtype=_NUMPY[each.dtype])
    return found[:, 0] if each.flat else found


_NAN = float("nan")


def missing(column: str, dtype: str) -> DataError:
    """The error for a value that is missing where the model knows no missing values."""
    return DataError(
        "adopted-value-missing",
        f"The question has no value for {column!r}.",
        why=f"The adopted model reads it as {dtype}, in which nothing stands for a missing value.",
        next="Send a value; or declare the column without nullable=True, and the request is refused by its contract.",
    )


def numbers(found: npt.NDArray[Any], rows: int, task: Task) -> Answers:
    """What a library answered, as answers: of two classes told as true or false, the second.

    Raises:
        StateError: `hostile-model`, where it is not as many numbers as it promised.
    """
    flat = np.asarray(found, dtype=np.float64)
    if task.width == 1 and task.classifies and flat.size == 2 * rows:
        flat = flat.reshape(rows, 2)[:, 1]
    if flat.size != rows * task.width:
        raise refused(f"it answers {flat.size} numbers to {rows} rows")
    return np.ascontiguousarray(flat.reshape((rows,) if task.width == 1 else (rows, task.width)))


def from_bytes(data: bytes) -> Form:
    """The form that was stored.

    Raises:
        StateError: `hostile-model`.
    """
    try:
        found = msgspec.json.decode(data, type=Form)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refused(f"its form cannot be read: {error}") from error
    if not found.columns or len(set(found.columns)) < len(found.columns):
        raise refused("its form names no columns, or one twice")
    if any(each.flat and len(each.columns) != 1 for each in found.inputs):
        raise refused("its form gives several columns to a flat input")
    return found


def load(form: Form, data: bytes) -> Adopted:
    """The predictor of an adopted version, from what was stored; checked again.

    Raises:
        StateError: `hostile-model`.
    """
    run = home(form.kind).load(data, form)
    return Adopted(form, run, run.rowwise)


def stored(artifacts: Mapping[str, str], get: Callable[[str], bytes]) -> Adopted | None:
    """The predictor of a version; None of one that was trained here.

    Args:
        artifacts: of its manifest, name -> digest.
        get: digest -> bytes, verified.

    Raises:
        StateError: `hostile-model`.
    """
    if ARTIFACT not in artifacts:
        return None
    form = from_bytes(get(artifacts[ARTIFACT]))
    return load(form, get(artifacts[ARTIFACTS[form.kind]]))


def home(kind: str) -> Any:
    """The module of a kind, with `look`, `own` and `load`."""
    return importlib.import_module(f"flyball.learn.export.{_HOMES[kind]}")


def refused(why: str) -> StateError:
    """The error for a stored model that must not be loaded."""
    return StateError("hostile-model", "A stored adopted model is refused.", why=why, next="flyball apply")


def failed(why: str) -> StateError:
    """The error for a model that fails on a question that its contract let through."""
    return StateError(
        "adopted-failed",
        "The adopted model failed on a question.",
        why=why,
        next="Look at the question with flyball why; a value that the model refuses belongs into the contract.",
    )
