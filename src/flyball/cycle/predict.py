"""Predict: answer files of any size with one version, in pieces; a run that was killed goes on where it was.

    piece -> sifted -> features as of each row's declared moment -> encoded, answered by all cores -> told -> a part on disk

Each question is asked at its declared moment, or now where that lies ahead; features are those that were known then. Version,
moment and tables are pinned when the run begins (`parts.Run`), so that it says the same however often it was killed. Rows that
break the contract lie beside the answers with the rules that they break, and a fact says which file was answered by whom.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from flyball._kernel.errors import AdapterError, DeclarationError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import answering, artifacts, causes, chosen, snapshot
from flyball.cycle import questions as asking
from flyball.cycle.parts import Part, Parts, Run
from flyball.cycle.questions import Disputes, Piece, Questions
from flyball.cycle.session import Event, Session, Tell, held
from flyball.data import contract, quarantine
from flyball.data.sift import Sifted
from flyball.learn import finish as finishes
from flyball.learn.encoding import encode
from flyball.learn.encoding.encode import Encoder
from flyball.learn.export import doubled, predictor
from flyball.learn.export.adopted import Form
from flyball.learn.export.predictor import Predictor
from flyball.learn.features import meaning, offline
from flyball.learn.finish import Finish
from flyball.learn.model import Model
from flyball.learn.task import Answers, Task
from flyball.release.version import Manifest

PIECE = 1 << 17
"""Rows of a piece."""
LOOKING = 1 << 20
"""Rows of a piece where features look at tables, which are read for each piece anew."""
BATCH = 1 << 14
"""Rows that a core encodes and answers at a time: what they need fits into its cache."""
AHEAD = 1
"""Pieces that are prepared while an earlier one is answered."""


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


@dataclass(frozen=True, slots=True)
class Answerer:
    """A version that answers files.

    Attributes:
        manifest: of the version.
        predictor: with what follows it.
        features: questions, as tables hold them and with `_asked` -> the columns that the encoder reads.
        seal: questions as tables hold them.
    """

    manifest: Manifest
    task: Task
    finish: Finish
    encoder: Encoder | Form
    predictor: Predictor
    features: Callable[[pl.DataFrame], pl.DataFrame]
    seal: Callable[[pl.DataFrame], pl.DataFrame]


def predict(
    session: Session, name: str | None, questions: Path, answers: Path, tell: Tell, version: str | None = None
) -> BatchAnswered:
    """Answer `questions` (Parquet, CSV or JSON lines; a folder or a pattern of such) into the Parquet file `answers`.

    Its columns: the key, `_asked`, `_output` and `_version` as a server tells them; `_decision` where something is decided;
    for each class `_p_CLASS`, for each quantile `_q_QUANTILE`; in the order of the questions. Rows that break the contract
    go to `ANSWERS.refused.parquet` beside it: `_file`, `_line`, `rules` and `row`. A run that ended before its time goes on.

    Args:
        version: who answers; by default who answers now, or answered when the run began that goes on.

    Raises:
        StateError: `nothing-released`, `no-such-version`, `features-changed`, `task-changed`.
        DataError: `file-unreadable`, `column-missing`.
        DeclarationError: `answers-are-parquet`.
        AdapterError: `answers-unwritable`.
        RetryableError: `somebody-else-is-at-it`: another process writes the same file.
    """
    _parquet(answers)
    model = session.app.model(name)
    with held(session, f"predict {answers.resolve()}"):
        tell(Event(step="questions", state="run", detail=str(questions)))
        parts = Parts(answers)
        asked = asking.find(model, questions)
        _not_over(asked, answers)
        begun = _same(parts.begun(), session, asked)
        manifest = chosen.chosen(session, model, version or (begun.version if begun is not None else None))
        by_columns = frozenset({artifacts.load_finish(session, manifest).by} - {""})
        asked = replace(asked, by=by_columns)
        run = begun if begun is not None and begun.version == manifest.version else _run(session, asked, manifest)
        if run != begun:
            parts.begin(run)
        settled = parts.settled()
        if settled is None:
            parts.settle(settled := asking.disputes(asked))
        done = parts.done()
        if done:
            tell(Event(step="parts", state="keep", detail=f"{len(done):,} were finished before"))
        by = answerer(session, model, manifest, run)
        for part in _answered(by, asked, settled, run, (parts, len(done))):
            done.append(part)
            seen = sum(each.answered + each.refused + each.repeats for each in done)
            tell(Event(step="predict", state="run", detail=f"{run.version}: {seen:,} of {asked.total:,} questions"))
        said = _said(run, parts.join(len(done)), done)
        session.facts.append([Fact(session.app.name, model.name, said)])
        parts.end()
    return said


def answerer(session: Session, model: Model, manifest: Manifest, run: Run) -> Answerer:
    """A version, ready to answer many rows at once.

    Raises:
        StateError: `features-changed`, `task-changed`; what `artifacts` raises.
    """
    causes.same_features(model, manifest.version, manifest.causes["examples"], manifest.commit)
    spec = contract.spec(model.question)
    looks = bool(model.features.tables())
    tables = snapshot.read(session, model, run.batches) if looks else {}
    meaning.check(model.features, model.question)
    outputs = [o.name for o in model.features.outputs(model.question)]

    def features(rows: pl.DataFrame) -> pl.DataFrame:
        if looks:
            return offline.build(model.features, model.question, rows, tables)
        return pl.concat(offline.requested(model.features, rows), how="horizontal").select(outputs)

    def seal(rows: pl.DataFrame) -> pl.DataFrame:
        return session.seal.columns(rows.lazy(), spec).collect() if spec.sealed else rows

    finish = artifacts.load_finish(session, manifest)
    return Answerer(
        manifest=manifest,
        task=answering.task_of(session, model, manifest),
        finish=finish,
        encoder=artifacts.load_inputs(session, manifest),
        predictor=_quickest(session, manifest, finish),
        features=features,
        seal=seal,
    )


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


def _quickest(session: Session, manifest: Manifest, finish: Finish) -> Predictor:
    """What answers many rows soonest with the bits that a server would say."""
    if manifest.predictor == "lightgbm":
        found = doubled.load(session.blobs.get(manifest.artifacts[predictor.ARTIFACTS["lightgbm"]]))
        if found is not None:
            return finishes.finished(found, finish)
    return artifacts.load_predictor(session, manifest)


def _answered(
    by: Answerer, questions: Questions, settled: Disputes, run: Run, into: tuple[Parts, int]
) -> Iterator[Part]:
    """Answer piece by piece from the part that `into` names on, and write each part as it is finished."""
    parts, first = into
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[_Waiting] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for piece in asking.pieces(questions, run.size, first):
            sifted, repeats = asking.judge(questions, piece, settled)
            moment = pl.col(questions.model.asked.column.name) - questions.model.asked.lead
            rows = by.seal(sifted.good.with_columns(_asked=pl.min_horizontal(moment, pl.lit(run.now))))
            found = _submitted(pool, by, by.features(rows))
            plain = sifted.good.select(contract.spec(questions.model.question).key)
            waiting.append(_Waiting(piece, sifted, repeats, plain, rows, found))
            if len(waiting) > AHEAD:
                yield _finished(by, waiting.popleft(), parts)
        while waiting:
            yield _finished(by, waiting.popleft(), parts)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A piece that is being answered.

    Attributes:
        key: of the good rows, as it was said.
        rows: the good rows, as tables hold them.
    """

    piece: Piece
    sifted: Sifted
    repeats: int
    key: pl.DataFrame
    rows: pl.DataFrame
    found: Sequence[Future[Answers]]


def _submitted(pool: ThreadPoolExecutor, by: Answerer, frame: pl.DataFrame) -> Sequence[Future[Answers]]:
    size = max(1, min(BATCH, encode.CELLS // by.encoder.width))

    def answer(start: int) -> Answers:
        return by.predictor.batch(by.encoder.encode(frame.slice(start, size)))

    return [pool.submit(answer, start) for start in range(0, max(1, frame.height), size)]


def _finished(by: Answerer, waiting: _Waiting, parts: Parts) -> Part:
    answers = np.concatenate([each.result() for each in waiting.found])
    columns = told(answers, waiting.rows, by.task, by.finish)
    answered = waiting.key.with_columns(waiting.rows["_asked"], *columns, _version=pl.lit(by.manifest.version))
    bad = asking.refused(waiting.piece, waiting.sifted)
    part = Part(
        answered=answered.height,
        refused=bad.height,
        repeats=waiting.repeats,
        by_rule=quarantine.by_rule(bad.lazy()) if bad.height else {},
    )
    parts.write(waiting.piece.number, answered, bad, part)
    return part


def _said(run: Run, answers: str, done: Sequence[Part]) -> BatchAnswered:
    rules: Counter[str] = Counter()
    for part in done:
        rules.update(part.by_rule)
    return BatchAnswered(
        version=run.version,
        questions=run.questions,
        answers=answers,
        answered=sum(part.answered for part in done),
        refused=sum(part.refused for part in done),
        repeats=sum(part.repeats for part in done),
        by_rule=dict(sorted(rules.items())),
    )


def _run(session: Session, asked: Questions, manifest: Manifest) -> Run:
    return Run(
        app=session.app.name,
        model=asked.model.name,
        version=manifest.version,
        questions=asked.digest,
        now=session.clock.now(),
        batches=snapshot.present(session, asked.model) if asked.model.features.tables() else {},
        size=_size(asked.model),
    )


def _size(model: Model) -> int:
    return LOOKING if model.features.tables() else PIECE


def _same(begun: Run | None, session: Session, asked: Questions) -> Run | None:
    """The run that was begun, if it asks the same; None if it does not."""
    wanted = (session.app.name, asked.model.name, asked.digest, _size(asked.model))
    if begun is None or (begun.app, begun.model, begun.questions, begun.size) != wanted:
        return None
    return begun


def _parquet(answers: Path) -> None:
    if answers.suffix != ".parquet":
        raise DeclarationError(
            "answers-are-parquet",
            f"{answers} is not named like a Parquet file.",
            why="Answers are written as Parquet, which keeps their types.",
            next=f"Write to {answers.with_suffix('.parquet')}.",
        )


def _not_over(asked: Questions, answers: Path) -> None:
    """Refuse to write the answers over the questions, or among them."""
    for file in asked.files:
        if answers.exists() and file.samefile(answers):
            raise AdapterError(
                "answers-unwritable",
                f"The answers cannot be written to {answers}.",
                why="It holds questions.",
                next="Name a file in a folder that exists and is yours, other than that of the questions.",
            )
