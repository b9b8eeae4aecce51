"""What is done to a score before it is an answer, and what is decided by it: calibration, then a threshold.

    score --calibration--> answer --threshold (of the group)--> decision

Both are learned on the validation span, whose rows no estimator has seen, and stored with the version as data. The numbers
of one row and of many are the same bits, since both go through `one`'s arithmetic: so what gates were judged on is what is
served. Light: a server reads it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import StateError
from flyball.learn.export.predictor import Kind, Matrix, Predictor
from flyball.learn.task import Answer, Answers

ARTIFACT = "finish.json"
"""The name under which a version keeps it."""

EDGE = 1e-15
"""A probability nearer to 0 or 1 than this has no logarithm that says more."""


class Sigmoid(msgspec.Struct, frozen=True, kw_only=True, tag="sigmoid"):
    """Platt scaling: the logit of a score, stretched and moved (Platt 1999; on logits, as Kull et al. 2017 advise)."""

    slope: float
    shift: float

    def one(self, score: float) -> float:
        """The calibrated probability of one score."""
        p = min(max(score, EDGE), 1 - EDGE)
        z = self.slope * (math.log(p) - math.log1p(-p)) + self.shift
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


class Knots(msgspec.Struct, frozen=True, kw_only=True, tag="knots"):
    """A rising line through points, level beyond them: isotonic regression (Zadrozny and Elkan 2002), or shares of rows.

    Attributes:
        x: scores, strictly ascending.
        y: what each becomes, never falling.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def one(self, score: float) -> float:
        """What one score becomes; what is no number stays none, so that whoever answers by it can refuse."""
        if math.isnan(score):
            return score
        at = bisect_right(self.x, score)
        if at in (0, len(self.x)):
            return self.y[0 if at == 0 else -1]
        x0, x1, y0, y1 = self.x[at - 1], self.x[at], self.y[at - 1], self.y[at]
        return min(y0 + (y1 - y0) * ((score - x0) / (x1 - x0)), y1)  # rounding could lead past the end, and fall


Calibration = Sigmoid | Knots


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """What follows a predictor. All of it may be absent: then a score is the answer, and nothing is decided.

    Attributes:
        calibration: of a single number.
        threshold: an answer from it on is decided to be true; None: no decision is made.
        by: the column of the request whose groups have thresholds of their own; "" for none.
        thresholds: group, as text -> its threshold; others have `threshold`.
        ascending: the numbers of an answer are put into order: quantiles that were learned one by one may cross.
    """

    calibration: Calibration | None = None
    threshold: float | None = None
    by: str = ""
    thresholds: dict[str, float] = {}
    ascending: bool = False

    def answers(self, scores: Answers) -> Answers:
        """Scores (rows,) or (rows, width) -> answers of the same shape."""
        if self.ascending:
            return np.sort(scores, axis=1, kind="stable")  # as `sorted` does with one row
        if self.calibration is None:
            return scores
        one = self.calibration.one
        return np.fromiter((one(score) for score in scores.tolist()), dtype=np.float64, count=len(scores))

    def decides(self, answer: float, row: Mapping[str, Any]) -> bool | None:
        """What is decided about one question by its answer; None where nothing is."""
        if self.threshold is None:
            return None
        return answer >= (self.thresholds.get(group(row.get(self.by)), self.threshold) if self.by else self.threshold)

    def decided(self, answers: Answers, groups: npt.NDArray[np.object_] | None = None) -> npt.NDArray[np.bool_]:
        """(rows,) what is decided about each; true above one half where no threshold is declared.

        Args:
            answers: (rows,).
            groups: (rows,) the values of the column `by`, as `group` names them.
        """
        if self.threshold is None:
            return np.asarray(answers > 0.5)
        common = self.threshold
        if not self.by or groups is None:
            return np.asarray(answers >= common)
        return np.asarray(answers >= np.array([self.thresholds.get(name, common) for name in groups]))


def group(value: object) -> str:
    """How a group is named in `thresholds`."""
    return "" if value is None else str(value)


NOTHING = Finish()


def from_bytes(data: bytes) -> Finish:
    """What was stored.

    Raises:
        StateError: `finish-damaged`.
    """
    try:
        return msgspec.json.decode(data, type=Finish)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            "finish-damaged",
            "What follows a version's predictor cannot be read.",
            why=str(error),
            next="flyball apply",
        ) from error


@dataclass(frozen=True, slots=True)
class Finished:
    """A predictor whose scores are made answers: itself one."""

    predictor: Predictor
    finish: Finish

    @property
    def name(self) -> Kind:
        """The kind of the predictor beneath."""
        return self.predictor.name

    @property
    def features(self) -> int:
        """The number of columns that it reads."""
        return self.predictor.features

    def row(self, values: Matrix) -> Answer:
        """The answer to one row: float32 of shape (features,)."""
        score = self.predictor.row(values)
        if isinstance(score, tuple):
            return tuple(sorted(score)) if self.finish.ascending else score
        return score if self.finish.calibration is None else self.finish.calibration.one(score)

    def batch(self, matrix: Matrix) -> Answers:
        """The answers to a matrix: float32 of shape (rows, features); float64 of shape (rows,) or (rows, width)."""
        return self.finish.answers(self.predictor.batch(matrix))


def finished(predictor: Predictor, finish: Finish) -> Predictor:
    """The predictor with what follows it; itself where nothing does."""
    return predictor if finish.calibration is None and not finish.ascending else Finished(predictor, finish)
