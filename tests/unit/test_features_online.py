"""Updates apply each batch once, fill what is new, and mend what comes late; lookups refuse what was never filled."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from flyball._kernel.clock import micros
from flyball._kernel.errors import DataError, StateError
from flyball.adapters.memory.online import MemoryOnline
from flyball.learn.features import batches, declare, notation, online
from flyball.learn.features.lookup import Lookup
from flyball.learn.features.online import Change
from tests.oracles.histories import Job, at, frame, ticks


def job(job: str, due: int, batch: int, **rest: Any) -> dict[str, Any]:
    row = {"job": job, "due": at(due), "team": "red", "size": 1.0, "done": None, "cost": None, "_batch": batch}
    return row | {"_known": at(due - 3), "_outcome_known": None} | rest


def tables(*rows: dict[str, Any]) -> dict[str, pl.LazyFrame]:
    return {"Job": frame(Job, rows).lazy()}


SIZES = notation.features(
    sizes=notation.window(Job, Job.size.col.sum(), by=Job.team, over=[ticks(5), ticks(90)]),
    last=notation.latest(Job, by=Job.team, columns=[Job.size]),
)
ASKED = {"job": "new", "due": at(0), "team": "red", "size": 1.0}


def asked(store: online.Online, features: declare.FeatureSet, tick: int, **request: Any) -> list[object]:
    return Lookup(features, Job, store)(ASKED | request, at(tick))


class Counted(MemoryOnline):
    """Remembers what was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []

    def commit(self, changes: Any) -> None:
        super().commit(changes)
        self.changes += changes


def test_a_batch_is_applied_once() -> None:
    store, rows = Counted(), [job("a", 10, 1), job("b", 12, 2)]
    batches.update(store, SIZES, tables(*rows))
    assert [c.position for c in store.changes] == [2, 2]
    batches.update(store, SIZES, tables(*rows))
    assert len(store.changes) == 2
    batches.update(store, SIZES, tables(*rows, job("c", 13, 3)))
    assert [(c.since, c.position, len(c.versions)) for c in store.changes[2:]] == [(2, 3, 1), (2, 3, 1)]
    assert asked(store, SIZES, 60) == [0.0, 3.0, 1.0]


def test_a_new_feature_is_filled_from_the_whole_table() -> None:
    store, rows = Counted(), [job("a", 10, 1), job("b", 12, 2)]
    batches.update(store, notation.features(last=notation.latest(Job, by=Job.team, columns=[Job.size])), tables(*rows))
    with pytest.raises(StateError, match="features-not-online") as raised:
        Lookup(SIZES, Job, store)
    assert "sizes" in str(raised.value)
    batches.update(store, SIZES, tables(*rows))
    assert [c.since for c in store.changes] == [-1, -1]
    assert asked(store, SIZES, 60) == [0.0, 2.0, 1.0]


def test_an_empty_table_is_a_table() -> None:
    store = MemoryOnline()
    batches.update(store, SIZES, tables())
    assert asked(store, SIZES, 60) == [0.0, 0.0, None]


def test_features_that_mean_the_same_share_a_series() -> None:
    """How a series is looked up is not part of what it keeps; what it reads and how it counts is."""

    def name(**how: Any) -> str:
        return online.name(notation.latest(Job, by=Job.team, **how))

    assert name(columns=[Job.size]) == name(columns=[Job.size], max_age=ticks(4))
    assert name(columns=[Job.size]) != name(columns=[Job.size, Job.cost])
    mean, total, count = (
        online.name(notation.window(Job, getattr(Job.size.col, how)(), by=Job.team, over=ticks(5)))
        for how in ("mean", "sum", "count")
    )
    assert mean == total
    assert mean != count
    others = [
        notation.window(Job, Job.size.col.sum(), by=(Job.team, Job.job), over=ticks(5)),
        notation.window(Job, Job.size.col.sum(), by=Job.team, over=ticks(6)),
        notation.window(Job, (Job.size.col * 2).sum(), by=Job.team, over=ticks(5)),
    ]
    assert len({total, *map(online.name, others)}) == 4


def test_a_row_that_was_known_before_others_mends_what_follows() -> None:
    store = MemoryOnline()
    batches.update(store, SIZES, tables(job("a", 10, 1), job("b", 20, 1)))
    batches.update(store, SIZES, tables(job("a", 10, 1), job("b", 20, 1), job("c", 15, 2, size=5.0)))
    assert [asked(store, SIZES, tick)[1] for tick in (8, 12, 13, 17, 18)] == [1.0, 1.0, 6.0, 6.0, 7.0]


def test_a_correction_ends_what_it_corrects() -> None:
    """In the windows that it was in, from the moment on at which the correction was known."""
    store, first = MemoryOnline(), job("a", 10, 1, size=2.0)
    second = job("a", 10, 2, size=None, _known=at(9))
    batches.update(store, SIZES, tables(first))
    batches.update(store, SIZES, tables(first, second))
    assert [asked(store, SIZES, tick) for tick in (7, 8, 9, 10)] == [
        [0.0, 0.0, None],
        [2.0, 2.0, 2.0],
        [2.0, 2.0, 2.0],
        [0.0, 0.0, None],
    ]
    assert asked(store, SIZES, 9, job="a") == [0.0, 0.0, None]


def test_two_versions_in_one_batch_are_refused() -> None:
    store = MemoryOnline()
    with pytest.raises(DataError, match="two-versions-at-once"):
        batches.update(store, SIZES, tables(job("a", 10, 1), job("a", 10, 1, size=3.0)))
    assert store.position(online.names(SIZES)[0]) is None


def test_the_key_is_needed_and_nothing_else() -> None:
    store = MemoryOnline()
    batches.update(store, SIZES, tables(job("a", 10, 1)))
    assert Lookup(SIZES, Job, store)({"job": "z"}, at(60)) == [0.0, 0.0, None]
    with pytest.raises(DataError, match="key-not-given"):
        Lookup(SIZES, Job, store)({"team": "red"}, at(60))


def test_what_is_wrong_by_a_correction_enters_and_leaves() -> None:
    """Corrections alone make steps of a span of their own."""
    feature = SIZES.features[0]
    assert isinstance(feature, declare.Window)
    rows = [job("a", 10, 1, size=2.0), job("a", 10, 2, size=3.0, _known=at(9)), job("b", 30, 1)]
    store = MemoryOnline()
    made = batches.change(feature, online.NOTHING, frame(Job, rows), store)
    assert {step.span for step in made.steps} == {0, 5, 90}
    wrong = [(step.at, step.n, step.total) for step in made.steps if step.span == 5]
    unit = 2**40
    assert wrong == [
        (micros(at(7)), -1, -3 * unit),  # both count from then on for ever, and the second is not known yet
        (micros(at(9)), -1, -2 * unit),
        (micros(at(7 + 5)), 0, 0),
    ]
    plain = batches.change(feature, online.NOTHING, frame(Job, rows[1:]), store)
    assert {step.span for step in plain.steps} == {0}
    same = [job("a", 10, 1, size=2.0), job("a", 10, 2, size=2.0, _known=at(9))]
    settled = batches.change(feature, online.NOTHING, frame(Job, same), store)
    assert len(settled.versions) == 2, "what comes later may need either"
    assert [(step.span, step.n) for step in settled.steps] == [(0, 1)], "what says the same again corrects nothing"
