"""The rival of a version: who answered when it was judged, and what that one says about the version's own held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from flyball.cycle import artifacts, causes, tested
from flyball.cycle.session import Session
from flyball.cycle.steps import Done
from flyball.cycle.work import Work
from flyball.learn import model as models
from flyball.learn import split
from flyball.learn.examine import paired
from flyball.learn.examine.paired import Paired
from flyball.learn.examine.subject import Rows
from flyball.learn.examples import REQUEST
from flyball.learn.finish import Finish
from flyball.learn.fit import fold
from flyball.learn.quality.evaluate import Evaluation, HeldOut
from flyball.learn.quality.measures import Flags
from flyball.learn.task import Answers, Task
from flyball.release import rollout
from flyball.release.version import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What the rival answers to the rows: (rows,) or (rows, width), and what it decides, (rows,)."""

    scores: Answers
    decided: Flags


def whom(work: Work, done: Mapping[str, Done]) -> tuple[str, int]:
    """Against whom the version is to answer ("" if against nobody), and in which term that one answers.

    For a version that answers already it is who answered before it: what was decided then does not change by having been done.
    """
    now = rollout.now(work.session.facts, *work.about)
    if "register" in done and done["register"].outputs["version"] == now.champion:
        return now.previous, now.term - 1
    return now.champion, now.term


def answered(work: Work, done: Mapping[str, Done]) -> Answered | str | None:
    """What the rival says about the version's held-out rows; None where there is no rival.

    Where it reads features that are declared no longer, the scores that it got on these rows in its own training count; were
    they not held out for it, it cannot be compared: the reason, which leaves every gate that compares with it inconclusive.
    """
    session = work.session
    name, _ = whom(work, done)
    if not name:
        return None
    manifest = artifacts.load_manifest(session, name)
    if _task(session, manifest) != models.task(work.model):
        return f"{name} was asked for something else than this version is: what their answers are made of differs"
    examples = tested.load_examples(session, done)
    bounds = work.bounds(examples)
    test = split.cut(examples, bounds).test
    rows, ending = examples.frame.filter(pl.Series(test)), artifacts.load_finish(session, manifest)
    if ending.by and REQUEST + ending.by not in rows.columns:
        return f"{name} decides by groups of {ending.by}, which questions do not carry any more"
    if changed := causes.changed_features(work.model, manifest.causes["examples"]):
        scores = tested.recalled(session, manifest, examples, test)
        why = f"{name} cannot be asked about these rows: {', '.join(changed)} changed since it was trained"
        return why if scores is None else Answered(scores, _decided(ending, scores, rows))
    if not tested.held_out_for(session, manifest, examples, bounds):
        return f"{name} learned from some of these rows: they were not held out for it"
    encoder = artifacts.load_encoder(session, manifest)
    scores = encoder.answers(rows, artifacts.load_predictor(session, manifest).batch)
    return Answered(scores, _decided(ending, scores, rows))


def _task(session: Session, manifest: Manifest) -> Task:
    """What a version predicts, as it was evaluated."""
    return msgspec.json.decode(session.blobs.get(manifest.artifacts["evaluation"]), type=Evaluation).task


def _decided(ending: Finish, scores: Answers, rows: pl.DataFrame) -> Flags:
    if scores.ndim == 2:
        return np.zeros(len(scores), dtype=np.bool_)  # nothing is decided by more than one number
    return ending.decided(scores, fold.groups(rows, ending.by) if ending.by else None)


def compared(held_out: HeldOut, other: Answered) -> Paired:
    """The version and its rival on the same rows: losses, ROC AUC (DeLong) and decisions (McNemar), each with its interval."""
    task = held_out.task or Task(kind=held_out.kind)
    ours = held_out.scores[held_out.main]
    decided = None
    if task.truth:
        mine = held_out.decided.get(held_out.main)
        decided = (ours > 0.5 if mine is None else mine, other.decided)
    elif task.classes:
        decided = (ours.argmax(axis=1), other.scores.argmax(axis=1))
    rows = Rows(np.empty((len(ours), 0), dtype=np.float32), held_out.outcome, held_out.blocks)
    return paired.paired(task, rows, ours, other.scores, decided)
