"""The held-out rows of a training, read back from the store: outcomes, scores, and the columns to cut them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from flyball._kernel.errors import StateError
from flyball.cycle import erasures
from flyball.cycle.session import Session
from flyball.cycle.steps import Done
from flyball.data import contract
from flyball.data.contract import Outcome, Personal, Protected
from flyball.learn import encode, fitting, split
from flyball.learn import examples as building
from flyball.learn.evaluate import HeldOut
from flyball.learn.examples import Examples
from flyball.learn.features.declare import Given
from flyball.learn.model import Model
from flyball.learn.split import Bounds
from flyball.release.version import Manifest

Dones = Mapping[str, Done]


@dataclass(frozen=True, slots=True)
class Tested:
    """The examples of the test span, encoded."""

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
    encoder = encode.from_bytes(session.blobs.get(trained[encode.ARTIFACT]))
    scores = fitting.read_scores(session.blobs.get(trained[fitting.SCORES]))
    return held_out(model.name, examples, (encoder, scores), bounds, columns)


def held_out(
    name: str, examples: Examples, trained: tuple[encode.Encoder, np.ndarray], bounds: Bounds, columns: Sequence[str]
) -> Tested:
    """The same, from values at hand; `scores` is (models, rows): the declared model, then `fitting.RIVALS`."""
    encoder, scores = trained
    test = split.cut(examples, bounds).test
    return Tested(
        HeldOut(
            outcome=examples.labels[test],
            scores=dict(zip((name, *fitting.RIVALS), scores, strict=True)),
            slices={column: examples.request(column).filter(test) for column in columns},
            blocks=split.days(examples.asked.filter(test)),
        ),
        encoder.encode(examples.inputs.filter(test)),
        bounds,
    )


def recalled(session: Session, version: Manifest, examples: Examples, rows: np.ndarray) -> np.ndarray | None:
    """The scores that a version got on these rows when it was trained: one of other features can be compared only so.

    Args:
        rows: (n,) a mask over `examples`.

    Returns:
        (rows,) its scores, or None where one of the rows was not held out for it, or its examples were erased.
    """
    digest = version.artifacts["examples"]
    if not session.blobs.has(digest) and erasures.holds_frame(session, digest):
        return None
    theirs = building.from_bytes(session.blobs.get(digest)).frame
    theirs = theirs.filter(pl.col("_asked").is_between(version.tested_from, version.tested_until, closed="left"))
    scores = fitting.read_scores(session.blobs.get(version.artifacts[fitting.SCORES]))[0]
    same = [n for n in examples.frame.columns if n == "_asked" or n.startswith("_request.")]
    if any(theirs.schema.get(name) != examples.frame.schema[name] for name in same):
        return None
    known = theirs.select(*same, pl.Series("_score", scores)).unique(same)
    found = examples.frame.filter(rows).select(same).join(known, on=same, how="left", nulls_equal=True)["_score"]
    return None if found.null_count() else found.to_numpy()
