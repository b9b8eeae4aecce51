"""The files of a Delta table, and the commits that name them: what `tables` is made of.

Rows are written by Polars, streaming, into Parquet files of at most a million rows, so that erasing one row rewrites one
such file; a commit then names files that lie there already. Their log entries carry no minimum or maximum but that of
`_batch`: Delta's statistics would copy values of rows into a log that outlives the rows.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from flyball._kernel.clock import micros
from flyball.adapters.embedded import disk
from flyball.adapters.embedded.clock import SystemClock
from flyball.data.tables import BATCH

_CLOCK = SystemClock()
"""Dates the entries of the log: in real time, for whoever cleans up; nothing is decided by it."""
_ROWS = 1_000_000
"""Rows of a file at most."""
_SMALL = _ROWS // 4
"""Files of fewer rows are joined by a compaction."""

LAST = "flyball/batch"
"""The app id of the txn action whose version is the table's last batch."""
_BOUNDS = (f"min.{BATCH}", f"max.{BATCH}")
_OURS = re.compile(r"(?:[\w=-]+/)*[\w=-][\w.=-]*\.parquet")
"""A file beside the log or below: no way up, no other place, no pattern."""


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file: its path in the table's folder, rows, bytes, and the least and greatest batch in it (None: no rows)."""

    path: str
    rows: int
    size: int
    batches: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class State:
    """A table at one version, read once; nothing of it changes but what `delta` has been told since.

    Attributes:
        delta: the handle that was at this version; only whoever holds the lock of its owner may commit to it.
        batch: the last one.
        identity: tells the folder of the log from another of the same name.
        types: the columns as they lie.
        files: what rows lie in.
    """

    delta: DeltaTable
    version: int
    batch: int
    identity: tuple[int, int]
    types: Mapping[str, pl.DataType]
    files: tuple[Part, ...]


def state(folder: Path, known: State | None) -> State | None:
    """The table as it is now, None where there is none: `known`, as long as no later commit lies beside it.

    Raises:
        ValueError: the log names a file that is none of the table's.
    """
    log = folder / "_delta_log"
    try:
        found = log.stat()
    except FileNotFoundError:
        return None
    identity = (found.st_dev, found.st_ino)
    if known is not None and known.identity == identity and _entry(folder, known.version).exists():
        if not _entry(folder, known.version + 1).exists():
            return known
        known.delta.update_incremental()
        return _state(known.delta, identity)
    if not any(file.suffix in (".json", ".parquet") for file in log.iterdir()):
        return None
    return _state(DeltaTable(folder), identity)


def _state(delta: DeltaTable, identity: tuple[int, int]) -> State:
    actions = pl.DataFrame(delta.get_add_actions(flatten=True))
    bounds = [name if name in actions.columns else pl.lit(None, dtype=pl.Int64).alias(name) for name in _BOUNDS]
    files = []
    for path, rows, size, least, greatest in actions.select("path", "num_records", "size_bytes", *bounds).rows():
        if not _OURS.fullmatch(path):
            raise ValueError("its log names a file that is none of its own")
        files.append(Part(path, rows or 0, size, (least, greatest) if least is not None else None))
    batch = delta.transaction_version(LAST) or 0
    return State(delta, delta.version(), batch, identity, dict(pl.scan_delta(delta).collect_schema()), tuple(files))


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
    disk.sync(to, folder, folder.parent)
    return parts


def commit(
    folder: Path,
    now: State | None,
    types: Mapping[str, pl.DataType],
    parts: Iterable[Part],
    transactions: Mapping[str, int],
    removed: Iterable[Part] = (),
) -> None:
    """Add and remove files in one transaction, on the very state that was decided upon; None: the table is made."""
    at = micros(_CLOCK.now()) // 1000
    adds: list[AddAction | RemoveAction] = [_add(part, at) for part in parts]
    removes = [RemoveAction(part.path, data_change=True, deletion_timestamp=at) for part in removed]
    # Without retries: Delta would otherwise rebase an append onto commits that the writer has not seen.
    said = CommitProperties(
        app_transactions=[Transaction(key, value) for key, value in transactions.items()], max_commit_retries=0
    )
    if now is None:
        folder.mkdir(parents=True, exist_ok=True)
        create_table_with_add_actions(
            str(folder), _schema(types), [a for a in adds if isinstance(a, AddAction)], commit_properties=said
        )
        version = 0
    else:
        version = now.version + 1
        if added := [field for field in _schema(types).fields if field.name not in now.types]:
            now.delta.alter.add_columns(added, commit_properties=CommitProperties(max_commit_retries=0))
            _sync_commit(folder, version)
            version += 1
        now.delta.create_write_transaction([*adds, *removes], "append", now.delta.schema(), commit_properties=said)
    _sync_commit(folder, version)


def size(folder: Path) -> int:
    """Bytes of all that lies in a table's folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def small(now: State) -> list[Part]:
    """The files that a compaction would join."""
    return [part for part in now.files if part.rows < _SMALL]


def join(folder: Path, now: State) -> None:
    """Write the rows of small files into fewer; the old ones stay on the disk until `vacuum`, for whoever reads them now."""
    parts = small(now)
    if len(parts) > 1:
        whole = [_as(pl.scan_parquet(folder / part.path, glob=False), now.types) for part in parts]
        commit(folder, now, now.types, write(folder, pl.concat(whole), None), {}, parts)


def vacuum(folder: Path, now: State) -> None:
    """Remove what the table as it is does not need: files that no row lies in, and log entries before a new checkpoint.

    What was staged before the commit below is refused by it; what is staged later is not among the files that were listed.
    """
    needed = {part.path for part in now.files}
    idle = [
        file for file in folder.rglob("*") if file.is_file() and not file.relative_to(folder).parts[0].startswith("_")
    ]
    # The last entry must not be one that tells of removed files, for it stays beside the checkpoint.
    commit(folder, now, now.types, [], {})
    now.delta.update_incremental()
    now.delta.create_checkpoint()
    disk.sync(*(folder / "_delta_log").iterdir(), folder / "_delta_log")
    for file in sorted((folder / "_delta_log").iterdir()):
        number = file.name.partition(".")[0]
        if number.isdigit() and int(number) < now.delta.version():
            file.unlink()
    for file in idle:
        if str(file.relative_to(folder)) not in needed:
            file.unlink()
            if file.parent != folder and not any(file.parent.iterdir()):
                file.parent.rmdir()
    disk.sync(folder / "_delta_log", folder)


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


def _schema(types: Mapping[str, pl.DataType]) -> Schema:
    return Schema.from_arrow(pl.Schema(types))


def _entry(folder: Path, version: int) -> Path:
    return folder / "_delta_log" / f"{version:020}.json"


def _sync_commit(folder: Path, version: int) -> None:
    """Have the operating system write one commit through: facts are synced, and must not outlive what they speak of."""
    entry = _entry(folder, version)
    disk.sync(entry, entry.parent, folder, folder.parent)
