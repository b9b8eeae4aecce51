"""Looking into a file that somebody else made: what it reads, what it answers, and how the columns of an app go into it.

look     the bytes of a file -> what is in it; no code of it runs, and what reaches outside is refused with the way out
formed   what is in it, and the columns and the outcome that an app declares -> how it is asked (`adopted.Form`)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import polars as pl

from flyball._kernel.errors import DeclarationError
from flyball.learn.export import adopted
from flyball.learn.export.adopted import Dtype, Form, Input
from flyball.learn.task import Task

_PICKLE, _ZIP, _TREES, _KERAS = "a pickle", "an archive", "a booster's own file", "a file of Keras"
_FOREIGN: Mapping[str, tuple[tuple[str, ...], tuple[bytes, ...]]] = {
    _PICKLE: (
        ("pkl", "pickle", "joblib", "sav", "pt", "pth", "cbm"),
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x1f\x8b", b"x\x9c"),
    ),
    _KERAS: (("keras", "h5", "hdf5"), (b"\x89HDF",)),
    _ZIP: (("zip", "skops", "mar", "tar"), (b"PK",)),
    _TREES: (("txt", "json", "ubj", "model"), (b"tree\n", b"{")),
}
"""What a file is that cannot be adopted: how it is named, and how it begins."""
_WHY: Mapping[str, str] = {
    _PICKLE: "Reading a pickle (joblib, torch.save and CatBoost's among them) runs whatever code it holds."
}
_CONVERT: Mapping[str, str] = {
    _PICKLE: "Where it was trained, and you trust it: skops.io.dump(estimator, 'model.skops'), skl2onnx.to_onnx(estimator, X), "
    "torch.onnx.export(model, ...), catboost's save_model(path, format='onnx'). "
    "Then flyball adopt that file.",
    _KERAS: "Convert it where it was trained: python -m tf2onnx.convert. Then flyball adopt model.onnx",
    _ZIP: "Write it anew: skops.io.dump(estimator, 'model.skops', compression=0). Then flyball adopt model.skops",
    _TREES: "Convert it where it was trained: onnxmltools.convert_lightgbm(model, ...) or convert_xgboost. "
    "Then flyball adopt model.onnx",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One input as the file declares it.

    Attributes:
        dtype: "" where the file does not say: of scikit-learn.
        width: columns; 0 where it does not say.
    """

    name: str
    dtype: Dtype | Literal[""]
    width: int
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in a file, without running it.

    Attributes:
        data: the file in the one form that is stored and loaded.
        output: of ONNX, the name of the tensor that answers.
        task: what its answers seem to be.
        named: of scikit-learn: the names that it was fitted on.
        told: what a person should know.
    """

    kind: Literal["onnx", "sklearn"]
    data: bytes
    inputs: tuple[Seen, ...]
    output: str
    task: Task
    named: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def look(name: str, data: bytes) -> Look:
    """Look into a file that somebody else made; no code of it runs.

    Args:
        name: of the file; tells what it is meant to be.

    Raises:
        DeclarationError: `adopted-format`, `adopted-unsafe`, `adopted-shape`.
    """
    ending = name.rpartition(".")[2].lower()
    if data[:2] == b"PK" and ending == "skops":
        return cast("Look", adopted.home("sklearn").look(data))
    foreign = next(
        (what for what, (endings, starts) in _FOREIGN.items() if ending in endings or data[:16].startswith(starts)), ""
    )
    if foreign:
        raise DeclarationError(
            "adopted-format",
            f"{name} is {foreign}, and is not adopted.",
            why=_WHY.get(foreign, "Adopted are ONNX, and scikit-learn's estimators as skops wrote them."),
            next=_CONVERT[foreign],
        )
    return cast("Look", adopted.home("onnx").look(data))


def formed(found: Look, digest: str, columns: Sequence[tuple[str, pl.DataType]], task: Task) -> Form:
    """How a file is asked by the columns of an app.

    Args:
        found: what it is.
        digest: SHA-256 of the file.
        columns: names and types, in the order of its inputs.
        task: as the app declares its outcome.

    Raises:
        DeclarationError: `adopted-features-differ`.
    """
    left, inputs = list(columns), []
    seen = found.inputs or tuple(Seen(name, "", 1) for name, _ in columns)
    if found.named and [name for name, _ in columns] != list(found.named):
        raise differ(f"it was fitted on {', '.join(found.named)[:300]}, in this order")
    open_ = [each for each in seen if not each.width]
    for each in seen:
        width = each.width or (len(columns) - sum(e.width for e in seen) if len(open_) == 1 else 0)
        mine, left = left[:width], left[width:]
        if not mine or len(mine) < width:
            raise differ(f"its inputs take {sum(e.width for e in seen)} columns, and {len(columns)} are declared")
        for name, dtype in mine:
            if not fits(each.dtype, dtype):
                raise differ(f"its input {each.name!r} is of {each.dtype}, and {name!r} is {dtype}")
        kind = each.dtype or _typed(mine[0][1])
        inputs.append(Input(name=each.name, dtype=kind, columns=tuple(name for name, _ in mine), flat=each.flat))
    if left:
        raise differ(f"its inputs take {len(columns) - len(left)} columns, and {len(columns)} are declared")
    if (task.kind, task.classes) != (found.task.kind, found.task.classes) and not _same_shape(task, found.task):
        raise differ(f"it answers as {_said(found.task)}, and the outcome is declared as {_said(task)}")
    return Form(
        kind=found.kind, file=digest, inputs=tuple(inputs), task=task, output=found.output, framed=bool(found.named)
    )


def differ(why: str) -> DeclarationError:
    """The error for an app that declares other columns or another outcome than the file has."""
    return DeclarationError(
        "adopted-features-differ",
        "The adopted file does not fit what the app declares.",
        why=f"In the file, {why}.",
        next="Declare its columns in its order, and its outcome as it answers; flyball adopt FILE writes an app that does.",
    )


def _same_shape(declared: Task, found: Task) -> bool:
    """One number may be a probability or a number: the file cannot tell."""
    return declared.width == found.width == 1 and found.kind == "regression" and declared.kind == "binary"


def _said(task: Task) -> str:
    return f"{task.kind} ({', '.join(task.classes)[:200]})" if task.classes else task.kind


def fits(wanted: str, dtype: pl.DataType) -> bool:
    """Whether a column of this type can go into an input of that one."""
    text = dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)
    if wanted in ("float32", "float64"):
        return dtype.is_numeric() or dtype == pl.Boolean
    if wanted in ("int32", "int64"):
        return dtype.is_integer()
    return {"string": text, "bool": dtype == pl.Boolean, "": text or dtype.is_numeric() or dtype == pl.Boolean}[wanted]


def _typed(dtype: pl.DataType) -> Dtype:
    if dtype == pl.Boolean:
        return "bool"
    if dtype == pl.Float32:
        return "float32"
    if dtype.is_float():
        return "float64"
    if dtype in (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16):
        return "int32" if dtype == pl.Int32 else "int64"
    return "int64" if dtype.is_integer() else "string"


def shape(
    why: str, next_: str = "Export it with columns as inputs, and probabilities or one number a row as its output."
) -> DeclarationError:
    """The error for a file whose inputs are no columns, or whose output is no answer."""
    return DeclarationError(
        "adopted-shape", "The file does not answer as a model does.", why=f"In the file, {why}.", next=next_
    )
