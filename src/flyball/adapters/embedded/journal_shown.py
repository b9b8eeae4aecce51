"""What lies in the journal, for a person: how much of it where, and answers as one Parquet file.

An export is streamed: archived rows as they lie, in parallel, and after them the answers of segments that are not archived yet,
a page at a time. What is archived in the meantime is told from the rest by its numbers, so every answer is there once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec
import polars as pl
from polars.io.plugins import register_io_source

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded import journal_rows
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.journal_archive import PAGE, DeltaArchive
from flyball.adapters.embedded.journal_rows import SCHEMA
from flyball.adapters.embedded.journal_segment import SUFFIX
from flyball.serve.journal import Segment


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a journal.

    Attributes:
        segments: files that are not archived: written to, or waiting; `waiting` of them are over.
        segment_bytes: of them, their logs included.
        archived: segments in the archive.
        answers: in the archive; of `days` days, `first` to `last`, in `files` files.
        archive_bytes: of these, and of the log that names them.
        recorded, refused, unlogged, unknown, erased, dropped: the sums of all accounts of segments that are over.
    """

    segments: int
    waiting: int
    segment_bytes: int
    archived: int
    answers: int
    days: int
    first: str
    last: str
    files: int
    archive_bytes: int
    recorded: int
    refused: int
    unlogged: int
    unknown: int
    erased: int
    dropped: int


def look(place: Path, clock: Clock) -> Shown:
    """What lies in the journal in that folder.

    Raises:
        AdapterError: `journal-unreadable`.
        StateError: `journal-is-newer`.
    """
    archive = DeltaArchive(place)
    accounts = SqliteJournal(place, clock, archive=archive).recover()
    names = archive.names()
    own = [path for path in place.glob("*") if path.is_file() and Segment.parse(path.name.partition(SUFFIX)[0])]
    segments = {path.name.partition(SUFFIX)[0] for path in own if path.name.endswith(SUFFIX)} - names
    files, answers, size = archive.size()
    days = archive.days()
    return Shown(
        segments=len(segments),
        waiting=sum(each.segment in segments for each in accounts),
        segment_bytes=sum(path.stat().st_size for path in own if path.name.partition(SUFFIX)[0] in segments),
        archived=len(names),
        answers=answers,
        days=len(days),
        first=days[0] if days else "",
        last=days[-1] if days else "",
        files=files,
        archive_bytes=size,
        recorded=sum(each.recorded for each in accounts),
        refused=sum(each.refused for each in accounts),
        unlogged=sum(each.unlogged for each in accounts),
        unknown=sum(each.unknown for each in accounts),
        erased=sum(each.erased for each in accounts),
        dropped=sum(each.dropped for each in accounts),
    )


def export(
    place: Path,
    clock: Clock,
    to: Path,
    *,
    model: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Write answers to one Parquet file, which is there whole or not at all; returns how many.

    Args:
        to: replaced where it exists.
        model: only of that one.
        since, until: only those that were asked from the first on, and before the second.

    Raises:
        AdapterError: `journal-unreadable`, `export-not-written`.
    """
    archive = DeltaArchive(place)
    reach = {each.segment.process: each.last for each in archive.segments()}
    bounds = pl.LazyFrame({"process": list(reach), "reach": list(reach.values())}, schema=_REACH)
    days = (since.date() if since else None, (until - timedelta(microseconds=1)).date() if until else None)
    archived = (
        archive.scan(days).join(bounds, on="process").filter(pl.col("seq") <= pl.col("reach")).select(list(SCHEMA))
    )
    rows = pl.concat([archived, _unarchived(SqliteJournal(place, clock, archive=archive), reach)])
    if model:
        rows = rows.filter(pl.col("model") == model)
    if since is not None:
        rows = rows.filter(pl.col("asked") >= since)
    if until is not None:
        rows = rows.filter(pl.col("asked") < until)
    part = to.with_name(f"{to.name}.part")
    try:
        rows.sink_parquet(part, sync_on_close="all")
        written = int(pl.scan_parquet(part, glob=False).select(pl.len()).collect().item())
        part.replace(to)
    except (OSError, pl.exceptions.PolarsError) as problem:
        part.unlink(missing_ok=True)
        raise AdapterError(
            "export-not-written",
            f"The answers cannot be written to {to}.",
            why=str(problem).partition("\n")[0][:500],
            next="See that the folder is there and has room; if the archive was joined meanwhile, run it again.",
        ) from problem
    return written


_REACH = {"process": pl.String(), "reach": pl.Int64()}


def _unarchived(journal: SqliteJournal, after: dict[str, int]) -> pl.LazyFrame:
    """The answers whose numbers are greater, as they are read."""

    def pages(
        columns: list[str] | None, predicate: pl.Expr | None, most: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        left, answers = most, journal.read(after)
        while left != 0 and (rows := journal_rows.frame(islice(answers, PAGE))).height:
            rows = rows.filter(predicate) if predicate is not None else rows
            rows = rows.select(columns) if columns is not None else rows
            rows = rows.head(left) if left is not None else rows
            left = left - rows.height if left is not None else None
            yield rows

    return register_io_source(pages, schema=pl.Schema(SCHEMA))
