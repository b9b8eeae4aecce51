"""Offline, online and the oracle agree on random histories, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyball.adapters.embedded.online import SqlOnline
from flyball.adapters.memory.online import MemoryOnline
from flyball.data import contract
from flyball.data.contract import Contract, before
from flyball.learn import examples
from flyball.learn.features import batches, offline
from flyball.learn.features.declare import FeatureSet, Latest, Window
from flyball.learn.features.lookup import Lookup
from flyball.learn.features.online import Online
from flyball.learn.model import Model, check, model
from tests.oracles import histories
from tests.oracles.histories import ABOUT_JOBS, ABOUT_TRIPS, History, Job, Trip


def profile(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def cases(history: History) -> Iterator[tuple[FeatureSet, type[Contract], list[dict[str, Any]]]]:
    yield ABOUT_TRIPS, Trip, history.trips
    yield ABOUT_JOBS, Job, history.jobs


def looked_up(features: FeatureSet, question: type[Contract]) -> list[str]:
    return [o.name for f in features.features if isinstance(f, Latest | Window) for o in f.outputs(question)]


def spelt(rows: list[Any]) -> list[str]:
    """Floats to the last bit, and NaN equal to itself; a moment is the same in every spelling of UTC."""
    return [repr([v.astimezone(UTC) if isinstance(v, datetime) else v for v in row]) for row in rows]


@profile(64)
@example(histories.moved_back, 0)
@example(histories.tied, 0)
@example(histories.tied, 1)
@given(histories.histories, st.integers(0, 3))
def test_offline_is_the_oracle(history: History, seed: int) -> None:
    """In whatever order the rows lie."""
    history = history.shuffled(seed)
    for features, question, asked in cases(history):
        built = offline.build(features, question, histories.asking(question, asked), history.tables())
        expected = [histories.expected(features, question, a, history.rows) for a in asked]
        assert spelt(built.select(looked_up(features, question)).rows()) == spelt(expected)


def predicting(features: FeatureSet, outcome: Any, column: Any, lead: int) -> Model:
    @model(features, predicts=outcome, asked=before(column, histories.ticks(lead)))
    def guess() -> None: ...

    check(guess)
    return guess


LATENESS, COST = predicting(ABOUT_TRIPS, Trip.late, Trip.leaves, 2), predicting(ABOUT_JOBS, Job.cost, Job.due, 0)


@profile(30)
@given(histories.histories, st.integers(2, 30), st.integers(0, 3))
def test_examples_are_the_oracle(history: History, cutoff: int, seed: int) -> None:
    """Each question of the past once, as its request was; with what came of it."""
    history = history.shuffled(seed)
    for learner in (LATENESS, COST):
        spec, end = contract.spec(learner.question), histories.at(cutoff)
        built = examples.build(learner, history.tables(), end)
        found = histories.examined(learner, spec, history.rows, end)
        assert (built.counts.learned, built.counts.void) == (len(found["learned"]), len(found["void"]))
        assert (built.counts.unsettled, built.counts.unaskable) == (len(found["unsettled"]), len(found["unaskable"]))
        request = [c.name for c in spec.request]
        columns = [*(built.request(n) for n in request), built.asked, built.settled, built.label]
        expected = sorted(found["learned"], key=lambda e: (e["_asked"], *(e[k] for k in spec.key)))
        heads = [[e[n] for n in (*request, "_asked", "_settled", "_label")] for e in expected]
        assert spelt([list(row) for row in zip(*columns, strict=True)]) == spelt(heads)
        values = [histories.expected(learner.features, learner.question, e, history.rows) for e in expected]
        assert spelt(built.inputs.select(looked_up(learner.features, learner.question)).rows()) == spelt(values)


@contextmanager
def sql() -> Iterator[Online]:
    with TemporaryDirectory() as folder:
        store = SqlOnline(Path(folder) / "online.sqlite")
        yield store
        store.close()


@contextmanager
def memory() -> Iterator[Online]:
    yield MemoryOnline()


@profile(64)
@example(histories.moved_back, {1}, 0)
@example(histories.tied, set(), 0)
@example(histories.tied, set(), 1)
@given(histories.histories, st.sets(st.integers(1, 12)), st.integers(0, 3))
def test_online_is_the_oracle(history: History, stops: set[int], seed: int) -> None:
    """However the batches are grouped into updates, and in whatever order the rows of a batch lie.

    A quarter of them in SQL too, which differs from memory in how it keeps, and not in what is kept.
    """
    history = history.shuffled(seed)
    for features, question, asked in cases(history):
        expected = spelt([histories.expected(features, question, a, history.rows) for a in asked])
        for open_ in (memory, sql) if seed == 0 else (memory,):
            with open_() as store:
                for stop in [*sorted(stops), None]:
                    batches.update(store, features, history.tables(upto=stop))
                lookup = Lookup(features, question, store)
                found = [lookup({k: v for k, v in a.items() if k != "_asked"}, a["_asked"]) for a in asked]
            places = [lookup.names.index(n) for n in looked_up(features, question)]
            assert spelt([[row[n] for n in places] for row in found]) == expected
