"""Contributions to any score, by asking the model about rows that are made up of the question and of background rows.

A score that is a sum over features is told exactly by changing one feature at a time; any other is sampled, along walks that
change one feature after the other. Both account for the whole way from the background to the question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.learn.export.predictor import Matrix
from flyball.learn.search import SEED

Array = npt.NDArray[np.float64]
Places = Mapping[str, Sequence[int]]
"""Feature -> its columns of the matrix."""

CELLS = 1 << 23
"""Cells of a matrix that is made up at once: 32 MB."""
CLOSE = 1e-6
"""How far, of the spread of the scores, a sum over features may lie from the score."""


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What each feature contributes to the raw scores of some rows.

    Attributes:
        values: (rows, outputs, features).
        base: (rows, outputs) the score of nobody in particular.
        score: (rows, outputs) `base` plus the sum of `values`.
        error: (rows, outputs, features) standard errors of what was sampled; None where nothing was.
    """

    values: Array
    base: Array
    score: Array
    error: Array | None = None


def indicator(places: Places, width: int) -> Array:
    """(columns, features) one where a column belongs to a feature."""
    made = np.zeros((width, len(places)))
    for k, columns in enumerate(places.values()):
        made[list(columns), k] = 1
    return made


class Additive:
    """A score that is a sum over features: what each adds is seen by changing it alone, from whatever row."""

    def __init__(self, score: Callable[[Matrix], Array], background: Matrix, places: Places) -> None:
        self._score, self._from, self._places = score, background[0], places
        self._start = score(background[:1])[0]
        self._mean = np.zeros((0, 0))
        steps = self._steps(background)
        reached = self._start + steps.sum(axis=2)
        scores = score(background)
        self._off = float(np.abs(reached - scores).max())
        self._spread = float(np.ptp(scores)) or 1.0
        self._mean = steps.mean(axis=0)

    def holds(self) -> bool:
        """Whether it is such a sum on the background rows."""
        return self._off <= CLOSE * self._spread

    def __call__(self, matrix: Matrix) -> Contributions:
        """The contributions to the scores of some rows, exactly."""
        values = self._steps(matrix) - self._mean
        base = np.broadcast_to(self._start + self._mean.sum(axis=1), values.shape[:2])
        return Contributions(values, base, base + values.sum(axis=2))

    def _steps(self, matrix: Matrix) -> Array:
        """(rows, outputs, features) by how much the score of the first row changes with each feature of another."""
        found = []
        at = max(1, CELLS // (matrix.shape[1] * len(self._places)))
        for part in (matrix[k : k + at] for k in range(0, len(matrix), at)):
            made = np.broadcast_to(self._from, (len(self._places), len(part), part.shape[1])).copy()
            for k, columns in enumerate(self._places.values()):
                made[k][:, list(columns)] = part[:, list(columns)]
            scores = self._score(made.reshape(-1, part.shape[1])).reshape(len(self._places), len(part), -1)
            found.append(np.moveaxis(scores - self._start, 0, 2))
        return np.concatenate(found) if found else np.zeros((0, len(self._start), len(self._places)))


class Sampled:
    """Walks from a background row to the question, feature by feature, in a random order and then in the reverse one.

    What a step changes is put down to its feature; the mean over all walks is an unbiased estimate of the Shapley value, and
    their spread says how sure it is, that background rows are a sample included. Each walk explains the whole way, so the
    sum is exact however few walks there are.
    """

    def __init__(self, score: Callable[[Matrix], Array], background: Matrix, places: Places, pairs: int) -> None:
        self._score, self._background, self._pairs = score, background, pairs
        self._features = len(places)
        self._owner = indicator(places, background.shape[1]).argmax(axis=1)
        rng = np.random.default_rng(SEED)
        self._orders = np.array([rng.permutation(self._features) for _ in range(pairs)])

    def __call__(self, matrix: Matrix) -> Contributions:
        """The contributions to the scores of some rows, with standard errors."""
        known, values, errors, bases = self._score(self._background), [], [], []
        scores = self._score(matrix) if len(matrix) else np.zeros((0, known.shape[1]))
        for k, row in enumerate(matrix):
            starts = (np.arange(self._pairs) + k * self._pairs) % len(self._background)
            found = self._walks(row, starts, known[starts], scores[k])
            values.append(found.mean(axis=0))
            errors.append(found.std(axis=0, ddof=1) / np.sqrt(self._pairs))
            bases.append(known[starts].mean(axis=0))
        shape = (0, known.shape[1], self._features)
        if not values:
            return Contributions(np.zeros(shape), scores, scores, np.zeros(shape))
        return Contributions(np.array(values), np.array(bases), scores, np.array(errors))

    def _walks(self, row: Matrix, starts: npt.NDArray[np.intp], first: Array, last: Array) -> Array:
        """(pairs, outputs, features) what each feature changed, as the mean of a walk and its reverse."""
        total = np.zeros((self._pairs, first.shape[1], self._features))
        for orders in (self._orders, self._orders[:, ::-1]):
            taken = self._taken(orders)
            between = self._asked(row, starts, taken)
            path = np.concatenate([first[:, None], between, np.broadcast_to(last, first.shape)[:, None]], axis=1)
            steps = np.moveaxis(np.diff(path, axis=1), 1, 2)
            place = np.broadcast_to(orders[:, None, :], steps.shape)
            own = np.zeros_like(steps)
            np.put_along_axis(own, place, steps, axis=2)
            total += own / 2
        return total

    def _taken(self, orders: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(pairs, features - 1, features) which features are the question's after each step but the last."""
        rank = np.argsort(orders, axis=1)
        return rank[:, None, :] <= np.arange(self._features - 1)[None, :, None]

    def _asked(self, row: Matrix, starts: npt.NDArray[np.intp], taken: npt.NDArray[np.bool_]) -> Array:
        """(pairs, features - 1, outputs) the scores on the way."""
        pairs, steps, _ = taken.shape
        if not steps:
            return np.zeros((pairs, 0, len(self._score(row[None])[0])))
        width, found = len(row), []
        at = max(1, CELLS // (width * steps))
        for k in range(0, pairs, at):
            mask = taken[k : k + at][:, :, self._owner]
            made = np.where(mask, row, self._background[starts[k : k + at]][:, None, :])
            found.append(self._score(np.ascontiguousarray(made.reshape(-1, width))).reshape(len(mask), steps, -1))
        return np.concatenate(found)
