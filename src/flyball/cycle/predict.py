"""Predict: answer a whole file with the version that answers now.

Each question is asked at its declared moment, or now where that lies ahead; features are those that were known then. Rows
that break the contract are refused and counted, as they are at the server. The answers carry the version, and a fact says
which file was answered by whom.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from flyball._kernel import ids
from flyball._kernel.errors import AdapterError, DataError, DeclarationError, StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import answering, artifacts, causes, snapshot
from flyball.cycle.session import Event, Session, Tell
from flyball.data import contract, masked, quarantine, sift
from flyball.learn import finish as finishes
from flyball.learn.features import offline
from flyball.learn.finish import Finish
from flyball.learn.model import Model
from flyball.learn.task import Answers, Task
from flyball.release import rollout
from flyball.release.version import Manifest


class BatchAnswered(Said, frozen=True, kw_only=True, tag="serve.batch_answered"):
    """A file of questions was answered: by whom, and which bytes went in and out.

    Attributes:
        answered: rows; with `refused` (they break the contract) and `repeats` (they say what an earlier row says) all of them.
    """

    version: str
    questions: str
    answers: str
    answered: int
    refused: int
    repeats: int
    by_rule: dict[str, int]


def predict(session: Session, name: str | None, questions: Path, answers: Path, tell: Tell) -> BatchAnswered:
    """Answer `questions` (Parquet, CSV or JSON lines) into the Parquet file `answers`.

    Its columns: the key, `_asked`, `_output` and `_version` as a server tells them; `_decision` where something is decided;
    for each class `_p_CLASS`, for each quantile `_q_QUANTILE`.

    Raises:
        StateError: `nothing-released`, `features-changed`, `task-changed`.
        DataError: `file-unreadable`, `column-missing`.
        DeclarationError: `answers-are-parquet`.
        AdapterError: `answers-unwritable`.
    """
    if answers.suffix != ".parquet":
        raise DeclarationError(
            "answers-are-parquet",
            f"{answers} is not named like a Parquet file.",
            why="Answers are written as Parquet, which keeps their types.",
            next=f"Write to {answers.with_suffix('.parquet')}.",
        )
    model = session.app.model(name)
    manifest = _champion(session, model)
    causes.same_features(model, manifest.version, manifest.causes["examples"], manifest.commit)
    task, finish = answering.task_of(session, model, manifest), artifacts.load_finish(session, manifest)
    asked_bytes = ids.digest(questions.read_bytes()) if questions.is_file() else ""
    asked = _read(model, questions, {finish.by} - {""})
    sift.complete(asked.columns, contract.spec(model.question), questions.name)
    sifted = sift.sift(asked, model.question)
    moment = pl.col(model.asked.column.name) - model.asked.lead
    rows = sifted.good.with_columns(_asked=pl.min_horizontal(moment, pl.lit(session.clock.now())))
    tell(Event(step="features", state="run", detail=f"{rows.height:,} questions"))
    tables = snapshot.read(session, model, snapshot.present(session, model))
    sealed = session.seal.columns(rows.lazy(), contract.spec(model.question)).collect()
    frame = offline.build(model.features, model.question, sealed, tables)
    tell(Event(step="predict", state="run", detail=manifest.version))
    found = artifacts.load_encoder(session, manifest).answers(frame, artifacts.load_predictor(session, manifest).batch)
    columns = told(found, sealed, task, finish)
    answered = rows.select(*contract.spec(model.question).key, "_asked", *columns, _version=pl.lit(manifest.version))
    said = BatchAnswered(
        version=manifest.version,
        questions=asked_bytes,
        answers=_write(answered, answers, questions),
        answered=rows.height,
        refused=sifted.bad.height,
        repeats=sifted.repeats,
        by_rule=quarantine.by_rule(sifted.bad.lazy()),
    )
    session.facts.append([Fact(session.app.name, model.name, said)])
    return said


def told(answers: Answers, rows: pl.DataFrame, task: Task, finish: Finish) -> list[pl.Series]:
    """What is told of each row's answer; as `serve.plan.told` tells it of one.

    Args:
        rows: the questions, whose groups may have thresholds of their own.
    """
    found = [pl.Series("_output", task.headline(answers), dtype=pl.Float64)]
    if task.classes:
        likeliest = [task.classes[place] for place in answers.argmax(axis=1).tolist()]
        found.append(pl.Series("_decision", likeliest, dtype=pl.Enum(task.classes)))
        found += [pl.Series(f"_p_{name}", answers[:, n]) for n, name in enumerate(task.classes)]
    elif task.quantiles:
        found += [pl.Series(f"_q_{quantile}", answers[:, n]) for n, quantile in enumerate(task.quantiles)]
    elif finish.threshold is not None:
        of_each = [finishes.group(value) for value in rows[finish.by].to_list()] if finish.by else None
        groups = None if of_each is None else np.array(of_each, dtype=np.object_)
        found.append(pl.Series("_decision", finish.decided(answers, groups), dtype=pl.Boolean))
    return found


def _write(frame: pl.DataFrame, path: Path, questions: Path) -> str:
    """Write aside, then rename: whoever looks sees all answers or none. Returns the digest of the file."""
    aside = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and path.samefile(questions):
            raise FileExistsError(f"{path} holds the questions")
        frame.write_parquet(aside)
        digest = ids.digest(aside.read_bytes())
        aside.replace(path)
    except OSError as error:
        raise AdapterError(
            "answers-unwritable",
            f"The answers cannot be written to {path}.",
            why=str(error),
            next="Name a file in a folder that exists and is yours, other than that of the questions.",
        ) from error
    return digest


def _champion(session: Session, model: Model) -> Manifest:
    now = rollout.now(session.facts, session.app.name, model.name)
    if not now.champion:
        raise StateError(
            "nothing-released",
            f"No version of {model.name!r} was ever released.",
            where=model.place,
            why="A file is answered by the version that answers everybody.",
            next="flyball apply",
        )
    return artifacts.load_manifest(session, now.champion)


def _read(model: Model, path: Path, grouped: set[str]) -> pl.DataFrame:
    """The questions, with a null column for each outcome and for whatever else a request may leave out.

    Args:
        grouped: columns by which is decided.
    """
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
            "file-unreadable",
            f"{path} {'cannot be read' if path.exists() else 'does not exist'}.",
            why=masked.raised(error, spec),
            next="Give a file that is there: Parquet, CSV or JSON lines.",
        ) from error
    needed = {c.name for c in spec.request if not c.nullable}
    required = needed | model.features.reads(model.question) | {model.asked.column.name} | grouped
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
