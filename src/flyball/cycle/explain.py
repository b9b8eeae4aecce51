"""Explain: what made one answer what it was, told feature by feature; and what a version makes of its features as a whole.

An answer is explained from the journal: the features as they were recorded, by the artifacts of the version that answered. It
is computed when somebody asks and stored nowhere, so an erasure need not look for it: an answer that was erased cannot be
explained, and training rows that were erased are nobody's neighbours. Neighbours are told by their keys, personal ones as the
keyed hashes that the journal has, and never by what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import ids
from flyball._kernel.clock import from_micros
from flyball._kernel.conditions import Metric
from flyball._kernel.errors import StateError
from flyball.cycle import answering, archiving, artifacts, tested
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract
from flyball.data.contract import Personal
from flyball.learn import reference as references
from flyball.learn import split
from flyball.learn.encoding import encode
from flyball.learn.encoding.encode import Encoder
from flyball.learn.examples import Examples
from flyball.learn.explain import explanation, neighbours, shap
from flyball.learn.explain.explanation import Explanation, Subject
from flyball.learn.explain.walks import Contributions
from flyball.learn.export.predictor import Matrix
from flyball.learn.held import Held
from flyball.learn.quality import worth as worths
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.quality.measures import Terms
from flyball.learn.task import Task
from flyball.release.version import Manifest
from flyball.serve import reply, router
from flyball.serve.journal import Entry

NEAREST = 5
"""Training rows that are told."""
_REQUEST = "_request."


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one feature contributed.

    Attributes:
        values: its columns, as recorded when asked.
        error: the standard error of the contribution; 0 where it is exact.
    """

    feature: str
    values: dict[str, Any]
    contribution: float
    error: float = 0.0


class Near(msgspec.Struct, frozen=True, kw_only=True):
    """A training row like the question.

    Attributes:
        key: its key; personal columns as keyed hashes.
        distance: from 0 to 1; see `learn.explain.neighbours`.
        outcome: what came of it, only where it was asked to be revealed.
    """

    key: dict[str, Any]
    asked: str
    distance: float
    outcome: Any = None


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, explained.

    Attributes:
        output, outputs, decision: as they were answered.
        of: which number of the answer is explained: a class, "" where there is one.
        method, unit, family: see `learn.explain.shap`; "" where nothing could be explained.
        base, score: `score` is `base` plus all contributions, before calibration.
        calibrated: whether a calibration made the answer of the score.
        parts: what contributes most first; all features.
        nearest: training rows, nearest first.
        why: what is not told, or not as it was, and why.
    """

    prediction: str
    model: str
    version: str
    role: str
    asked: str
    output: float | None
    outputs: dict[str, float]
    decision: bool | str | None
    of: str = ""
    method: str = ""
    unit: str = ""
    family: str = ""
    base: float = 0.0
    score: float = 0.0
    calibrated: bool = False
    parts: tuple[Part, ...] = ()
    nearest: tuple[Near, ...] = ()
    why: tuple[str, ...] = ()


def explain(session: Session, prediction: str, *, nearest: int = NEAREST, reveal: bool = False) -> Explained:
    """Explain one recorded answer.

    Args:
        nearest: training rows to tell, at most.
        reveal: tell what came of them.

    Raises:
        StateError: `no-such-prediction`, `answer-not-kept`; `signature-broken`, `artifact-changed`, `hostile-model` where what
            is stored cannot be trusted; `rule-changed`.
    """
    entry = session.journal.find(prediction)
    if entry is None:
        archiving.refuse(session, prediction)
    found = Explained(
        prediction=entry.id,
        model=entry.model,
        version=entry.version,
        role=entry.role,
        asked=from_micros(entry.asked).isoformat(),
        output=entry.output if math.isfinite(entry.output) else None,
        outputs={},
        decision=entry.decision,
    )
    if entry.version == router.DEFAULT:
        return _nothing(found, "no version gave this answer: it is the default that the app declares")
    if entry.role == "baseline":
        return _nothing(found, f"the baseline of {entry.version} answered: it says the same to every question")
    manifest = artifacts.load_learned(session, entry.version)
    return _explained(session, manifest, entry, found, (nearest, reveal))


def of_version(session: Session, name: str, tell: Tell = silent) -> Explanation:
    """What a version makes of its features: as it was stored with it, or made now for one that has none.

    Raises:
        StateError: `no-such-version`, `explanation-unreadable`; `examples-erased` where it must be made and cannot.
    """
    manifest = artifacts.load_learned(session, name)
    stored = _stored(session, manifest)
    if stored is not None:
        return stored
    learned = tested.learned(session, manifest)
    if learned is None:
        raise StateError(
            "examples-erased",
            f"The examples of {name} held rows that were erased, so they are gone.",
            why="No explanation was stored with this version, and none can be made without them.",
            next="Train on what is left: flyball apply APP --until TIME, with a time after the last row.",
        )
    tell(Event(step=name, state="run", detail="no explanation is stored with it: it is made now"))
    examples, held = learned
    subject = _subject(session, manifest, learned)
    test = examples.frame.filter(pl.Series(held.test))
    rows = _sampled(subject.encoder, test, worths.ROWS)
    labels = examples.labels[held.test][_evenly(test.height, len(rows))]
    days = split.days(test["_asked"])[_evenly(test.height, len(rows))]
    terms = Terms(quantiles=subject.task.quantiles)
    held_out = worths.Rows(rows, labels, days, terms)
    return explanation.explain_version(subject, held_out, _metric(session), _evaluation(session, manifest).models)


def _nothing(found: Explained, why: str) -> Explained:
    return msgspec.structs.replace(found, why=(why,))


def _explained(
    session: Session, manifest: Manifest, entry: Entry, found: Explained, told: tuple[int, bool]
) -> Explained:
    learned = tested.learned(session, manifest)
    subject = _subject(session, manifest, learned)
    task = subject.task
    found = msgspec.structs.replace(found, outputs=reply.named(task, entry.outputs))
    if entry.failed:
        return _nothing(found, f"this attempt gave no answer: {entry.failed}")
    values = [entry.features.get(name, entry.inputs.get(name)) for name in subject.encoder.names]
    row = encode.compile_row(subject.encoder)(values).copy()
    why: list[str] = []
    near: tuple[Near, ...] = ()
    nearest, reveal = told
    if learned is None:
        why.append(f"nearest: the examples of {manifest.version} held rows that were erased, so they are gone")
    elif nearest:
        rows = _nearest(session, manifest, subject, learned, row, nearest)
        near = tuple(_near(session, manifest, own, distance, reveal=reveal) for own, distance in rows)
    again = np.atleast_1d(subject.predictor.row(row))
    if not np.allclose(again, entry.outputs or (entry.output,), rtol=1e-4, atol=1e-5):
        why.append(f"asked again, {manifest.version} answers {again.max():.6g}: what is explained is that")
    try:
        made = subject.explainer()
    except StateError as problem:
        if problem.code != "explain-no-background":
            raise
        return msgspec.structs.replace(found, nearest=near, why=(*why, f"contributions: {problem.what}"))
    said = made.one(row[None])
    shap.hold(said, made, shap.picked(subject.scores.batch(row[None]), task))
    at = int(said.score[0].argmax()) if task.classes else 0
    return msgspec.structs.replace(
        found,
        of=task.classes[at] if task.classes else f"{task.quantiles[task.middle]:g}" if task.quantiles else "",
        method=made.method,
        unit=made.unit,
        family=made.family,
        base=float(said.base[0, at]),
        score=float(said.base[0, at] + said.values[0, at].sum()),
        calibrated=subject.scores is not subject.predictor and not task.quantiles,
        parts=_parts(subject, said, at, dict(zip(subject.encoder.names, values, strict=True))),
        nearest=near,
        why=tuple(why),
    )


def _parts(subject: Subject, said: Contributions, at: int, values: Mapping[str, Any]) -> tuple[Part, ...]:
    own, errors = said.values[0, at], said.error
    parts = [
        Part(
            feature=name,
            values={column: values[column] for column in columns},
            contribution=float(own[k]),
            error=0.0 if errors is None else float(errors[0, at, k]),
        )
        for k, (name, columns) in enumerate(subject.features.items())
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.contribution)))


def _nearest(
    session: Session, manifest: Manifest, subject: Subject, learned: tuple[Examples, Held], row: Matrix, n: int
) -> list[tuple[dict[str, Any], float]]:
    """The rows of the examples that the version learned from, with their distances, nearest first."""
    examples, held = learned
    frame = examples.frame.filter(pl.Series(held.fit))
    by = neighbours.scale(subject.encoder, subject.train, subject.places, _weights(_stored(session, manifest)))
    places = neighbours.nearest(row, subject.encoder.chunks(frame), by, n)
    rows = frame[[place for place, _ in places]].to_dicts()
    return [(row, distance) for row, (_, distance) in zip(rows, places, strict=True)]


def _weights(stored: Explanation | None) -> dict[str, float]:
    """Feature -> how much it contributes to this version's answers; {} where nobody measured it."""
    if stored is None:
        return {}
    return {f.name: sum(share.size.estimate for share in f.shares) / len(f.shares) for f in stored.features}


def _near(session: Session, manifest: Manifest, row: dict[str, Any], distance: float, *, reveal: bool) -> Near:
    spec = contract.spec(session.app.model(manifest.model).question)
    personal, secret = spec.with_role(Personal), session.signer.secret(answering.SUBJECTS)
    key: dict[str, Any] = {}
    for name in spec.key:
        value = row.get(_REQUEST + name)
        key[name] = ids.keyed_hash(secret, str(value)) if name in personal and value is not None else value
    return Near(
        key=key,
        asked=row["_asked"].isoformat(),
        distance=round(distance, 6),
        outcome=row["_label"] if reveal else None,
    )


def _subject(session: Session, manifest: Manifest, learned: tuple[Examples, Held] | None) -> Subject:
    """A version as it is explained, from what was stored with it alone."""
    encoder = artifacts.load_encoder(session, manifest)
    own = [n for n in ("model.txt", "model.xgb", "model.skops", "rule.json") if n in manifest.artifacts]
    train = np.zeros((0, encoder.width), dtype=np.float32)
    if learned is not None:
        train = _sampled(encoder, learned[0].frame.filter(pl.Series(learned[1].fit)), explanation.TRAIN_ROWS)
    return Subject(
        model=manifest.model,
        task=_task(session, manifest),
        encoder=encoder,
        features=_features(session, manifest, encoder),
        predictor=artifacts.load_predictor(session, manifest),
        artifacts={name: session.blobs.get(manifest.artifacts[name]) for name in own},
        train=train,
    )


def _sampled(encoder: Encoder, frame: pl.DataFrame, n: int) -> Matrix:
    """Rows of a frame, evenly spaced, encoded: `n` of them, or fewer where texts make them wide."""
    at = _evenly(frame.height, min(n, frame.height, max(1, encode.CELLS // encoder.width)))
    return encoder.encode(frame[at.tolist()])


def _evenly(of: int, n: int) -> np.ndarray:
    return np.arange(of) if n >= of else np.linspace(0, of - 1, n).astype(np.intp)


def _task(session: Session, manifest: Manifest) -> Task:
    return artifacts.load_task(session, manifest) or _evaluation(session, manifest).task


def _evaluation(session: Session, manifest: Manifest) -> Evaluation:
    return msgspec.json.decode(session.blobs.get(manifest.artifacts["evaluation"]), type=Evaluation)


def _features(session: Session, manifest: Manifest, encoder: Encoder) -> dict[str, tuple[str, ...]]:
    """Feature -> its columns, as they were declared when the version was trained: its reference names them."""
    of: dict[str, str] = {}
    if references.ARTIFACT in manifest.artifacts:
        said = references.from_bytes(session.blobs.get(manifest.artifacts[references.ARTIFACT]))
        of = {column.name: column.feature for column in said.features}
    found: dict[str, tuple[str, ...]] = {}
    for name in encoder.names:
        found[of.get(name, name)] = (*found.get(of.get(name, name), ()), name)
    return found


def _stored(session: Session, manifest: Manifest) -> Explanation | None:
    digest = manifest.artifacts.get(explanation.ARTIFACT)
    return explanation.from_bytes(session.blobs.get(digest)) if digest is not None else None


def _metric(session: Session) -> Metric:
    return session.app.search.optimize
