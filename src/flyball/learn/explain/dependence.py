"""What the answers become as one column of the features changes and all others stay: partial dependence, and its spread.

The mean over rows (Friedman, Annals of Statistics 2001), and the 10, 50 and 90 % quantiles of what it is for each row
(individual conditional expectation: Goldstein et al. 2015): where they part, the column acts together with others, and the
mean misleads. It asks about rows that cannot be, where columns go together.

A point of the grid says nothing of anybody. A number is the mean of at least `SHARED` training rows that lie side by side,
to four digits; a category is one that at least as many rows share (microaggregation: Domingo-Ferrer and Mateo-Sanz, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from flyball._kernel.errors import bounded
from flyball.learn.encoding.encode import Encoder
from flyball.learn.explain.walks import Array
from flyball.learn.export.predictor import Matrix

POINTS = 12
"""Points of a grid, at most."""
SHARED = 20
"""Training rows behind a point, at least."""
ROWS = 200
"""Rows that are changed, at most."""
OUTPUTS = 10
"""Numbers of an answer whose curves are told, at most: the first of them."""
LABEL = 60
"""Characters of a category's name."""
NONE = "(none)"
"""The point at which a value is missing."""

_QUANTILES = (0.1, 0.5, 0.9)


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the answer along a grid.

    Attributes:
        output: the class, or "" where an answer is one number.
        mean, low, middle, high: of each point: the mean over rows, and the 10, 50 and 90 % quantiles.
    """

    output: str
    mean: tuple[float, ...]
    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]


class Dependence(msgspec.Struct, frozen=True, kw_only=True):
    """How the answers depend on one column.

    Attributes:
        feature: the declared feature that it belongs to.
        points: numbers, or names of categories and `NONE`, in the order of the curves.
        counts: training rows behind each point, of those that were looked at.
        rows: that were changed.
    """

    feature: str
    column: str
    points: tuple[float | str, ...]
    counts: tuple[int, ...]
    curves: tuple[Curve, ...]
    rows: int


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """Where a column is asked about: `codes` as the matrix has them, NaN for a missing value."""

    place: int
    points: tuple[float | str, ...]
    codes: tuple[float, ...]
    counts: tuple[int, ...]


def grid(encoder: Encoder, column: str, rows: Matrix) -> Grid | None:
    """The grid of a declared column; None where fewer than two points are shared by enough rows, or it is a text.

    Args:
        rows: training rows, encoded.
    """
    where = dict(encoder.groups)[column]
    if not where or where[0] in encoder.texts:
        return None
    values = rows[:, where[0]].astype(np.float64)
    known = values[~np.isnan(values)]
    if where[0] in encoder.categories:
        vocabulary = next(c.vocabulary for c in encoder.columns if c.name == column)
        found = _categories(vocabulary, known)
    else:
        found = _numbers(known)
    missing = len(values) - len(known)
    if missing >= SHARED:
        found = [*found[: POINTS - 1], (NONE, float("nan"), missing)]
    if len(found) < 2:
        return None
    points, codes, counts = zip(*found, strict=True)
    return Grid(place=where[0], points=points, codes=codes, counts=counts)


def _categories(vocabulary: Sequence[object], codes: Array) -> list[tuple[float | str, float, int]]:
    """The categories that most rows have, by name; what training never saw has no name."""
    found, counts = np.unique(codes[codes >= 0], return_counts=True)
    enough = counts >= SHARED
    order = np.lexsort((found[enough], -counts[enough]))[:POINTS]
    chosen = sorted(zip(found[enough][order].tolist(), counts[enough][order].tolist(), strict=True))
    return [(bounded(str(vocabulary[int(code)]), LABEL), code, count) for code, count in chosen]


def _numbers(values: Array) -> list[tuple[float | str, float, int]]:
    """Means of bins of equal size; equal values are never cut apart."""
    ordered = np.sort(values)
    bins = min(POINTS, len(ordered) // SHARED)
    if bins < 1:
        return []
    ends = np.searchsorted(ordered, ordered[np.arange(1, bins + 1) * len(ordered) // bins - 1], side="right")
    found: list[tuple[float | str, float, int]] = []
    start = 0
    for end in np.unique(ends).tolist():
        last = len(ordered) - end < SHARED
        if end - start < SHARED and not last:
            continue  # it goes with the next
        stop = len(ordered) if last else end
        if stop - start >= SHARED:
            mean = float(f"{ordered[start:stop].mean():.4g}")
            if not found or mean > found[-1][1]:
                found.append((mean, mean, stop - start))
        start = stop
        if last:
            break
    return found


def dependence(
    answer: Callable[[Matrix], npt.NDArray[np.float64]],
    rows: Matrix,
    grids: Sequence[tuple[str, str, Grid]],
    outputs: Sequence[str],
) -> tuple[Dependence, ...]:
    """The curves of some columns, asked for all together.

    Args:
        answer: final answers.
        rows: held-out rows, encoded; at most `ROWS` take part.
        grids: (feature, column, where it is asked about).
        outputs: what an answer's numbers are called.
    """
    rows = rows[np.linspace(0, len(rows) - 1, ROWS).astype(np.intp)] if len(rows) > ROWS else rows
    if not grids or not len(rows):
        return ()
    made = []
    for _, _, at in grids:
        each = np.repeat(rows[None], len(at.codes), axis=0)
        each[:, :, at.place] = np.array(at.codes, dtype=np.float32)[:, None]
        made.append(each.reshape(-1, rows.shape[1]))
    answers = np.concatenate([answer(each) for each in _together(made)])
    answers = answers.reshape(len(answers), -1)
    found, start = [], 0
    for feature, column, at in grids:
        n = len(at.codes) * len(rows)
        own = answers[start : start + n].reshape(len(at.codes), len(rows), -1)
        start += n
        curves = tuple(_curve(name, own[:, :, k]) for k, name in enumerate(outputs[:OUTPUTS]))
        found.append(
            Dependence(
                feature=feature, column=column, points=at.points, counts=at.counts, curves=curves, rows=len(rows)
            )
        )
    return tuple(found)


def _together(made: Sequence[Matrix]) -> list[Matrix]:
    """One matrix where it stays small, for every call of a model has a price; else one a column."""
    return [np.concatenate(made)] if sum(each.size for each in made) <= 1 << 22 else list(made)


def _curve(output: str, answers: Array) -> Curve:
    low, middle, high = np.quantile(answers, _QUANTILES, axis=1)
    return Curve(
        output=output, mean=short(answers.mean(axis=1)), low=short(low), middle=short(middle), high=short(high)
    )


def short(values: Array) -> tuple[float, ...]:
    """Numbers to six digits: what differs beyond them is the order in which a machine adds up."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())
