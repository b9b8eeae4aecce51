"""The archive of the journal: answers as a Delta table that anybody may read, partitioned by the day on which they were asked.

    archive/            the table: `pl.scan_delta("HOME/journal/archive")`; see `journal_rows` for its columns
    archive.sqlite      the accounts of its segments, and the intent of its next change; see `journal_index`
    archive.lock        locked by whoever moves, joins, erases or drops: one at a time, of all processes

A change is one commit, which carries its number; so a segment is in the archive from one commit on, or not at all. Readers take
the files as one commit names them; where these were joined or vacuumed meanwhile, they look again. The log says of each file
which ids and segments lie in it, and no value of a question (ADR 0038): so one id opens one or two files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import polars as pl

from flyball.adapters.embedded import journal_rows
from flyball.adapters.embedded.journal_files import File, Files, State
from flyball.adapters.embedded.journal_index import Archived, Index
from flyball.adapters.embedded.journal_rows import SCHEMA
from flyball.serve.archive import Dropped, Moved
from flyball.serve.journal import Entry, Recovery

NAME: Final = "archive"
PAGE: Final = 20_000
"""Answers that are held in memory at a time, as objects."""
_FULL: Final = 250_000
"""Rows of a joined file; files of less than half are joined."""
_MANY: Final = 8
"""So many small files of a day are joined."""


class DeltaArchive:
    """The archive of the journal in one folder; made by the first move. Of its changes, one at a time: see `journal_moves`.

    Args:
        place: the folder of the journal.

    Raises:
        AdapterError: `journal-unreadable`, from every method; `archive-not-written`, from those that change it.
    """

    def __init__(self, place: Path) -> None:
        self._files, self._index = Files(place / NAME), Index(place)

    # --- reading

    def names(self) -> set[str]:
        """The segments that lie here."""
        return self._index.names(self._files.state().number)

    def segments(self) -> list[Archived]:
        """The segments that lie here, in order, and how far their numbers reach."""
        return self._index.segments(self._files.state().number)

    def find(self, prediction: str) -> Entry | None:
        """The answer with that id, written as `str(UUID)` writes it."""

        def look(now: State) -> pl.DataFrame:
            files = [each for each in now.files if each.ids[0] <= prediction <= each.ids[1]]
            return self._files.scan(files).filter(pl.col("id") == prediction).head(1).collect()

        return next(journal_rows.entries(self._files.looked(look)), None)

    def read(self, wanted: Iterable[tuple[Archived, int]]) -> Iterator[Entry]:
        """The answers of some segments in their order, of each those whose number is greater than the one beside it."""
        for windows in _pages(wanted):

            def look(now: State, windows: Sequence[_Window] = windows) -> pl.DataFrame:
                least, greatest = min(w.segment for w in windows), max(w.segment for w in windows)
                files = [each for each in now.files if each.segments[0] <= greatest and each.segments[1] >= least]
                return _within(self._files.scan(files), windows).collect(engine="streaming")

            yield from journal_rows.entries(self._files.looked(look))

    def accounts(self, accounted: Collection[str]) -> list[Recovery]:
        """The accounts of the segments that lie here, but of those; what was erased or dropped since is counted."""
        number = self._files.state().number
        if not self._index.names(number).difference(accounted):
            return []
        there = self._files.looked(lambda now: self._files.counts(now.files))
        dropped = self._index.dropped(number)
        found = []
        for each in self._index.accounts(number):
            if each.segment not in accounted:
                # What is neither there nor dropped was erased: before it was moved, or since.
                erased = each.recorded - dropped.get(each.segment, 0) - there.get(each.segment, 0)
                found.append(msgspec.structs.replace(each, erased=erased, dropped=dropped.get(each.segment, 0)))
        return found

    def moved(self) -> Iterator[Recovery]:
        """The accounts of the segments that lie here as they were when they were moved, in order."""
        return self._index.accounts(self._files.state().number)

    def scan(self, days: tuple[date | None, date | None] = (None, None)) -> pl.LazyFrame:
        """The rows of days from the first to the last, both included, with the columns of `SCHEMA`; in no order."""
        first, last = (str(day) if day is not None else None for day in days)
        files = [
            each
            for each in self._files.state().files
            if (first is None or each.day >= first) and (last is None or each.day <= last)
        ]
        return self._files.scan(files)

    def size(self) -> tuple[int, int, int]:
        """Files, answers and bytes of it; the log included."""
        now = self._files.state()
        there = self._files.size()
        return len(now.files), sum(each.rows for each in now.files), there

    def days(self) -> list[str]:
        """The days of which answers lie here, in order."""
        return sorted({each.day for each in self._files.state().files})

    # --- changing: by whoever holds the lock

    def move(self, account: Recovery, last: int, answers: Iterator[Entry]) -> Moved:
        """Take in a segment that is over, in one commit.

        Args:
            account: of the segment, as it is now.
            last: the greatest number that is its own.
            answers: all that is in it.
        """
        now, moved, files = self._files.state(), 0, list[File]()
        self._index.intend_move(now.number + 1, account, last)
        while (rows := journal_rows.frame(islice(answers, PAGE))).height:
            moved += rows.height
            files += [self._files.write(day, part.lazy()) for day, part in journal_rows.days(rows)]
        self._files.commit(now, files, [], now.number + 1)
        return Moved(segment=account.segment, answers=moved, files=1, into=len(files))

    def join(self, today: str) -> Moved | None:
        """Join the small files of one day that is over; None where there are few of them."""
        now = self._files.state()
        small = [each for each in now.files if each.rows < _FULL // 2 and each.day < today]
        for day in sorted({each.day for each in small}):
            parts, rows = list[File](), 0
            for each in small:
                if each.day == day and rows + each.rows <= _FULL:
                    parts.append(each)
                    rows += each.rows
            if len(parts) >= _MANY:
                self._files.commit(now, [self._files.write(day, self._files.scan(parts))], parts, None)
                self._files.vacuum()
                return Moved(segment="", answers=rows, files=len(parts), into=1)
        return None

    def erase(self, chosen: Callable[[Entry], bool]) -> int:
        """Delete the answers that `chosen` says, from every file that holds one, and from the disk; returns how many."""
        now, gone, old, new = self._files.state(), 0, list[File](), list[File]()
        for file in now.files:
            mask = list[bool]()
            for first in range(0, file.rows, PAGE):
                rows = self._files.scan([file]).slice(first, PAGE).collect()
                mask += [chosen(entry) for entry in journal_rows.entries(rows)]
            if hits := sum(mask):
                gone += hits
                old.append(file)
                if hits < file.rows:
                    new.append(self._files.write(file.day, self._files.scan([file]).filter(~pl.Series(mask))))
        if old:
            self._files.commit(now, new, old, None)
        self._files.vacuum()
        return gone

    def drop(self, before: date, *, look: bool) -> Dropped:
        """Delete the days before that one, from the disk too; `look`: only say what would go."""
        now = self._files.state()
        old = [each for each in now.files if each.day < str(before)]
        if old and not look:
            self._index.intend_drop(now.number + 1, self._files.counts(old))
            self._files.commit(now, [], old, now.number + 1)
        if not look:
            self._files.vacuum()
        days = sorted({each.day for each in old})
        return Dropped(
            answers=sum(each.rows for each in old),
            days=len(days),
            first=date.fromisoformat(days[0]) if days else None,
            last=date.fromisoformat(days[-1]) if days else None,
        )


class _Window(NamedTuple):
    """Numbers of one segment from `first` to `last`."""

    segment: str
    first: int
    last: int


def _pages(wanted: Iterable[tuple[Archived, int]]) -> Iterator[list[_Window]]:
    """Those numbers in pieces of about `PAGE`, in order."""
    page, size = list[_Window](), 0
    for (segment, last), after in wanted:
        first = max(segment.first, after + 1)
        while first <= last:
            end = min(last, first + PAGE - size - 1)
            page.append(_Window(str(segment), first, end))
            size += end - first + 1
            first = end + 1
            if size >= PAGE:
                yield page
                page, size = [], 0
    if page:
        yield page


def _within(rows: pl.LazyFrame, windows: Sequence[_Window]) -> pl.LazyFrame:
    """The rows that lie in one of them, in order; what is said first lets whole groups of a file be passed over."""
    segments, firsts, lasts = zip(*windows, strict=True)
    bounds = pl.LazyFrame({"segment": segments, "first": firsts, "last": lasts})
    rough = pl.col("segment").is_in(segments) & pl.col("seq").is_between(min(firsts), max(lasts))
    exact = pl.col("seq").is_between("first", "last")
    return rows.filter(rough).join(bounds, on="segment").filter(exact).select(list(SCHEMA)).sort("segment", "seq")
