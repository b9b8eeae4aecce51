"""Tables in memory: for tests, rehearsals and simulation. Batches are frames in a list; a commit is a step of a counter."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from flyball._kernel.errors import RetryableError, StateError
from flyball.data.tables import ABSENT, BATCH, Compacted, Deleted, Head, Staged

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

    def stage(self, table: str, rows: pl.LazyFrame, batch: int) -> Staged:
        """Hold the rows of a batch-to-be; see `tables.Tables`."""
        of = BATCH if BATCH in rows.collect_schema() else pl.lit(batch, dtype=pl.Int64).alias(BATCH)
        frame = rows.select(of, pl.exclude(BATCH)).collect()
        return Staged(frame.height, frame.drop(BATCH).schema, (frame,))

    def append(
        self, table: str, rows: pl.DataFrame | Staged, batch: int, positions: Mapping[str, int], *, expect: Head
    ) -> None:
        """Commit `rows` and `positions` in one transaction; see `tables.Tables`."""
        staged = rows if isinstance(rows, Staged) else self.stage(table, rows.lazy(), batch)
        frames = tuple(part for part in staged.parts if isinstance(part, pl.DataFrame))
        with self._lock:
            now = self._at(table, expect)
            for earlier in now.frames:
                _same_types(table, earlier.schema, staged.types)
            then = replace(now, frames=(*now.frames, *frames), positions={**now.positions, **positions})
            self._commit(table, then, batch)

    def delete(
        self, table: str, rows: pl.Expr, schema: Mapping[str, pl.DataType], batch: int, *, expect: Head
    ) -> Deleted:
        """Delete the rows for which `rows` is true; see `tables.Tables`."""
        with self._lock:
            now = self._at(table, expect)
            kept, touched, gone = [], 0, 0
            for frame in now.frames:
                chosen = _filled(frame, schema).select(rows.fill_null(value=False).alias("chosen"))["chosen"]
                kept.append(frame.filter(~chosen))
                touched += bool(chosen.any())
                gone += int(chosen.sum())
            self._commit(table, replace(now, frames=tuple(kept)), batch)
        return Deleted(rows=gone, files=touched, rewritten=0)

    def compact(self, table: str) -> Compacted:
        """Make one frame of all; see `tables.Tables`."""
        with self._lock:
            now = self._of(table)
            joined = (pl.concat(now.frames, how="diagonal"),) if now.frames else ()
            sizes = [sum(int(f.estimated_size()) for f in frames) for frames in (now.frames, joined)]
            if now.frames:
                self._commit(table, replace(now, frames=joined), now.head.batch)
        return Compacted(
            files_before=len(now.frames), files_after=len(joined), bytes_before=sizes[0], bytes_after=sizes[1]
        )

    def position(self, table: str, key: str) -> int | None:
        """The number that was committed under `key`; see `tables.Tables`."""
        return self._of(table).positions.get(key)

    def scan(self, table: str, batch: int, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
        """The rows of batches up to `batch`; see `tables.Tables`."""
        frames = [pl.DataFrame(schema=schema)]
        for frame in self._of(table).frames:
            _same_types(table, frame.schema, schema)
            frames.append(_filled(frame.filter(pl.col(BATCH) <= batch), schema))
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


def _filled(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The columns of `schema`; null where the frame lacks one."""
    missing = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    return frame.with_columns(missing).select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def _same_types(table: str, have: Mapping[str, pl.DataType], want: Mapping[str, pl.DataType]) -> None:
    for name in have.keys() & want.keys():
        if have[name] != want[name] and not all(isinstance(t[name], _TEXTS) for t in (have, want)):
            raise StateError(
                "table-of-other-types",
                f"The column {name!r} of the table {table} is {have[name]}, and not {want[name]}.",
                why="A contract changed a column's type after rows were stored.",
                next="Give the column a new name, or ingest into a new home.",
            )
