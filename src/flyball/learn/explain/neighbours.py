"""The training rows that lie nearest to a question: which ones, and how far, but never what they hold.

How far two rows lie apart is told feature by feature, each counted from 0 to 1 (Gower, Biometrics 1971): categories are the
same or not, numbers differ by so many standard deviations of the training rows (`FAR` of them are 1), texts by half their
squared distance, which is one less their cosine; a missing value is near another missing one alone. Features count by what
the version makes of them: one that it never looks at does not make rows alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.learn.encoding.encode import Encoder
from flyball.learn.explain.walks import Array, Places
from flyball.learn.export.predictor import Matrix

FAR = 3.0
"""Standard deviations from which on two numbers are simply different."""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """How distances are counted.

    Attributes:
        weights: (columns,) of each column's share in a distance; they sum to one over features (a text's columns share one).
        spread: (columns,) by what a difference is divided.
        category, text: (columns,) masks.
    """

    weights: Array
    spread: Array
    category: npt.NDArray[np.bool_]
    text: npt.NDArray[np.bool_]


def scale(encoder: Encoder, rows: Matrix, places: Places, weights: Mapping[str, float]) -> Scale:
    """The scale of a version.

    Args:
        rows: training rows, a sample of them.
        places: feature -> its columns.
        weights: feature -> how much it counts, not negative; all the same where they sum to nothing.
    """
    width = rows.shape[1]
    category, text = (np.zeros(width, dtype=np.bool_) for _ in range(2))
    category[list(encoder.categories)] = True
    text[list(encoder.texts)] = True
    total = sum(weights.get(name, 0.0) for name in places)
    shares = np.zeros(width)
    for name, columns in places.items():
        own = weights.get(name, 0.0) / total if total > 0 else 1 / len(places)
        shares[list(columns)] = [own if text[c] else own / len(columns) for c in columns]
    known = np.isfinite(rows)
    count = np.maximum(known.sum(axis=0), 1)
    clean = np.where(known, rows, 0).astype(np.float64)
    mean = clean.sum(axis=0) / count
    spread = np.sqrt((np.where(known, clean - mean, 0) ** 2).sum(axis=0) / count)
    return Scale(shares, np.where(spread > 0, FAR * spread, 1.0), category, text)


def nearest(question: Matrix, chunks: Iterable[Matrix], by: Scale, k: int) -> list[tuple[int, float]]:
    """The `k` nearest rows, nearest first: (place among the rows of all chunks, distance from 0 to 1). Of ties, the later.

    Args:
        question: (columns,) encoded.
        chunks: the training rows, encoded, in order.
    """
    places, distances, at = np.zeros(0, dtype=np.int64), np.zeros(0), 0
    for chunk in chunks:
        places = np.concatenate([places, np.arange(at, at + len(chunk))])
        distances = np.concatenate([distances, distance(question, chunk, by)])
        at += len(chunk)
        kept = np.lexsort((-places, distances))[:k]
        places, distances = places[kept], distances[kept]
    return [(int(p), float(d)) for p, d in zip(places, distances, strict=True)]


def distance(question: Matrix, rows: Matrix, by: Scale) -> Array:
    """(rows,) how far each lies from the question, from 0 to 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(rows.astype(np.float64) - question)
    lost, ours = np.isnan(rows), np.isnan(question)
    far = np.minimum(apart / by.spread, 1.0)
    far[:, by.category] = apart[:, by.category] > 0
    far[:, by.text] = apart[:, by.text] ** 2 / 2
    far = np.where(lost | ours, (lost != ours).astype(np.float64), far)
    return np.asarray(np.minimum(far @ by.weights, 1.0))
