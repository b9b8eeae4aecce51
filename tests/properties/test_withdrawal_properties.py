"""What a version holds and says, against an oracle that writes down the whole set at every step; older versions stay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.adapters.memory.online import MemoryOnline
from flyball.adapters.memory.tables import MemoryTables
from flyball.cycle import gather
from flyball.data import contract, dataset, withdrawal
from flyball.data.dataset import Version
from flyball.data.tables import BATCH
from flyball.learn.features import offline
from flyball.learn.features.lookup import Lookup
from tests.oracles import histories, point_in_time
from tests.oracles.histories import ABOUT_JOBS, ABOUT_TRIPS, History, Job, Reading, Trip
from tests.properties.test_point_in_time import looked_up, spelt

STEPS = st.lists(st.one_of(st.none(), st.integers(0, 100)), max_size=14)
"""A batch of rows (None), or a rollback to that share of the versions so far."""


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_a_version_holds_what_it_held_when_it_was_the_last(steps: list[int | None]) -> None:
    tables, held = MemoryTables(), [frozenset[int]()]
    for batch, step in enumerate(steps, start=1):
        to = None if step is None else step * (batch - 1) // 100
        marks = {} if to is None else withdrawal.positions(tables, "T", batch, to)
        rows = pl.DataFrame({"x": [batch] if to is None else []}, schema={"x": pl.Int64})
        tables.append("T", rows, batch, marks, expect=tables.head("T"))
        held.append(held[-1] | {batch} if to is None else held[to])
        for n, expected in enumerate(held):
            spans = withdrawal.held(tables, "T", n)
            assert withdrawal.numbers(spans) == expected
            assert spans == tuple(sorted(spans))
            assert all(withdrawal.holds(spans, b) == (b in expected) for b in range(batch + 2))
            read = withdrawal.rows(tables.scan("T", n, {BATCH: pl.Int64(), "x": pl.Int64()}), spans).collect()
            assert set(read[BATCH]) == expected
            before = withdrawal.held(tables, "T", n // 2)
            same = {b for b in expected if b <= n // 2} == held[n // 2]
            assert withdrawal.extends(spans, before, n // 2) == same


@dataclass
class Past:
    """A history that was taken in batch by batch, with rollbacks in between; batches are numbered anew.

    Attributes:
        held: by table, for each version the rows that it holds, as dictionaries.
    """

    tables: MemoryTables = field(default_factory=MemoryTables)
    online: MemoryOnline = field(default_factory=MemoryOnline)
    held: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)

    def follow(self) -> None:
        """As every apply and rollback does."""
        models = [SimpleNamespace(features=features) for features in (ABOUT_TRIPS, ABOUT_JOBS)]
        app = SimpleNamespace(tables=lambda: (Reading, Trip, Job), models=models)
        session: Any = SimpleNamespace(app=app, tables=self.tables, online=self.online)
        gather.follow(session)

    def take(self, table: type[contract.Contract], rows: list[dict[str, Any]], back: list[int | None]) -> None:
        """Every batch of a table, each followed by a rollback to that share of the versions so far, or by none."""
        name, dice = table.__name__, iter(back)
        held = self.held[name] = [[]]
        for old in sorted({row[BATCH] for row in rows}):
            made = [{**row, BATCH: len(held)} for row in rows if row[BATCH] == old]
            self._append(name, histories.frame(table, made), {})
            held.append([*held[-1], *made])
            if (share := next(dice, None)) is not None:
                to = share * (len(held) - 1) // 100
                marks = withdrawal.positions(self.tables, name, len(held), to)
                self._append(name, histories.frame(table, []), marks)
                held.append(held[to])
            if share is None or share % 2:
                self.follow()

    def _append(self, name: str, frame: pl.DataFrame, marks: dict[str, int]) -> None:
        self.tables.append(name, frame.drop(BATCH), len(self.held[name]), marks, expect=self.tables.head(name))


BACK = st.lists(st.one_of(st.none(), st.integers(0, 100)), max_size=6)


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(
    history=histories.histories, back=st.tuples(BACK, BACK, BACK), share=st.integers(0, 100), tick=st.integers(-3, 25)
)
def test_what_was_withdrawn_was_never_said(
    history: History, back: tuple[list[int | None], ...], share: int, tick: int
) -> None:
    """A read as of a time, and features offline and online, see the rows that the version holds and no others."""
    past, moment = Past(), histories.at(tick)
    for table, steps in zip((Reading, Trip, Job), back, strict=True):
        past.take(table, history.rows[table.__name__], steps)
    past.follow()
    for table in (Reading, Trip, Job):
        spec = contract.spec(table)
        for batch in {len(past.held[spec.name]) - 1, share * (len(past.held[spec.name]) - 1) // 100}:
            rows = dataset.read(past.tables, table, Version(table=spec.name, batch=batch))
            said = dataset.as_of(rows, spec, moment).select(list(dataset.schema(spec))).sort(spec.key).collect()
            expected = point_in_time.as_of(past.held[spec.name][batch], spec.key, sorted(spec.late), moment)
            expected.sort(key=lambda row: tuple(row[k] for k in spec.key))
            assert spelt(said.rows()) == spelt([[row[n] for n in said.columns] for row in expected])
    now = replace(history, rows={name: held[-1] for name, held in past.held.items()})
    lazy = {
        table.__name__: dataset.read(past.tables, table, dataset.latest(past.tables, table))
        for table in (Reading, Trip, Job)
    }
    for features, question, asked in ((ABOUT_TRIPS, Trip, history.trips), (ABOUT_JOBS, Job, history.jobs)):
        names = looked_up(features, question)
        expected_values = spelt([histories.expected(features, question, a, now.rows) for a in asked])
        built = offline.build(features, question, histories.asking(question, asked), lazy)
        assert spelt(built.select(names).rows()) == expected_values
        lookup = Lookup(features, question, past.online)
        found = [lookup({k: v for k, v in a.items() if k != "_asked"}, a["_asked"]) for a in asked]
        places = [lookup.names.index(n) for n in names]
        assert spelt([[row[n] for n in places] for row in found]) == expected_values
