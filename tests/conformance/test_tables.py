"""Tables: the shipped suite on both adapters; and what Delta Lake does under our feet."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from flyball._kernel.errors import AdapterError, Bug
from flyball.adapters.embedded import delta_files
from flyball.adapters.embedded.tables import DeltaTables
from flyball.adapters.memory.tables import MemoryTables
from flyball.checks.tables import ROWS, SCHEMA, TablesSuite, append, scan
from flyball.data.tables import BATCH, Tables


class TestDeltaTables(TablesSuite):
    @pytest.fixture
    def tables(self, tmp_path: Path) -> Tables:
        return DeltaTables(tmp_path / "tables")


class TestMemoryTables(TablesSuite):
    @pytest.fixture
    def tables(self) -> Tables:
        return MemoryTables()


@pytest.fixture
def delta(tmp_path: Path) -> DeltaTables:
    tables = DeltaTables(tmp_path)
    append(tables, ROWS, 1, {"file-1": 1})
    append(tables, ROWS, 2, {"file-2": 2})
    return tables


def test_a_table_outlives_its_process(delta: DeltaTables, tmp_path: Path) -> None:
    again = DeltaTables(tmp_path)
    assert again.head("Flight") == delta.head("Flight")
    assert scan(again, 2).height == 4


def clean_up(path: Path) -> None:
    """Checkpoint the log, and drop all of it that a checkpoint makes superfluous."""
    table = DeltaTable(path)
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    table.create_checkpoint()
    time.sleep(0.01)
    table.cleanup_metadata()


def test_positions_outlive_the_log_they_were_written_to(delta: DeltaTables, tmp_path: Path) -> None:
    clean_up(tmp_path / "Flight")
    assert not (tmp_path / "Flight" / "_delta_log" / f"{1:020}.json").exists()
    assert [delta.position("Flight", f"file-{n}") for n in (1, 2, 3)] == [1, 2, None]
    assert delta.head("Flight").batch == 2
    append(delta, ROWS, 3, {"file-3": 3})
    assert [delta.position("Flight", f"file-{n}") for n in (1, 2, 3)] == [1, 2, 3]


def test_versions_outlive_compaction_and_vacuum(delta: DeltaTables, tmp_path: Path) -> None:
    before = [scan(delta, batch) for batch in (0, 1, 2)]
    table = DeltaTable(tmp_path / "Flight")
    head = delta.head("Flight")
    table.optimize.compact()
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert len(DeltaTable(tmp_path / "Flight").file_uris()) == 1
    assert [scan(delta, batch).equals(frame) for batch, frame in enumerate(before)] == [True] * 3
    assert delta.head("Flight").batch == head.batch


def test_files_of_later_batches_are_not_opened(delta: DeltaTables) -> None:
    plan = delta.scan("Flight", 1, SCHEMA).explain()
    assert plan.count(".parquet") == 1


def test_wide_tables_keep_the_statistics_of_the_batch(tmp_path: Path) -> None:
    tables = DeltaTables(tmp_path)
    wide = pl.DataFrame({f"c{n}": [n] for n in range(60)})
    append(tables, wide, 1)
    append(tables, wide, 2)
    assert tables.scan("Flight", 1, {"c59": pl.Int64(), BATCH: pl.Int64()}).explain().count(".parquet") == 1


@pytest.mark.parametrize("name", ["", "..", "../Flight", "/x", "a/b", "a b", "Flight\x00", "s3://bucket/x"])
def test_a_table_stays_in_its_folder(delta: DeltaTables, name: str) -> None:
    with pytest.raises(Bug) as refused:
        delta.head(name)
    assert refused.value.code == "bad-table-name"


def test_what_delta_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as refused:
        append(DeltaTables(tmp_path), pl.DataFrame({"x": pl.Series([2**100], dtype=pl.Int128)}), 1)
    assert refused.value.code == "type-not-storable"


def entry(*actions: object) -> bytes:
    return b"".join(json.dumps(action).encode() + b"\n" for action in actions)


def add(path: str) -> dict[str, object]:
    facts = {"size": 10, "partitionValues": {}, "modificationTime": 0, "dataChange": True, "stats": None}
    return {"add": {"path": path, **facts}}


@pytest.mark.parametrize(
    "content",
    [
        b"not json\n",
        b"\x00\xff" * 100,
        entry({"protocol": {"minReaderVersion": 99, "minWriterVersion": 99}}),
        entry(add("../secret.parquet")),
        entry(add("%2e%2e/secret.parquet")),
        entry(add("/etc/passwd")),
        entry(add("file:///etc/passwd")),
        entry(add("http://127.0.0.1:1/x.parquet")),
        entry(add("part-*.parquet")),
    ],
)
def test_a_hostile_log_is_a_plain_error(delta: DeltaTables, tmp_path: Path, content: bytes) -> None:
    pl.DataFrame({"key": ["stolen"], "value": [9], BATCH: [1]}).write_parquet(tmp_path / "secret.parquet")
    (tmp_path / "Flight" / "_delta_log" / f"{2:020}.json").write_bytes(content)
    with pytest.raises(AdapterError) as refused:
        scan(delta, 2)
    assert refused.value.code == "table-unreadable"


def test_a_broken_checkpoint_is_a_plain_error(delta: DeltaTables, tmp_path: Path) -> None:
    DeltaTable(tmp_path / "Flight").create_checkpoint()
    for checkpoint in (tmp_path / "Flight" / "_delta_log").glob("*.parquet"):
        checkpoint.write_bytes(b"PAR1")
    with pytest.raises(AdapterError, match="cannot be read"):
        DeltaTables(tmp_path).head("Flight")


def test_a_lost_file_is_a_plain_error(delta: DeltaTables, tmp_path: Path) -> None:
    next((tmp_path / "Flight").rglob("*.parquet")).unlink()
    with pytest.raises(AdapterError, match="is missing"):
        scan(delta, 2)


def test_a_file_where_the_table_should_be_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "Flight").write_text("no folder")
    tables = DeltaTables(tmp_path)
    with pytest.raises(AdapterError) as refused:
        append(tables, ROWS, 1)
    assert refused.value.code == "table-unreadable"


def test_what_a_crash_left_of_the_first_write_is_no_table(delta: DeltaTables, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "Flight" / "_delta_log")
    (tmp_path / "Flight" / "_delta_log").mkdir()
    assert scan(delta, 2).is_empty()
    append(delta, ROWS, 1)
    assert scan(delta, 2).height == 2


def test_compaction_leaves_no_byte_of_what_was_deleted(delta: DeltaTables, tmp_path: Path) -> None:
    """Neither in Parquet files, nor in the statistics and entries of the log; nor what was staged in vain."""
    secret = pl.DataFrame({"key": ["N14228-secret", "zz"], "value": [123456789012345, 2]})
    append(delta, secret, 3, {"file-3": 3})
    delta.stage("Flight", secret.lazy(), 4)
    delta.delete("Flight", pl.col("key") == "N14228-secret", SCHEMA, 3, expect=delta.head("Flight"))
    delta.compact("Flight")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    for file in files:
        assert b"N14228" not in file.read_bytes()
        if file.suffix == ".parquet":
            assert "N14228" not in str(pl.read_parquet(file).to_dicts())
    assert len([file for file in files if "_delta_log" not in str(file)]) == 1
    assert [delta.position("Flight", f"file-{n}") for n in (1, 2, 3)] == [1, 2, 3]
    assert scan(delta, 9).height == 5
    assert delta.compact("Flight").files_after == 1


def test_of_a_large_table_only_the_touched_file_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_files, "_ROWS", 100)
    tables = DeltaTables(tmp_path)
    append(tables, pl.DataFrame({"key": [f"k{n}" for n in range(1000)], "value": range(1000)}), 1)
    deleted = tables.delete("Flight", pl.col("value") == 555, SCHEMA, 1, expect=tables.head("Flight"))
    assert (deleted.rows, deleted.files) == (1, 1)
    assert sorted(scan(tables, 1)["value"]) == [n for n in range(1000) if n != 555]
