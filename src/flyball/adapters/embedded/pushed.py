"""What waits in an inbox, as the files of a source: JSON lines, in the order in which they came.

A column of the contract that no row of a body says is there, and null: so a body that lacks it ends in quarantine, row by row,
and not before the door, where it would be tried for ever.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl

from flyball._kernel.errors import AdapterError, DataError
from flyball.adapters.embedded import records
from flyball.data import contract
from flyball.data.kinds import Pushed
from flyball.data.source import File, Reading, Source
from flyball.serve.ingest import Inbox

_HELD = 4 << 20
"""Bytes of a body whose rows are held in memory: a file for each would cost more than all else that is done with it."""


class PushReader:
    """`Reader` of an inbox.

    Args:
        inbox: where the bodies wait.
        spool: where temporary folders go; the system's place by default.
    """

    def __init__(self, inbox: Inbox, spool: Path | None = None) -> None:
        self._inbox, self._spool = inbox, spool

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """What waits; none is no error: nobody has pushed anything. See `source.Reader`."""
        try:
            return self._inbox.files(_at(source).name)
        except AdapterError as problem:
            problem.where = source.place
            raise

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One of them, as rows; see `source.Reader`."""
        rows = self._inbox.read(_at(source).name, file)
        if rows is None:
            raise DataError(
                "file-changed",
                f"{file.name} no longer waits in the inbox of {_at(source).name}.",
                where=source.place,
                why="Another process ingested it, or it was taken away by hand.",
                next="Run `flyball apply` again.",
            )
        if len(rows) <= _HELD and (reading := records.held_json_lines(rows)) is not None:
            yield _whole(source, reading)
            return
        with tempfile.TemporaryDirectory(prefix="flyball-", dir=self._spool) as folder:
            (Path(folder) / "body.jsonl").write_bytes(rows)
            (Path(folder) / "spool").mkdir()
            yield _whole(source, records.read_json_lines(Path(folder) / "body.jsonl", Path(folder) / "spool"))


def _whole(source: Source, reading: Reading) -> Reading:
    """With every column of the contract, null where no row says it."""
    have = reading.rows.collect_schema()
    lacks = [name for name in contract.spec(source.contract).names if name not in have]
    return replace(reading, rows=reading.rows.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in lacks))


def _at(source: Source) -> Pushed:
    assert isinstance(source.at, Pushed)  # noqa: S101 - `Readers` hands each kind to its reader
    return source.at
