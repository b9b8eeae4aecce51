"""Tables: append-only observations, in numbered batches, and how far each source has been read.

A **batch** is what one file of one source brought: committed whole, or not at all. A **position** is a key that was
committed with a batch, in the same transaction: it is what makes ingest happen exactly once. A **head** is the state that
a writer decided upon; a writer whose head is no longer the table's is refused, and decides anew.

A version of a table is logical, (table, batch <= n), so an adapter may compact and vacuum as it likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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


class Tables(Protocol):
    """Named append-only tables."""

    def head(self, table: str) -> Head:
        """The end of the table as of now; `ABSENT` when nothing was ever written.

        Raises:
            AdapterError: `table-unreadable`.
        """

    def append(
        self, table: str, frame: pl.DataFrame, batch: int, positions: Mapping[str, int], *, expect: Head
    ) -> None:
        """Commit `frame` (which has no `_batch` column; it is added) and `positions` in one transaction.

        The last batch of the table is then `batch`, also when `frame` has no rows. New columns are added to the table;
        earlier rows have null there.

        Args:
            table: an identifier.
            frame: the rows.
            batch: at least `expect.batch`.
            positions: key -> number, beside those that the table already has.
            expect: the head that the caller decided upon.

        Raises:
            RetryableError: `concurrent-ingest`, when the table has moved on since `expect`; nothing is written.
            StateError: `table-of-other-types`, when a column of `frame` has another type in the table.
        """

    def drop_after(self, table: str, batch: int, *, expect: Head) -> None:
        """Delete the rows of later batches; the last batch is then `batch`. Raises as `append` does."""

    def position(self, table: str, key: str) -> int | None:
        """The number that was committed under `key`, or None."""

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The rows of batches up to `batch`, with exactly the columns and types of `schema`.

        Columns that the table lacks are null; an absent table has no rows. The order of rows is not defined.

        Raises:
            AdapterError: `table-unreadable`.
            StateError: `table-of-other-types`.
        """
