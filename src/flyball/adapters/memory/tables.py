"""Tables in memory: for tests, rehearsals and simulation. Batches are frames in a list; a commit is a step of a counter."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from flyball._kernel.errors import RetryableError, StateError
from flyball.data.tables import ABSENT, BATCH, Head

_TEXTS = (pl.String, pl.Enum, pl.Categorical)
"""Types that may replace one another: what a column may say is the contract's to narrow or widen."""


@dataclass(frozen=True, slots=True)
class _Table:
    head: Head = ABSENT
    frames: tuple[pl.DataFrame, ...] = ()
    positions: Mapping[str, int] = field(default_factory=dict)


class MemoryTables:
    """`Tables` that last as long as the object."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._lock = threading.Lock()

    def head(self, table: str) -> Head:
        """The end of the table as of now; see `tables.Tables`."""
        return self._of(table).head

    def append(
        self, table: str, frame: pl.DataFrame, batch: int, positions: Mapping[str, int], *, expect: Head
    ) -> None:
        """Commit `frame` and `positions` in one transaction; see `tables.Tables`."""
        rows = frame.select(pl.lit(batch, dtype=pl.Int64).alias(BATCH), pl.all())
        with self._lock:
            now = self._at(table, expect)
            for earlier in now.frames:
                _same_types(table, earlier.schema, rows.schema)
            self._commit(
                table, replace(now, frames=(*now.frames, rows), positions={**now.positions, **positions}), batch
            )

    def drop_after(self, table: str, batch: int, *, expect: Head) -> None:
        """Delete the rows of later batches; see `tables.Tables`."""
        with self._lock:
            now = self._at(table, expect)
            kept = tuple(frame.filter(pl.col(BATCH) <= batch) for frame in now.frames)
            self._commit(table, replace(now, frames=kept), batch)

    def position(self, table: str, key: str) -> int | None:
        """The number that was committed under `key`; see `tables.Tables`."""
        return self._of(table).positions.get(key)

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The rows of batches up to `batch`; see `tables.Tables`."""
        frames = [pl.DataFrame(schema=schema)]
        for frame in self._of(table).frames:
            _same_types(table, frame.schema, schema)
            missing = [
                pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns
            ]
            rows = frame.filter(pl.col(BATCH) <= batch).with_columns(missing)
            frames.append(rows.select(pl.col(name).cast(dtype) for name, dtype in schema.items()))
        return pl.concat(frames).lazy()

    def _of(self, table: str) -> _Table:
        return self._tables.get(table, _Table())

    def _at(self, table: str, expect: Head) -> _Table:
        now = self._of(table)
        if now.head != expect:
            raise RetryableError(
                "concurrent-ingest",
                f"Another process wrote to the table {table} at the same time.",
                why=f"It is at batch {now.head.batch}; this write was decided at batch {expect.batch}.",
                next="Run it again.",
            )
        return now

    def _commit(self, table: str, then: _Table, batch: int) -> None:
        self._tables[table] = replace(then, head=Head(batch, then.head.version + 1))


def _same_types(table: str, have: Mapping[str, pl.DataType], want: Mapping[str, pl.DataType]) -> None:
    for name in have.keys() & want.keys():
        if have[name] != want[name] and not all(isinstance(t[name], _TEXTS) for t in (have, want)):
            raise StateError(
                "table-of-other-types",
                f"The column {name!r} of the table {table} is {have[name]}, and not {want[name]}.",
                why="A contract changed a column's type after rows were stored.",
                next="Give the column a new name, or ingest into a new home.",
            )
