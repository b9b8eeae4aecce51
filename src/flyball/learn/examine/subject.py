"""What is examined: one version's answers, the rows that it never saw, and whatever else the caller can give.

Everything but the first five is optional; what it would have shown is then named as not examined, with the reason. Samples are
drawn with one seed and left in their order, so the same subject gives the same examination.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.learn import finish, sampling
from flyball.learn.encoding import design
from flyball.learn.encoding.encode import Encoder
from flyball.learn.examine.losses import Labels
from flyball.learn.export.native import FAILURES
from flyball.learn.finish import Finish
from flyball.learn.quality.metrics import MIN_BLOCKS, MIN_CLASS, MIN_ROWS, SEED, Blocks
from flyball.learn.task import Answers, Task

Matrix = npt.NDArray[np.float32]
Answer = Callable[[Matrix], Answers]
Index = npt.NDArray[np.intp]
Decisions = npt.NDArray[np.bool_] | npt.NDArray[np.intp]

CELLS, FEWEST = 1 << 24, 200
"""Cells of a matrix that is answered at once, at most (64 MB), and rows that take part whatever their width."""

REFUSALS = FAILURES
"""What an estimator raises on rows that it cannot answer: a missing value, a negative code."""


class Omitted(msgspec.Struct, frozen=True, kw_only=True):
    """What was not examined, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows whose outcome is settled.

    Attributes:
        matrix: (n, columns) float32, encoded; of training rows with text perhaps sparse.
        outcome: (n,) Boolean, int64 codes of classes, or float64, as the task says.
        blocks: (n,) int, rows with the same number share a cause; None: none do.
        weights: (n,) what each row counts in fitting; None: all alike.
    """

    matrix: design.Rows
    outcome: Labels
    blocks: Blocks | None = None
    weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.outcome)

    def at(self, index: Index | npt.NDArray[np.bool_]) -> Rows:
        """Some of them."""
        return Rows(
            self.matrix[index],
            self.outcome[index],
            None if self.blocks is None else self.blocks[index],
            None if self.weights is None else self.weights[index],
        )

    @property
    def dense(self) -> Matrix:
        """The matrix, dense."""
        return self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.toarray(order="C")

    def within(self, most: int, seed: int) -> Index:
        """A sample of at most `most` rows, and of fewer where texts make them wide."""
        return sampling.drawn(len(self), max(FEWEST, min(most, CELLS // max(1, self.matrix.shape[1]))), seed)


Fit = Callable[[Rows, int | None], Answer]
"""Trains anew on some rows, from a seed or (None) from the model's own: what it returns answers."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A version, and what is at hand to examine it.

    Attributes:
        task: what it predicts.
        encoder: of its matrix: it names the columns.
        answer: its final answers: (rows, columns) float32 -> (rows,) or (rows, width) float64.
        test: held-out rows.
        frame: (n rows) the columns of the held-out rows that may be named in a report: never a personal one.
        answers: (n,) or (n, width) what it answers to the held-out rows, where known.
        train: rows that it was fitted on.
        fit: fits the declared model anew; for what needs it, if `examine(refits=True)`.
        finish: what decides.
        groups: (n,) of the held-out rows, as `Finish.decided` wants them.
        artifacts: name -> bytes of all that a server needs.
    """

    task: Task
    encoder: Encoder
    answer: Answer
    test: Rows
    frame: pl.DataFrame
    answers: Answers | None = None
    train: Rows | None = None
    fit: Fit | None = None
    finish: Finish = finish.NOTHING
    groups: npt.NDArray[np.object_] | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    seed: int = SEED

    def decided(self, answers: Answers, index: Index) -> Decisions | None:
        """(k,) what is decided about the held-out rows `index`; None where the task decides nothing."""
        if self.task.kind == "multiclass":
            return np.asarray(answers.argmax(axis=1))
        if self.task.kind == "regression" or self.task.kind == "quantile":
            return None
        if self.task.kind == "anomaly" and self.finish.threshold is None:
            return None
        return self.finish.decided(answers, None if self.groups is None else self.groups[index])


def silent(task: Task, rows: Rows) -> str:
    """Why these rows would say nothing, or ""."""
    if len(rows) < MIN_ROWS:
        return f"{len(rows)} rows, fewer than {MIN_ROWS}"
    if task.truth:
        true = int(np.count_nonzero(rows.outcome))
        for what, count in (("true", true), ("false", len(rows) - true)):
            if count < MIN_CLASS:
                return f"{count} rows with the outcome {what}, fewer than {MIN_CLASS}"
    units = MIN_BLOCKS if rows.blocks is None else len(np.unique(rows.blocks))
    return f"rows of {units} blocks, fewer than {MIN_BLOCKS}" if units < MIN_BLOCKS else ""
