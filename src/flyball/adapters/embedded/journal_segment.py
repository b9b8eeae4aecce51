"""One segment of the journal, as its process writes it: a SQLite database, which any process reads (`journal_pages`).

A commit is on disk when it returns (WAL with `synchronous=FULL`). A group of answers is one page, or a few: a row that holds
their bytes as they were packed, so that the writer's share of an answer is the copy of its bytes. A group is one statement
where it can be: the driver gives up the interpreter lock at every statement, and each return to it waits for the event loop.

The writer's connection is made by a `Connect`, so that a test can put a disk that loses power under this very code.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded import disk
from flyball.serve import body as bodies
from flyball.serve import journal
from flyball.serve.body import Packed
from flyball.serve.journal import Header, Segment

SUFFIX: Final = ".sqlite"
_MANY: Final = 1000
"""Answers in a page, at most; one that is read for a single answer is decoded as a whole."""
_LARGE: Final = 1024 * 1024
"""Bytes in a page, at most, but for a single answer that is larger."""
_OVERHEAD: Final = 16
"""Bytes of an answer beside its item, about; counted towards the size of a segment."""
_SCHEMA: Final = (
    """CREATE TABLE pages (
        first INTEGER PRIMARY KEY, last INTEGER NOT NULL, least_id BLOB NOT NULL, greatest_id BLOB NOT NULL,
        least_asked INTEGER NOT NULL, greatest_asked INTEGER NOT NULL, body BLOB NOT NULL)""",
    # Ids are in the order of their time: few pages lie around one.
    "CREATE INDEX pages_by_id ON pages (least_id, greatest_id)",
    "CREATE TABLE missed (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, left INTEGER NOT NULL)",
    """CREATE TABLE header (
        segment TEXT PRIMARY KEY, process TEXT NOT NULL, started INTEGER NOT NULL, said BLOB NOT NULL,
        bound INTEGER NOT NULL, closed INTEGER NOT NULL DEFAULT 0,
        last INTEGER, recorded INTEGER, refused INTEGER, unlogged INTEGER)""",
)
_INSERT: Final = "INSERT INTO pages VALUES (?, ?, ?, ?, ?, ?, ?)"

Page = tuple[int, int, bytes, bytes, int, int, bytes]
"""A row of `pages`."""


class Missed(NamedTuple):
    """Numbers whose answers the disk did not take.

    Attributes:
        left: whether the answers left all the same (unlogged); otherwise their callers were refused.
    """

    first: int
    last: int
    left: bool

    @property
    def many(self) -> int:
        """How many."""
        return self.last - self.first + 1


class Cursor(Protocol):
    """What is used of a DB-API cursor."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that remain."""


class Connection(Protocol):
    """What is used of a connection, which begins no transaction by itself and raises `sqlite3.Error`."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run one statement."""

    def close(self) -> None:
        """Close it; again: nothing."""


Connect = Callable[[str], Connection]


def connect(path: str) -> Connection:
    """The writer's connection to an existing file: opened on one thread, used on another, never on two at once."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class OpenSegment:
    """A segment that is being written: each method is one transaction, on disk when it returns."""

    def __init__(self, connection: Connection, segment: Segment, bound: int) -> None:
        self.segment = segment
        self.bound = bound
        self.last = segment.first - 1
        self.recorded = self.refused = self.unlogged = self.size = 0
        self._connection = connection

    def write(self, rows: Sequence[Packed], missed: Sequence[Missed], block: int) -> None:
        """Account for the numbers `missed` after `last`, then for `rows`; extend the block where it runs low."""
        first = (missed[-1].last if missed else self.last) + 1
        last = first + len(rows) - 1
        bound = journal.reserve(last, self.bound, block)
        pages = list(_pages(first, rows))
        if missed or bound != self.bound or len(pages) > 1:
            with transaction(self._connection):
                for page in pages:
                    self._connection.execute(_INSERT, page)
                for span in missed:
                    self._connection.execute("INSERT INTO missed VALUES (?, ?, ?)", span)
                if bound != self.bound:
                    self._connection.execute("UPDATE header SET bound = ?", (bound,))
        elif pages:
            self._connection.execute(_INSERT, pages[0])
        self.bound, self.last = bound, last
        self.recorded += len(rows)
        self.refused += sum(span.many for span in missed if not span.left)
        self.unlogged += sum(span.many for span in missed if span.left)
        self.size += sum(len(page[-1]) for page in pages) + len(rows) * _OVERHEAD

    def finish(self) -> None:
        """Give back the numbers not used, move the log into the database, and let go of it."""
        try:
            with transaction(self._connection):
                self._connection.execute(
                    "UPDATE header SET closed = 1, bound = ?, last = ?, recorded = ?, refused = ?, unlogged = ?",
                    (self.last, self.last, self.recorded, self.refused, self.unlogged),
                )
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of it as it is."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _pages(first: int, rows: Sequence[Packed]) -> Iterator[Page]:
    while rows:
        many = min(len(rows), _MANY)
        while many > 1 and sum(len(item) for _, _, item in rows[:many]) > _LARGE:
            many //= 2
        yield _page(first, rows[:many])
        first, rows = first + many, rows[many:]


def _page(first: int, rows: Sequence[Packed]) -> Page:
    ids, asked, items = zip(*rows, strict=True)
    return first, first + len(rows) - 1, min(ids), max(ids), min(asked), max(asked), bodies.page(items)


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """All that is executed in it, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures (a full disk) end the transaction by themselves.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def create(place: Path, use: Connect, segment: Segment, header: Header, bound: int) -> OpenSegment:
    """A new segment, readable by its owner only, with its first block reserved; what a failure began is removed.

    It gets its name when its header is durable: a segment that exists has been begun.
    """
    path, unnamed = place / f"{segment}{SUFFIX}", place / f"{segment}.new"
    try:
        # SQLite gives the mode of the database to its log as well.
        os.close(os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(use(str(unnamed))) as connection, transaction(synced(connection)):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO header (segment, process, started, said, bound) VALUES (?, ?, ?, ?, ?)",
                (str(segment), segment.process, segment.started, msgspec.json.encode(header), bound),
            )
        unnamed.rename(path)
        disk.sync(place)
        return OpenSegment(_logging(use(str(path)), place), segment, bound)
    except BaseException:
        for name in (unnamed.name, path.name):
            for suffix in ("", "-journal", "-wal", "-shm"):
                (place / f"{name}{suffix}").unlink(missing_ok=True)
        raise


def synced(connection: Connection) -> Connection:
    """`connection`, which waits at every commit until it is on the disk."""
    # The last two are for macOS, where a plain fsync leaves the bytes in the drive's cache.
    for pragma in ("synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _logging(connection: Connection, place: Path) -> Connection:
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        mode = synced(connection).execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise AdapterError(
                "journal-write",
                f"The disk of {place} cannot keep a write-ahead log (SQLite chose {mode!r})",
                why="Other processes read while one writes, which SQLite needs shared memory for",
                next="put the journal on a local disk",
            )
        undo.pop_all()
    return connection
