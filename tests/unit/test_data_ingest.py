"""Ingest, in memory: what is counted as what, when rows were known, and what a fault says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from flyball._kernel import facts
from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.data import contract, dataset, ingest, quarantine, source
from flyball.data.contract import Contract
from flyball.data.ingest import Ingested
from flyball.data.source import LINE, Preparation
from flyball.data.tables import BATCH, KNOWN, OUTCOME_KNOWN

START = datetime(2013, 1, 1, tzinfo=UTC)


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


class Flight(Contract):
    flight = dy.String(primary_key=True)
    scheduled = contract.event_time(dy.Datetime(time_zone="UTC"), known=contract.before(timedelta(hours=10)))
    distance = dy.Int32(nullable=True, min=1)
    settled = contract.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = contract.outcome(dy.Bool(nullable=True))


class Home:
    """One source over frames in memory, and its table."""

    def __init__(self, prepare: Preparation = lambda raw: raw) -> None:
        self.tables = MemoryTables()
        self.frames: dict[str, pl.DataFrame] = {}
        self.ragged: dict[str, list[tuple[int, str]]] = {}
        self.source = source.files("*.csv", prepare=prepare, yields=Flight)

    def put(self, name: str, *rows: tuple[Any, ...]) -> None:
        """Rows of (flight, scheduled hour, distance, settled hour, late)."""
        cells = [(f, at(s), d, None if o is None else at(o), w) for f, s, d, o, w in rows]
        self.frames[name] = pl.DataFrame(cells, schema=contract.spec(Flight).dtypes, orient="row")

    def ingest(self, name: str, known_from: datetime | None = None, recipe: str = "r") -> ingest.Result:
        reader = MemoryReader(self.frames, self.ragged)
        (file,) = (f for f in reader.files(self.source) if f.name == name)
        result = ingest.ingest(self.source, self.tables, reader, recipe=recipe, known_from=known_from, file=file)
        said = result.said
        assert said.read == said.accepted + said.quarantined + said.duplicates
        return result

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        frame = dataset.read(self.tables, Flight, dataset.latest(self.tables, Flight)).sort("flight", BATCH)
        return frame.select(columns).collect().rows()


def counts(said: Ingested) -> tuple[int, int, int, int, int]:
    return said.read, said.accepted, said.quarantined, said.duplicates, said.corrections


def test_a_file_becomes_a_batch() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, 25, True), ("B", 21, 0, None, None), ("C", 22, 7, None, None))
    home.ragged["a.csv"] = [(9, "D,20")]
    result = home.ingest("a.csv")
    assert result.fresh
    assert set(result.measured) == {"take", "commit"}
    assert result.said == Ingested(
        source="*.Flight",
        table="Flight",
        file="a.csv",
        digest=result.said.digest,
        recipe="r",
        batch=1,
        read=4,
        accepted=2,
        quarantined=2,
        duplicates=0,
        corrections=0,
        unsettled=1,
        by_rule={"distance|min": 1, "ragged": 1},
        ignored=(),
        known_from=None,
    )
    kept = quarantine.read(home.tables, "Flight", 1).sort(LINE).collect()
    assert kept.select("_batch", "_source", "_file", LINE, "rules").rows() == [
        (1, "*.Flight", "a.csv", 2, ["distance|min"]),
        (1, "*.Flight", "a.csv", 9, ["ragged"]),
    ]


def test_the_same_file_is_ingested_once() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, 25, True), ("B", 21, 0, None, None))
    first = home.ingest("a.csv")
    second = home.ingest("a.csv", known_from=at(99))
    assert not second.fresh
    assert second.said == first.said
    assert len(home.rows("flight")) == 1


def test_history_was_known_as_declared() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, 25, True), ("B", 21, 5, None, None))
    home.ingest("a.csv")
    assert home.rows("flight", KNOWN, OUTCOME_KNOWN) == [("A", at(10), at(25)), ("B", at(11), None)]


def test_life_is_known_when_it_is_ingested_or_later() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, 25, True), ("B", 50, 5, None, None), ("C", 20, 5, 35, False))
    assert home.ingest("a.csv", known_from=at(30)).said.known_from == at(30)
    assert home.rows("flight", KNOWN, OUTCOME_KNOWN) == [
        ("A", at(30), at(30)),
        ("B", at(40), None),
        ("C", at(30), at(35)),
    ]


def test_what_the_table_says_already_is_a_duplicate() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, None, None), ("B", 20, None, None, None))
    home.ingest("a.csv")
    home.put("b.csv", ("A", 20, 5, None, None), ("B", 20, None, None, None), ("C", 20, 5, None, None))
    assert counts(home.ingest("b.csv", at(30)).said) == (3, 1, 0, 2, 0)
    assert home.rows("flight", BATCH) == [("A", 1), ("B", 1), ("C", 2)]


def test_new_content_for_a_key_is_a_correction() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, None, None))
    home.ingest("a.csv")
    home.put("b.csv", ("A", 20, 5, 25, True))
    assert counts(home.ingest("b.csv", at(30)).said) == (1, 1, 0, 0, 1)
    home.put("c.csv", ("A", 20, 5, None, None))  # what was said first is a correction again
    assert counts(home.ingest("c.csv", at(31)).said) == (1, 1, 0, 0, 1)
    home.put("d.csv", ("A", 20, 5, None, None), ("A", 20, 5, None, None))
    assert counts(home.ingest("d.csv", at(32)).said) == (2, 0, 0, 2, 0)
    assert home.rows("late", BATCH, KNOWN) == [(None, 1, at(10)), (True, 2, at(30)), (None, 3, at(31))]


def test_a_correction_is_not_known_before_what_it_corrects() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, None, None))
    home.ingest("a.csv")
    home.put("a.csv", ("A", 15, 5, None, None))  # the event time was wrong, and moves back: still history
    home.ingest("a.csv")
    assert home.rows("scheduled", KNOWN) == [(at(20), at(10)), (at(15), at(10))]
    version = dataset.read(home.tables, Flight, dataset.latest(home.tables, Flight))
    assert dataset.as_of(version, contract.spec(Flight), at(99)).collect()["scheduled"].to_list() == [at(15)]


def test_another_recipe_reads_the_same_file_anew() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, None, None), ("B", 20, 5, None, None))
    home.ingest("a.csv", recipe="r")
    mended = source.files("*.csv", prepare=lambda raw: raw.with_columns(distance=6), yields=Flight)
    home.source = mended
    assert counts(home.ingest("a.csv", recipe="s").said) == (2, 2, 0, 0, 2)
    assert not home.ingest("a.csv", recipe="r").fresh
    assert home.rows("flight", "distance", KNOWN) == [
        ("A", 5, at(10)),
        ("A", 6, at(10)),
        ("B", 5, at(10)),
        ("B", 6, at(10)),
    ]


def test_a_file_without_news_still_counts_as_read() -> None:
    home = Home()
    home.put("a.csv")
    assert counts(home.ingest("a.csv").said) == (0, 0, 0, 0, 0)
    assert not home.ingest("a.csv").fresh
    home.put("b.csv", ("A", 20, -5, None, None))
    assert counts(home.ingest("b.csv").said) == (1, 0, 1, 0, 0)
    assert not home.ingest("b.csv").fresh
    assert home.rows("flight") == []


def test_columns_that_the_contract_has_not_are_ignored_and_said() -> None:
    home = Home(lambda raw: raw.with_columns(gate=pl.lit("B12"), crew=4))
    home.put("a.csv", ("A", 20, 5, None, None))
    assert home.ingest("a.csv").said.ignored == ("gate", "crew")


def test_a_preparation_may_forget_the_line() -> None:
    home = Home(lambda raw: raw.drop(LINE))
    home.put("a.csv", ("A", 20, -5, None, None))
    home.ingest("a.csv")
    assert quarantine.read(home.tables, "Flight", 1).collect()[LINE].to_list() == [None]


def fails_at_once(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(distance=1 // 0)


def fails_later(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.with_columns(distance=pl.col("no_such_column"))


def yields_nothing(raw: pl.LazyFrame) -> pl.LazyFrame:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(("prepare", "line"), [(fails_at_once, 1), (fails_later, 0), (yields_nothing, 0)])
def test_a_preparation_that_fails_is_told_where(prepare: Preparation, line: int) -> None:
    home = Home(prepare)
    home.put("a.csv", ("A", 20, 5, None, None))
    with pytest.raises(DataError, match=r"a\.csv") as refused:
        home.ingest("a.csv")
    assert refused.value.code == "preparation-failed"
    assert refused.value.where is not None
    assert refused.value.where.file == __file__
    assert refused.value.where.line == prepare.__code__.co_firstlineno + line  # type: ignore[attr-defined]
    assert dataset.latest(home.tables, Flight).batch == 0


def test_a_missing_column_ingests_nothing_and_loses_nothing() -> None:
    home = Home(lambda raw: raw.drop("distance"))
    home.put("a.csv", ("A", 20, 5, None, None))
    with pytest.raises(DataError, match="distance"):
        home.ingest("a.csv")
    assert dataset.latest(home.tables, Flight).batch == 0
    home.source = source.files("*.csv", prepare=lambda raw: raw, yields=Flight)
    assert home.ingest("a.csv").said.accepted == 1


def test_the_fact_is_repaired_from_the_tables() -> None:
    home = Home()
    said = []
    for name in ("a.csv", "b.csv", "c.csv"):
        home.put(name, (name, 20, 5, None, None), ("x", 20, 0, None, None))
        said.append(home.ingest(name, known_from=at(30) if name == "c.csv" else None).said)
    assert ingest.repair(home.tables, "Flight") == tuple(said)
    assert ingest.repair(home.tables, "Flight", after=2) == (said[2],)
    assert ingest.repair(home.tables, "Never") == ()
    assert facts.kind(said[0]) == "data.ingested"


def test_a_batch_without_its_account_is_said() -> None:
    home = Home()
    home.put("a.csv", ("A", 20, 5, None, None))
    home.ingest("a.csv")
    aside = quarantine.table("Flight")
    home.tables.delete(aside, pl.col("_batch") > 0, quarantine.SCHEMA, 0, expect=home.tables.head(aside))
    with pytest.raises(StateError) as refused:
        home.ingest("a.csv")
    assert refused.value.code == "batch-without-account"


@pytest.mark.parametrize("whole", [1, 1000])
def test_a_rule_in_python_that_raises_is_the_contracts_fault(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved(Flight):
        @dy.rule()
        def halves(cls) -> pl.Expr:
            return pl.col("distance").map_elements(lambda n: 1 / (n - 7) > 0, return_dtype=pl.Boolean)

    monkeypatch.setattr("flyball.data.intake.WHOLE", whole)
    home = Home()
    home.source = source.files("*.csv", prepare=lambda raw: raw, yields=Halved)
    home.put("a.csv", ("A", 20, 5, 25, True), ("B", 20, 7, 25, True))
    with pytest.raises(DeclarationError, match=r"rule-does-not-run"):
        home.ingest("a.csv")
    assert home.tables.head("Halved").batch == 0
