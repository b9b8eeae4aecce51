"""Tables as Delta Lake folders: `home/tables/NAME`.

The last batch and every source position are Delta `txn` actions, which checkpoints keep and log clean-up never drops
(commit metadata it would). A write is made on the handle of the very Delta version that the writer decided upon, without
retries, so whatever was committed in between refuses it.

Delta has fewer types than Polars: a column is stored as its nearest type that loses nothing, and cast back when scanned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError
from polars._typing import PolarsDataType

from flyball._kernel.errors import AdapterError, Bug, RetryableError, StateError
from flyball.data.tables import ABSENT, BATCH, Head

_LAST = "flyball/batch"
"""The app id of the txn action whose version is the table's last batch."""

_STORED: Mapping[type[pl.DataType], pl.DataType] = {
    pl.Enum: pl.String(),
    pl.Categorical: pl.String(),
    pl.UInt8: pl.Int16(),
    pl.UInt16: pl.Int32(),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Decimal(20, 0),
    pl.Time: pl.Int64(),
    pl.Duration: pl.Int64(),
}
_AS_THEY_ARE = (
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Float32, pl.Float64),
    *(pl.String, pl.Binary, pl.Boolean, pl.Date, pl.Decimal),
)


class DeltaTables:
    """`Tables` in one folder of a local file system.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def head(self, table: str) -> Head:
        """The end of the table as of now; see `tables.Tables`."""
        delta = self._delta(table)
        return ABSENT if delta is None else Head(delta.transaction_version(_LAST) or 0, delta.version())

    def append(
        self, table: str, frame: pl.DataFrame, batch: int, positions: Mapping[str, int], *, expect: Head
    ) -> None:
        """Commit `frame` and `positions` in one transaction; see `tables.Tables`."""
        delta = self._delta(table, expect)
        if delta is not None:
            _same_types(table, _types(delta), {name: stored(dtype) for name, dtype in frame.schema.items()})
        # System columns first: Delta keeps the statistics that prune files for the first 32 columns alone.
        rows = frame.select(pl.lit(batch, dtype=pl.Int64).alias(BATCH), pl.all().exclude(BATCH))
        rows = rows.with_columns(_storing(name, dtype) for name, dtype in rows.schema.items())
        commit = _commit({_LAST: batch, **positions})
        try:
            if delta is None:
                self._path(table).mkdir(parents=True, exist_ok=True)
                write_deltalake(self._path(table), rows, mode="error", commit_properties=commit)
            else:
                write_deltalake(delta, rows, mode="append", schema_mode="merge", commit_properties=commit)
        except (DeltaError, OSError) as problem:
            raise self._refused(table, expect, problem) from problem
        _to_disk(self._path(table), expect.version + 1)

    def drop_after(self, table: str, batch: int, *, expect: Head) -> None:
        """Delete the rows of later batches; see `tables.Tables`."""
        delta = self._delta(table, expect)
        if delta is None:
            return
        try:
            delta.delete(f"{BATCH} > {int(batch)}", commit_properties=_commit({_LAST: batch}))
        except (DeltaError, OSError) as problem:
            raise self._refused(table, expect, problem) from problem
        if delta.version() == expect.version:  # Delta commits nothing when no row matched
            empty = self.scan(table, 0, _types(delta)).drop(BATCH).collect()
            self.append(table, empty, batch, {}, expect=expect)
        else:
            _to_disk(self._path(table), delta.version())

    def position(self, table: str, key: str) -> int | None:
        """The number that was committed under `key`; see `tables.Tables`."""
        delta = self._delta(table)
        return None if delta is None else delta.transaction_version(key)

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The rows of batches up to `batch`; see `tables.Tables`."""
        delta = self._delta(table)
        if delta is None:
            return pl.LazyFrame(schema=schema)
        types = _types(delta)
        _same_types(table, types, {name: stored(dtype) for name, dtype in schema.items()})
        lost = next((file for file in delta.file_uris() if not Path(file).is_file()), None)
        if lost is not None:
            raise _unreadable(table, f"its file {Path(lost).name} is missing")
        rows = pl.scan_delta(delta).filter(pl.col(BATCH) <= batch)
        columns = (_loading(n, t) if n in types else pl.lit(None, dtype=t).alias(n) for n, t in schema.items())
        return rows.with_columns(columns).select(list(schema))

    def _path(self, table: str) -> Path:
        if not table.isidentifier():
            raise Bug("bad-table-name", f"{table!r} is no table name.", why="A table is named as its contract.")
        return self._root / table

    def _delta(self, table: str, expect: Head | None = None) -> DeltaTable | None:
        """The table as of now, or as of a head that must still be its end."""
        path = self._path(table)
        log = path / "_delta_log"
        if not (log.is_dir() and any(f.suffix in (".json", ".parquet") for f in log.iterdir())):
            delta = None
        else:
            try:
                delta = DeltaTable(path)
            except (DeltaError, OSError, ValueError) as problem:
                raise _unreadable(table, str(problem).partition("\n")[0]) from problem
        if expect is not None and expect.version != (delta.version() if delta is not None else ABSENT.version):
            raise _moved_on(table, expect)
        return delta

    def _refused(self, table: str, expect: Head, problem: Exception) -> AdapterError:
        """A failed commit: somebody else's came first, or the disk failed."""
        if self.head(table) != expect:
            return _moved_on(table, expect)
        return AdapterError(
            "table-not-written",
            f"The table {table} cannot be written: {problem}",
            why="Delta Lake refused the commit; nothing was written.",
            next=f"See that {self._path(table)} can be written to and has space, then run it again.",
        )


def stored(dtype: pl.DataType) -> pl.DataType:
    """The type under which a column of type `dtype` lies in Delta.

    Raises:
        AdapterError: `type-not-storable`.
    """
    match dtype:
        case pl.Datetime(time_unit="ns"):
            return pl.Int64()
        case pl.Datetime(time_zone=zone):
            return pl.Datetime("us", "UTC" if zone else None)
        case pl.List(inner=inner) | pl.Array(inner=inner):
            return pl.List(stored(_instance(inner)))
        case pl.Struct(fields=fields):
            return pl.Struct({f.name: stored(_instance(f.dtype)) for f in fields})
    if isinstance(dtype, _AS_THEY_ARE):
        return dtype
    try:
        return _STORED[type(dtype)]
    except KeyError:
        raise AdapterError(
            "type-not-storable",
            f"Delta Lake has no type that holds {dtype} without loss.",
            next="Declare another type in the contract, such as dy.String, and convert in the preparation.",
        ) from None


def _instance(dtype: PolarsDataType) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype


def _storing(name: str, dtype: pl.DataType) -> pl.Expr:
    to = stored(dtype)
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and isinstance(to, pl.Datetime) and dtype.time_zone:
        return column.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    return column if to == dtype else column.cast(to)


def _loading(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone and dtype.time_unit != "ns":
        return column.dt.cast_time_unit(dtype.time_unit).dt.convert_time_zone(dtype.time_zone)
    return column if stored(dtype) == dtype else column.cast(dtype)


def _types(delta: DeltaTable) -> dict[str, pl.DataType]:
    return dict(pl.scan_delta(delta).collect_schema())


def _commit(transactions: Mapping[str, int]) -> CommitProperties:
    # Without retries: Delta would otherwise rebase an append onto commits that the writer has not seen.
    return CommitProperties(app_transactions=[Transaction(k, v) for k, v in transactions.items()], max_commit_retries=0)


def _to_disk(path: Path, version: int) -> None:
    """Have the operating system write one commit through: facts are synced, and must not outlive what they speak of."""
    entry = path / "_delta_log" / f"{version:020}.json"
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    files = [path / action["add"]["path"] for action in actions if "add" in action]
    for each in (*files, entry, entry.parent, path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _moved_on(table: str, expect: Head) -> RetryableError:
    return RetryableError(
        "concurrent-ingest",
        f"Another process wrote to the table {table} at the same time.",
        why=f"This write was decided at batch {expect.batch}, and the table has changed since; nothing was written.",
        next="Run it again.",
    )


def _unreadable(table: str, why: str) -> AdapterError:
    return AdapterError(
        "table-unreadable",
        f"The table {table} cannot be read: {why}.",
        why="Its folder is not, or no longer, the Delta table that was written there.",
        next="Restore it from a backup.",
    )


def _same_types(table: str, have: Mapping[str, pl.DataType], want: Mapping[str, pl.DataType]) -> None:
    for name in have.keys() & want.keys():
        if have[name] != want[name]:
            raise StateError(
                "table-of-other-types",
                f"The column {name!r} of the table {table} is stored as {have[name]}, and not as {want[name]}.",
                why="A contract changed a column's type after rows were stored.",
                next="Give the column a new name, or ingest into a new home.",
            )
