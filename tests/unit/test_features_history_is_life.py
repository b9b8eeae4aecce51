"""What came as one row in the history comes as two in life: first open, later settled. Windows must not tell the difference."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from flyball.adapters.memory.online import MemoryOnline
from flyball.learn.features import batches, notation, offline
from flyball.learn.features.declare import FeatureSet
from flyball.learn.features.lookup import Lookup
from tests.oracles.histories import Trip, asking, at, frame, ticks

SPANS = [ticks(3), ticks(9), ticks(40)]


def windows(value: Any, **more: Any) -> FeatureSet:
    return notation.features(w=notation.window(Trip, value, by=Trip.team, over=SPANS, **more))


ROWS = {
    "len": windows(pl.len()),
    "sum": windows(Trip.miles.col.sum(), gap=ticks(2)),
    "std": windows(Trip.miles.col.std()),
    "trend": windows(notation.trend(Trip.miles.col)),
    "max": windows(Trip.miles.col.max()),
    "n_unique": windows(Trip.place.col.n_unique(), gap=ticks(1)),
    "since": windows(notation.since_last()),
}
OUTCOMES = {
    "rate": windows(Trip.late.col.mean()),
    "median": windows(Trip.delay.col.median()),
    "late_since": windows(notation.since_last(), where=Trip.late.col),
}


def trip(n: int, batch: int, known: int, settled: int | None, **more: Any) -> dict[str, Any]:
    arrived = None if settled is None else at(settled)
    said = (arrived, n % 2 == 0, n * 1.5) if arrived else (None,) * 3
    outcome = dict(zip(("arrived", "late", "delay"), said, strict=True))
    row = {"trip": n, "leg": "p", "leaves": at(known + 4), "place": "ab"[n % 2], "team": "red", "miles": n + 1}
    return {**row, **outcome, "_batch": batch, "_known": at(known), "_outcome_known": arrived, **more}


HISTORY = [trip(n, 1, 3 * n, 3 * n + 7) for n in range(6)]
LIFE = sorted(
    [trip(n, 1 + 2 * n, 3 * n, None) for n in range(6)]
    + [trip(n, 2 + 2 * n, 3 * n + 7, 3 * n + 7) | {"leaves": at(3 * n + 4)} for n in range(6)],
    key=lambda row: row["_known"],
)
LIFE = [row | {"_batch": n + 1} for n, row in enumerate(LIFE)]
MOMENTS = list(range(45))


def built(features: FeatureSet, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    questions = [trip(99, 0, 0, None) | {"_asked": at(m)} for m in MOMENTS]
    names = ("trip", "leg", "leaves", "place", "team", "miles", "_asked")
    asked = asking(Trip, [{n: q[n] for n in names} for q in questions])
    return offline.build(features, Trip, asked, {"Trip": frame(Trip, rows).lazy()}).rows()


def online(features: FeatureSet, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    store = MemoryOnline()
    for batch in sorted({row["_batch"] for row in rows}):
        seen = [row for row in rows if row["_batch"] <= batch]
        batches.update(store, features, {"Trip": frame(Trip, seen).lazy()})
    look = Lookup(features, Trip, store)
    return [tuple(look({"trip": 99, "leg": "p", "team": "red"}, at(m))) for m in MOMENTS]


@pytest.mark.parametrize("name", [*ROWS, *OUTCOMES])
def test_a_row_that_settles_later_is_not_a_new_one(name: str) -> None:
    features = (ROWS | OUTCOMES)[name]
    history = built(features, HISTORY)
    assert built(features, LIFE) == history == online(features, LIFE) == online(features, HISTORY)
    assert len(set(history)) > 2


@pytest.mark.parametrize("name", ROWS)
def test_a_correction_counts_since_the_row_was_first_known(name: str) -> None:
    """With the new value, from when that was known; and it leaves when the row does."""
    corrected = [*HISTORY, trip(2, 2, 8, 13, miles=50, place="a") | {"leaves": at(10)}]
    found = built(ROWS[name], corrected)
    assert found == online(ROWS[name], corrected)
    plain = built(ROWS[name], HISTORY)
    assert found[: 8 + 1] == plain[: 8 + 1]
    gone = 6 + 9 + 2 + 1  # known at 6, a span of 9, the greatest gap
    assert [row[1] for row in found[gone:]] == [row[1] for row in plain[gone:]]
