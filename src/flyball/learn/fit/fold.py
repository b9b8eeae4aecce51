"""A fold: rows that train and rows that are answered, encoded once, for as many estimators as want to learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.conditions import Metric
from flyball._kernel.errors import DataError
from flyball.learn import model as models
from flyball.learn.encoding import design, encode
from flyball.learn.encoding.encode import Encoder, Matrix
from flyball.learn.examples import REQUEST, Examples
from flyball.learn.export import pack
from flyball.learn.features.declare import Expression
from flyball.learn.finish import Finish, group
from flyball.learn.fit import finishing, train
from flyball.learn.knobs import Knob
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.quality.measures import Array, Outcome, Terms
from flyball.learn.task import Answers, Task
from flyball.learn.treatment import Costs

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """What estimators are fitted on, and asked about.

    Attributes:
        rows: (n, width) encoded, dense or sparse.
        labels: (n,) as estimators see them.
        weights: (n,) what each row counts, or None.
        asked: the frame of the rows that are answered.
        outcome: (m,) theirs.
    """

    model: Model
    task: Task
    encoder: Encoder
    rows: Any
    labels: Outcome
    weights: Array | None
    asked: pl.DataFrame
    outcome: Outcome

    @classmethod
    def of(cls, model: Model, examples: Examples, train_on: Mask, answer: Mask, extra: Array | None = None) -> Fold:
        """Encode the rows of two masks; the encoder sees the first alone.

        Args:
            extra: (rows that train,) weights that multiply the declared ones.
        """
        frame, labels = examples.frame.filter(pl.Series(train_on)), examples.labels
        encoder = train.encoder(frame, model.features.outputs(model.question))
        own = weights(model, frame, labels[train_on])
        return cls(
            model=model,
            task=models.task(model),
            encoder=encoder,
            rows=design.of(encoder, frame),
            labels=labels[train_on],
            weights=own if extra is None else extra if own is None else own * extra,
            asked=examples.frame.filter(pl.Series(answer)),
            outcome=labels[answer],
        )

    def fit(self, knobs: Mapping[str, Knob]) -> Any:
        """The declared estimator, fitted."""
        return self._fit(train.declared(self.model, knobs, self.task, self.encoder))

    def linear(self) -> Any | None:
        """The linear rival, fitted; None where the task has none."""
        estimator = train.linear(self.encoder, self.task)
        if estimator is None:
            return None
        return train.fit(estimator, self.rows, self.labels, self.task, rows=train.linear_rows(self.encoder, self.task))

    def baseline(self) -> Any:
        """What always says the same, fitted."""
        return train.fit(train.baseline(self.task), self.rows, self.labels, self.task)

    def _fit(self, estimator: Any) -> Any:
        return train.fit(estimator, self.rows, self.labels, self.task, self.weights)

    def answers(self, fitted: Any) -> Answers:
        """Its scores of the rows that are answered, before any calibration."""
        return self.encoder.answers(self.asked, lambda matrix: pack.answers(fitted, matrix, self.task))

    def known(self, fitted: Any) -> Answers:
        """Its scores of the rows that it was fitted on."""
        return pack.answers(fitted, self.rows, self.task)

    def sample(self) -> Matrix:
        """The rows that are answered, encoded: all of them, or as many as fit into memory where texts make them wide."""
        return sample(self.encoder, self.asked)

    def groups(self, by: str) -> npt.NDArray[np.object_]:
        """(m,) the group of each row that is answered."""
        return groups(self.asked, by)


def sample(encoder: Encoder, frame: pl.DataFrame) -> Matrix:
    """The first rows of a frame, encoded and dense: all of them, unless texts make them wide."""
    return encoder.encode(frame.head(max(1, encode.CELLS // max(1, encoder.width))))


def groups(frame: pl.DataFrame, by: str) -> npt.NDArray[np.object_]:
    """(n,) the group of each row by a column of its request, as `finish.group` names it."""
    return np.array([group(value) for value in frame[REQUEST + by].to_list()], dtype=np.object_)


def weights(model: Model, frame: pl.DataFrame, labels: Outcome) -> Array | None:
    """(n,) what each row counts in fitting; None where all count alike.

    Raises:
        DataError: `weights-not-positive`.
    """
    declared = model.treatment.weights
    if declared is None:
        return None
    if not isinstance(declared, Expression):
        _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return np.asarray(len(labels) / (len(counts) * counts[places]), dtype=np.float64)
    request = frame.select(pl.col(f"^{REQUEST}.*$").name.map(lambda name: name.removeprefix(REQUEST)))
    # Beside a column, so that a single number is that of every row.
    found = request.select(pl.first(), _weight=declared.polars.cast(pl.Float64).fill_null(float("nan")))[
        "_weight"
    ].to_numpy()
    good = np.isfinite(found) & (found >= 0)
    if not good.all() or not found.sum() > 0:
        wrong = (
            "All weights are zero"
            if good.all()
            else f"The weights of {int((~good).sum()):,} of {len(found):,} training rows"
        )
        raise DataError(
            "weights-not-positive",
            f"{wrong}{'' if good.all() else ' are missing, not finite, or below zero'}.",
            where=model.place,
            why="A weight says how much a row counts.",
            next="Mend the expression in weights=, such as .fill_null(1.0).",
        )
    return np.asarray(found, dtype=np.float64)


def terms(model: Model, task: Task, decided: npt.NDArray[np.bool_] | None) -> Terms:
    """What metrics need besides scores."""
    decide = model.treatment.decide
    costs = (decide.false_positive, decide.false_negative) if isinstance(decide, Costs) else (1.0, 1.0)
    return Terms(decided, task.quantiles, costs)


def scored(model: Model, metric: Metric, fold: Fold, fitted: Any) -> float:
    """A metric of an estimator on the rows that it is asked about; of decisions, at the threshold that they would get."""
    scores = fold.answers(fitted)
    if fold.task.kind == "anomaly":
        scores = Finish(calibration=finishing.usual(fold.known(fitted))).answers(scores)
    ending = finishing.learn(model.treatment, fold.task, fold.outcome, scores)
    answers = ending.answers(scores)
    decided = ending.decided(answers) if ending.threshold is not None else None
    return metrics.value(metric.name, fold.outcome, answers, terms(model, fold.task, decided))
