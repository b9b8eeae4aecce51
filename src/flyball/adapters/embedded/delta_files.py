"""The files of a Delta table, and the commits that name them: what `tables` is made of.

Rows are written by Polars, streaming, into Parquet files of at most a million rows, so that erasing one row rewrites one
such file; a commit then names files that lie there already. Their log entries carry no minimum or maximum but that of
`_batch`: Delta's statistics would copy values of rows into a log that outlives the rows.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from flyball._kernel.clock import micros
from flyball.adapters.embedded.clock import SystemClock
from flyball.data.tables import BATCH

_CLOCK = SystemClock()
"""Dates the entries of the log: in real time, for whoever cleans up; nothing is decided by it."""
_ROWS = 1_000_000
"""Rows of a file at most."""
_SMALL = _ROWS // 4
"""Files of fewer rows are joined by a compaction."""


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file: its path in the table's folder, rows, bytes, and the least and greatest batch in it (None: no rows)."""

    path: str
    rows: int
    size: int
    batches: tuple[int, int] | None


def write(folder: Path, rows: pl.LazyFrame, batch: int | None) -> list[Part]:
    """Write rows, which have `_batch`, into new files of a table's folder, and have them on the disk.

    Args:
        batch: the batch of all rows; None to look for it in each file.
    """
    name = uuid4().hex
    to = folder / name
    to.mkdir(parents=True)
    by = pl.PartitionBy(to, max_rows_per_file=_ROWS, approximate_bytes_per_file=None)
    try:
        rows.sink_parquet(by, sync_on_close="all")
    except BaseException:
        shutil.rmtree(to, ignore_errors=True)
        raise
    parts = [_part(file, f"{name}/{file.name}", batch) for file in sorted(to.iterdir())]
    if not any(part.rows for part in parts):
        shutil.rmtree(to)
        return []
    _sync(to, folder, folder.parent)
    return parts


def commit(
    folder: Path,
    delta: DeltaTable | None,
    types: Mapping[str, pl.DataType],
    parts: Iterable[Part],
    transactions: Mapping[str, int],
    removed: Iterable[str] = (),
) -> None:
    """Add and remove files in one transaction, on the very state that `delta` was read at; None: the table is made."""
    now = micros(_CLOCK.now()) // 1000
    adds: list[AddAction | RemoveAction] = [_add(part, now) for part in parts]
    removes = [RemoveAction(file, data_change=True, deletion_timestamp=now) for file in removed]
    # Without retries: Delta would otherwise rebase an append onto commits that the writer has not seen.
    said = CommitProperties(
        app_transactions=[Transaction(key, value) for key, value in transactions.items()], max_commit_retries=0
    )
    if delta is None:
        folder.mkdir(parents=True, exist_ok=True)
        create_table_with_add_actions(
            str(folder), _schema(types), [a for a in adds if isinstance(a, AddAction)], commit_properties=said
        )
        version = 0
    else:
        version = delta.version() + 1
        if added := [field for field in _schema(types).fields if field.name not in _names(delta)]:
            delta.alter.add_columns(added, commit_properties=CommitProperties(max_commit_retries=0))
            version += 1
            _sync_commit(folder, version - 1)
        delta.create_write_transaction([*adds, *removes], "append", delta.schema(), commit_properties=said)
    _sync_commit(folder, version)


def live(delta: DeltaTable) -> list[str]:
    """The files of the table as it is, relative to its folder."""
    return [str(path) for path in pl.DataFrame(delta.get_add_actions(flatten=True))["path"]]


def size(folder: Path) -> int:
    """Bytes of all that lies in a table's folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def join(folder: Path, delta: DeltaTable, types: Mapping[str, pl.DataType], transactions: Mapping[str, int]) -> None:
    """Write the rows of small files into fewer."""
    small = [file for file in live(delta) if _rows(folder / file) < _SMALL]
    if len(small) > 1:
        whole = [_as(pl.scan_parquet(folder / file, glob=False), types) for file in small]
        commit(folder, delta, types, write(folder, pl.concat(whole), None), transactions, small)


def vacuum(folder: Path) -> None:
    """Remove what the table as it is does not need: files that no row lies in, and log entries before a new checkpoint."""
    delta = DeltaTable(folder)
    # The last entry must not be one that tells of removed files, for it stays beside the checkpoint.
    commit(folder, delta, _types(delta), [], {})
    delta = DeltaTable(folder)
    delta.create_checkpoint()
    _sync(*(folder / "_delta_log").iterdir(), folder / "_delta_log")
    needed, version = set(live(delta)), delta.version()
    for file in sorted((folder / "_delta_log").iterdir()):
        number = file.name.partition(".")[0]
        if number.isdigit() and int(number) < version:
            file.unlink()
    for each in folder.iterdir():
        if each.name.startswith("_"):
            continue
        for file in each.iterdir() if each.is_dir() else [each]:
            if str(file.relative_to(folder)) not in needed:
                file.unlink()
        if each.is_dir() and not any(each.iterdir()):
            each.rmdir()
    _sync(folder / "_delta_log", folder)


def _part(file: Path, path: str, batch: int | None) -> Part:
    rows = _rows(file)
    found = (batch, batch) if batch is not None else None
    if batch is None and rows:
        column = pl.col(BATCH)
        found = pl.scan_parquet(file, glob=False).select(column.min(), column.max().alias("max")).collect().row(0)
    return Part(path, rows, file.stat().st_size, found)


def _rows(file: Path) -> int:
    return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())


def _add(part: Part, now: int) -> AddAction:
    stats: dict[str, object] = {"numRecords": part.rows}
    if part.batches is not None:
        least, greatest = part.batches
        stats |= {"minValues": {BATCH: least}, "maxValues": {BATCH: greatest}, "nullCount": {BATCH: 0}}
    return AddAction(part.path, part.size, {}, now, True, json.dumps(stats))


def _as(rows: pl.LazyFrame, types: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Rows of an older file with the columns of the table."""
    there = set(rows.collect_schema())
    return rows.select(pl.col(n) if n in there else pl.lit(None, dtype=t).alias(n) for n, t in types.items())


def _types(delta: DeltaTable) -> dict[str, pl.DataType]:
    return dict(pl.scan_delta(delta).collect_schema())


def _schema(types: Mapping[str, pl.DataType]) -> Schema:
    return Schema.from_arrow(pl.Schema(types))


def _names(delta: DeltaTable) -> set[str]:
    return {field.name for field in delta.schema().fields}


def _sync_commit(folder: Path, version: int) -> None:
    """Have the operating system write one commit through: facts are synced, and must not outlive what they speak of."""
    entry = folder / "_delta_log" / f"{version:020}.json"
    _sync(entry, entry.parent, folder, folder.parent)


def _sync(*paths: Path) -> None:
    for each in paths:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
