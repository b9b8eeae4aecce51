"""The reference of a version: how its questions were spread, day by day, and its answers on the days that it was tested on.

It is made with the version, signed with it (`reference.json`), and read by whoever watches it. By the day, because a sum of
days is the profile of any window, and all days less those of a window are the reference without it: so a monitor can be
calibrated on the version's own history (leave one out), and never has to be told what is usual.

Bounded: at most `DAYS` days of each column, each day at most 24 numbers of a few digits. Twelve features and 180 days are about
150 KB. It holds counts, and of values only edges and the categories that many rows share (see `data.profile`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import fingerprint
from flyball._kernel.errors import StateError
from flyball.data import profile
from flyball.data.profile import Counts, Edges, Profile
from flyball.learn import model as models
from flyball.learn.examples import Examples
from flyball.learn.model import Model
from flyball.learn.quality.measures import PLAIN
from flyball.learn.task import Task
from flyball.learn.treatment import Costs

ARTIFACT = "reference.json"
"""The name under which every version keeps its reference."""

PREDICTION = "_prediction"
"""The name of the column of answers; no feature's name begins so."""

DAYS = 400
"""The latest days that are kept: a year and a month, so that a season can be seen to come back."""


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature, or the answers.

    Attributes:
        name: as in the journal's `features`, or `PREDICTION`.
        feature: the declaration that it comes of: a feature over several spans is several columns.
        meaning: the fingerprint of its declaration: versions that agree on it read the same values.
        days: since 1970 (UTC) on which a question was asked, ascending.
        profiles: of each of those days.
        length: of a text, whose number of characters is what is counted.
    """

    name: str
    feature: str
    meaning: str
    edges: Edges
    days: tuple[int, ...]
    profiles: tuple[Profile, ...]
    length: bool = False

    @property
    def whole(self) -> Profile:
        """The profile of all days."""
        return profile.merge(profile.empty(self.edges), *self.profiles)

    def counts(self) -> Counts:
        """(days from the first to the last, width): also of the days on which nothing was asked."""
        if not self.days:
            return np.zeros((0, self.edges.width), dtype=np.int64)
        found = np.zeros((self.days[-1] - self.days[0] + 1, self.edges.width), dtype=np.int64)
        found[np.array(self.days) - self.days[0]] = [each.counts for each in self.profiles]
        return found


class Says(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers of a version are made of.

    Attributes:
        costs: of a false positive, of a false negative.
    """

    task: Task
    costs: tuple[float, float] = PLAIN.costs


class Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a version knows of its past; deterministic JSON by `facts.encode`.

    Attributes:
        predictions: its answers: of classes the likeliest, of quantiles the middle one.
        says: None where an answer is one number and mistakes cost the same, which a metric's name tells well enough.
    """

    features: tuple[Column, ...]
    predictions: Column
    says: Says | None = None

    def of(self, features: Sequence[str]) -> tuple[Column, ...]:
        """The columns that these features became."""
        return tuple(c for c in (*self.features, self.predictions) if c.feature in features)

    def column(self, name: str) -> Column | None:
        """A feature, or `PREDICTION`; None where it has no such column."""
        return next((c for c in (*self.features, self.predictions) if c.name == name), None)


def reference(model: Model, examples: Examples, held_out: np.ndarray, scores: np.ndarray) -> Reference:
    """The reference of a version.

    Args:
        model: whose features they are.
        examples: all that it was made from.
        held_out: (n,) a mask over the examples.
        scores: (held-out rows,) its answers on them, or (held-out rows, width).
    """
    asked = examples.asked
    features = []
    for feature in model.features.features:
        meaning = fingerprint.of(feature)
        for output in feature.outputs(model.question):
            name = (output.name, feature.name, meaning)
            values = examples.frame[output.name]
            if output.kind == "text":
                features.append(_column(name, values.cast(pl.String).str.len_chars(), asked, "number", length=True))
            else:
                features.append(_column(name, values, asked, output.kind))
    said = says(model)
    answers, kind = _answers(said.task, scores)
    return Reference(
        features=tuple(features),
        predictions=_column((PREDICTION, PREDICTION, ""), answers, asked.filter(pl.Series(held_out)), kind),
        says=said if said.task.width > 1 or said.costs != PLAIN.costs else None,
    )


def says(model: Model) -> Says:
    """What the answers of a model are made of, as it is declared."""
    decide = model.treatment.decide
    costs = (decide.false_positive, decide.false_negative) if isinstance(decide, Costs) else PLAIN.costs
    return Says(task=models.task(model), costs=costs)


def _answers(task: Task, scores: np.ndarray) -> tuple[pl.Series, profile.Kind]:
    if task.classes:
        likeliest = np.array(task.classes, dtype=object)[scores.argmax(axis=1)]
        return pl.Series(PREDICTION, likeliest.tolist(), dtype=pl.String), "category"
    return pl.Series(PREDICTION, task.headline(scores), dtype=pl.Float64), "number"


def from_bytes(data: bytes) -> Reference:
    """The reference that was stored.

    Raises:
        StateError: `reference-unreadable`.
    """
    try:
        found = msgspec.json.decode(data, type=Reference)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(str(error)) from error
    if any(not _sound(column) for column in (*found.features, found.predictions)):
        raise _unreadable("its days or counts do not fit its edges")
    return found


def _column(
    name: tuple[str, str, str], values: pl.Series, asked: pl.Series, kind: profile.Kind, *, length: bool = False
) -> Column:
    day = asked.dt.epoch("d").cast(pl.Int64).to_numpy()
    kept = day > day.max() - DAYS if len(day) else np.zeros(0, dtype=np.bool_)
    values, day = values.filter(pl.Series(kept)), day[kept]
    days, groups = np.unique(day, return_inverse=True)
    by = profile.edges(values, kind)
    return Column(
        name=name[0],
        feature=name[1],
        meaning=name[2],
        edges=by,
        days=tuple(days.tolist()),
        profiles=tuple(profile.profiles(values, groups.astype(np.int64), len(days), by)),
        length=length,
    )


def _sound(column: Column) -> bool:
    fits = all(len(p.counts) == column.edges.width and min(p.counts) >= 0 for p in column.profiles)
    ascending = all(a < b for a, b in zip(column.days, column.days[1:], strict=False))
    return fits and ascending and len(column.days) == len(column.profiles)


def _unreadable(why: str) -> StateError:
    return StateError(
        "reference-unreadable",
        "The reference of a version cannot be read.",
        why=why,
        next="Train a version anew with `flyball apply`; the one that answers is not touched by this.",
    )
