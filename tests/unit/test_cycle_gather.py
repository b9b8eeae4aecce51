"""Gathering: which files are pending and why, what is known from when, and what a crash between table and fact leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball._kernel import facts
from flyball._kernel.errors import DataError
from flyball._kernel.place import Place
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.journal import MemoryJournal
from flyball.adapters.memory.keys import MemorySigner
from flyball.adapters.memory.lease import MemoryLease
from flyball.adapters.memory.online import MemoryOnline
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.adapters.memory.routes import MemoryRoutes
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.app import App
from flyball.cycle import gather, steps
from flyball.cycle.gather import SourceComplete
from flyball.cycle.session import Session
from flyball.data import contract, dataset, ingest
from flyball.data.source import Files, Source
from flyball.release import rollout, version
from flyball.serve.auth import Keys

START = datetime(2013, 1, 1, tzinfo=UTC)


class Flight(fb.Contract):
    flight = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"))
    distance = dy.Int32(min=1)


def as_it_is(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw


def doubled(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(pl.col("distance") * 2)


def broken(raw: pl.LazyFrame) -> pl.LazyFrame:
    raise ValueError("not yet written")


def rows(*flights: tuple[str, int]) -> pl.DataFrame:
    cells = [(name, START, distance) for name, distance in flights]
    return pl.DataFrame(cells, schema=contract.spec(Flight).dtypes, orient="row")


ONE, TWO, THREE = rows(("A", 1)), rows(("B", 2)), rows(("C", 3), ("D", 4))
Prepare = Callable[[pl.LazyFrame], pl.LazyFrame]


class World:
    """An app of one source over memory; files and preparation change from apply to apply."""

    def __init__(self) -> None:
        self.clock = VirtualClock(START + timedelta(days=100))
        projections = (gather.COMPLETE, gather.INGESTED, gather.SEEN, steps.PINS, rollout.ROLLOUTS, version.VERSIONS)
        self.facts = MemoryFacts(self.clock, MemorySigner(), projections)
        self.tables = MemoryTables()

    def session(self, files: Mapping[str, pl.DataFrame], prepare: Prepare = as_it_is) -> Session:
        source = Source("flights.Flight", Files("*.csv"), prepare, Flight, place=Place(__file__, 1))
        clock = self.clock
        return Session(
            app=App(
                "flights",
                sources=[source],
                search=fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(fb.days(1))),
            ),
            home=Path("nowhere"),
            clock=clock,
            facts=self.facts,
            blobs=MemoryBlobs(),
            lease=MemoryLease(clock),
            signer=MemorySigner(),
            tables=self.tables,
            online=MemoryOnline(),
            reader=MemoryReader(files),
            routes=MemoryRoutes(),
            journals=lambda settings: MemoryJournal(clock, settings),
            outcomes=MemoryOutcomes(),
            keys=Keys(lambda: (), clock),
            commit=lambda: "",
            holder="a test",
        )

    def pending(self, files: Mapping[str, pl.DataFrame], prepare: Prepare = as_it_is) -> dict[str, str]:
        return {each.file.name: each.why for each in gather.pending(self.session(files, prepare))}

    def gather(self, files: Mapping[str, pl.DataFrame], prepare: Prepare = as_it_is) -> list[str]:
        return [said.file for said in gather.gather(self.session(files, prepare))]

    def known(self) -> dict[str, datetime]:
        """Since when each flight is known, by its last row."""
        observed = dataset.read(self.tables, Flight, dataset.latest(self.tables, Flight))
        return dict(dataset.last(observed, contract.spec(Flight)).select("flight", "_known").collect().iter_rows())

    def said(self) -> list[str]:
        return [fact.kind for fact in self.facts.read()]


@pytest.fixture
def world() -> World:
    return World()


FILES: Mapping[str, pl.DataFrame] = MappingProxyType({"1.csv": ONE, "2.csv": TWO})


def test_files_are_pending_until_they_are_in(world: World) -> None:
    assert world.pending(FILES) == {"1.csv": "new file", "2.csv": "new file"}
    assert world.gather(FILES) == ["1.csv", "2.csv"]
    assert world.pending(FILES) == {}
    head = world.facts.head()
    assert world.gather(FILES) == []
    assert world.facts.head() == head


def test_the_reason_names_what_changed(world: World) -> None:
    world.gather(FILES)
    assert world.pending(FILES | {"3.csv": THREE}) == {"3.csv": "new file"}
    assert world.pending({**FILES, "2.csv": THREE}) == {"2.csv": "its content changed"}
    assert set(world.pending(FILES, doubled).values()) == {"its preparation or contract changed"}
    assert world.pending({"1.csv": ONE, "renamed.csv": TWO}) == {"renamed.csv": "new file"}


def test_looking_moves_nothing(world: World) -> None:
    world.pending(FILES)
    assert world.facts.head() == facts.START


def test_a_changed_preparation_that_is_changed_back_is_known(world: World) -> None:
    world.gather(FILES)
    assert world.gather(FILES, doubled) == ["1.csv", "2.csv"]
    assert world.pending(FILES) == {}


def test_history_is_known_as_declared_and_life_when_it_came(world: World) -> None:
    world.gather(FILES)
    world.gather(FILES | {"3.csv": THREE})
    known = world.known()
    assert known["A"] == known["B"] == START
    assert known["C"] == known["D"] == world.clock.now()


def test_what_is_read_again_was_known_since_it_was_first_read(world: World) -> None:
    """A mended preparation does not rewrite when something was known."""
    world.gather(FILES)
    world.gather(FILES | {"3.csv": THREE})
    first = world.known()
    world.clock.sleep(86_400)
    world.gather(FILES | {"3.csv": THREE}, doubled)
    assert world.known() == first


def test_history_goes_on_until_all_of_a_source_is_in(world: World) -> None:
    """A file that cannot be read stops it; what comes with the next apply is history still."""
    with pytest.raises(DataError):
        world.gather(FILES, broken)
    assert world.said() == []
    world.gather(FILES)
    assert world.said() == ["data.ingested", "data.ingested", facts.kind(SourceComplete)]
    assert set(world.known().values()) == {START}


def half_ingested(world: World) -> None:
    """1.csv as `gather` does it; of 2.csv only what a crash after its table was written leaves."""
    world.gather({"1.csv": ONE})
    session = world.session(FILES)
    (each,) = gather.pending(session)
    ingest.ingest(
        each.source, session.tables, session.reader, recipe=each.recipe, known_from=world.clock.now(), file=each.file
    )


def test_a_batch_whose_fact_was_lost_is_recorded(world: World) -> None:
    half_ingested(world)
    assert world.gather(FILES) == ["2.csv"]
    assert world.said().count("data.ingested") == 2
    assert world.gather(FILES) == []


def test_a_batch_whose_fact_was_lost_is_recorded_even_if_its_file_is_gone(world: World) -> None:
    """Else its rows would count nowhere, and its content would be new if it ever came back."""
    half_ingested(world)
    assert world.gather({"1.csv": ONE}) == ["2.csv"]
    first = world.known()
    world.clock.sleep(86_400)
    world.gather(FILES, doubled)
    assert world.known() == first


def test_a_batch_whose_fact_was_lost_is_recorded_even_if_its_file_was_replaced(world: World) -> None:
    half_ingested(world)
    assert world.pending({**FILES, "2.csv": THREE}) == {"2.csv": "new file"}
    assert world.gather({**FILES, "2.csv": THREE}) == ["2.csv", "2.csv"]
    assert set(world.known()) == {"A", "B", "C", "D"}
