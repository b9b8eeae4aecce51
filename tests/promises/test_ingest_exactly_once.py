"""Promise 7, for data: a file is ingested exactly once, whatever crashes, races or is cleaned up in between.

Attacked by a crash before and after every single write, twice over; by another ingest, also a crashing one, at every
single step of ours; by killing the process; and by dropping the log that the positions were first written to.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from deltalake import DeltaTable

from flyball._kernel.errors import RetryableError
from flyball._kernel.place import Place
from flyball.adapters.embedded.sources import FileReader
from flyball.adapters.embedded.tables import DeltaTables
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.data import contract, dataset, ingest, quarantine
from flyball.data.contract import Contract
from flyball.data.source import Files, Reader, Source
from flyball.data.tables import Compacted, Deleted, Head, Staged, Tables

START = datetime(2013, 1, 1, tzinfo=UTC)
ASIDE = quarantine.table("Flight")


class Flight(Contract):
    flight = dy.String(primary_key=True)
    scheduled = contract.event_time(dy.Datetime(time_zone="UTC"))
    distance = dy.Int32(min=1)


SOURCE = Source("x.Flight", Files("*.csv"), lambda raw: raw, Flight, place=Place(__file__, 1))


def frame(*rows: tuple[str, int, int]) -> pl.DataFrame:
    cells = [(f, START + timedelta(hours=h), d) for f, h, d in rows]
    return pl.DataFrame(cells, schema=contract.spec(Flight).dtypes, orient="row")


FILES = {
    "1.csv": frame(("A", 1, 5), ("B", 1, -1), ("C", 1, 7)),
    "2.csv": frame(("A", 1, 5), ("B", 1, 6), ("C", 1, 8), ("C", 1, 9), ("D", 2, 0)),
    "3.csv": frame(("A", 2, 5), ("E", 0, -5)),
}
"""Good and bad rows, a duplicate, corrections, and a key that two rows of one file contradict."""
READER = MemoryReader(FILES)


class Crash(Exception):
    """The process is gone."""


class Attacked(Tables):
    """Tables between whose steps something happens: `attack(step, name, after)` before and after each."""

    def __init__(self, tables: Tables, attack: Callable[[int, str, bool], None]) -> None:
        self._tables, self._attack, self._steps = tables, attack, count()

    def _step(self, name: str, act: Callable[[], Any]) -> Any:
        step = next(self._steps)
        self._attack(step, name, False)
        result = act()
        self._attack(step, name, True)
        return result

    def head(self, table: str) -> Head:
        return self._step("head", lambda: self._tables.head(table))

    def stage(self, table: str, rows: pl.LazyFrame, batch: int) -> Staged:
        return self._step("stage", lambda: self._tables.stage(table, rows, batch))

    def append(
        self, table: str, rows: pl.DataFrame | Staged, batch: int, positions: Mapping[str, int], *, expect: Head
    ) -> None:
        self._step("append", lambda: self._tables.append(table, rows, batch, positions, expect=expect))

    def delete(
        self, table: str, rows: pl.Expr, schema: Mapping[str, pl.DataType], batch: int, *, expect: Head
    ) -> Deleted:
        return self._step("delete", lambda: self._tables.delete(table, rows, schema, batch, expect=expect))

    def compact(self, table: str) -> Compacted:
        return self._step("compact", lambda: self._tables.compact(table))

    def position(self, table: str, key: str) -> int | None:
        return self._step("position", lambda: self._tables.position(table, key))

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        return self._step("scan", lambda: self._tables.scan(table, batch, schema))


def crash_at(write: int, after: bool = True) -> Callable[[int, str, bool], None]:
    """Crash before or after the write of that number."""
    writes = count()

    def attack(_step: int, name: str, is_after: bool) -> None:
        if name in ("stage", "append", "delete") and is_after == after and next(writes) == write:
            raise Crash

    return attack


def ingest_all(tables: Tables, reader: Reader = READER, source: Source = SOURCE) -> list[ingest.Ingested]:
    return [
        ingest.ingest(source, tables, reader, recipe="r", known_from=None, file=file).said
        for file in reader.files(source)
    ]


def content(tables: Tables) -> dict[str, Any]:
    """All that the tables say: rows, quarantine, accounts, positions."""
    version = dataset.latest(tables, Flight)
    rows = dataset.read(tables, Flight, version).sort("flight", "_batch").collect()
    bad = quarantine.read(tables, "Flight", 999).sort("_batch", "_line", "row").collect()
    said = ingest.repair(tables, "Flight")
    files = {file.name: tables.position("Flight", ingest.position(SOURCE, file, "r")) for file in READER.files(SOURCE)}
    return {"rows": rows.rows(), "bad": bad.rows(), "said": said, "files": files, "head": version}


def consistent(tables: Tables) -> None:
    """Each batch has one account, and holds exactly the rows that it accounts for."""
    version = dataset.latest(tables, Flight)
    rows = dataset.read(tables, Flight, version).collect()["_batch"].to_list()
    bad = quarantine.read(tables, "Flight", 999).collect()["_batch"].to_list()
    said = ingest.repair(tables, "Flight")
    assert [s.batch for s in said] == list(range(1, version.batch + 1))
    for s in said:
        assert s.read == s.accepted + s.quarantined + s.duplicates
        assert (s.accepted, s.quarantined) == (rows.count(s.batch), bad.count(s.batch))
    assert set(bad) <= {s.batch for s in said}
    assert len({s.file for s in said}) == len(said)


EXPECTED_TABLES = MemoryTables()
EXPECTED_SAID = ingest_all(EXPECTED_TABLES)
EXPECTED = content(EXPECTED_TABLES)


@pytest.fixture(params=["embedded", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Tables]:
    """Makes empty tables."""
    if request.param == "memory":
        return MemoryTables
    numbers = count()
    return lambda: DeltaTables(tmp_path / str(next(numbers)))


def test_what_is_expected_is_worth_expecting() -> None:
    assert [(s.read, s.accepted, s.quarantined, s.duplicates, s.corrections) for s in EXPECTED_SAID] == [
        (3, 2, 1, 0, 0),
        (5, 1, 3, 1, 0),
        (2, 1, 1, 0, 1),
    ]
    consistent(EXPECTED_TABLES)


def test_a_crash_around_any_write_changes_nothing(place: Callable[[], Tables]) -> None:
    crashes = 0
    for write in count():
        for after in (False, True):
            tables = place()
            try:
                ingest_all(Attacked(tables, crash_at(write, after)))
            except Crash:
                crashes += 1
            else:
                assert crashes == 2 * 5 * len(FILES)  # staged: good, bad, account; appended: quarantine, table
                return
            assert ingest_all(tables) == EXPECTED_SAID
            assert content(tables) == EXPECTED
            consistent(tables)


def test_a_second_crash_while_the_first_is_mended_changes_nothing() -> None:
    """In memory a crash before a write is one after the write before it."""
    double = 0
    for first, second in ((n, m) for n in range(6) for m in range(8)):
        tables = MemoryTables()
        for crash in (crash_at(first), crash_at(second)):
            try:
                ingest_all(Attacked(tables, crash))
            except Crash:
                double += 1
        assert ingest_all(tables) == EXPECTED_SAID
        assert content(tables) == EXPECTED
    assert double > 50


def other(tables: Tables, crash: int | None) -> None:
    """Another process ingests all files; it may crash after one of its writes, or be told to try again."""
    with suppress(Crash, RetryableError):
        ingest_all(tables if crash is None else Attacked(tables, crash_at(crash)))


@pytest.mark.parametrize("crash", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("left", [False, True], ids=["clean", "after a crash"])
def test_another_ingest_at_any_step_changes_nothing(crash: int | None, left: bool) -> None:
    """`left`: an earlier crash has left quarantined rows behind, which both want to drop."""
    for step in count():
        tables = MemoryTables()
        if left:
            other(tables, crash=0)
        happened: list[int] = []

        def attack(at: int, _name: str, is_after: bool, *, now: tuple[Any, ...] = (step, tables, happened)) -> None:
            if at == now[0] and not is_after:
                now[2].append(at)
                other(now[1], crash)

        with suppress(RetryableError):
            ingest_all(Attacked(tables, attack))
        if not happened:
            assert step > 10
            return
        assert ingest_all(tables) == EXPECTED_SAID
        assert content(tables) == EXPECTED
        consistent(tables)


def test_another_ingest_between_our_two_commits_is_seen_by_delta(tmp_path: Path) -> None:
    """The same race on the real thing: the other takes our quarantined rows for leftovers, and we are refused."""
    tables = DeltaTables(tmp_path)

    def attack(_step: int, name: str, is_after: bool) -> None:
        if name == "append" and is_after and tables.head(ASIDE).batch > tables.head("Flight").batch:
            ingest_all(tables)

    with pytest.raises(RetryableError) as refused:
        ingest_all(Attacked(tables, attack))
    assert refused.value.code == "concurrent-ingest"
    assert ingest_all(tables) == EXPECTED_SAID
    assert content(tables) == EXPECTED
    consistent(tables)


def test_nothing_is_ingested_again_after_the_log_is_cleaned_up(tmp_path: Path) -> None:
    tables = DeltaTables(tmp_path)
    ingest_all(tables)
    for name in ("Flight", ASIDE):
        delta = DeltaTable(tmp_path / name)
        delta.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
        delta.optimize.compact()
        delta.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        delta.create_checkpoint()
        time.sleep(0.01)
        delta.cleanup_metadata()
        assert len(list((tmp_path / name / "_delta_log").glob("*.json"))) == 1
    again = DeltaTables(tmp_path)
    assert ingest_all(again) == EXPECTED_SAID
    assert content(again) == EXPECTED


def write_files(folder: Path, files: int) -> Source:
    for n in range(files):
        rows = [f"{n}-{k},2013-01-01T{k % 24:02}:00:00Z,{k - 5}" for k in range(200)]
        (folder / f"{n:02}.csv").write_text("\n".join(["flight,scheduled,distance", *rows, "ragged"]) + "\n")
    return Source("x.Flight", Files("*.csv"), lambda raw: raw, Flight, place=Place(str(folder / "app.py"), 1))


def test_a_killed_process_leaves_nothing_twice_and_nothing_out(tmp_path: Path) -> None:
    source = write_files(tmp_path, files=12)
    script = (
        f"import sys; sys.path.insert(0, {os.getcwd()!r});"
        "from pathlib import Path; import tests.promises.test_ingest_exactly_once as t;"
        f"folder = Path({str(tmp_path)!r}); source = t.write_files(folder, 0);"
        "print('go', flush=True);"
        "t.ingest_all(t.DeltaTables(folder / 'tables'), t.FileReader(), source)"
    )
    draw = random.Random(7)
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            time.sleep(draw.uniform(0.02, 0.25))
            process.send_signal(signal.SIGKILL)
    tables = DeltaTables(tmp_path / "tables")
    said = ingest_all(tables, FileReader(), source)
    assert [(s.read, s.accepted, s.quarantined) for s in said] == [(201, 194, 7)] * 12
    assert dataset.read(tables, Flight, dataset.latest(tables, Flight)).collect()["flight"].n_unique() == 194 * 12
    consistent(tables)
