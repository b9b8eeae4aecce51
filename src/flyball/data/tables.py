"""Tables: append-only observations, in numbered batches, and how far each source has been read.

A **batch** is what one file of one source brought: committed whole, or not at all. A **position** is a key that was
committed with a batch, in the same transaction: it is what makes ingest happen exactly once. A **head** is the state that
a writer decided upon; a writer whose head is no longer the table's is refused, and decides anew.

Rows that are many are **staged** first: they lie where they will stay, and nobody sees them until they are appended.

A version of a table is logical, (table, batch <= n), so an adapter may compact and vacuum as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import polars as pl

BATCH = "_batch"
"""Int64: the batch that brought the row."""

KNOWN = "_known"
"""Datetime UTC: when the row was known."""

OUTCOME_KNOWN = "_outcome_known"
"""Datetime UTC: when its outcomes were known; null while they are not."""

MOMENT = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a table: its last batch (0: none), and the adapter's own count of commits (-1: no such table)."""

    batch: int
    version: int


ABSENT = Head(0, -1)


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows of one batch that are written, and not yet part of the table.

    Attributes:
        rows: how many.
        types: the columns that they have.
        parts: the adapter's own.
    """

    rows: int
    types: Mapping[str, pl.DataType]
    parts: tuple[object, ...]


def joined(first: Staged, *others: Staged) -> Staged:
    """What was staged in parts, for one append; all have the same columns."""
    parts = (first, *others)
    return Staged(sum(p.rows for p in parts), first.types, tuple(each for p in parts for each in p.parts))


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """What a deletion did: rows that are gone, files that held them, and bytes written anew for the rows beside them."""

    rows: int
    files: int
    rewritten: int


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """What a compaction did: files of the table before and after, and the bytes on disk, old ones and the log included."""

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int


class Tables(Protocol):
    """Named append-only tables."""

    def head(self, table: str) -> Head:
        """The end of the table as of now; `ABSENT` when nothing was ever written.

        Raises:
            AdapterError: `table-unreadable`.
        """

    def stage(self, table: str, rows: pl.LazyFrame, batch: int) -> Staged:
        """Write the rows of a batch-to-be, streaming; nobody sees them yet. A `_batch` column is added, unless they have one:
        then they are those of several batches, the last of them `batch`.

        What is staged and never appended is gone with the next `compact`.

        Raises:
            AdapterError: `type-not-storable`, `table-not-written`. What `rows` itself raises passes through.
        """

    def append(
        self, table: str, rows: pl.DataFrame | Staged, batch: int, positions: Mapping[str, int], *, expect: Head
    ) -> None:
        """Commit `rows` (staged, or a frame, which is staged at once) and `positions` in one transaction.

        The last batch of the table is then `batch`, also when there are no rows. New columns are added to the table;
        earlier rows have null there.

        Args:
            table: an identifier.
            rows: staged for this very batch, or a frame without a `_batch` column.
            batch: at least `expect.batch`.
            positions: key -> number, beside those that the table already has.
            expect: the head that the caller decided upon.

        Raises:
            RetryableError: `concurrent-ingest`, when the table has moved on since `expect`; nothing is written.
            StateError: `table-of-other-types`, when a column has another type in the table.
        """

    def delete(
        self, table: str, rows: pl.Expr, schema: Mapping[str, pl.DataType], batch: int, *, expect: Head
    ) -> Deleted:
        """Delete, of all batches, the rows for which `rows` is true; the last batch is then `batch`. Raises as `append` does.

        Only files that hold such rows are written anew. The bytes of the deleted rows are gone after `compact`.

        Args:
            rows: a row-wise expression over the columns of `schema`.
            schema: columns and types, as for `scan`.
        """

    def compact(self, table: str) -> Compacted:
        """Join small files, and remove from the place what no row of the table needs: old files, what was staged in vain, old
        log entries. Batches, positions and rows stay. Whoever still reads an older state of the table may fail.

        Raises:
            RetryableError: `concurrent-ingest`.
        """

    def position(self, table: str, key: str) -> int | None:
        """The number that was committed under `key`, or None."""

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The rows of batches up to `batch`, with exactly the columns and types of `schema`.

        Columns that the table lacks are null; an absent table has no rows. The order of rows is not defined.

        Raises:
            AdapterError: `table-unreadable`.
            StateError: `table-of-other-types`.
        """
