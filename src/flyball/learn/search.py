"""The search for good knobs, declared: how many trials, for what, and how time is split for them (`explore` runs it).

Time is split, never shuffled. With a held-out span of 30 days before the cutoff:

    ... train ... | 30 days: validation, where trials are compared | 30 days: test, where gates are judged | cutoff

A row trains only if its outcome was known before the span that follows begins, so nothing of a later span leaks into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from flyball._kernel import place
from flyball._kernel.conditions import Metric
from flyball._kernel.errors import DataError, DeclarationError

SEED = 1788
"""The year of Watt's governor; every random choice of a training starts here."""


@dataclass(frozen=True, slots=True)
class ByTime:
    """Hold out the last `span` of questions, and validate on the one before."""

    span: timedelta


@dataclass(frozen=True, slots=True)
class Search:
    """How many trials, for what, on which split."""

    trials: int
    optimize: Metric
    split: ByTime


def search(*, trials: int, optimize: Metric, split: ByTime) -> Search:
    """Declare a search. `trials=1` trains with the starting knobs alone.

    Raises:
        DeclarationError: `no-trials`.
    """
    if trials < 1:
        raise DeclarationError(
            "no-trials",
            f"A search of {trials} trials chooses nothing.",
            where=place.here(),
            why="The first trial is the declared start.",
            next="Write trials=1 to train with the starting knobs alone.",
        )
    return Search(trials, optimize, split)


def by_time(span: timedelta) -> ByTime:
    """Split by when questions were asked."""
    return ByTime(span)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the spans begin and end, in asked time."""

    validation: datetime
    test: datetime
    end: datetime

    @classmethod
    def before(cls, end: datetime, split: ByTime) -> Bounds:
        """Two spans back from `end`."""
        return cls(end - 2 * split.span, end - split.span, end)


@dataclass(frozen=True, slots=True)
class Spans:
    """Row masks over the examples: `fit` trains the shipped model, `explore` the trials."""

    explore: np.ndarray
    validation: np.ndarray
    fit: np.ndarray
    test: np.ndarray


NAMES = {"explore": "training", "validation": "validation", "test": "test"}
"""What a person calls them."""


def spans(asked: pl.Series, settled: pl.Series, bounds: Bounds) -> Spans:
    """Cut the examples at `bounds`.

    Raises:
        DataError: `too-little-history`, when one of the spans is empty.
    """
    found = Spans(
        explore=(settled < bounds.validation).to_numpy(),
        validation=((asked >= bounds.validation) & (settled < bounds.test)).to_numpy(),
        fit=(settled < bounds.test).to_numpy(),
        test=((asked >= bounds.test) & (asked < bounds.end)).to_numpy(),
    )
    if asked.is_empty():
        raise DataError(
            "too-little-history",
            "No question is settled yet.",
            why="An example needs an outcome, and an outcome time that lies after the moment at which the question was asked.",
            next="Look at the outcome columns of a few rows: flyball data show APP TABLE; and wait, or ingest more history.",
        )
    for name in ("explore", "validation", "test"):
        if not getattr(found, name).any():
            raise DataError(
                "too-little-history",
                f"No settled question falls into the {NAMES[name]} span.",
                why=f"Questions were asked from {asked.min()!s:.10} to {asked.max()!s:.10}; trials are compared on those from "
                f"{bounds.validation:%Y-%m-%d}, gates are judged on those from {bounds.test:%Y-%m-%d} to "
                f"{bounds.end:%Y-%m-%d}, and what comes before trains.",
                next="Ingest more history, or declare a shorter span: split=fb.by_time(days(7)).",
            )
    return found
