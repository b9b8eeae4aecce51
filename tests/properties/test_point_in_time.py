"""Offline, online and the oracle agree on random histories, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyball.adapters.embedded.online import SqlOnline
from flyball.adapters.memory.online import MemoryOnline
from flyball.data.contract import Contract
from flyball.learn.features import offline, online
from flyball.learn.features.declare import FeatureSet, Latest, Window
from flyball.learn.features.lookup import Lookup
from flyball.learn.features.online import Online
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
    """Floats to the last bit, and NaN equal to itself."""
    return [repr(list(row)) for row in rows]


@profile(80)
@example(histories.moved_back, 0)
@given(histories.histories, st.integers(0, 3))
def test_offline_is_the_oracle(history: History, seed: int) -> None:
    """In whatever order the rows lie."""
    for rows in history.rows.values():
        random.Random(seed).shuffle(rows)
    for features, question, asked in cases(history):
        built = offline.build(features, question, histories.asking(question, asked), history.tables())
        expected = [histories.expected(features, question, a, history.rows) for a in asked]
        assert spelt(built.select(looked_up(features, question)).rows()) == spelt(expected)


@contextmanager
def sql() -> Iterator[Online]:
    with TemporaryDirectory() as folder:
        store = SqlOnline(Path(folder) / "online.sqlite")
        yield store
        store.close()


@contextmanager
def memory() -> Iterator[Online]:
    yield MemoryOnline()


@pytest.mark.parametrize(("open_", "examples"), [(memory, 80), (sql, 30)])
def test_online_is_the_oracle(open_: Callable[[], Any], examples: int) -> None:
    """However the batches are grouped into updates, and in whatever order the rows of a batch lie."""

    @profile(examples)
    @example(histories.moved_back, {1}, 0)
    @given(histories.histories, st.sets(st.integers(1, 12)), st.integers(0, 3))
    def agree(history: History, stops: set[int], seed: int) -> None:
        for rows in history.rows.values():
            random.Random(seed).shuffle(rows)
        for features, question, asked in cases(history):
            with open_() as store:
                for stop in [*sorted(stops), None]:
                    online.update(store, features, history.tables(upto=stop))
                lookup = Lookup(features, question, store)
                found = [lookup({k: v for k, v in a.items() if k != "_asked"}, a["_asked"]) for a in asked]
            places = [lookup.names.index(n) for n in looked_up(features, question)]
            expected = [histories.expected(features, question, a, history.rows) for a in asked]
            assert spelt([[row[n] for n in places] for row in found]) == spelt(expected)

    agree()
