"""Tables as Delta Lake folders: `home/tables/NAME`.

The last batch and every source position are Delta `txn` actions, which checkpoints keep and log clean-up never drops
(commit metadata it would). A write is made on the handle of the very Delta version that the writer decided upon, without
retries, so whatever was committed in between refuses it.

Delta has fewer types than Polars: a column is stored as its nearest type that loses nothing, and cast back when scanned.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
from deltalake.exceptions import DeltaError
from polars._typing import PolarsDataType

from flyball._kernel.errors import AdapterError, Bug, RetryableError, StateError
from flyball.adapters.embedded import delta_files
from flyball.adapters.embedded.delta_files import Part, State
from flyball.data.tables import ABSENT, BATCH, Compacted, Deleted, Head, Staged

_MANY = 64
"""Small files of a table before they are joined."""

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
        self._known: dict[str, State] = {}
        self._lock = threading.RLock()

    def head(self, table: str) -> Head:
        """The end of the table as of now; see `tables.Tables`."""
        now = self._state(table)
        return ABSENT if now is None else Head(now.batch, now.version)

    def stage(self, table: str, rows: pl.LazyFrame, batch: int) -> Staged:
        """Write the rows of a batch-to-be beside the table; see `tables.Tables`."""
        types = dict(rows.collect_schema())
        several = types.pop(BATCH, None) is not None
        of = pl.col(BATCH) if several else pl.lit(batch, dtype=pl.Int64).alias(BATCH)
        kept = rows.select(of, *(_storing(n, t) for n, t in types.items()))
        try:
            parts = delta_files.write(self._path(table), kept, None if several else batch)
        except OSError as problem:
            raise self._not_written(table, problem) from problem
        return Staged(sum(part.rows for part in parts), types, tuple(parts))

    def append(
        self, table: str, rows: pl.DataFrame | Staged, batch: int, positions: Mapping[str, int], *, expect: Head
    ) -> None:
        """Commit `rows` and `positions` in one transaction; see `tables.Tables`."""
        types = rows.schema if isinstance(rows, pl.DataFrame) else rows.types
        kept = {BATCH: pl.Int64(), **{name: stored(dtype) for name, dtype in types.items()}}
        with self._decided(table, expect) as now:
            if now is not None:
                _same_types(table, now.types, kept)
            staged = rows if isinstance(rows, Staged) else self.stage(table, rows.lazy(), batch)
            parts = [part for part in staged.parts if isinstance(part, Part)]
            delta_files.commit(self._path(table), now, kept, parts, {delta_files.LAST: batch, **positions})
        self._join(table)

    def delete(
        self, table: str, rows: pl.Expr, schema: Mapping[str, pl.DataType], batch: int, *, expect: Head
    ) -> Deleted:
        """Write anew the files that hold such rows, without them; see `tables.Tables`."""
        chosen, path = rows.fill_null(value=False), self._path(table)
        gone, old, new = 0, [], []
        with self._decided(table, expect) as now:
            for part in now.files if now is not None else ():
                lies = pl.scan_parquet(path / part.path, glob=False)
                loaded = _loaded(lies, schema)
                hits = loaded.select(chosen.sum()).collect(engine="streaming").item()
                if hits:
                    # Masked by position: the file keeps its columns, those that nobody declares any more included.
                    mask = loaded.select(chosen.alias("chosen")).collect(engine="streaming")["chosen"]
                    new += delta_files.write(path, lies.filter(~mask), None)
                    old.append(part)
                    gone += hits
            if now is not None:
                delta_files.commit(path, now, now.types, new, {delta_files.LAST: batch}, old)
        return Deleted(rows=gone, files=len(old), rewritten=sum(part.size for part in new))

    def compact(self, table: str) -> Compacted:
        """Join small files, then vacuum files and log; see `tables.Tables`."""
        path, before = self._path(table), self._state(table)
        if before is None:
            return Compacted(files_before=0, files_after=0, bytes_before=0, bytes_after=0)
        size = delta_files.size(path)
        for step in (delta_files.join, delta_files.vacuum):
            with self._decided(table, self.head(table)) as now:
                if now is not None:
                    step(path, now)
        after = self._state(table)
        return Compacted(
            files_before=len(before.files),
            files_after=len(after.files) if after is not None else 0,
            bytes_before=size,
            bytes_after=delta_files.size(path),
        )

    def position(self, table: str, key: str) -> int | None:
        """The number that was committed under `key`; see `tables.Tables`."""
        now = self._state(table)
        return None if now is None else now.delta.transaction_version(key)

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The rows of batches up to `batch`; see `tables.Tables`."""
        now, path = self._state(table), self._path(table)
        if now is None:
            return pl.LazyFrame(schema=schema)
        _same_types(table, now.types, {name: stored(dtype) for name, dtype in schema.items()})
        # By what the log says of their batches, most files are taken whole or not at all.
        whole = [part for part in now.files if part.batches is not None and part.batches[1] <= batch]
        some = [part for part in now.files if part.batches is None or part.batches[0] <= batch < part.batches[1]]
        lost = next((part for part in (*whole, *some) if not (path / part.path).is_file()), None)
        if lost is not None:
            raise _unreadable(table, f"its file {lost.path} is missing")
        frames = [_of(path, whole, now.types)] if whole else []
        frames += [_of(path, some, now.types).filter(pl.col(BATCH) <= batch)] if some else []
        rows = pl.concat(frames) if frames else pl.LazyFrame(schema=now.types)
        return _loaded(rows, schema)

    def _path(self, table: str) -> Path:
        if not table.isidentifier():
            raise Bug("bad-table-name", f"{table!r} is no table name.", why="A table is named as its contract.")
        return self._root / table

    def _state(self, table: str) -> State | None:
        """The table as of now."""
        path = self._path(table)
        with self._lock:
            try:
                now = delta_files.state(path, self._known.get(table))
            except (DeltaError, OSError, ValueError) as problem:
                raise _unreadable(table, str(problem).partition("\n")[0]) from problem
            if now is not None:
                self._known[table] = now
            else:
                self._known.pop(table, None)
            return now

    @contextmanager
    def _decided(self, table: str, expect: Head) -> Iterator[State | None]:
        """The table at a head that must still be its end, to commit to: by nobody else of this process meanwhile."""
        with self._lock:
            now = self._state(table)
            if expect.version != (now.version if now is not None else ABSENT.version):
                raise _moved_on(table, expect)
            try:
                yield now
            except (DeltaError, OSError) as problem:
                raise self._refused(table, expect, problem) from problem

    def _join(self, table: str) -> None:
        """Join the small files that many small batches leave behind; another time, if somebody else writes just now."""
        with suppress(AdapterError), self._lock:
            now = self._state(table)
            if now is not None and len(delta_files.small(now)) >= _MANY:
                with self._decided(table, Head(now.batch, now.version)):
                    delta_files.join(self._path(table), now)

    def _refused(self, table: str, expect: Head, problem: Exception) -> AdapterError:
        """A failed commit: somebody else's came first, or the disk failed."""
        if self.head(table) != expect:
            return _moved_on(table, expect)
        return self._not_written(table, problem)

    def _not_written(self, table: str, problem: Exception) -> AdapterError:
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


def _of(path: Path, parts: Sequence[Part], types: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """The rows of some files, with all columns of the table: those that are younger than a file are null in it."""
    files = [path / part.path for part in parts]
    return pl.scan_parquet(files, schema=types, missing_columns="insert", glob=False)


def _loaded(rows: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """The columns of `schema`, of rows as they lie; null where there is none."""
    there = set(rows.collect_schema())
    columns = (_loading(n, t) if n in there else pl.lit(None, dtype=t).alias(n) for n, t in schema.items())
    return rows.with_columns(columns).select(list(schema))


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
