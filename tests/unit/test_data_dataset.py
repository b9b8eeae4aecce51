"""Reading a version, and reading as of a time: against an oracle that goes through the rows one by one."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from flyball._kernel.errors import StateError
from flyball.adapters.memory.tables import MemoryTables
from flyball.data import contract, dataset
from flyball.data.contract import Contract
from flyball.data.dataset import Version
from flyball.data.tables import BATCH, KNOWN, OUTCOME_KNOWN

START = datetime(2013, 1, 1, tzinfo=UTC)


class Flight(Contract):
    origin = dy.String(primary_key=True)
    number = dy.Int64(primary_key=True)
    scheduled = contract.event_time(dy.Datetime(time_zone="UTC"))
    settled = contract.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = contract.outcome(dy.Bool(nullable=True))


class Weather(Contract):
    origin = dy.String(primary_key=True)
    observed = contract.event_time(dy.Datetime(time_zone="UTC"))


FLIGHT, WEATHER = contract.spec(Flight), contract.spec(Weather)


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def flights(*rows: tuple[Any, ...]) -> pl.LazyFrame:
    return pl.LazyFrame(list(rows), schema=dataset.schema(FLIGHT), orient="row")


def oracle(rows: list[dict[str, Any]], moment: datetime) -> list[dict[str, Any]]:
    seen: dict[tuple[str, int], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda r: (r[KNOWN], r[BATCH])):
        if row[KNOWN] < moment:
            seen[row["origin"], row["number"]] = dict(row)
    for row in seen.values():
        if row[OUTCOME_KNOWN] is None or row[OUTCOME_KNOWN] >= moment:
            row["settled"] = row["late"] = row[OUTCOME_KNOWN] = None
    return list(seen.values())


def test_the_columns_of_an_observation() -> None:
    assert list(dataset.schema(FLIGHT)) == [*FLIGHT.names, BATCH, KNOWN, OUTCOME_KNOWN]
    assert list(dataset.schema(WEATHER)) == [*WEATHER.names, BATCH, KNOWN]


@pytest.mark.parametrize("seed", range(20))
def test_as_of_agrees_with_going_through_the_rows(seed: int) -> None:
    draw = random.Random(seed)
    rows = []
    for batch in range(1, 6):
        for number in draw.sample(range(4), draw.randint(0, 4)):
            settled = at(draw.randint(0, 9)) if draw.random() < 0.7 else None
            known = None if settled is None else settled + timedelta(hours=draw.randint(0, 3))
            late = None if settled is None else draw.random() < 0.5
            rows.append(("JFK", number, at(draw.randint(0, 9)), settled, late, batch, at(draw.randint(0, 9)), known))
    frame = flights(*rows)
    for hour in range(-1, 12):
        read = dataset.as_of(frame, FLIGHT, at(hour)).sort("number").collect()
        expected = oracle(frame.collect().rows(named=True), at(hour))
        assert read.rows(named=True) == sorted(expected, key=lambda r: r["number"])
        assert read.schema == pl.Schema(dataset.schema(FLIGHT))


def test_a_moment_itself_is_not_yet_known() -> None:
    frame = flights(("JFK", 1, at(0), at(2), True, 1, at(1), at(2)))
    assert dataset.as_of(frame, FLIGHT, at(1)).collect().is_empty()
    assert dataset.as_of(frame, FLIGHT, at(2)).collect()["late"].to_list() == [None]
    assert dataset.as_of(frame, FLIGHT, at(2) + timedelta(microseconds=1)).collect()["late"].to_list() == [True]


def test_without_outcomes_nothing_is_hidden() -> None:
    frame = pl.LazyFrame([("JFK", at(0), 1, at(1))], schema=dataset.schema(WEATHER), orient="row")
    assert dataset.as_of(frame, WEATHER, at(2)).collect().rows() == [("JFK", at(0), 1, at(1))]


def test_the_cutoff_is_the_last_news() -> None:
    assert dataset.cutoff(flights()) is None
    assert dataset.cutoff(flights(("JFK", 1, at(9), None, None, 1, at(1), None))) == at(1)
    assert dataset.cutoff(flights(("JFK", 1, at(9), at(2), True, 1, at(1), at(3)))) == at(3)


def test_a_version_reads_the_same_for_good() -> None:
    tables = MemoryTables()
    frame = pl.DataFrame({KNOWN: [at(1)], "origin": ["JFK"], "observed": [at(0)]})
    assert dataset.latest(tables, Weather) == Version(table="Weather", batch=0)
    for batch in (1, 2):
        tables.append("Weather", frame, batch, {}, expect=tables.head("Weather"))
        version = dataset.latest(tables, Weather)
        assert version == Version(table="Weather", batch=batch)
        assert dataset.read(tables, Weather, version).collect().height == batch
    first = dataset.read(tables, Weather, Version(table="Weather", batch=1)).collect()
    assert first.rows() == [("JFK", at(0), 1, at(1))]
    assert first.schema == pl.Schema(dataset.schema(WEATHER))


def test_a_version_that_the_table_does_not_reach_is_refused() -> None:
    with pytest.raises(StateError) as refused:
        dataset.read(MemoryTables(), Weather, Version(table="Weather", batch=1))
    assert refused.value.code == "no-such-version"
