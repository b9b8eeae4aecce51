"""Rows of the past in an order in which every question finds what it may see by two searches.

A **timeline** lays rows out in blocks, one for each entity, and within a block by a moment. So the rows of an entity of before
a moment are the first **places** of its block: a window is a range of places, its total the difference of two running totals,
and what is latest among the known is a running maximum. Entity and moment make one integer, so that a search compares only
that, and questions search in their own order by (entity, moment), which keeps neighbours in the cache.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.learn.features import meaning
from flyball.learn.features.declare import Window
from flyball.learn.features.meaning import NEVER

Ints = npt.NDArray[np.int64]
_NOBODY: Final = -1
"""The entity of no row."""
_BITS: Final = 62
_DENSE: Final = 1 << 32


class Timeline:
    """Rows by (entity, moment).

    Args:
        entities: of each row, not negative.
        moments: of each row, microseconds.
        rows: which rows these are, where they are not all.

    Attributes:
        order: the row at each place.
        keys: entity and moment of each place, ascending.
    """

    def __init__(self, entities: Ints, moments: Ints, rows: npt.NDArray[Any] | None = None) -> None:
        self._found: dict[int, Ints] = {}
        self._low = int(moments.min()) if len(moments) else 0
        self._span = int(moments.max()) - self._low if len(moments) else 0
        last = int(entities.max()) if len(entities) else 0
        self._ranks: Ints | None = None
        if (self._span + 1).bit_length() + last.bit_length() > _BITS:
            self._ranks = np.unique(moments)
            moments = np.searchsorted(self._ranks, moments).astype(np.int64)
            self._low, self._span = 0, len(self._ranks) - 1
        self._shift = (self._span + 1).bit_length()
        keys = (entities << self._shift) + (moments - self._low)
        if bool((keys[1:] >= keys[:-1]).all()):
            self.keys, order = keys, np.arange(len(keys))
        else:
            order, self.keys = _sorted(keys)
        self.order = order if rows is None else rows[order]

    @property
    def longest(self) -> int:
        """The rows of the entity that has the most."""
        if not len(self.keys):
            return 0
        ends = np.flatnonzero(np.diff(self.keys >> self._shift)) + 1
        return int(np.diff(np.concatenate([[0], ends, [len(self.keys)]])).max())

    @property
    def entities(self) -> Ints:
        """The entity at each place."""
        return np.asarray(self.keys >> self._shift)

    def places(self, asking: Asking, before: int = 0) -> Ints:
        """For each question the place after the last row of its entity strictly before `asked - before` microseconds."""
        if before not in self._found:
            moments = asking.moments - before
            if self._ranks is not None:
                moments = np.searchsorted(self._ranks, moments).astype(np.int64)
            inside = np.clip(moments - self._low, 0, self._span + 1)
            self._found[before] = np.searchsorted(self.keys, (asking.entities << self._shift) + inside)
        return self._found[before]

    def first(self, asking: Asking) -> Ints:
        """For each question the first place of its entity."""
        return np.searchsorted(self.keys, asking.entities << self._shift)


def _sorted(keys: Ints) -> tuple[Ints, Ints]:
    """The order of keys that are not negative, equal ones as they come; and the keys in it.

    Numbers alone sort several times as fast as numbers with their places. So the place is put into the low bits, and the lowest
    bits of the key make room for it; where these matter, the few that they concern are sorted again.
    """
    low = (len(keys) - 1).bit_length()
    short = max(0, int(keys.max()).bit_length() + low - 63)
    packed = ((keys >> short) << low) | np.arange(len(keys))
    packed.sort()
    order = packed & ((1 << low) - 1)
    found = keys[order]
    wrong = np.flatnonzero(found[1:] < found[:-1])
    if len(wrong):
        packed >>= low
        runs = np.unique(packed[wrong])
        begin, end = np.searchsorted(packed, runs), np.searchsorted(packed, runs, side="right")
        lengths = end - begin
        at = np.repeat(begin - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
        again = at[np.argsort(found[at], kind="stable")]
        order[at], found[at] = order[again], found[again]
    return order, found


class Asking(NamedTuple):
    """Whose each question is, and when it is asked; by both, so that neighbours look at neighbours."""

    entities: Ints
    moments: Ints


def coded(mine: pl.Series, theirs: pl.Series) -> tuple[Ints, Ints]:
    """Entities of questions and of rows as numbers from 0 on, -1 for null and for whoever has no row."""
    if theirs.dtype == pl.String:
        categories = pl.Categorical(pl.Categories.random())
        theirs, mine = theirs.cast(categories), mine.cast(categories)  # rows first: theirs are the low numbers
        theirs, mine = theirs.to_physical(), mine.to_physical()
    low, high = theirs.min(), theirs.max()
    if not isinstance(low, int) or not isinstance(high, int):  # there is no row of anybody
        return np.full(len(mine), _NOBODY), np.full(len(theirs), _NOBODY)
    if high - low < _DENSE:
        inside = pl.col("x").is_between(low, high)
        code = pl.when(inside).then(pl.col("x").cast(pl.Int64) - low).otherwise(_NOBODY)
        mine, theirs = (each.alias("x").to_frame().select(code).to_series() for each in (mine, theirs))
        return mine.to_numpy(), theirs.to_numpy()
    codes = theirs.drop_nulls().unique().sort().alias("x").to_frame().with_row_index("code")
    mine, theirs = (
        each.alias("x").to_frame().join(codes, on="x", how="left", maintain_order="left")["code"].cast(pl.Int64)
        for each in (mine, theirs)
    )
    return mine.fill_null(_NOBODY).to_numpy(), theirs.fill_null(_NOBODY).to_numpy()


class Past:
    """The rows of one table by whom they are about, and the questions that look into them, in an order of their own.

    Attributes:
        rows: versions with `_chain`, `_until`, `_known`, `_batch`, `_settled`, `_event`, and what is read of them.
        points: `_asked` and `_own` (the chain of the question's own key), one row a question, by (entity, `_asked`).
        entities: of the rows, as numbers; -1 is nobody.
        mine: of the questions.
        own: the chain of each question's own key; -1 where there is none.
        asking: the questions.
    """

    def __init__(self, rows: pl.DataFrame, points: pl.DataFrame, mine: pl.Series, theirs: pl.Series) -> None:
        asked, self.entities = coded(mine, theirs)
        order = np.lexsort((points["_asked"].to_numpy(), asked))
        self.rows, self.points, self.mine = rows, points[order], asked[order]
        self.own = self.points["_own"].cast(pl.Int64).fill_null(-1).to_numpy()
        self.asking = Asking(self.mine, self.points["_asked"].to_numpy())
        self._back = np.empty(len(order), dtype=np.int64)
        self._back[order] = np.arange(len(order))
        self._counting: dict[tuple[bool, int], Counting] = {}

    def line(self, moments: pl.Series, keep: pl.Series | None = None) -> Timeline:
        """Chosen rows by a moment of theirs; those of nobody are left out."""
        chosen = self.entities >= 0
        if keep is not None:
            chosen &= keep.to_numpy()
        if chosen.all():
            return Timeline(self.entities, moments.to_numpy())
        rows = np.flatnonzero(chosen)
        return Timeline(self.entities[rows], moments.to_numpy()[rows], rows)

    def back(self, found: pl.DataFrame) -> pl.DataFrame:
        """What was found for each question, in the order in which the questions were given."""
        return found.select(pl.all().gather(pl.lit(pl.Series(self._back))))

    def counting(self, window: Window) -> Counting:
        """From when on each row counts in a window; the same for all that count the same rows from the same moments."""
        what = window.on_outcome, meaning.span(window.gap)
        if what not in self._counting:
            self._counting[what] = Counting(self, *moments(self.rows, window))
        return self._counting[what]


class Counting:
    """The rows that count for ever from a moment on, in a timeline, and the rest that count for a while.

    Attributes:
        moments: from which on each row counts; NEVER where it does not.
        seen: when what is counted of each row was known.
        line: of the rows that count for ever.
        ended: which rows count for a while only, since they were corrected, or were known too late; None: there are none.
        longest: the rows of the entity that has the most.
    """

    def __init__(self, past: Past, moments: pl.Series, seen: pl.Series) -> None:
        self.moments, self.seen = moments, seen
        known = moments < NEVER
        lasting = pl.DataFrame({"known": known, "plain": known & (past.rows["_until"] == NEVER) & (seen <= moments)})
        self.line = past.line(moments, lasting["plain"])
        self.longest = self.line.longest
        ended = lasting.select(pl.col("known") & ~pl.col("plain")).to_series()
        self.ended = ended if ended.any() else None


def moments(rows: pl.DataFrame, window: Window) -> tuple[pl.Series, pl.Series]:
    """From when on each row counts in a window, and when what is counted of it was known; NEVER where that never is."""
    found = rows.select(
        counts=meaning.counts(window), seen=pl.max_horizontal("_known", meaning.own(window)).cast(pl.Int64)
    )
    return found["counts"], found["seen"]
