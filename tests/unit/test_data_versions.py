"""Quarantine one can work with, and versions: replays, rollbacks, differences, retention and compaction of one small app."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import flyball as fb
from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, DataError, StateError
from flyball._kernel.facts import Fact
from flyball.adapters.embedded.tables import DeltaTables
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
from flyball.cycle import arrivals, gather, quarantined, retention, steps, versions
from flyball.cycle.session import Session
from flyball.data import coerce, contract, dataset, ingest, masked, quarantine, replay, source
from flyball.data.contract import Contract
from flyball.data.dataset import Version
from flyball.data.tables import BATCH, KNOWN, MOMENT, Tables
from flyball.learn.features.lookup import Lookup
from flyball.runtime.places import PROJECTIONS
from flyball.serve.auth import Keys

START = datetime(2024, 1, 1, tzinfo=UTC)
Cells = tuple[str, int, str]


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def declared(warmest: float) -> type[Contract]:
    """A contract that is strict, or was mended."""

    class Reading(fb.Contract):
        sensor = dy.String(primary_key=True)
        at = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
        degrees = dy.Float64(max=warmest)
        owner = fb.personal(dy.String(nullable=True))
        settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
        warm = fb.outcome(dy.Bool(nullable=True))

    return Reading


STRICT, MENDED = declared(50), declared(100)


def as_it_is(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


def zeros(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Somebody wrote the letter."""
    return rows.with_columns(pl.col("degrees").str.replace_all("O", "0"))


def broken(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("no such column")


def rows(*cells: Cells) -> pl.DataFrame:
    """(sensor, hour, degrees), as text."""
    made = [
        {"sensor": s, "at": at(h).isoformat(), "degrees": d, "owner": f"owner of {s}", "settled": None, "warm": None}
        for s, h, d in cells
    ]
    schema = {"sensor": pl.String, "at": pl.String, "degrees": pl.String}
    return pl.DataFrame(made, schema=schema | dict.fromkeys(("owner", "settled", "warm"), pl.String))


class World:
    """An app over one kind of tables; files and contract change from apply to apply."""

    def __init__(self, tables: Tables) -> None:
        self.clock = VirtualClock(START + timedelta(days=100))
        self.facts = MemoryFacts(self.clock, MemorySigner(), PROJECTIONS)
        self.tables, self.online, self.lease = tables, MemoryOnline(), MemoryLease(self.clock)
        self.files: dict[str, pl.DataFrame] = {}

    def session(
        self, observed: type[Contract] = STRICT, prepare: Callable[[pl.LazyFrame], pl.LazyFrame] = as_it_is
    ) -> Session:
        mean = fb.features(
            observed.degrees,
            lately=fb.window(observed, observed.degrees.col.sum(), by=observed.sensor, over=fb.days(900)),
        )  # type: ignore[attr-defined]

        @fb.model(mean, predicts=observed.warm, asked=fb.before(observed.at, fb.hours(0)))  # type: ignore[attr-defined]
        def warmth(knobs: fb.Params) -> LogisticRegression:
            return LogisticRegression()

        app = App(
            "sensors",
            sources=[source.files("*.csv", prepare=prepare, yields=observed, name="sensors")],
            model=warmth,
            search=fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(fb.days(1))),
        )
        clock = self.clock
        return Session(
            app=app,
            home=Path("nowhere"),
            clock=clock,
            facts=self.facts,
            blobs=MemoryBlobs(),
            lease=self.lease,
            signer=MemorySigner(),
            tables=self.tables,
            online=self.online,
            reader=MemoryReader(self.files),
            routes=MemoryRoutes(),
            journals=lambda settings: MemoryJournal(clock, settings),
            outcomes=MemoryOutcomes(),
            vault=MemoryVault(),
            keys=Keys(lambda: (), clock),
            commit=lambda: "",
            holder="a test",
        )

    def gather(self, observed: type[Contract] = STRICT, /, **files: tuple[Cells, ...]) -> list[ingest.Ingested]:
        self.files |= {f"{name}.csv": rows(*cells) for name, cells in files.items()}
        return gather.gather(self.session(observed))

    def batch(self) -> int:
        return self.tables.head("Reading").batch

    def says(self, batch: int | None = None) -> dict[str, float]:
        """What version `batch` says last: `sensor hour` -> degrees."""
        version = Version(table="Reading", batch=self.batch() if batch is None else batch)
        last = dataset.last(dataset.read(self.tables, STRICT, version), contract.spec(STRICT)).collect()
        hours = (last["at"] - START).dt.total_hours()
        return {f"{s}{h}": d for s, h, d in zip(last["sensor"], hours, last["degrees"], strict=True)}

    def online_sum(self, sensor: str) -> object:
        """What the online features say of a sensor now."""
        session = self.session()
        asked = {"sensor": sensor, "at": self.clock.now(), "degrees": 0.0, "owner": None}
        model = session.app.models[0]
        return Lookup(model.features, model.question, self.online)(asked, self.clock.now() + timedelta(hours=1))[1]

    def kinds(self) -> list[str]:
        return [fact.kind for fact in self.facts.read()]


@pytest.fixture(params=["memory", "embedded"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(MemoryTables() if request.param == "memory" else DeltaTables(tmp_path / "tables"))


@pytest.fixture
def memory() -> World:
    return World(MemoryTables())


def standings(world: World, observed: type[Contract] = STRICT) -> dict[str, int]:
    (found,) = quarantined.count(world.session(observed))
    assert found.rows == {s: n for s in found.rows if (n := sum(b.rows.get(s, 0) for b in found.batches))}
    return found.rows


# --- quarantine and replay


def test_rows_are_counted_by_rule_file_and_batch(memory: World) -> None:
    memory.gather(one=(("a", 0, "20"), ("b", 0, "70"), ("c", 0, "hot")), two=(("d", 0, "80"),))
    (found,) = quarantined.count(memory.session())
    assert (found.rows, found.by_rule) == ({"open": 3}, {"degrees|max": 2, "degrees|dtype": 1})
    assert [(b.batch, b.file, b.rows, b.by_rule) for b in found.batches] == [
        (1, "one.csv", {"open": 2}, {"degrees|dtype": 1, "degrees|max": 1}),
        (2, "two.csv", {"open": 1}, {"degrees|max": 1}),
    ]


def test_a_mended_contract_takes_the_rows_without_their_file(world: World) -> None:
    world.gather(one=(("a", 0, "20"), ("b", 0, "70"), ("c", 0, "hot")), two=(("d", 0, "80"),))
    world.files.clear()
    (first, second) = quarantined.replay_open(world.session(MENDED))
    assert (first.of, first.batch, first.read, first.accepted, first.still, first.duplicates) == (1, 3, 2, 1, 1, 0)
    assert (second.of, second.batch, second.accepted) == (2, 4, 1)
    assert world.says() == {"a0": 20.0, "b0": 70.0, "d0": 80.0}
    assert standings(world, MENDED) == {"open": 1, "learned": 2, "again": 1}
    (row,) = quarantined.sample(world.session(MENDED), "Reading", "degrees|dtype", 9)["Reading"]
    assert (row.file, row.batch, row.cells["degrees"]) == ("one.csv", 3, "hot")
    assert world.kinds().count("data.replayed") == 2


def test_history_stays_history_and_life_is_known_when_it_was_replayed(memory: World) -> None:
    memory.gather(one=(("a", 0, "20"), ("b", 0, "70")))
    memory.gather(two=(("c", 0, "70"),))
    memory.clock.sleep(86_400)
    memory.files.clear()
    quarantined.replay_open(memory.session(MENDED))
    read = dataset.read(memory.tables, MENDED, dataset.latest(memory.tables, MENDED)).collect()
    assert dict(read.select("sensor", KNOWN).iter_rows()) == {"a": at(0), "b": at(0), "c": memory.clock.now()}


def test_rows_are_replayed_once(world: World) -> None:
    world.gather(one=(("a", 0, "70"), ("b", 0, "hot")))
    assert len(quarantined.replay_open(world.session(MENDED))) == 1
    head, said = world.tables.head("Reading"), world.facts.head()
    assert quarantined.replay_open(world.session(MENDED)) == []
    assert (world.tables.head("Reading"), world.facts.head()) == (head, said)


def test_nothing_is_replayed_by_the_contract_that_refused_it(memory: World) -> None:
    memory.gather(one=(("a", 0, "70"),))
    assert quarantined.replay_open(memory.session(STRICT)) == []
    assert memory.batch() == 1


def test_a_file_that_comes_back_is_read_again_and_nothing_counts_twice(memory: World) -> None:
    memory.gather(one=(("a", 0, "70"), ("b", 0, "hot"), ("c", 0, "20")))
    there = dict(memory.files)
    memory.files.clear()
    quarantined.replay_open(memory.session(MENDED))
    memory.files |= there
    (said,) = memory.gather(MENDED)
    assert (said.read, said.accepted, said.quarantined, said.duplicates) == (3, 0, 1, 2)
    assert standings(memory, MENDED) == {"open": 1, "learned": 1, "again": 2}
    assert quarantined.replay_open(memory.session(MENDED)) == []
    assert memory.says() == {"a0": 70.0, "c0": 20.0}


def test_files_that_are_there_are_read_again_through_the_mended_preparation(world: World) -> None:
    """All of the source, and in order: one file alone would put what it says over what a later one corrected."""
    world.gather(one=(("a", 0, "20"), ("b", 0, "7O")), two=(("a", 0, "30"), ("c", 0, "x")), four=(("d", 0, "6O"),))
    del world.files["four.csv"]
    world.files["three.csv"] = rows(("z", 0, "1"))
    mended = world.session(MENDED, prepare=zeros)
    found = [(d.file, d.of, d.read_again, d.read, d.accepted, d.still) for d in quarantined.replay_open(mended)]
    assert found == [
        ("one.csv", 2, True, 2, 2, 0),
        ("two.csv", 3, True, 2, 1, 1),
        ("four.csv", 1, False, 1, 0, 1),
    ], "a file that is gone cannot be prepared anew"
    assert world.says() == {"a0": 30.0, "b0": 70.0}
    assert quarantined.replay_open(mended) == []
    assert [said.file for said in gather.gather(mended)] == ["three.csv"], "apply has nothing left to read again"
    assert world.says() == {"a0": 30.0, "b0": 70.0, "z0": 1.0}


def test_a_file_that_cannot_be_prepared_anew_says_so_and_keeps_its_rows(memory: World) -> None:
    memory.gather(one=(("b", 0, "70"),))
    with pytest.raises(DataError, match="preparation-failed"):
        quarantined.replay_open(memory.session(MENDED, prepare=broken))
    assert standings(memory) == {"open": 1}
    assert memory.batch() == 1


def test_what_was_read_again_is_not_replayed(memory: World) -> None:
    memory.gather(one=(("a", 0, "70"), ("b", 0, "hot")))
    memory.gather(MENDED)
    assert standings(memory, MENDED) == {"open": 1, "learned": 1, "again": 1}
    assert quarantined.replay_open(memory.session(MENDED)) == []


def test_a_row_that_the_table_learned_since_is_not_replayed_over_it(memory: World) -> None:
    """Else the older row would correct the newer one."""
    memory.gather(one=(("a", 0, "70"), ("b", 0, "60")))
    memory.gather(two=(("a", 0, "30"),))
    assert standings(memory) == {"open": 1, "learned": 1}
    memory.files.clear()
    (done,) = quarantined.replay_open(memory.session(MENDED))
    assert (done.read, done.accepted) == (1, 1)
    assert memory.says() == {"a0": 30.0, "b0": 60.0}


def test_a_grown_file_repeats_its_bad_lines_and_they_are_open_once(memory: World) -> None:
    memory.gather(one=(("a", 0, "hot"),))
    memory.gather(one=(("a", 0, "hot"), ("b", 0, "20")))
    assert standings(memory) == {"open": 1, "again": 1}


def test_rows_that_contradict_one_another_stay_together(memory: World) -> None:
    memory.gather(one=(("a", 0, "60"), ("a", 0, "20"), ("b", 0, "70")))
    (done,) = quarantined.replay_open(memory.session(MENDED), rule="degrees|max")
    assert (done.read, done.accepted, done.still) == (3, 1, 2)


def test_a_rule_that_nobody_broke_is_refused(memory: World) -> None:
    memory.gather(one=(("a", 0, "70"),))
    with pytest.raises(DataError, match="no-such-rule"):
        quarantined.sample(memory.session(), "Reading", "degree|max", 3)
    with pytest.raises(DataError, match="no-such-table"):
        quarantined.count(memory.session(), "Readings")


def test_personal_cells_are_masked_and_enormous_ones_cut_in_what_is_shown_alone(memory: World, tmp_path: Path) -> None:
    memory.gather(one=(("a", 0, "hot" * 500),))
    (row,) = quarantined.sample(memory.session(), "Reading", None, 9)["Reading"]
    assert row.cells["owner"] == "•••"
    assert len(row.cells["degrees"]) < 200
    with pytest.raises(StateError, match="personal-columns-hidden"):
        quarantined.rows(memory.session(), "Reading", None, reveal=False)
    for name, read in (("x.parquet", pl.read_parquet), ("x.csv", pl.read_csv), ("x.jsonl", pl.read_ndjson)):
        quarantined.write(quarantined.rows(memory.session(), "Reading", None, reveal=True), tmp_path / name)
        (kept,) = read(tmp_path / name)["row"]
        assert "owner of a" in kept
        assert "hot" * 500 in kept
    with pytest.raises(DataError, match="file-of-unknown-format"):
        quarantined.write(pl.LazyFrame(), tmp_path / "x.xlsx")
    for frame, path in ((pl.LazyFrame({"x": [1]}), "no/x.csv"), (pl.LazyFrame({"x": [[1]]}), "x.csv")):
        with pytest.raises(AdapterError, match="file-not-written"):
            quarantined.write(frame, tmp_path / path)


def test_a_line_that_is_no_row_is_masked_whatever_columns_there_are() -> None:
    """Also where the contract has a column of the name under which such lines are kept."""

    class Note(fb.Contract):
        note = dy.String(primary_key=True)
        at = fb.event_time(dy.Datetime(time_zone="UTC"))
        text = dy.String(nullable=True)
        owner = fb.personal(dy.String(nullable=True))

    spec = contract.spec(Note)
    assert masked.cells({"text": "n,ada,2024"}, spec) == {"text": "•••"}
    assert masked.cells({"text": "n,ada,2024"}, spec, reveal=True) == {"text": "n,ada,2024"}
    assert masked.cells({"note": "n", "text": "t"}, spec) == {"note": "n", "text": "t"}


def test_lines_that_are_no_rows_stay_what_they_are_whatever_the_rule_that_says_why() -> None:
    lines = pl.LazyFrame({"_line": [2, 3], "text": ['a;"b\\\n', "c"], "rule": ["separator", "too-long"]})
    rows = pl.LazyFrame({"row": ['{"text":"t","at":"now"}', '{"text":7}', '{"at":null}']})
    assert quarantine.ragged(lines).select(quarantine.is_line()).collect()["row"].all()
    assert not rows.select(quarantine.is_line()).collect()["row"].any()
    tables = MemoryTables()
    refused = quarantine.of_file(quarantine.ragged(lines), "sensors", "1.csv").collect()
    tables.append(quarantine.table("Reading"), refused, 1, {}, expect=tables.head(quarantine.table("Reading")))
    place = source.files("*.csv", prepare=as_it_is, yields=STRICT, name="sensors")
    kept = replay.Kept(tables, 1, 1, {1: "open"}, "1.csv")
    with kept.open(place, kept.files(place)[0]) as reading:
        assert reading.rows.collect().height == 0
        assert reading.ragged.collect().rows() == lines.collect().rows()


class Crash(Exception):
    """The process is gone."""


def crashing(world: World, act: Callable[[Session], Any], session: Session, write: int) -> bool:
    """Do it with tables that die around write number `write` (even: before, odd: after); whether they did."""
    tables, count = world.tables, iter(range(99))

    class Dying(type(tables)):  # type: ignore[misc]
        def append(self, *args: Any, **rest: Any) -> None:
            number = next(count)
            if 2 * number == write:
                raise Crash
            tables.append(*args, **rest)
            if 2 * number + 1 == write:
                raise Crash

    dying = Dying.__new__(Dying)
    dying.__dict__.update(tables.__dict__)
    try:
        act(replace(session, tables=dying))
    except Crash:
        world.lease.release("sensors/apply", "a test")
        return True
    return False


@pytest.mark.parametrize("write", range(6))
def test_a_crash_around_any_write_of_a_replay_or_a_rollback_changes_nothing(write: int) -> None:
    ends = []
    for crash in (None, write):
        world = World(MemoryTables())
        world.gather(one=(("a", 0, "70"), ("b", 0, "hot")), two=(("c", 0, "20"),))
        world.files.clear()
        acts: list[tuple[Callable[[Session], Any], Session]] = [
            (quarantined.replay_open, world.session(MENDED)),
            (lambda s: versions.roll_back(s, "Reading", to=1, reason="r", by="b"), world.session(MENDED)),
        ]
        for act, session in acts:
            if crash is not None:
                died = crashing(world, act, session, crash)
                assert died == (crash < 4)
            act(session)
        gather.repaired(world.session(MENDED))
        said = ingest.repair(world.tables, "Reading")
        assert [s.batch for s in said] == list(range(1, world.batch() + 1))
        told = [f.said for f in world.facts.read() if f.kind.startswith("data.")]
        assert len(told) == len(set(told)), "a fact was recorded twice"
        ends.append((world.says(), [world.says(n) for n in range(5)], standings(world, MENDED), said, sorted(told)))
    assert ends[0] == ends[1]


# --- versions


def test_a_rollback_takes_batches_from_the_table_and_from_no_older_version(world: World) -> None:
    world.gather(one=(("a", 0, "20"), ("b", 0, "21")))
    world.gather(two=(("a", 0, "30"), ("c", 0, "22")))
    world.gather(three=(("c", 0, "23"),))
    before = [world.says(n) for n in range(4)]
    assert world.online_sum("a") == 30.0
    said = versions.roll_back(world.session(), "Reading", to=1, reason="a bad file", by="ada")
    assert said is not None
    assert (said.batch, said.batches, said.restored) == (4, (2, 3), ())
    assert world.says() == {"a0": 20.0, "b0": 21.0} == before[1]
    assert [world.says(n) for n in range(4)] == before
    assert (world.online_sum("a"), world.online_sum("c")) == (20.0, 0.0)
    assert world.kinds()[-1] == "data.withdrawn"
    assert versions.roll_back(world.session(), "Reading", to=1, reason="again", by="ada") is None
    assert world.batch() == 4


def test_a_rollback_is_undone_by_a_later_one(world: World) -> None:
    world.gather(one=(("a", 0, "20"),))
    world.gather(two=(("a", 0, "30"), ("c", 0, "22")))
    versions.roll_back(world.session(), "Reading", to=1, reason="too hasty", by="ada")
    said = versions.roll_back(world.session(), "Reading", to=2, reason="it was right", by="ada")
    assert said is not None
    assert (said.batches, said.restored) == ((), (2,))
    assert world.says() == {"a0": 30.0, "c0": 22.0}
    assert world.says(3) == {"a0": 20.0}
    assert world.online_sum("c") == 22.0


def test_a_withdrawn_file_is_not_read_again_and_a_mended_one_is(memory: World) -> None:
    memory.gather(one=(("a", 0, "20"),))
    memory.gather(two=(("a", 0, "30"), ("b", 0, "31")))
    versions.roll_back(memory.session(), "Reading", to=1, reason="a bad file", by="ada")
    assert memory.gather() == []
    (said,) = memory.gather(two=(("a", 0, "20"), ("b", 0, "25")))
    assert (said.accepted, said.duplicates, said.corrections) == (1, 1, 0), "what was withdrawn is no longer said"
    assert memory.says() == {"a0": 20.0, "b0": 25.0}
    assert memory.online_sum("b") == 25.0


def test_refused_rows_of_a_withdrawn_batch_wait_for_nothing(memory: World) -> None:
    memory.gather(one=(("a", 0, "20"),))
    memory.gather(two=(("b", 0, "70"),))
    versions.roll_back(memory.session(), "Reading", to=1, reason="a bad file", by="ada")
    assert standings(memory) == {"withdrawn": 1}
    assert quarantined.replay_open(memory.session(MENDED)) == []


def test_a_withdrawn_replay_leaves_its_rows_open(memory: World) -> None:
    memory.gather(one=(("b", 0, "70"),))
    quarantined.replay_open(memory.session(MENDED))
    versions.roll_back(memory.session(MENDED), "Reading", to=1, reason="they were wrong after all", by="ada")
    assert standings(memory, MENDED) == {"open": 1}
    assert memory.says() == {}


def test_there_is_no_way_back_to_a_version_that_never_was(memory: World) -> None:
    memory.gather(one=(("a", 0, "20"),))
    for batch in (-1, 2):
        with pytest.raises(StateError, match="no-such-version"):
            versions.roll_back(memory.session(), "Reading", to=batch, reason="r", by="ada")


def test_every_batch_is_listed_with_its_fate_and_who_reads_it(memory: World) -> None:
    memory.gather(one=(("a", 0, "20"), ("b", 0, "70")))
    memory.gather(two=(("a", 0, "30"),))
    pinned = steps.Pinned(batches={"Reading": 2}, cutoff=memory.clock.now(), reason="r")
    memory.facts.append([Fact("sensors", "warmth", pinned)])
    versions.roll_back(memory.session(), "Reading", to=1, reason="a bad file", by="ada")
    memory.files.clear()
    quarantined.replay_open(memory.session(MENDED))
    (table,) = versions.versions(memory.session(MENDED))
    assert [(b.batch, b.kind, b.accepted, b.held, b.withdrawn_by, b.read_by) for b in table.batches] == [
        (1, "file", 1, True, [], ["the pin of warmth"]),
        (2, "file", 1, False, [3], ["the pin of warmth"]),
        (3, "rollback", 0, True, [], []),
        (4, "replay", 1, True, [], []),
    ]
    assert table.batches[2].said == "back to 1: a bad file (ada)"
    assert all(b.at is not None for b in table.batches)


def test_a_difference_names_what_was_added_corrected_and_taken(memory: World) -> None:
    memory.gather(one=tuple((f"s{n}", 0, str(n % 7)) for n in range(40)))
    memory.gather(two=(("s1", 0, "40"), ("new", 0, "41")))
    found = versions.compare(memory.session(), "Reading", 1)
    assert (found.added, found.gone, found.corrected, found.by_column) == (1, 0, 1, {"degrees": 1})
    assert (found.batches_added, found.batches_gone, found.observations) == ([2], [], (40, 42))
    assert found.examples[0].cells == {"degrees": ("1.0", "40.0")}
    spreads = {s.column: s for s in found.spreads}
    assert spreads["degrees"].mean[0] == pytest.approx(sum(n % 7 for n in range(40)) / 40)
    assert spreads["warm"].nulls == (1.0, 1.0)
    back = versions.compare(memory.session(), "Reading", 2, 1)
    assert (back.added, back.gone, back.corrected) == (0, 1, 1)
    assert (
        versions.compare(memory.session(), "Reading", 2, 2).spreads
        == versions.compare(memory.session(), "Reading", 2).spreads
    )
    nothing = versions.compare(memory.session(), "Reading", 0)
    assert (nothing.added, nothing.observations, nothing.columns_new) == (
        41,
        (0, 42),
        ["sensor", "at", "degrees", "owner"],
    )


def test_a_shift_shows_in_psi(memory: World) -> None:
    memory.gather(one=tuple((f"s{n}", 0, str(n % 10)) for n in range(400)))
    memory.gather(two=tuple((f"t{n}", 0, str(10 + n % 10)) for n in range(400)))
    memory.gather(three=tuple((f"u{n}", 0, str(n % 10)) for n in range(200)))
    psi = {s.column: s.psi for s in versions.compare(memory.session(), "Reading", 1, 2).spreads}
    assert psi["degrees"] is not None
    assert psi["degrees"] > 0.25
    versions.roll_back(memory.session(), "Reading", to=1, reason="r", by="ada")
    same = {s.column: s.psi for s in versions.compare(memory.session(), "Reading", 1, 4).spreads}
    assert same["degrees"] == 0


def test_rows_are_shown_as_of_a_version_and_a_time(memory: World) -> None:
    memory.gather(one=(("a", 0, "20"), ("b", 5, "21")))
    memory.gather(two=(("a", 0, "30"),))
    session = memory.session()
    assert versions.show(session, "Reading", batch=1).rows.collect()["degrees"].to_list() == [20.0, 21.0]
    assert versions.show(session, "Reading").rows.collect()["degrees"].to_list() == [30.0, 21.0]
    assert versions.show(session, "Reading", as_of=at(1)).rows.collect()["sensor"].to_list() == ["a"]
    assert versions.show(session, "Reading", history=True).rows.collect()[BATCH].to_list() == [1, 2, 1]


# --- retention and compaction


def test_rows_that_a_pin_needs_are_kept_and_others_may_go(world: World) -> None:
    world.gather(one=(("a", 0, "20"),))
    world.gather(two=(("b", 0, "21"), ("c", 24 * 99, "22")))
    session = world.session()
    pinned = steps.Pinned(batches={"Reading": 1}, cutoff=world.clock.now(), reason="r")
    world.facts.append([Fact("sensors", "warmth", pinned)])
    found = retention.look(session, "Reading", timedelta(days=50))
    assert (found.rows, found.needed) == (2, {"the pin of warmth": 1})
    with pytest.raises(StateError, match="rows-are-needed") as raised:
        retention.retain(session, "Reading", timedelta(days=50), reason="r", by="ada")
    assert "the pin of warmth" in str(raised.value)
    assert len(world.says()) == 3
    world.facts.append([Fact("sensors", "warmth", steps.Pinned(batches={"Reading": 0}, cutoff=at(0), reason="r"))])
    done = retention.retain(session, "Reading", timedelta(days=50), reason="r", by="ada")
    assert (done.rows, world.says()) == (2, {f"c{24 * 99}": 22.0})
    assert world.kinds()[-1] == "data.retained"
    assert not arrivals.look(session).pending


@pytest.mark.parametrize("lost", ["data.retained", "delete", "compact"])
def test_a_retention_that_died_is_carried_on_and_said_in_full(world: World, lost: str) -> None:
    world.gather(one=(("a", 0, "20"), ("b", 0, "21"), ("c", 24 * 99, "22")))
    session = world.session()

    def die(*_: Any, **__: Any) -> Any:
        raise Crash

    class Dying:
        """A store of which one method dies, or that dies when one kind of fact is recorded."""

        def __init__(self, to: Any) -> None:
            self.to = to

        def __getattr__(self, name: str) -> Any:
            return die if name == lost else getattr(self.to, name)

        def append(self, said: Any, *rest: Any, **more: Any) -> Any:
            if isinstance(said, list) and [facts.kind(type(f.said)) for f in said] == [lost]:
                raise Crash
            return self.to.append(said, *rest, **more)

    dying = replace(session, facts=Dying(session.facts), tables=Dying(session.tables))
    with pytest.raises(Crash):
        retention.retain(dying, "Reading", timedelta(days=50), reason="r", by="ada")
    done = retention.retain(session, "Reading", timedelta(days=50), reason="r", by="ada")
    assert (done.rows, world.says()) == (2, {f"c{24 * 99}": 22.0})
    assert [k for k in world.kinds() if "retain" in k] == ["data.retaining", "data.retaining", "data.retained"]
    assert retention.retain(session, "Reading", timedelta(days=50), reason="r", by="ada").rows == 0
    assert (world.online_sum("a"), world.online_sum("c")) == (0.0, 22.0)


def test_what_a_correction_corrected_is_not_said_again_when_the_correction_is_old() -> None:
    class Job(fb.Contract):
        job = dy.String(primary_key=True)
        due = fb.event_time(dy.Datetime(time_zone="UTC"))

    tables, world = MemoryTables(), World(MemoryTables())
    session = replace(
        world.session(),
        tables=tables,
        app=App(
            "jobs",
            sources=[source.files("*.csv", prepare=as_it_is, yields=Job)],
            search=fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(fb.days(1))),
        ),
    )
    for batch, (job, due) in enumerate([("a", 90), ("a", 1), ("b", 1), ("b", 2)], start=1):
        when = START + timedelta(days=due)
        row = pl.DataFrame({"job": [job], "due": [when], KNOWN: [START + timedelta(days=90 + batch)]})
        tables.append("Job", row.cast({"due": MOMENT, KNOWN: MOMENT}), batch, {}, expect=tables.head("Job"))
    assert retention.look(session, "Job", timedelta(days=50)).rows == 2
    assert retention.retain(session, "Job", timedelta(days=50), reason="r", by="ada").rows == 2
    left = dataset.last(dataset.read(tables, Job, dataset.latest(tables, Job)), contract.spec(Job)).collect()
    assert left.select("job", "due").rows() == [("a", START + timedelta(days=1))]


def test_compaction_changes_no_version_and_brings_nothing_back(world: World) -> None:
    for n in range(6):
        world.gather(**{f"f{n}": (("a", n, str(20 + n)), ("b", 0, str(20 + n)), ("c", n, "70"))})
    versions.roll_back(world.session(), "Reading", to=4, reason="r", by="ada")
    said, bad = [world.says(n) for n in range(8)], standings(world)
    done = versions.compact(world.session())
    assert set(done) == {"Reading", "Reading__quarantine"}
    assert all(d.files_after <= d.files_before for d in done.values())
    assert ([world.says(n) for n in range(8)], standings(world)) == (said, bad)
    head = world.facts.head()
    assert world.gather() == []
    assert world.facts.head() == head
    assert len(quarantined.replay_open(world.session(MENDED))) == 4


# --- what is stored of a row is read again as what it was


TYPED: Mapping[str, tuple[pl.DataType, list[Any]]] = {
    "whole": (pl.Int32(), [12, -3, None]),
    "big": (pl.Int64(), [2**62 + 1, -(2**63), None]),
    "part": (pl.Float64(), [1.5, -0.0, float("inf")]),
    "truth": (pl.Boolean(), [True, False, None]),
    "day": (pl.Date(), [START.date(), None, START.date()]),
    "moment": (pl.Datetime("us", "UTC"), [START, START + timedelta(microseconds=7), None]),
    "wall": (pl.Datetime("us"), [START.replace(tzinfo=None), None, START.replace(tzinfo=None, microsecond=9)]),
    "clock": (pl.Time(), [START.time(), None, START.replace(hour=23, microsecond=3).time()]),
    "span": (pl.Duration("us"), [timedelta(days=3, microseconds=1), -timedelta(seconds=1), None]),
    "texts": (pl.List(pl.String()), [["a", 'b"'], [], None]),
    "pair": (pl.Struct({"x": pl.Int64(), "y": pl.String()}), [{"x": 1, "y": "z"}, None, {"x": None, "y": ""}]),
    "raw": (pl.Binary(), [b"\x00\xff", b"", None]),
    "text": (pl.String(), ["7", "", "null"]),
}


@pytest.mark.parametrize("name", TYPED)
def test_a_stored_cell_says_what_it_said(name: str) -> None:
    dtype, values = TYPED[name]
    column = {"day": dy.Date, "moment": lambda **k: dy.Datetime(time_zone="UTC", **k), "wall": dy.Datetime}
    column |= {"whole": dy.Int32, "big": dy.Int64, "part": dy.Float64, "truth": dy.Bool, "clock": dy.Time}
    column |= {"span": dy.Duration, "raw": dy.Binary, "text": dy.String}
    column |= {"texts": lambda **k: dy.List(dy.String(), **k)}
    column |= {"pair": lambda **k: dy.Struct({"x": dy.Int64(nullable=True), "y": dy.String()}, **k)}

    class Odd(Contract):
        key = dy.Int64(primary_key=True, max=0)
        when = contract.event_time(dy.Datetime(time_zone="UTC"))
        value = column[name](nullable=True)

    frame = pl.DataFrame(
        {"_line": [1, 2, 3], "key": [1, 2, 3], "when": [START] * 3, "value": pl.Series(values, dtype=dtype)}
    )
    kept = stored(frame, Odd)
    again = replay.cells(kept, contract.spec(Odd))
    read = again.select(coerce.cell("value", again.schema["value"], dtype).alias("value"))["value"]
    assert read.to_list() == values


def stored(frame: pl.DataFrame, observed: type[Contract]) -> pl.DataFrame:
    """The rows of a frame, all of which break the contract, as they lie in quarantine."""
    tables = MemoryTables()
    place = source.files("*.csv", prepare=as_it_is, yields=observed)
    reader = MemoryReader({"1.csv": frame.drop("_line")})
    (file,) = reader.files(place)
    ingest.ingest(place, tables, reader, recipe="r", known_from=None, file=file)
    return quarantine.read(tables, "Odd", 1).sort("_line").collect()
