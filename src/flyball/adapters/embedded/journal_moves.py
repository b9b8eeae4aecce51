"""Moving segments into the archive: who may, and how a segment goes once its answers lie there.

    read the segment -> write files -> one commit (from here on it is archived) -> fold its log -> remove it

Killed anywhere, either the segment counts or the archive does; what was written in vain, and a segment that lingers, go with
the next change. A reader lists segments first and asks the archive after; one whose segment goes meanwhile asks it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Final

from flyball._kernel.errors import AdapterError, RetryableError
from flyball.adapters.embedded import disk, journal_pages
from flyball.serve.journal import Recovery, Segment

LOCK: Final = "archive.lock"
_PATIENCE: Final = 30.0
"""Seconds that whoever changes the archive waits for another who does: moving a full segment takes a few."""


class GoneError(Exception):
    """A segment was archived and removed before it could be opened."""


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Be the only one, of all processes, who moves, joins, erases or drops.

    Raises:
        RetryableError: `store-busy`.
    """
    if not place.is_dir():
        yield
        return
    descriptor = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = perf_counter() + _PATIENCE
        while not _locked(descriptor):
            if perf_counter() > end:
                raise RetryableError(
                    "store-busy",
                    "Another process changes the archive of the journal",
                    why=f"It has for {_PATIENCE:.0f} s; answers are moved, erased or dropped by one at a time.",
                    next="try again",
                )
            Event().wait(0.02)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def reading(path: Path, segment: Segment) -> Iterator[journal_pages.ReadSegment]:
    """The segment in `path`.

    Raises:
        GoneError: it is not there any more.
        AdapterError, StateError: as `journal_pages.reading`.
    """
    try:
        with journal_pages.reading(path, segment) as found:
            yield found
    except AdapterError:
        if path.exists():
            raise
        raise GoneError from None


def remove(path: Path) -> None:
    """Remove a segment that is archived, unless somebody reads it just now: then at another time.

    Its log is folded into it first: whoever opened it a moment ago, and looks for the log when that is gone, misses nothing.

    Raises:
        AdapterError: `journal-unreadable`.
    """
    if path.exists():
        try:
            uri = f"{path.absolute().as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
                _, logged, folded = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise AdapterError(
                "journal-unreadable",
                f"Segment {path.name} of the journal is archived, and cannot be removed",
                why=str(error),
                next="delete that file: all that is in it lies in the archive",
            ) from error
        if logged != folded:
            return
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    disk.sync(path.parent)


def first(segments: Sequence[Segment], before: int) -> Iterator[Segment]:
    """Of each process the first segment, if it was opened before that moment: its later ones follow it."""
    seen: set[str] = set()
    for segment in sorted(segments):
        if segment.process not in seen:
            seen.add(segment.process)
            if segment.started < before:
                yield segment


def last(account: Recovery, segment: Segment) -> int:
    """The greatest number of a segment that is over: every one is recorded, refused, unlogged, or unknown."""
    return segment.first + account.recorded + account.refused + account.unlogged + account.unknown - 1
