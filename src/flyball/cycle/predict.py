"""Predict: answer a whole file with the version that answers now.

Each question is asked at its declared moment, or now where that lies ahead; features are those that were known then. Rows
that break the contract are refused and counted, as they are at the server. The answers carry the version, and a fact says
which file was answered by whom.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from flyball._kernel import ids
from flyball._kernel.errors import DataError, StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import artifacts, causes, snapshot
from flyball.cycle.session import Event, Session, Tell
from flyball.data import contract, quarantine
from flyball.learn.features import offline
from flyball.learn.model import Model
from flyball.release import version
from flyball.release.version import Manifest


class BatchAnswered(Said, frozen=True, kw_only=True, tag="serve.batch_answered"):
    """A file of questions was answered: by whom, and which bytes went in and out."""

    version: str
    questions: str
    answers: str
    answered: int
    refused: int


def predict(session: Session, name: str | None, questions: Path, answers: Path, tell: Tell) -> BatchAnswered:
    """Answer `questions` (Parquet, CSV or JSON lines) into the Parquet file `answers`: key, asked time, output, version.

    Raises:
        StateError: `nothing-released`, `features-changed`.
        DataError: `file-unreadable`, `column-missing`.
    """
    model = session.app.model(name)
    manifest = _champion(session, model)
    causes.same_features(model, manifest.version, manifest.causes["examples"], manifest.commit)
    sifted = quarantine.sift(_read(model, questions), model.question, questions.name)
    moment = pl.col(model.asked.column.name) - model.asked.lead
    rows = sifted.good.with_columns(_asked=pl.min_horizontal(moment, pl.lit(session.clock.now())))
    tell(Event(step="features", state="run", detail=f"{rows.height:,} questions"))
    tables = snapshot.read(session, model, snapshot.present(session, model))
    frame = offline.build(model.features, model.question, rows, tables)
    tell(Event(step="predict", state="run", detail=manifest.version))
    matrix = artifacts.load_encoder(session, manifest).encode(frame)
    outputs = artifacts.load_predictor(session, manifest).batch(matrix)
    rows.select(
        *contract.spec(model.question).key,
        asked=pl.col("_asked"),
        output=pl.Series(outputs),
        version=pl.lit(manifest.version),
    ).write_parquet(answers)
    said = BatchAnswered(
        version=manifest.version,
        questions=ids.digest(questions.read_bytes()),
        answers=ids.digest(answers.read_bytes()),
        answered=rows.height,
        refused=sifted.bad.height,
    )
    session.facts.append([Fact(session.app.name, model.name, said)])
    return said


def _champion(session: Session, model: Model) -> Manifest:
    now = version.champion(session.facts, session.app.name, model.name)
    if now is None:
        raise StateError(
            "nothing-released",
            f"No version of {model.name!r} was ever released.",
            where=model.place,
            why="A file is answered by the version that answers everybody.",
            next="flyball apply",
        )
    row = version.find(session.facts, session.app.name, now.version)
    return version.read(row.manifest, session.blobs, session.signer)


def _read(model: Model, path: Path) -> pl.DataFrame:
    """The questions, with a null column for each outcome and for whatever else a request may leave out."""
    spec = contract.spec(model.question)
    try:
        match path.suffix:
            case ".parquet":
                frame = pl.read_parquet(path)
            case ".csv":
                frame = pl.read_csv(path, infer_schema=False, null_values=["", "NA"])
            case _:
                frame = pl.read_ndjson(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            "file-unreadable", f"{path} cannot be read.", why=str(error), next="Give Parquet, CSV or JSON lines."
        ) from error
    needed = {c.name for c in spec.request if not c.nullable}
    required = needed | model.features.reads(model.question) | {model.asked.column.name}
    missing = sorted(required - set(frame.columns))
    if missing:
        raise DataError(
            "column-missing",
            f"{path} has no column {missing[0]!r}.",
            where=spec.place,
            why=f"A question to {model.name!r} carries {', '.join(sorted(required))}.",
            next="Add the column.",
        )
    given = [c for c in spec.names if c in frame.columns and c not in spec.late]
    absent = [pl.lit(None, dtype=spec.dtypes[c]).alias(c) for c in spec.names if c not in given]
    return frame.select(*given, *absent)
