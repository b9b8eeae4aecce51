"""How examples are split: which train, on which trials are compared, and on which gates are judged.

Time is split, never shuffled. With a held-out span of 30 days before the cutoff:

    ... train ... | 30 days: validation, where trials are compared | 30 days: test, where gates are judged | cutoff

A row trains only if its outcome was known before the span that follows begins, so nothing of a later span leaks into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from flyball._kernel.durations import hours
from flyball._kernel.errors import DataError
from flyball.learn.examples import Examples

SETTLED_ENOUGH = 100
"""Questions that are enough to measure how long outcomes take."""


@dataclass(frozen=True, slots=True)
class ByTime:
    """Hold out the last `span` of questions, and validate on the one before."""

    span: timedelta


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


def bounds_of(examples: Examples, cutoff: datetime, split: ByTime) -> Bounds:
    """The spans before the cutoff, ended early enough for outcomes to settle.

    A question that was asked just before the cutoff is among the examples only if its outcome came quickly, and what comes
    quickly may be of one kind (a parcel that is not sent back is settled late). So the last span ends one **lag** before the
    cutoff: the time within which 99 % of outcomes settle, measured on questions old enough for all of theirs to be there.
    """
    waits = (examples.settled - examples.asked).dt.total_microseconds()
    old = waits.filter(examples.asked < cutoff - 3 * split.span)
    longest = (old if len(old) >= SETTLED_ENOUGH else waits).quantile(0.99, "higher")
    hours_ = math.ceil((longest or 0) / 3.6e9)
    return Bounds.before(cutoff - hours(hours_), split)


def cut(examples: Examples, bounds: Bounds) -> Spans:
    """The spans of the examples.

    Raises:
        DataError: `too-little-history`; `one-class-only`, when a classifier would see, or be judged on, one outcome alone.
    """
    parts = spans(examples.asked, examples.settled, bounds)
    labels = examples.labels
    for name in ("explore", "validation", "test") if labels.dtype == np.bool_ else ():
        found = labels[getattr(parts, name)]
        if found.all() or not found.any():
            raise DataError(
                "one-class-only",
                f"All {len(found):,} outcomes of the {NAMES[name]} span are {bool(found[0])}.",
                why="What never differs can be neither learned nor ranked.",
                next="Ingest more history, or declare a longer span: split=fb.by_time(days(60)).",
            )
    return parts


def days(asked: pl.Series) -> np.ndarray:
    """(n,) the day on which each question was asked: rows of one day share its weather and its jams, so the bootstrap
    draws whole days (Künsch 1989; Cameron, Gelbach and Miller 2008); rows on their own would make intervals too narrow.
    """
    return asked.dt.epoch("d").cast(pl.Int64).to_numpy()
