"""The files of the archive: as a commit names them, written, and named by the next commit.

The log says of each file its day, and the least and the greatest id and segment in it: enough to open one or two files for an
id, and nothing of a question. A file's rows are ordered by their ids, in groups of which only those are read that may hold one.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from flyball._kernel.clock import micros
from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded import delta_files, disk
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal_rows import DAY, SCHEMA

_GROUP: Final = 10_000
"""Rows of a group of a file: the least that is read to find one."""
_CHANGES: Final = "flyball/archive"
"""The app id of the txn action whose version is the number of the last change."""
_TRIES: Final = 4
_CLOCK = SystemClock()
"""Dates the entries of the log, in real time; nothing is decided by it."""
_T = TypeVar("_T")


class File(NamedTuple):
    """One file of the archive; `ids` and `segments` are the least and the greatest in it."""

    path: str
    day: str
    rows: int
    size: int
    ids: tuple[str, str]
    segments: tuple[str, str]


@dataclass(frozen=True, slots=True)
class State:
    """The archive at one commit; `number` is that of its last change."""

    table: delta_files.State | None
    number: int
    files: tuple[File, ...]


class Files:
    """The files of the archive in one folder; of one process at a time, but for reading.

    Args:
        folder: made by the first commit.

    Raises:
        AdapterError: `journal-unreadable`, from every method that reads; `archive-not-written`, from the others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: State | None = None
        self._lock = threading.RLock()

    def size(self) -> int:
        """Bytes of all that lies here, the log included."""
        return delta_files.size(self.folder) if self.state().table is not None else 0

    def state(self) -> State:
        """The archive as of now: as it was last seen, as long as nobody committed since."""
        with self._lock:
            try:
                before = self._known.table if self._known is not None else None
                table = delta_files.state(self.folder, before)
                if self._known is None or table is not before:
                    files = tuple(_named(table)) if table is not None else ()
                    number = table.delta.transaction_version(_CHANGES) or 0 if table is not None else 0
                    self._known = State(table, number, files)
            except (DeltaError, OSError, ValueError) as problem:
                raise self._unreadable(problem) from problem
            return self._known

    def looked(self, look: Callable[[State], _T]) -> _T:
        """What is seen of the files of one commit; again, where they were removed after a later one."""
        for left in range(_TRIES, 0, -1):
            try:
                return look(self.state())
            except (OSError, pl.exceptions.PolarsError) as problem:
                if left == 1:
                    raise self._unreadable(problem) from problem
        raise AssertionError

    def scan(self, files: Sequence[File]) -> pl.LazyFrame:
        """The rows of these files, with the columns of `SCHEMA`; those that are younger than a file are null in it."""
        if not files:
            return pl.LazyFrame(schema=SCHEMA)
        paths = [self.folder / each.path for each in files]
        return pl.scan_parquet(
            paths, schema=dict(SCHEMA), missing_columns="insert", hive_partitioning=False, glob=False
        )

    def counts(self, files: Sequence[File]) -> Counter[str]:
        """Segment -> its answers in these files."""
        rows = self.scan(files).group_by("segment").len().collect(engine="streaming")
        return Counter({str(name): int(n) for name, n in rows.iter_rows()})

    def write(self, day: str, rows: pl.LazyFrame) -> File:
        """Rows in a new file, by their ids, on the disk; it counts from the commit on that names it."""
        folder = self.folder / f"{DAY}={day}"
        path = folder / f"{uuid4().hex}.parquet"
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            rows.sort("id").sink_parquet(path, row_group_size=_GROUP, sync_on_close="all")
            disk.sync(folder, self.folder, self.folder.parent)
            bounds = [pl.col(n).min().alias(f"<{n}") for n in ("id", "segment")]
            bounds += [pl.col(n).max().alias(f">{n}") for n in ("id", "segment")]
            found = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(pl.len(), *bounds).collect()
        except (OSError, pl.exceptions.PolarsError) as problem:
            path.unlink(missing_ok=True)
            raise self._not_written(problem) from problem
        rows_, low, least, high, greatest = found.row(0)
        return File(f"{DAY}={day}/{path.name}", day, rows_, path.stat().st_size, (low, high), (least, greatest))

    def commit(self, now: State, new: Iterable[File], old: Iterable[File], number: int | None) -> None:
        """Name files, and name others no more, in one commit that is on the disk when it returns."""
        at = micros(_CLOCK.now()) // 1000
        adds = [AddAction(f.path, f.size, {DAY: f.day}, at, True, _stats(f)) for f in new]
        said = CommitProperties(
            app_transactions=[Transaction(_CHANGES, number)] if number is not None else None, max_commit_retries=0
        )
        try:
            if now.table is None:
                self.folder.mkdir(mode=0o700, exist_ok=True)
                types = Schema.from_arrow(pl.Schema({**SCHEMA, DAY: pl.Date()}))
                create_table_with_add_actions(str(self.folder), types, adds, partition_by=[DAY], commit_properties=said)
            else:
                removes = [RemoveAction(f.path, data_change=True, deletion_timestamp=at) for f in old]
                delta = now.table.delta
                delta.create_write_transaction([*adds, *removes], "append", delta.schema(), commit_properties=said)
            log = self.folder / "_delta_log"
            version = now.table.version + 1 if now.table is not None else 0
            disk.sync(log / f"{version:020}.json", log, self.folder, self.folder.parent)
        except (DeltaError, OSError) as problem:
            raise self._not_written(problem) from problem

    def _unreadable(self, problem: Exception) -> AdapterError:
        return AdapterError(
            "journal-unreadable",
            "The archive of the journal cannot be read",
            why=str(problem).partition("\n")[0][:500],
            next="restore the home from a backup; flyball journal show says what there is",
        )

    def _not_written(self, problem: Exception) -> AdapterError:
        return AdapterError(
            "archive-not-written",
            "The archive of the journal cannot be written",
            why=str(problem).partition("\n")[0][:500],
            next="free space on its disk; nothing is lost, for a segment stays until it is archived",
        )

    def vacuum(self) -> None:
        """Remove what no answer lies in: files that were joined, rewritten or written in vain, and old entries of the log."""
        table = self.state().table
        if table is not None:
            try:
                delta_files.vacuum(self.folder, table)
            except (DeltaError, OSError) as problem:
                raise self._not_written(problem) from problem
        elif self.folder.is_dir():
            self.commit(State(None, 0, ()), [], [], None)
            self.vacuum()


def _named(table: delta_files.State) -> Iterator[File]:
    """The files that a commit names, from what its log says of them."""
    actions = pl.DataFrame(table.delta.get_add_actions(flatten=True))
    columns = ("path", f"partition.{DAY}", "num_records", "size_bytes")
    bounds = ("min.id", "max.id", "min.segment", "max.segment")
    if not actions.height:
        return
    for path, day, rows, size, low, high, least, greatest in actions.select(*columns, *bounds).iter_rows():
        yield File(path, str(day), rows, size, (low, high), (least, greatest))


def _stats(file: File) -> str:
    least = {"id": file.ids[0], "segment": file.segments[0]}
    greatest = {"id": file.ids[1], "segment": file.segments[1]}
    return json.dumps({"numRecords": file.rows, "minValues": least, "maxValues": greatest, "nullCount": {"id": 0}})
