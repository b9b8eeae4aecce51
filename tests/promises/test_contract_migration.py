"""Promise 7, for contracts that change: stored rows are carried over exactly once, wherever the process dies.

Attacked by a crash before and after every single write to the tables, twice over, and by mending the migration half-way.
What must hold: the same rows as without a crash, each known when it was known, no file pending, and the old table untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball._kernel.place import Place
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
from flyball.cycle import arrivals, contracts, gather, quarantined
from flyball.cycle.session import Session
from flyball.data import contract, dataset, ingest, quarantine
from flyball.data.contract import Contract
from flyball.data.source import Files, Source
from flyball.data.tables import Tables
from flyball.runtime import places
from flyball.serve.auth import Keys

START = datetime(2013, 1, 1, tzinfo=UTC)


def kilometres(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.with_columns(kilometres=pl.col("miles") * 1.5).drop("miles")


def wrong(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.with_columns(kilometres=pl.col("miles") * 2.0).drop("miles")


def without_times(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("flight", "scheduled", kilometres=pl.col("miles") * 1.5)


def flights(version: int, *, migrate: Any = None, **columns: dy.Column) -> type[Contract]:
    usual = {
        "flight": dy.String(primary_key=True),
        "scheduled": fb.event_time(dy.Datetime(time_zone="UTC")),
        "settled": fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True)),
        "late": fb.outcome(dy.Bool(nullable=True)),
    }
    make: Any = type(Contract)
    made: type[Contract] = make("Flight", (Contract,), {**usual, **columns}, version=version, migrate=migrate)
    return made


OLD = flights(1, miles=dy.Int32(min=1))
SAME_VERSION = flights(1, kilometres=dy.Float64(max=40))
NEW = flights(2, migrate=kilometres, kilometres=dy.Float64(max=40))
MISTAKEN = flights(2, migrate=wrong, kilometres=dy.Float64(max=40))
LOSING = flights(2, migrate=without_times, kilometres=dy.Float64(max=40))


def rows(*cells: tuple[str, int]) -> pl.DataFrame:
    full = [(f, START, START + timedelta(hours=2), True, miles) for f, miles in cells]
    return pl.DataFrame(full, schema=contract.spec(OLD).dtypes, orient="row")


FILES = {"1.csv": rows(("A", 10), ("B", 20), ("X", -1)), "2.csv": rows(("C", 30)), "3.csv": rows(("B", 22))}


class Killed(BaseException):
    """The process is gone."""


class Dying:
    """Tables whose process dies at the n-th write: before it, or after it."""

    def __init__(self, tables: Tables, at: int, *, after: bool) -> None:
        self._tables, self._left, self._after = tables, at, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tables, name)
        return self._dying(method) if name in ("append", "delete") else method

    def _dying(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            done = method(*args, **kwargs)
            if self._left == 0:
                raise Killed
            return done

        return write


class World:
    """An app whose contract changes from apply to apply."""

    def __init__(self, tables: Tables) -> None:
        self.clock = VirtualClock(START + timedelta(days=100))
        self.facts = MemoryFacts(self.clock, MemorySigner(), places.PROJECTIONS)
        self.tables = tables

    def session(self, observed: type[Contract], tables: Any = None) -> Session:
        source = Source("flights.Flight", Files("*.csv"), lambda raw: raw, observed, place=Place(__file__, 1))
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
            tables=tables or self.tables,
            online=MemoryOnline(),
            reader=MemoryReader(FILES),
            routes=MemoryRoutes(),
            journals=lambda settings: MemoryJournal(clock, settings),
            outcomes=MemoryOutcomes(),
            vault=MemoryVault(),
            keys=Keys(lambda: (), clock),
            commit=lambda: "",
            holder="a test",
        )

    def apply(self, observed: type[Contract], tables: Any = None) -> list[str]:
        return [said.file for said in gather.gather(self.session(observed, tables))]

    def holds(self, observed: type[Contract]) -> Mapping[str, Any]:
        spec = contract.spec(observed)
        head = self.tables.head(spec.name).batch
        stored = dataset.read(self.tables, observed, dataset.latest(self.tables, observed)).collect()
        bad = quarantine.read(self.tables, spec.name, head).select("_batch", "_file", "rules", "row").collect()
        return {
            "rows": stored.sort("flight", "_batch").rows(named=True),
            "bad": sorted(map(str, bad.rows())),
            "accounts": ingest.repair(self.tables, spec.name),
            "facts": {k: v for k, v in self.facts.scan(arrivals.INGESTED.name, "flights//") if spec.name.encode() in v},
        }


@pytest.fixture(params=["memory", "delta"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return begun(MemoryTables() if request.param == "memory" else DeltaTables(tmp_path / "tables"))


def begun(tables: Tables) -> World:
    world = World(tables)
    world.apply(OLD)
    return world


def test_a_breaking_change_is_refused_and_moves_nothing(world: World) -> None:
    before = world.holds(OLD), [f.kind for f in world.facts.read()]
    for attempt in (lambda: world.apply(SAME_VERSION), lambda: contracts.check(world.session(SAME_VERSION))):
        with pytest.raises(StateError, match="miles: removed") as caught:
            attempt()
        assert caught.value.code == "contract-breaks"
        assert "version=2" in caught.value.next
    with pytest.raises(StateError, match="no migration from it is declared"):
        world.apply(flights(2, kilometres=dy.Float64(max=40)))
    assert (world.holds(OLD), [f.kind for f in world.facts.read()]) == before


def test_rows_are_carried_over_once_and_keep_their_times(world: World) -> None:
    before = world.holds(OLD)
    assert contracts.check(world.session(NEW)) == ["Flight: 3 batches of version 1 will be carried over to version 2."]
    assert world.apply(NEW) == []  # no file is read again
    after = world.holds(NEW)
    kept = {(r["flight"], r["_batch"]): (r["_known"], r["_outcome_known"], r["miles"] * 1.5) for r in before["rows"]}
    del kept["C", 2]  # 45 km are more than 40
    assert {
        (r["flight"], r["_batch"]): (r["_known"], r["_outcome_known"], r["kilometres"]) for r in after["rows"]
    } == kept
    assert [(a.read, a.accepted, a.quarantined, a.by_rule) for a in after["accounts"]] == [
        (2, 2, 0, {}),
        (1, 0, 1, {"kilometres|max": 1}),
        (1, 1, 0, {}),
    ]
    assert len(after["facts"]) == 3
    assert world.holds(OLD)["rows"] == before["rows"]
    assert arrivals.look(world.session(NEW)).pending == ()
    called = quarantined.tables(world.session(NEW), "Flight")  # by the name of the contract, as by that of its table
    assert called == quarantined.tables(world.session(NEW), "Flight__2") == (NEW,)
    facts = [f.kind for f in world.facts.read()]
    assert world.apply(NEW) == []
    assert [f.kind for f in world.facts.read()] == facts
    assert [g.table for g in contracts.generations(world.session(NEW), NEW)] == ["Flight", "Flight__2"]


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write_changes_nothing(after: bool) -> None:
    whole = begun(MemoryTables())
    whole.apply(NEW)
    for first in range(1, 20):
        died = 0
        world = begun(MemoryTables())
        for at in (first, 2):  # it dies, and the next run dies at its second write
            try:
                world.apply(NEW, Dying(world.tables, at, after=after))
            except Killed:
                died += 1
        world.apply(NEW)
        assert world.holds(NEW) == whole.holds(NEW)
        assert arrivals.look(world.session(NEW)).pending == ()
        if not died:
            break
    assert first == 7  # two writes a batch


def test_a_migration_mended_half_way_begins_anew(world: World) -> None:
    whole = begun(MemoryTables())
    whole.apply(NEW)
    with pytest.raises(Killed):
        world.apply(MISTAKEN, Dying(world.tables, 4, after=True))
    world.apply(NEW)
    assert world.holds(NEW) == whole.holds(NEW)


def test_a_migration_that_loses_when_rows_were_known_is_refused(world: World) -> None:
    with pytest.raises(DataError, match="does not yield") as caught:
        world.apply(LOSING)
    assert caught.value.code == "migration-failed"
    assert world.tables.head("Flight__2").batch == 0
    world.apply(NEW)
    assert len(world.holds(NEW)["rows"]) == 3


def test_a_rule_that_does_not_run_on_stored_rows_is_told_as_one(world: World) -> None:
    told = dy.rule()(lambda _: pl.col("miles").str.contains("x"))
    with pytest.raises(DeclarationError, match="cannot be evaluated on the stored rows") as caught:
        contracts.check(world.session(flights(1, miles=dy.Int32(min=1), told=told)))
    assert caught.value.code == "rule-does-not-run"


def test_a_compatible_change_is_recorded_and_goes_on(world: World) -> None:
    wider = flights(1, miles=dy.Int32(min=0), gate=dy.String(nullable=True))
    narrower = flights(1, miles=dy.Int32(min=5))
    too_narrow = flights(1, miles=dy.Int32(min=15))
    assert contracts.check(world.session(narrower)) == [
        "Flight changed, compatibly: miles: min 1 -> 5 (every stored row keeps it)."
    ]
    with pytest.raises(StateError, match="1 stored row breaks it"):
        world.apply(too_narrow)
    contracts.settle(world.session(wider))
    recorded = contracts.recorded(world.session(wider), "Flight")
    assert recorded is not None
    assert recorded.changes == ("gate: added, nullable", "miles: min 1 -> 0")
