"""What every store of tables does. Subclass `TablesSuite`, supply its fixture, and run it with pytest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flyball._kernel.errors import RetryableError, StateError
from flyball.data.tables import ABSENT, BATCH, Head, Tables

ROWS = pl.DataFrame({"key": ["a", "b"], "value": [1, 2]})
SCHEMA = {"key": pl.String(), "value": pl.Int64(), BATCH: pl.Int64()}
NOON = datetime(2013, 7, 1, 12, 30, 15, 123456, tzinfo=UTC)

TYPES: dict[str, pl.Series] = {
    "int8": pl.Series([-128, None], dtype=pl.Int8),
    "int64": pl.Series([-(2**63), None], dtype=pl.Int64),
    "uint8": pl.Series([255, None], dtype=pl.UInt8),
    "uint16": pl.Series([2**16 - 1, None], dtype=pl.UInt16),
    "uint32": pl.Series([2**32 - 1, None], dtype=pl.UInt32),
    "uint64": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
    "float32": pl.Series([1.5, None], dtype=pl.Float32),
    "float64": pl.Series([float("nan"), float("-inf")], dtype=pl.Float64),
    "string": pl.Series(["é\n\x00\"',", ""], dtype=pl.String),
    "enum": pl.Series(["JFK", None], dtype=pl.Enum(["LGA", "JFK"])),
    "categorical": pl.Series(["x", None], dtype=pl.Categorical),
    "boolean": pl.Series([True, None], dtype=pl.Boolean),
    "binary": pl.Series([b"\x00\xff", None], dtype=pl.Binary),
    "decimal": pl.Series([Decimal("1.25"), None], dtype=pl.Decimal(10, 2)),
    "date": pl.Series([date(1, 1, 1), None], dtype=pl.Date),
    "time": pl.Series([time(23, 59, 59, 999999), None], dtype=pl.Time),
    "duration": pl.Series([timedelta(days=-1), None], dtype=pl.Duration("us")),
    "utc": pl.Series([NOON, None], dtype=pl.Datetime("us", "UTC")),
    "utc ms": pl.Series([NOON, None], dtype=pl.Datetime("ms", "UTC")),
    "utc ns": pl.Series([1, None], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
    "zoned": pl.Series([NOON, None], dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone("America/New_York"),
    "wall clock": pl.Series([NOON.replace(tzinfo=None), None], dtype=pl.Datetime("us")),
    "list": pl.Series([["a", None], []], dtype=pl.List(pl.Enum(["a"]))),
    "array": pl.Series([[1, 2], None], dtype=pl.Array(pl.Int64, 2)),
    "struct": pl.Series([{"x": 1, "y": "a"}, {"x": None, "y": None}], dtype=pl.Struct({"x": pl.Int64, "y": pl.String})),
}
"""Two values of each type that a contract may declare: its limits, nulls, and what a format may confuse."""


class SeveralBatches:
    """What a table does with a commit that brings more than one batch; part of `TablesSuite`."""

    def test_one_commit_may_bring_several_batches(self, tables: Tables) -> None:
        """Rows that say their batch keep it; each batch can be read by itself, and the last one is the table's."""
        append(tables, ROWS, 1)
        several = pl.concat(ROWS.with_columns(pl.lit(n, dtype=pl.Int64).alias(BATCH)) for n in (2, 4))
        staged = tables.stage("Flight", several.lazy(), 5)
        assert (staged.rows, dict(staged.types)) == (4, dict(ROWS.schema))
        head = tables.head("Flight")
        tables.append("Flight", staged, 5, {"a": 2, "b": 4, "c": 5}, expect=head)
        assert (tables.head("Flight").batch, tables.head("Flight").version) == (5, head.version + 1)
        assert [scan(tables, batch).height for batch in range(6)] == [0, 2, 4, 4, 6, 6]
        assert [tables.position("Flight", key) for key in "abc"] == [2, 4, 5]
        tables.delete("Flight", pl.col(BATCH) > 3, SCHEMA, 3, expect=tables.head("Flight"))
        assert scan(tables, 9)[BATCH].unique().sort().to_list() == [1, 2]
        tables.append("Flight", several.with_columns(pl.col(BATCH) + 5), 9, {}, expect=tables.head("Flight"))
        assert (tables.head("Flight").batch, scan(tables, 8).height) == (9, 6)


class TablesSuite(SeveralBatches):
    """The behaviour of a store of tables."""

    @pytest.fixture
    def tables(self) -> Tables:
        """The store under test, empty."""
        raise NotImplementedError

    def test_an_absent_table_is_empty(self, tables: Tables) -> None:
        """It can be asked about and scanned."""
        assert tables.head("Flight") == ABSENT
        assert tables.position("Flight", "file") is None
        scanned = tables.scan("Flight", 9, SCHEMA).collect()
        assert scanned.schema == pl.Schema(SCHEMA)
        assert scanned.is_empty()

    def test_what_is_appended_is_scanned(self, tables: Tables) -> None:
        """With its batch, up to the batch that is asked for, and only the columns that are asked for."""
        append(tables, ROWS, 1)
        append(tables, ROWS, 2, {"file": 7})
        assert scan(tables, 1).rows() == [("a", 1, 1), ("b", 2, 1)]
        assert scan(tables, 2).rows() == [("a", 1, 1), ("a", 1, 2), ("b", 2, 1), ("b", 2, 2)]
        assert tables.scan("Flight", 1, {"value": pl.Int64()}).collect().columns == ["value"]
        assert tables.head("Flight").batch == 2
        assert tables.head("Other") == ABSENT

    @pytest.mark.parametrize("series", TYPES.values(), ids=TYPES)
    def test_every_type_comes_back_as_it_was(self, tables: Tables, series: pl.Series) -> None:
        """Its values, and its Polars type."""
        frame = pl.DataFrame({"n": [0, 1], "x": series})
        append(tables, frame, 1)
        append(tables, frame, 2)
        for batch in (1, 2):
            scanned = tables.scan("Flight", 2, {**frame.schema, BATCH: pl.Int64()}).filter(pl.col(BATCH) == batch)
            assert_frame_equal(scanned.sort("n").drop(BATCH).collect(), frame)

    def test_a_batch_without_rows_still_counts(self, tables: Tables) -> None:
        """It moves the last batch, and commits its positions: also as the first."""
        append(tables, ROWS.clear(), 1, {"first": 1})
        append(tables, ROWS.clear(), 2, {"second": 2})
        assert tables.head("Flight").batch == 2
        assert [tables.position("Flight", key) for key in ("first", "second", "third")] == [1, 2, None]
        assert scan(tables, 2).is_empty()

    def test_positions_are_kept_and_told_apart(self, tables: Tables) -> None:
        """By the whole key, in each table alone; an odd key is as good as any."""
        odd = "flights|päth with 'quotes'/*.csv|" + "f" * 64
        append(tables, ROWS, 1, {"a|b": 1, odd: 2**40})
        append(tables, ROWS, 2)
        append(tables, ROWS, 1, table="Weather")
        assert [tables.position("Flight", key) for key in ("a|b", odd, "a", "")] == [1, 2**40, None, None]
        assert tables.position("Weather", "a|b") is None

    def test_a_stale_append_is_refused_whole(self, tables: Tables) -> None:
        """Whoever decided on an earlier head writes nothing: neither rows nor positions."""
        old = tables.head("Flight")
        append(tables, ROWS, 1)
        for stale in (old, Head(1, old.version), Head(0, tables.head("Flight").version - 1)):
            with pytest.raises(RetryableError, match="same time") as refused:
                tables.append("Flight", ROWS, 2, {"file": 2}, expect=stale)
            assert refused.value.code == "concurrent-ingest"
        assert tables.head("Flight").batch == 1
        assert tables.position("Flight", "file") is None
        assert scan(tables, 9).height == 2

    def test_an_empty_append_makes_others_stale(self, tables: Tables) -> None:
        """Also when it moves no batch: so a writer can make sure that nobody is under way."""
        append(tables, ROWS, 1)
        other = tables.head("Flight")
        append(tables, ROWS.clear(), 1)
        with pytest.raises(RetryableError):
            tables.append("Flight", ROWS, 2, {}, expect=other)
        assert tables.head("Flight").batch == 1

    def test_of_many_writers_one_wins(self, tables: Tables) -> None:
        """Each batch is written once, however many try at once."""
        for batch in range(1, 4):
            head = tables.head("Flight")

            def write(n: int, batch: int = batch, head: Head = head) -> bool:
                try:
                    tables.append("Flight", ROWS, batch, {f"{batch}/{n}": batch}, expect=head)
                except RetryableError:
                    return False
                return True

            with ThreadPoolExecutor(4) as pool:
                won = list(pool.map(write, range(4)))
            assert won.count(True) == 1
            assert [tables.position("Flight", f"{batch}/{n}") is not None for n in range(4)] == won
        assert scan(tables, 9)[BATCH].to_list() == [1, 2, 3, 1, 2, 3]

    def test_later_batches_can_be_dropped(self, tables: Tables) -> None:
        """Their rows are gone, the last batch is the one before, and the next takes their number."""
        for batch in (1, 2, 3):
            append(tables, ROWS, batch)
        tables.delete("Flight", pl.col(BATCH) > 1, SCHEMA, 1, expect=tables.head("Flight"))
        assert tables.head("Flight").batch == 1
        assert scan(tables, 9).rows() == [("a", 1, 1), ("b", 2, 1)]
        append(tables, ROWS.head(1), 2)
        assert scan(tables, 9).rows() == [("a", 1, 1), ("a", 1, 2), ("b", 2, 1)]

    def test_dropping_batches_without_rows_moves_the_last_batch(self, tables: Tables) -> None:
        """There is nothing to delete, and still something to say."""
        append(tables, ROWS, 1)
        append(tables, ROWS.clear(), 2)
        tables.delete("Flight", pl.col(BATCH) > 1, SCHEMA, 1, expect=tables.head("Flight"))
        assert tables.head("Flight").batch == 1
        assert scan(tables, 9).height == 2

    def test_a_stale_drop_is_refused(self, tables: Tables) -> None:
        """What came in between is not dropped with the rest."""
        append(tables, ROWS, 1)
        old = tables.head("Flight")
        append(tables, ROWS, 2)
        with pytest.raises(RetryableError):
            tables.delete("Flight", pl.col(BATCH) > 0, SCHEMA, 0, expect=old)
        assert scan(tables, 9).height == 4

    def test_what_is_staged_is_seen_when_it_is_appended(self, tables: Tables) -> None:
        """Not before; under the batch that it was staged for; and a stale append of it changes nothing."""
        append(tables, ROWS, 1)
        old = tables.head("Flight")
        staged = tables.stage("Flight", ROWS.lazy().filter(pl.col("value") > 1), 2)
        assert (staged.rows, dict(staged.types)) == (1, dict(ROWS.schema))
        assert (tables.head("Flight"), scan(tables, 9).height) == (old, 2)
        append(tables, ROWS.clear(), 1)
        with pytest.raises(RetryableError):
            tables.append("Flight", staged, 2, {}, expect=old)
        tables.append("Flight", staged, 2, {"file": 2}, expect=tables.head("Flight"))
        assert scan(tables, 9).rows() == [("a", 1, 1), ("b", 2, 1), ("b", 2, 2)]

    def test_rows_are_deleted_from_every_batch(self, tables: Tables) -> None:
        """Those that are meant, by any expression; null means no; head, positions and other rows stay."""
        for batch in (1, 2):
            append(tables, ROWS, batch, {f"file {batch}": batch})
        append(tables, ROWS.tail(1).with_columns(value=pl.lit(None, dtype=pl.Int64), more=pl.lit("x")), 3)
        schema = {**SCHEMA, "more": pl.String()}
        deleted = tables.delete("Flight", pl.col("value") == 1, schema, 3, expect=tables.head("Flight"))
        assert (deleted.rows, deleted.files) == (2, 2)
        assert scan(tables, 9).sort(BATCH).rows() == [("b", 2, 1), ("b", 2, 2), ("b", None, 3)]
        assert tables.delete("Flight", pl.col("more") == "x", schema, 3, expect=tables.head("Flight")).rows == 1
        assert tables.head("Flight").batch == 3
        assert tables.position("Flight", "file 2") == 2
        nothing = tables.delete("Flight", pl.col("value") == 7, SCHEMA, 3, expect=tables.head("Flight"))
        assert (nothing.rows, nothing.files, nothing.rewritten) == (0, 0, 0)

    def test_compaction_changes_nothing_that_can_be_read(self, tables: Tables) -> None:
        """Rows, batches, positions and types are as they were; staged rows that nobody appended may be gone."""
        for batch in range(1, 6):
            append(tables, ROWS, batch, {f"file {batch}": batch})
        append(tables, ROWS.with_columns(more=pl.lit(1.5)), 6)
        tables.stage("Flight", ROWS.lazy(), 7)
        tables.delete("Flight", pl.col("value") == 1, SCHEMA, 6, expect=tables.head("Flight"))
        before = [scan(tables, batch) for batch in range(7)]
        compacted = tables.compact("Flight")
        assert compacted.files_after == 1 < compacted.files_before
        for batch, rows in enumerate(before):
            assert_frame_equal(scan(tables, batch), rows)
        assert tables.head("Flight").batch == 6
        assert [tables.position("Flight", f"file {batch}") for batch in range(1, 6)] == [1, 2, 3, 4, 5]
        assert tables.scan("Flight", 6, {"more": pl.Float64()}).collect()["more"].to_list().count(1.5) == 1
        append(tables, ROWS, 7)
        assert scan(tables, 9).height == 8
        assert tables.compact("Other").files_after == 0

    def test_a_new_column_is_null_before(self, tables: Tables) -> None:
        """And a column that is no longer written is null after."""
        append(tables, ROWS, 1)
        append(tables, ROWS.drop("value").with_columns(more=pl.lit(1.5)), 2)
        both = tables.scan("Flight", 2, {**SCHEMA, "more": pl.Float64()}).sort(BATCH, "key").collect()
        assert both["value"].to_list() == [1, 2, None, None]
        assert both["more"].to_list() == [None, None, 1.5, 1.5]
        never = tables.scan("Flight", 2, {"never": pl.Enum(["x"])}).collect()
        assert never.schema == {"never": pl.Enum(["x"])}
        assert never["never"].null_count() == 4

    def test_other_categories_are_no_other_type(self, tables: Tables) -> None:
        """What an Enum may say is the contract's to widen."""
        append(tables, ROWS.cast({"key": pl.Enum(["a", "b"])}), 1)
        wider = pl.Enum(["c", "b", "a"])
        append(tables, ROWS.cast({"key": wider}), 2)
        assert tables.scan("Flight", 2, {"key": wider}).collect()["key"].sort().to_list() == ["b", "b", "a", "a"]

    def test_a_column_of_another_type_is_refused(self, tables: Tables) -> None:
        """On writing, before anything is written, and on reading."""
        append(tables, ROWS, 1)
        with pytest.raises(StateError) as refused:
            append(tables, ROWS.cast({"value": pl.String}), 2)
        assert refused.value.code == "table-of-other-types"
        with pytest.raises(StateError) as refused:
            tables.scan("Flight", 1, {"value": pl.Boolean()}).collect()
        assert refused.value.code == "table-of-other-types"
        assert scan(tables, 9).height == 2


def append(
    tables: Tables, frame: pl.DataFrame, batch: int, positions: dict[str, int] | None = None, table: str = "Flight"
) -> None:
    """Append on the present head."""
    tables.append(table, frame, batch, positions or {}, expect=tables.head(table))


def scan(tables: Tables, batch: int) -> pl.DataFrame:
    """The rows of `Flight`, in a fixed order."""
    return tables.scan("Flight", batch, SCHEMA).sort("key", "value", BATCH).collect()
