"""Windows of the past that look at each of their values again: of every question the rows of a range of places, in portions.

A row of the range may be no longer current, or the question's own; then it is passed over. Memory is bounded by the portion,
not by how many rows all windows have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import polars as pl

from flyball.learn.features import aggregate, meaning, timeline
from flyball.learn.features.declare import Window
from flyball.learn.features.meaning import NEVER
from flyball.learn.features.timeline import Ints, Past

PORTION: Final = 1 << 21
"""Pairs of a question and a row that are in memory at once; more only where one question alone has more."""


def build(window: Window, past: Past) -> pl.DataFrame:
    """The outputs of a window, one row a question."""
    counts, seen = timeline.moments(past.rows, window)
    value = meaning.of_each(past.rows, _value=meaning.value(window)).to_series()
    rows = past.rows.select("_chain", "_until").with_columns(value, _k=counts, _seen=seen)
    line = past.line(rows["_k"], (rows["_k"] < NEVER) & rows["_value"].is_not_null())
    rows = rows.select(pl.all().gather(pl.lit(pl.Series(line.order))))
    sees = _Sees(rows, past)
    end = line.places(past.asking)
    outputs = []
    for over in window.over:
        begin = line.places(past.asking, meaning.span(over))
        if window.aggregate.how == "since":
            made = _since(sees, begin, end, window)
        else:
            made = _each(window, rows["_value"], sees, begin, end)
        outputs.append(made.alias(window.column(over)))
    return pl.DataFrame(outputs)


class _Sees:
    """Which row a question sees: one that is current when it is asked, and not its own."""

    def __init__(self, rows: pl.DataFrame, past: Past) -> None:
        self.asked = past.points["_asked"].to_numpy()
        self._seen, self._until = rows["_seen"].to_numpy(), rows["_until"].to_numpy()
        self.moments = rows["_k"].to_numpy()
        self._own = past.own
        self._chain = rows["_chain"].cast(pl.Int64).to_numpy()
        late = bool((self._seen > self.moments).any())
        self.always = not late and bool((self._until == NEVER).all()) and bool((self._own < 0).all())

    def __call__(self, points: Ints, places: Ints) -> np.ndarray:
        asked = self.asked[points]
        current = (self._seen[places] < asked) & (asked <= self._until[places])
        return np.asarray(current & (self._chain[places] != self._own[points]))


def _since(sees: _Sees, begin: Ints, end: Ints, window: Window) -> pl.Series:
    """Seconds since the last row that each question sees, going back from the end of its range."""
    at = end - 1
    open_ = np.flatnonzero(at >= begin) if not sees.always else np.empty(0, dtype=np.int64)
    while len(open_):
        open_ = open_[~sees(open_, at[open_])]
        at[open_] -= 1
        open_ = open_[at[open_] >= begin[open_]]
    found = at >= begin
    # A gap shifts the moment from which a row counts, and not how long ago it was known.
    known = sees.moments[at[found]] - meaning.span(window.gap)
    seconds = np.full(len(at), np.nan)
    seconds[found] = (sees.asked[found] - known).astype(np.float64) / 1e6
    return pl.Series(seconds).fill_nan(None)


def _each(window: Window, values: pl.Series, sees: _Sees, begin: Ints, end: Ints) -> pl.Series:
    parts = []
    for first, last in _portions(end - begin):
        points = np.repeat(np.arange(first, last), end[first:last] - begin[first:last])
        if not len(points):
            continue
        lengths = end[first:last] - begin[first:last]
        offsets = np.arange(len(points)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(begin[first:last], lengths) + offsets
        if not sees.always:
            kept = sees(points, places)
            points, places = points[kept], places[kept]
        pairs = pl.DataFrame({"_point": points, "_value": values.gather(places)})
        parts.append(aggregate.chosen_each(window.aggregate, pairs))
    all_ = pl.DataFrame({"_point": np.arange(len(begin))})
    empty = pl.DataFrame(schema={"_point": pl.Int64, "_out": window.aggregate.dtype})
    found = all_.join(pl.concat([empty, *parts]), on="_point", how="left", maintain_order="left")["_out"]
    return found if window.aggregate.empty is None else found.fill_null(window.aggregate.empty)


def _portions(sizes: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of questions whose rows are about `PORTION` together."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + PORTION, side="right")))
        yield first, last
        first = last
