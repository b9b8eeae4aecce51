"""The archive of the journal: where answers go that nobody adds to any more, and how long they are kept.

Segments are for writing: one a process and an hour, in the form in which answers came. The **archive** is for keeping:
columns, by day, joined. Whoever reads the journal cannot tell which of the two an answer lies in. A segment is **moved** whole,
once it is over and its account is recorded; answers are **dropped** by the day on which they were asked.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Protocol

import msgspec


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of the work of the archive.

    Attributes:
        segment: what was moved into it; "" where files of it were joined.
        answers: that were moved or joined.
        files: that they lay in before, and
        into: that they lie in now.
    """

    segment: str
    answers: int
    files: int
    into: int


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that were kept long enough, of so many days, and the first and the last of these; None where there were none."""

    answers: int
    days: int
    first: date | None
    last: date | None


class Archive(Protocol):
    """What a journal can do with the answers that nobody adds to any more."""

    def compact(self, accounted: Collection[str], before: int) -> Moved | None:
        """Move one segment into the archive, or join files that lie there: one piece of work, or None where none is left.
        Every reader reads the same before, meanwhile and after. Raises as `Journal.erase`, and
        AdapterError `archive-not-written`.

        Args:
            accounted: segments whose account is recorded; only these are moved, of each process the first one first.
            before: only segments that were opened before that moment, in microseconds since 1970 UTC.
        """

    def drop(self, before: date, *, look: bool = False) -> Dropped:
        """Delete the archived answers that were asked on days before that one, UTC; returns what went. No byte of them is
        left, and the accounts stay. Raises as `compact`.

        Args:
            look: only say what would go.
        """
