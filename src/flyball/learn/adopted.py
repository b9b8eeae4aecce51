"""A model that somebody else trained, declared: `fb.adopted("churn.onnx", features, predicts=Churn.churned, asked=...)`.

Nothing is learned. The file's content is the cause of a version as a model function's code is of another's: another content is
another version, which goes the way of every release. The features are the columns that the file reads, in its order; the
outcome is what it answers. Where there is a sample of what it was trained on, monitors compare what comes with that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from flyball._kernel import ids, place
from flyball._kernel.errors import DeclarationError, StateError
from flyball._kernel.ports import Clock
from flyball.data import contract
from flyball.data.contract import Moment
from flyball.learn import model as models
from flyball.learn.export import adopted_look
from flyball.learn.export.adopted import Form
from flyball.learn.export.adopted_look import Look
from flyball.learn.features.declare import FeatureSet, Given
from flyball.learn.knobs import Params
from flyball.learn.model import Model


@dataclass(frozen=True, slots=True)
class File:
    """A file in the place of a model function; where it lies is no part of what it is.

    Attributes:
        digest: SHA-256 of its content when the app was loaded; "" where it was not there: a server needs it no more.
        sample: rows that it was trained on, or such as those; "" for none.
    """

    path: Path = field(compare=False)
    digest: str
    sample: Path | None = field(compare=False)
    sample_digest: str

    def __call__(self) -> NoReturn:
        """Never: nothing is trained.

        Raises:
            StateError: `adopted-not-trained`.
        """
        raise StateError(
            "adopted-not-trained",
            f"The model of {self.path.name} was adopted, and is not trained here.",
            why="Nothing of ours would make another of it.",
            next="Gates on labelled rows tell how good it is: flyball apply.",
        )


def adopted(
    file: str,
    features: FeatureSet,
    *,
    predicts: Any,
    asked: Moment,
    sample: str = "",
    name: str = "",
) -> Model:
    """Declare a model that was trained elsewhere: ONNX, or scikit-learn as skops wrote it. No code of the file ever runs.

    Args:
        file: relative to the app file.
        features: the columns that it reads, in its order; columns of the request alone.
        predicts: an outcome column: Boolean or an Enum of its classes, in its order; or a number.
        asked: as of `model`.
        sample: a Parquet or CSV file with these columns, relative to the app file: the reference of the monitors.
        name: of the model; by default as the file is called.
    """
    where = place.here()
    folder = Path(where.file).resolve().parent
    path, rows = folder / file, folder / sample if sample else None
    build = File(path, _digest(path), rows, _digest(rows) if rows is not None else "")
    return Model(name or path.stem, features, contract.ref(predicts), asked, Params, build, where)


def of(model: Model) -> File | None:
    """The file that a model was adopted from; None for one that is trained."""
    return model.build if isinstance(model.build, File) else None


def _digest(path: Path) -> str:
    return ids.digest(path.read_bytes()) if path.is_file() else ""


def read(model: Model, file: File) -> tuple[Look, Form]:
    """What is in the file of a model, and how it is asked.

    Raises:
        DeclarationError: `adopted-file-missing`; `adopted-features-differ`, and what `adopted_look.look` refuses.
    """
    if not file.path.is_file() or ids.digest(data := file.path.read_bytes()) != file.digest:
        raise missing(model, file.path)
    for feature in model.features.features:
        if not isinstance(feature, Given):
            raise DeclarationError(
                "adopted-features-differ",
                f"The feature {feature.name!r} of the adopted model {model.name!r} is computed.",
                where=feature.place,
                why="An adopted model reads columns of the request as they come; whoever trained it computed the rest before.",
                next="Name the column as the file reads it: fb.features(Table.column, ...).",
            )
    found = adopted_look.look(file.path.name, data)
    spec = contract.spec(model.question)
    columns = [(o.name, spec.column(o.name).dtype) for o in model.features.outputs(model.question)]
    return found, adopted_look.formed(found, file.digest, columns, models.task(model))


def check(model: Model, file: File) -> str:
    """How the model will be served, in a sentence; errors as `read`."""
    found, form = read(model, file)
    library = "ONNX Runtime" if found.kind == "onnx" else "scikit-learn"
    return f"{file.path.name} is adopted: {library} answers by {len(form.columns)} columns as they come; nothing is trained."


def missing(model: Model, path: Path) -> DeclarationError:
    """The error for a file that is not there, or not what it was when the app was loaded."""
    there = path.is_file()
    return DeclarationError(
        "adopted-file-missing",
        f"The model {model.name!r} is adopted from {path.name}, which is {'another by now' if there else 'not there'}.",
        where=model.place,
        why="Its content is what a version is made of.",
        next=f"Put {path.name} beside the app file, then run the same command again.",
    )


def dated(decode: Callable[[bytes], Any], column: str, clock: Clock) -> Callable[[bytes], Any]:
    """A decoder that says when a question is asked, where the caller left it out."""

    def dating(body: bytes) -> Any:
        rows, is_list = decode(body)
        for row in rows:
            if row.get(column) is None:
                row[column] = clock.now()
        return rows, is_list

    return dating
