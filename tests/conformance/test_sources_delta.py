"""Delta tables of others as sources: their commits, and what is no news."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from flyball._kernel.errors import AdapterError, DataError, DeclarationError
from flyball._kernel.place import Place
from flyball.adapters.embedded.delta_source import DeltaReader
from flyball.checks.sources import Reported
from flyball.data import kinds
from flyball.data.kinds import Delta
from flyball.data.source import LINE, File, Source

READER = DeltaReader()


def as_it_is(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw


def declare(folder: Path, mode: str = "changes") -> Source:
    return Source("upstream", Delta("table", mode), as_it_is, Reported, place=Place(str(folder / "app.py"), 1))


def write(folder: Path, rows: pl.DataFrame, mode: Any = "append", by: list[str] | None = None, **more: Any) -> None:
    rows.write_delta(str(folder / "table"), mode=mode, delta_write_options={"partition_by": by, **more})


def read(source: Source, file: File) -> pl.DataFrame:
    with READER.open(source, file) as reading:
        assert reading.ragged.collect().is_empty()
        return reading.rows.collect()


def ids(source: Source, since: str | None) -> tuple[list[int], str | None]:
    """The rows that are new, and the name of the last file."""
    found: list[int] = []
    for file in READER.files(source, since):
        found += read(source, file)["id"].sort().to_list()
        since = file.name
    return found, since


def numbered(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"id": list(numbers)})


def test_the_whole_table_once_and_then_each_commit(tmp_path: Path) -> None:
    source = declare(tmp_path)
    write(tmp_path, numbered(1))
    write(tmp_path, numbered(2))
    found, since = ids(source, None)
    assert found == [1, 2]
    write(tmp_path, numbered(3, 4))
    write(tmp_path, numbered(5))
    assert len(READER.files(source, since)) == 2
    found, since = ids(source, since)
    assert found == [3, 4, 5]
    assert ids(source, since) == ([], since)


def test_a_compaction_is_no_news(tmp_path: Path) -> None:
    source = declare(tmp_path)
    write(tmp_path, numbered(1))
    _, since = ids(source, None)
    write(tmp_path, numbered(2))
    DeltaTable(str(tmp_path / "table")).optimize.compact()
    found, since = ids(source, since)
    assert found == [2]
    DeltaTable(str(tmp_path / "table")).optimize.z_order(["id"])
    assert ids(source, since)[0] == []


def test_what_a_commit_rewrote_is_read_again(tmp_path: Path) -> None:
    source = declare(tmp_path)
    write(tmp_path, numbered(1, 2, 3))
    _, since = ids(source, None)
    DeltaTable(str(tmp_path / "table")).update(updates={"id": "30"}, predicate="id = 3")
    found, since = ids(source, since)
    assert found == [1, 2, 30]
    DeltaTable(str(tmp_path / "table")).delete("id = 1")
    assert ids(source, since)[0] == [2, 30]


def test_partitions_and_grown_schemas(tmp_path: Path) -> None:
    source = declare(tmp_path)
    day, zone = date(2026, 1, 2), "y z/ü%"
    write(tmp_path, pl.DataFrame({"id": [1], "day": [day], "n": [7], "p": [zone]}), by=["day", "n", "p"])
    (whole,) = READER.files(source)
    write(tmp_path, pl.DataFrame({"id": [2], "day": [None], "n": [8], "p": [zone]}, schema_overrides={"day": pl.Date}))
    grown = pl.DataFrame({"id": [3], "day": [day], "n": [9], "p": ["x"], "more": [1.5]})
    write(tmp_path, grown, schema_mode="merge")
    second, third = READER.files(source, whole.name)
    assert read(source, second).drop(LINE).rows() == [(2, None, 8, zone, None)]
    assert read(source, third).drop(LINE).rows() == [(3, day, 9, "x", 1.5)]
    assert read(source, third).schema["n"] == pl.Int64


def test_partitions_that_a_commit_may_write_in_several_ways_are_read_whole(tmp_path: Path) -> None:
    source = declare(tmp_path)
    for number in (1, 2):
        at = datetime(2026, 1, number, tzinfo=UTC)
        write(tmp_path, pl.DataFrame({"id": [number], "at": [at]}), by=["at"])
        if number == 1:
            _, since = ids(source, None)
    assert ids(source, since)[0] == [1, 2]


def test_a_snapshot_is_the_whole_table_at_each_version(tmp_path: Path) -> None:
    source = declare(tmp_path, "snapshot")
    write(tmp_path, numbered(1))
    found, since = ids(source, None)
    assert ids(source, since) == ([], since)
    write(tmp_path, numbered(2))
    assert ids(source, since)[0] == [1, 2]
    assert found == [1]


def old_log_is_gone(table: Path) -> None:
    DeltaTable(str(table)).create_checkpoint()
    for version in range(3):
        (table / "_delta_log" / f"{version:020}.json").unlink()


def made_anew(table: Path) -> None:
    for each in sorted(table.rglob("*"), reverse=True):
        each.unlink() if each.is_file() else each.rmdir()
    for number in (1, 2, 3, 4):
        write(table.parent, numbered(number))


@pytest.mark.parametrize("happens", [old_log_is_gone, made_anew])
def test_where_the_log_does_not_reach_back_the_table_is_read_once_more(
    tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    source = declare(tmp_path)
    write(tmp_path, numbered(1))
    _, since = ids(source, None)
    for number in (2, 3, 4):
        write(tmp_path, numbered(number))
    happens(tmp_path / "table")
    found, since = ids(source, since)
    assert found == [1, 2, 3, 4]
    assert ids(source, since)[0] == []


def test_a_version_is_read_again_as_it_was_unless_it_is_gone(tmp_path: Path) -> None:
    source = declare(tmp_path)
    write(tmp_path, numbered(1, 2))
    (whole,) = READER.files(source)
    write(tmp_path, numbered(3))
    (second,) = READER.files(source, whole.name)
    table = DeltaTable(str(tmp_path / "table"))
    table.delete("id = 1")
    assert read(source, whole)["id"].sort().to_list() == [1, 2]
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    for file in (whole, second):
        with pytest.raises(AdapterError, match="vacuumed") as refused, READER.open(source, file):
            pass
        assert refused.value.code == "file-unopenable"
        assert refused.value.where == source.place


def test_a_folder_without_a_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="source-without-files"):
        READER.files(declare(tmp_path))


def test_a_broken_log_is_said(tmp_path: Path) -> None:
    write(tmp_path, numbered(1))
    (tmp_path / "table" / "_delta_log" / f"{0:020}.json").write_text("{")
    with pytest.raises(AdapterError, match="delta-table-unreadable"):
        READER.files(declare(tmp_path))


def test_what_its_data_files_do_not_say_is_refused(tmp_path: Path) -> None:
    write(tmp_path, numbered(1))
    log = tmp_path / "table" / "_delta_log" / f"{0:020}.json"
    before = '"minReaderVersion":1,"minWriterVersion":2'
    features = '["deletionVectors"]'
    after = f'"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":{features},"writerFeatures":{features}'
    assert before in log.read_text()
    log.write_text(log.read_text().replace(before, after))
    with pytest.raises(AdapterError, match="deletionVectors") as refused:
        READER.files(declare(tmp_path))
    assert refused.value.code == "delta-feature-unread"


def test_declarations_that_cannot_be() -> None:
    with pytest.raises(DeclarationError, match="source-of-unknown-store"):
        kinds.delta("s3://bucket/table", prepare=as_it_is, yields=Reported)
    with pytest.raises(DeclarationError, match="mode-unknown"):
        kinds.delta("table", prepare=as_it_is, yields=Reported, mode="all")  # type: ignore[arg-type]
    assert kinds.delta("some/table/", prepare=as_it_is, yields=Reported).name == "table.Reported"


def test_a_commit_before_a_column_changed_its_type_is_read_as_it_was(tmp_path: Path) -> None:
    source = declare(tmp_path)
    write(tmp_path, pl.DataFrame({"id": [1], "price": ["x"]}))
    (whole,) = READER.files(source)
    write(tmp_path, pl.DataFrame({"id": [2], "price": ["y"]}))
    write(tmp_path, pl.DataFrame({"id": [3], "price": [7]}), "overwrite", schema_mode="overwrite")
    first, second = READER.files(source, whole.name)
    assert read(source, first)["price"].to_list() == ["y"]
    assert read(source, second)["price"].to_list() == [7]
