"""The held-out rows of a training, read back from the store: outcomes, scores, and the columns to cut them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from flyball._kernel import fingerprint
from flyball._kernel.errors import StateError
from flyball.cycle import erasures
from flyball.cycle.session import Session
from flyball.cycle.steps import Done
from flyball.data import contract
from flyball.data.contract import Outcome, Personal, Protected
from flyball.learn import examples as building
from flyball.learn import finish, held, split
from flyball.learn import model as models
from flyball.learn.encoding import encode
from flyball.learn.examples import Examples
from flyball.learn.features.declare import Given
from flyball.learn.fit import fitting, fold
from flyball.learn.held import Held
from flyball.learn.model import Model
from flyball.learn.quality.evaluate import HeldOut
from flyball.learn.split import Bounds
from flyball.release.version import Manifest

Dones = Mapping[str, Done]


@dataclass(frozen=True, slots=True)
class Tested:
    """The examples of the test span, encoded.

    Attributes:
        examples: all of them, also those that train.
    """

    examples: Examples
    held_out: HeldOut
    matrix: np.ndarray
    bounds: Bounds


def load_examples(session: Session, done: Dones) -> Examples:
    """The examples that a step left behind.

    Raises:
        StateError: `examples-erased`.
    """
    digest = done["examples"].outputs["examples"]
    if not session.blobs.has(digest) and erasures.holds_frame(session, digest):
        raise StateError(
            "examples-erased",
            "The examples of this training held rows that were erased, so they are gone.",
            why="What was measured on them stands; measured anew it would be of other rows.",
            next="Train on what is left: flyball apply APP --until TIME, with a time after the last row.",
        )
    return building.from_bytes(session.blobs.get(digest))


def slices(model: Model) -> tuple[str, ...]:
    """The columns by which every evaluation is cut: protected ones, and the categories that the model is given."""
    spec = contract.spec(model.question)
    given = {f.name for f in model.features.features if isinstance(f, Given)}
    kinds = {o.name: o.kind for o in model.features.outputs(model.question)}
    hidden = set(spec.with_role(Personal)) | set(spec.with_role(Outcome)) | set(spec.key)
    chosen = [n for n in spec.names if n in spec.with_role(Protected) or (n in given and kinds.get(n) == "category")]
    return tuple(n for n in chosen if n not in hidden)


def tested(session: Session, model: Model, done: Dones, cutoff: datetime, columns: Sequence[str]) -> Tested:
    """The held-out rows with the scores of the declared model and its rivals, and with `columns` to cut them by."""
    examples = load_examples(session, done)
    bounds = split.bounds_of(examples, cutoff, session.app.search.split)
    trained = done["train"].outputs
    read = {encode.ARTIFACT, fitting.SCORES, *(name for name in trained if name.endswith(finish.ARTIFACT))}
    return held_out(model, examples, {n: session.blobs.get(trained[n]) for n in sorted(read)}, bounds, columns)


def held_out(
    model: Model, examples: Examples, trained: Mapping[str, bytes], bounds: Bounds, columns: Sequence[str]
) -> Tested:
    """The same, from what `fitting.train_all` made: the declared model first, then its rivals."""
    encoder = encode.from_bytes(trained[encode.ARTIFACT])
    test = split.cut(examples, bounds).test
    frame = examples.frame.filter(pl.Series(test))
    names = (model.name, *(fitting.rivals(trained) or OLD))
    scores = dict(zip(names, fitting.read_scores(trained[fitting.SCORES]), strict=True))
    task, decided = models.task(model), {}
    for name in names if task.truth else ():
        ending = finish.from_bytes(trained.get(_prefix(name, model) + finish.ARTIFACT, b"{}"))
        if ending.threshold is not None:
            decided[name] = ending.decided(scores[name], fold.groups(frame, ending.by) if ending.by else None)
    return Tested(
        examples,
        HeldOut(
            outcome=examples.labels[test],
            scores=scores,
            slices={column: examples.request(column).filter(test) for column in columns},
            blocks=split.blocks(examples, bounds, test),
            task=task,
            decided=decided,
            costs=fold.terms(model, task, None).costs,
        ),
        fold.sample(encoder, frame),
        bounds,
    )


OLD = ("linear", "baseline")
"""The rivals of a version of an earlier release, which always had both."""


def _prefix(name: str, model: Model) -> str:
    return "" if name == model.name else f"{name}/"


def recalled(session: Session, version: Manifest, examples: Examples, rows: np.ndarray) -> np.ndarray | None:
    """The scores that a version got on these rows when it was trained: one of other features can be compared only so.

    Args:
        rows: (n,) a mask over `examples`.

    Returns:
        (rows,) its scores, or None where one of the rows was not held out for it, or its examples were erased.
    """
    found = learned(session, version)
    if found is None:
        return None
    theirs = found[0].frame.filter(pl.Series(found[1].test))
    scores = fitting.read_scores(session.blobs.get(version.artifacts[fitting.SCORES]))[0]
    same = [n for n in examples.frame.columns if n == "_asked" or n.startswith("_request.")]
    if any(theirs.schema.get(name) != examples.frame.schema[name] for name in same):
        return None
    known = theirs.select(*same, pl.Series("_score", scores)).unique(same)
    score = examples.frame.filter(rows).select(same).join(known, on=same, how="left", nulls_equal=True)["_score"]
    return None if score.null_count() else score.to_numpy()


def learned(session: Session, version: Manifest) -> tuple[Examples, Held] | None:
    """The examples of a version, and which of them it learned from and was tested on; None where they were erased."""
    digest = version.artifacts["examples"]
    if not session.blobs.has(digest) and erasures.holds_frame(session, digest):
        return None
    theirs = building.from_bytes(session.blobs.get(digest))
    return theirs, masks(session, version, theirs)


def masks(session: Session, version: Manifest, theirs: Examples) -> Held:
    """Which of a version's own examples it learned from, and which it was tested on."""
    if held.ARTIFACT in version.artifacts:
        return held.from_bytes(session.blobs.get(version.artifacts[held.ARTIFACT]), len(theirs.asked))
    # A version of an earlier release, which split by time alone.
    fit = (theirs.settled < version.tested_from).to_numpy()
    return Held(fit, theirs.asked.is_between(version.tested_from, version.tested_until, closed="left").to_numpy())


def held_out_for(session: Session, version: Manifest, examples: Examples, bounds: Bounds) -> bool:
    """Whether none of the test rows was learned from by an earlier version, however that one was split."""
    split_as_now = fingerprint.parts({"split": session.app.search.split})["split"] == version.causes["train"].get(
        "split"
    )
    if bounds.groups is None and split_as_now:
        return version.tested_from <= bounds.test
    found = learned(session, version)
    test = split.cut(examples, bounds).test
    return found is not None and held.apart(examples, bounds, test, found[0], found[1].fit)
