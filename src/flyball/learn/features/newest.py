"""`latest` of the past: of every question the row of the greatest **rank** that it sees.

The rank of a version is its place by (event time, `_known`, `_batch`, key) among those of its entity: the later, the better.
What a question sees of an entity is the first places of a timeline by `_known`, so the best is a running maximum of ranks.

Two things do not fit that, and are added exactly:
- a correction ends a version. Its successor usually wins anyway; only where that moved to another entity or an earlier time
  is the version **closed**, and found by a sweep over closed versions alone;
- a question never sees its own row: it falls back to the best row of another key.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import Final

import numpy as np
import polars as pl

from flyball.data.contract import Spec
from flyball.learn.features import meaning
from flyball.learn.features.declare import Latest
from flyball.learn.features.meaning import NEVER
from flyball.learn.features.timeline import Asking, Ints, Past, Timeline

_SAMPLE: Final = 1 << 16


def build(latest: Latest, past: Past, spec: Spec) -> pl.DataFrame:
    """The outputs of a latest, one row a question."""
    rows, points = past.rows, past.points
    closed = _closed(rows, past.entities)
    some = bool(closed.any())
    line = past.line(rows["_known"], ~closed if some else None)
    ranks = _Ranks(past, line, spec, alone=not some)
    best = ranks.best(past.asking)
    _pass_over(best, past, ~closed, ranks)
    if some:
        best = np.maximum(best, _sweep(past, closed, ranks))
    seen = pl.Series("rank", best).to_frame().select(pl.when(pl.col("rank") >= 0).then("rank")).to_series()
    place = pl.Series(ranks.order).gather(seen)
    late = [name for name in latest.columns if name in spec.late]
    found = rows.select(pl.col("_event", *(["_settled"] if late else []), *latest.columns).gather(pl.lit(place)))
    young, settled = pl.lit(value=True), pl.col("_settled") < points["_asked"]
    if latest.max_age is not None:
        young = points["_asked"] - pl.col("_event") <= meaning.span(latest.max_age)
    return found.select(
        pl.when(young & settled if name in late else young).then(name).alias(f"{latest.name}_{name}")
        for name in latest.columns
    )


class _Ranks:
    """The rank of every row; a row of nobody has none.

    Ranks of a later entity are greater, so that a running maximum over all places never takes one block's for another's.

    Attributes:
        order: the row of each rank.
    """

    def __init__(self, past: Past, line: Timeline, spec: Spec, *, alone: bool) -> None:
        self._line, self._height = line, past.rows.height
        self._running: Ints | None = None
        if alone and _ascending(line, past.rows["_known"].to_numpy(), past.rows["_event"].to_numpy()):
            self.order = line.order  # nothing came late: what was known later is about later
        else:
            self.order = _ranked(past, spec)
            self._running = np.maximum.accumulate(self.of_rows()[line.order]) if len(line.order) else self.order

    def best(self, asking: Asking) -> Ints:
        """The greatest rank that each question sees in the rows of the timeline; -1 where there is none."""
        end, first = self._line.places(asking), self._line.first(asking)
        found = end - 1 if self._running is None or not len(self._running) else self._running[end - 1]
        return np.where(end > first, found, -1)

    def of_rows(self) -> Ints:
        """The rank of each row."""
        found = np.full(self._height, -1)
        found[self.order] = np.arange(len(self.order))
        return found


def _ascending(line: Timeline, moments: Ints, events: Ints) -> bool:
    """Whether the places of each entity are in the order of their ranks."""
    if np.array_equal(events, moments) and bool((line.keys[1:] > line.keys[:-1]).all()):
        return True
    first = slice(0, _SAMPLE)  # where some rows came late, some of the first did
    return _in_order(line, events, first) and _in_order(line, events, slice(None))


def _in_order(line: Timeline, events: Ints, places: slice) -> bool:
    keys, about = line.keys[places], events[line.order[places]]
    entities = line.entities[places]
    later, alike = about[1:] > about[:-1], about[1:] == about[:-1]
    return bool(((entities[1:] != entities[:-1]) | later | (alike & (keys[1:] > keys[:-1]))).all())


def _ranked(past: Past, spec: Spec) -> Ints:
    """The rows by rank."""
    rows = past.rows
    line = past.line(rows["_event"])
    order, twice = line.order.astype(np.int64), np.zeros(len(line.order), dtype=bool)
    twice[1:] = line.keys[1:] == line.keys[:-1]
    twice[:-1] |= twice[1:].copy()
    if twice.any():
        key = [meaning.comparable(k, rows.schema[k]).alias(f"_key_{k}") for k in spec.key]
        tied = rows.select("_known", "_batch", *key).select(pl.all().gather(pl.lit(pl.Series(order[twice]))))
        by = tied.with_columns(_key=pl.Series(line.keys[twice])).select(
            pl.arg_sort_by("_key", "_known", "_batch", *(f"_key_{k}" for k in spec.key))
        )
        order[twice] = order[twice][by.to_series().to_numpy()]
    return order


def _closed(rows: pl.DataFrame, entities: Ints) -> pl.Series:
    """Whether a later version of the same key is of another entity or of an earlier event time.

    Any other version may stay for ever: once it has ended, its successor has the greater rank.
    """
    ended = rows["_until"] < NEVER
    if not ended.any():
        return ended
    moved = (pl.col("_entity").shift(-1) != pl.col("_entity")) | (pl.col("_event").shift(-1) < pl.col("_event"))
    chains = rows.select("_id", "_chain", "_known", "_batch", "_until", "_event", _entity=pl.Series(entities))
    chains = chains.filter(pl.col("_chain").is_in(rows["_chain"].filter(ended).implode()))
    chains = chains.sort("_chain", "_known", "_batch").select(
        "_id", "_chain", _moved=((pl.col("_until") < NEVER) & moved.over("_chain")).cast(pl.Int8)
    )
    closed = chains.filter(pl.col("_moved").cum_max(reverse=True).over("_chain") == 1)["_id"]
    return rows["_id"].is_in(closed.implode())


def _pass_over(best: Ints, past: Past, stays: pl.Series, ranks: _Ranks) -> None:
    """Where the best is the question's own row, put the best row of another key in its place, among versions that stay."""
    own, chains = past.own, past.rows["_chain"].cast(pl.Int64).to_numpy()
    itself = np.flatnonzero((best >= 0) & (own >= 0))
    itself = itself[chains[ranks.order[best[itself]]] == own[itself]]
    if not len(itself):
        return
    # The runner-up of another key: whenever two keys meet the lesser loses, and the best loser is it. (Were a better
    # loser of the winner's own key, it would have lost to a third, which is a loser too by now.)
    rank = pl.col("_rank")
    rows = past.rows.select("_known", _entity=pl.Series(past.entities), _rank=pl.Series(ranks.of_rows())).filter(stays)
    met = rows.filter(pl.col("_entity").is_in(np.unique(past.mine[itself]))).sort("_known")
    met = met.with_columns(_before=rank.cum_max().shift(1).over("_entity"))
    low, high = pl.min_horizontal("_rank", "_before"), pl.max_horizontal("_rank", "_before")
    chain = pl.lit(pl.Series(chains[ranks.order]))
    met = met.with_columns(_low=low, _same=chain.gather(low) == chain.gather(high)).with_columns(
        _loser=pl.when(pl.col("_before").is_not_null() & ~pl.col("_same")).then("_low")
    )
    second = met.select("_entity", _at="_known", _best=pl.col("_loser").cum_max().forward_fill().over("_entity"))
    asked = pl.DataFrame({"_itself": itself, "_entity": past.mine[itself], "_at": past.asking.moments[itself]}).sort(
        "_at"
    )
    found = asked.join_asof(second, on="_at", by="_entity", allow_exact_matches=False, check_sortedness=False)
    best[found["_itself"].to_numpy()] = found["_best"].fill_null(-1).to_numpy()


def _sweep(past: Past, closed: pl.Series, ranks: _Ranks) -> Ints:
    """The greatest rank that each question sees in closed versions, of another key than its own: time goes by once."""
    rows = past.rows.select(
        "_known", _entity=pl.Series(past.entities), _rank=pl.Series(ranks.of_rows()), _until="_until", _chain="_chain"
    )
    entries = rows.filter(closed & (rows["_entity"] >= 0)).sort("_known").rows()
    ours = past.points.select("_asked", "_own", _entity=pl.Series(past.mine)).with_row_index("_place")
    ours = ours.filter(pl.col("_entity").is_in({entry[1] for entry in entries})).sort("_asked")
    heaps: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    found = np.full(past.points.height, -1)
    entered = 0
    for place, asked, own, entity in ours.rows():
        while entered < len(entries) and entries[entered][0] < asked:
            _, of, rank, until, chain = entries[entered]
            heapq.heappush(heaps[of], (-rank, until, chain))
            entered += 1
        found[place] = _top(heaps[entity], asked, own)
    return found


def _top(heap: list[tuple[int, int, int]], asked: int, own: int | None) -> int:
    """The best rank in a heap of (-rank, until, chain) that is current and not of the question's own key; -1: none."""
    while heap and heap[0][1] < asked:
        heapq.heappop(heap)
    if not heap or heap[0][2] != own:
        return -heap[0][0] if heap else -1
    mine = heapq.heappop(heap)
    best = _top(heap, asked, None)
    heapq.heappush(heap, mine)
    return best
