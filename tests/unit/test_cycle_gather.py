"""Gathering: which files are pending and why, what is known from when, and what a crash between table and fact leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, DataError, RetryableError
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
from flyball.adapters.memory.vault import MemoryVault
from flyball.app import App
from flyball.cycle import arrivals, gather, status
from flyball.cycle.arrivals import SourceComplete
from flyball.cycle.session import Event, Session
from flyball.data import contract, dataset, ingest
from flyball.data.ingest import Ingested
from flyball.data.source import File, Files, Source
from flyball.runtime import places
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
        self.facts = MemoryFacts(self.clock, MemorySigner(), places.PROJECTIONS)
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
            vault=MemoryVault(),
            keys=Keys(lambda: (), clock),
            commit=lambda: "",
            holder="a test",
        )

    def pending(self, files: Mapping[str, pl.DataFrame], prepare: Prepare = as_it_is) -> dict[str, str]:
        return {each.file.name: each.why for each in arrivals.look(self.session(files, prepare)).pending}

    def gather(self, files: Mapping[str, pl.DataFrame], prepare: Prepare = as_it_is) -> list[str]:
        return [said.file for said in gather.gather(self.session(files, prepare))]

    def known(self) -> dict[str, datetime]:
        """Since when each flight is known, by its last row."""
        observed = dataset.read(self.tables, Flight, dataset.latest(self.tables, Flight))
        return dict(dataset.last(observed, contract.spec(Flight)).select("flight", "_known").collect().iter_rows())

    def said(self) -> list[str]:
        """What became of the files."""
        return [f.kind for f in self.facts.read() if f.kind in (facts.kind(Ingested), facts.kind(SourceComplete))]


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
    assert world.pending({"1.csv": ONE, "renamed.csv": TWO}) == {"renamed.csv": "new file, repeats 2.csv"}


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
    (each,) = arrivals.look(session).pending
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


def test_a_changed_past_file_is_noticed_and_said(world: World) -> None:
    world.gather(FILES)
    assert arrivals.changed(world.session(FILES)) == []
    (name,) = world.gather({**FILES, "2.csv": THREE})
    session = world.session(FILES)
    (said,) = arrivals.changed(session)
    assert (name, said.file, said.batches) == ("2.csv", "2.csv", [2, 3])
    last = [each for each in arrivals.ingested(session, "flights.Flight") if each.batch == 3]
    assert arrivals.rewritten(session, last) == ["2.csv"]
    assert status.status(session).changed == [said]


def test_a_file_that_went_is_noted_and_stays_ingested(world: World) -> None:
    world.gather(FILES)
    look = arrivals.look(world.session({"1.csv": ONE}))
    assert (look.pending, look.hidden) == ((), ())
    assert look.notes == ("flights.Flight: gone, and what was ingested of them stays: 2.csv.",)
    assert set(world.known()) == {"A", "B"}
    many = {f"{n}.csv": rows((str(n), 1)) for n in range(9)}
    world.gather(many)
    (note,) = arrivals.look(world.session({"1.csv": ONE})).notes
    assert note.endswith("0.csv, 2.csv, 3.csv, 4.csv, 5.csv and 3 more.")


def picky(raw: pl.LazyFrame) -> pl.LazyFrame:
    if raw.filter(pl.col("distance") == 13).collect().height:
        raise ValueError("unlucky")
    return raw


def test_a_file_that_cannot_be_ingested_keeps_no_other_waiting(world: World) -> None:
    """It is the very error that is raised, once all others are in; and its source's history goes on until it is in, too."""
    unlucky = {"0.csv": rows(("X", 13)), **FILES}
    for again in range(2):
        with pytest.raises(DataError, match="unlucky") as refused:
            world.gather(unlucky, picky)
        assert refused.value.code == "preparation-failed"
        assert set(world.known()) == {"A", "B"}
        assert world.said() == ["data.ingested"] * 2, again
    world.gather({**unlucky, "0.csv": THREE}, picky)
    assert world.said()[-1] == facts.kind(SourceComplete)
    assert set(world.known().values()) == {START}


def test_several_that_cannot_are_named_in_one_error(world: World) -> None:
    unlucky = {f"{n}.csv": rows(("X", 13)) for n in range(7)}
    with pytest.raises(DataError) as refused:
        world.gather({**unlucky, "8.csv": ONE}, picky)
    assert refused.value.code == "files-not-ingested"
    assert "7 files" in refused.value.what and "and 2 more" in refused.value.what
    assert "0.csv [preparation-failed]" in refused.value.what and "unlucky" in refused.value.why
    assert set(world.known()) == {"A"}


def test_a_source_of_which_all_files_fail_is_not_tried_to_the_end(world: World) -> None:
    tried: list[str] = []

    def told(event: Event) -> None:
        tried.extend([event.step] if event.state == "run" else [])

    with pytest.raises(DataError, match="what comes after them was left"):
        gather.gather(world.session({f"{n:02}.csv": rows((str(n), 1)) for n in range(50)}, broken), told)
    assert len(tried) == 20


class Hidden(MemoryReader):
    """Says of the second source that it has no files, and of a third that nobody answers."""

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        if source.name == "silent":
            raise RetryableError("store-unreachable", "Nobody answers.", where=source.place)
        return super().files(source, since)


def test_a_source_that_cannot_be_looked_at_keeps_no_other_waiting(world: World) -> None:
    session = world.session(FILES)
    (source,) = session.app.sources
    others = [
        replace(source, name="empty", at=Files("none*.csv")),
        replace(source, name="silent", place=Place(__file__, 2)),
    ]
    app = App("flights", sources=[*others, source], search=session.app.search)
    session = replace(session, app=app, reader=Hidden(FILES))
    look = arrivals.look(session)
    assert [each.file.name for each in look.pending] == ["1.csv", "2.csv"]
    assert [str(each) for each in look.hidden] == ["empty [source-without-files]", "silent [store-unreachable]"]
    with pytest.raises(DataError, match="files-not-ingested"):
        gather.gather(session)
    assert set(world.known()) == {"A", "B"}


class Full(MemoryTables):
    """Cannot be written."""

    def append(self, *_: object, **__: object) -> None:
        raise AdapterError("table-not-written", "The disk is full.")


def test_tables_that_cannot_be_written_stop_it_at_once(world: World) -> None:
    tried: list[str] = []
    with pytest.raises(AdapterError, match="disk is full"):
        gather.gather(replace(world.session(FILES), tables=Full()), lambda event: tried.append(event.step))
    assert tried == ["ingest 1.csv"]
