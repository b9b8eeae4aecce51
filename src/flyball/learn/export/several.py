"""Answers of several numbers, put together from models that know fewer: quantiles learned one by one; classes seen in part.

    estimators   `Several`, which training makes: a regressor a quantile, or one classifier of the classes that its rows hold
    predictors   `Together`, over the artifact of as many parts: `join` writes it, `loaded` reads it

Both put the parts' numbers into their places by `assembled`, so they agree bit for bit. A class that training never saw is
answered with 0. Two classes are one number to every library: p becomes (1 - p, p). Light: a server reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from flyball._kernel.errors import StateError
from flyball.learn.export.predictor import Kind, Matrix, Predictor
from flyball.learn.task import Answer, Answers

MOST = 1000
"""Numbers in an answer, and parts of an artifact."""

_LONGEST_HEAD = 20_000
_HEAD = re.compile(rb"flyball several width=(\d{1,4}) places=(\d{1,4}(?:,\d{1,4})*) sizes=(\d{1,10}(?:,\d{1,10})*)\n")


@dataclass(frozen=True, slots=True)
class Several:
    """Estimators of one kind whose numbers, in order, go to `places` of an answer of `width`."""

    parts: tuple[Any, ...]
    places: tuple[int, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Together:
    """Predictors of one kind that answer as one."""

    parts: tuple[Predictor, ...]
    places: tuple[int, ...]
    width: int

    @property
    def name(self) -> Kind:
        """Their kind."""
        return self.parts[0].name

    @property
    def features(self) -> int:
        """The number of columns that each of them reads."""
        return self.parts[0].features

    def row(self, values: Matrix) -> Answer:
        """The answer to one row: float32 of shape (features,)."""
        found: list[float] = []
        for part in self.parts:
            one = part.row(values)
            found.extend(one if isinstance(one, tuple) else (one,))
        if len(found) == 1 and len(self.places) == 2:
            found.insert(0, 1.0 - found[0])
        answer = [0.0] * self.width
        for place, number in zip(self.places, found, strict=True):
            answer[place] = number
        return tuple(answer)

    def batch(self, matrix: Matrix) -> Answers:
        """The answers to a matrix: float32 of shape (rows, features); float64 of shape (rows, width)."""
        return assembled([part.batch(matrix) for part in self.parts], self.places, self.width)


def assembled(columns: Sequence[Answers], places: Sequence[int], width: int) -> Answers:
    """(rows, width): each part's numbers, (rows,) or (rows, k), in their places, and 0 elsewhere."""
    found = np.column_stack(columns)
    if found.shape[1] == 1 and len(places) == 2:
        found = np.column_stack([1.0 - found[:, 0], found[:, 0]])
    answers = np.zeros((len(found), width), dtype=np.float64)
    answers[:, list(places)] = found
    return answers


def join(parts: Sequence[bytes], places: Sequence[int], width: int) -> bytes:
    """One artifact of as many, after a line that says how they answer together."""
    listed = (",".join(map(str, values)) for values in (places, map(len, parts)))
    return "flyball several width={} places={} sizes={}\n".format(width, *listed).encode() + b"".join(parts)


def parts(data: bytes) -> tuple[list[bytes], tuple[int, ...]]:
    """The parts of an artifact, and their places in an answer; itself, without any, where it is one. `loaded` checks more."""
    head = _HEAD.match(data[:_LONGEST_HEAD])
    if head is None:
        return [data], ()
    ends = np.cumsum([0, *map(int, head[3].split(b","))]) + head.end()
    return [data[a:b] for a, b in pairwise(ends.tolist())], tuple(map(int, head[2].split(b",")))


def loaded(data: bytes, one: Callable[[bytes], Predictor], refused: Callable[[str], StateError]) -> Predictor:
    """The predictor of an artifact: of one part, or of several joined.

    Args:
        one: loads, and so checks, a part.
        refused: makes the error of that kind of artifact.

    Raises:
        StateError: `hostile-model`, when the parts and the line before them do not agree; and what `one` raises.
    """
    if not data.startswith(b"flyball several "):
        return one(data)
    head = _HEAD.match(data[:_LONGEST_HEAD])
    if head is None:
        raise refused("what says how its parts answer together cannot be read")
    width = int(head[1])
    places, sizes = (tuple(int(value) for value in head[i].split(b",")) for i in (2, 3))
    rest = data[head.end() :]
    if not 2 <= width <= MOST or len(sizes) > MOST or sum(sizes) != len(rest):
        raise refused("its parts are not as long as it says")
    if len(set(places)) < len(places) or max(places) >= width:
        raise refused("its parts answer to places that are not there")
    ends = np.cumsum(sizes).tolist()
    parts = tuple(one(rest[end - size : end]) for size, end in zip(sizes, ends, strict=True))
    _check(parts, places, refused)
    return Together(parts, places, width)


def _check(parts: Sequence[Predictor], places: Sequence[int], refused: Callable[[str], StateError]) -> None:
    features = parts[0].features
    if any(part.features != features for part in parts):
        raise refused("its parts read different numbers of features")
    numbers = sum(getattr(part, "width", 1) for part in parts)
    if numbers != len(places) and (numbers, len(places)) != (1, 2):
        raise refused(f"its parts answer {numbers} numbers to {len(places)} places")
