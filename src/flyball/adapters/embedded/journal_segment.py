"""One segment of the journal: a SQLite database that one process writes and any process reads.

A commit is on disk when it returns (WAL with `synchronous=FULL`). A group is one statement where it can be: the driver
gives up the interpreter lock at every statement, and each return to it waits for the event loop.

The writer's connection is made by a `Connect`, so that a test can put a disk that loses power under this very code.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec

from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded import disk, scrub
from flyball.serve import body as bodies
from flyball.serve import journal
from flyball.serve.journal import Answer, Entry, Header, Recovery, Segment, Span

SUFFIX: Final = ".sqlite"
_COLUMNS: Final = (
    "seq, id, asked, model, version, epoch, role, within_tolerance, key, output, latency_us, via, failed, body"
)
_WIDTH: Final = _COLUMNS.count(",") + 1
_AT_ONCE: Final = 100
"""Answers in one INSERT: each size up to this is a statement of its own that stays prepared, and so is `_MANY`."""
_MANY: Final = 1000
"""Answers in one INSERT of a large group; SQLite binds at most 32,766 values."""
_OVERHEAD: Final = 200
"""Bytes of an answer beside its inputs and features, about; counted towards the size of a segment."""
_PAGE: Final = 1000
_SCHEMA: Final = (
    """CREATE TABLE answers (
        seq INTEGER PRIMARY KEY, id BLOB NOT NULL, asked INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
        epoch INTEGER NOT NULL, role TEXT NOT NULL, within_tolerance INTEGER NOT NULL, key TEXT NOT NULL,
        output REAL, latency_us INTEGER NOT NULL, via TEXT NOT NULL, failed TEXT NOT NULL, body BLOB NOT NULL)""",
    "CREATE INDEX answers_by_id ON answers (id)",
    "CREATE TABLE refused (first INTEGER PRIMARY KEY, last INTEGER NOT NULL)",
    """CREATE TABLE header (
        segment TEXT PRIMARY KEY, process TEXT NOT NULL, started INTEGER NOT NULL, said BLOB NOT NULL,
        bound INTEGER NOT NULL, closed INTEGER NOT NULL DEFAULT 0,
        last INTEGER, recorded INTEGER, refused INTEGER)""",
)
_ERASED: Final = "CREATE TABLE IF NOT EXISTS erased (seq INTEGER PRIMARY KEY, scrubbed INTEGER NOT NULL DEFAULT 0)"
"""The numbers of the answers that were erased; only a segment that lost some has this table, of whatever format it is."""
_SPANS: Final = """SELECT min(seq), max(seq) FROM (SELECT seq, seq - row_number() OVER (ORDER BY seq) AS island
    FROM {}) GROUP BY island"""
_PATIENCE: Final = 10.0
"""Seconds that an erasure waits for the process that writes a segment, and for those who read it."""

Row = tuple[Any, ...]
"""The columns of an answer after its number."""


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
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=2 * _AT_ONCE)


class OpenSegment:
    """A segment that is being written: each method is one transaction, on disk when it returns."""

    def __init__(self, connection: Connection, segment: Segment, bound: int) -> None:
        self.segment = segment
        self.bound = bound
        self.last = segment.first - 1
        self.recorded = self.refused = self.size = 0
        self._connection = connection

    def write(self, rows: Sequence[Row], refused: int, block: int) -> None:
        """Account for the `refused` numbers after `last`, then for `rows`; extend the block where it runs low."""
        first = self.last + refused + 1
        last = first + len(rows) - 1
        bound = journal.reserve(last, self.bound, block)
        extends = bound != self.bound
        if refused or extends or len(rows) > _AT_ONCE:
            with _transaction(self._connection):
                done = 0
                while left := len(rows) - done:
                    size = _MANY if left >= _MANY else min(left, _AT_ONCE)
                    _insert(self._connection, first + done, rows[done : done + size])
                    done += size
                if refused:
                    self._connection.execute("INSERT INTO refused VALUES (?, ?)", (self.last + 1, first - 1))
                if extends:
                    self._connection.execute("UPDATE header SET bound = ?", (bound,))
        elif rows:
            _insert(self._connection, first, rows)
        self.bound, self.last = bound, last
        self.recorded += len(rows)
        self.refused += refused
        self.size += sum(len(row[-1]) for row in rows) + len(rows) * _OVERHEAD

    def finish(self) -> None:
        """Give back the numbers not used, move the log into the database, and let go of it."""
        try:
            with _transaction(self._connection):
                self._connection.execute(
                    "UPDATE header SET closed = 1, bound = ?, last = ?, recorded = ?, refused = ?",
                    (self.last, self.last, self.recorded, self.refused),
                )
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of it as it is."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures (a full disk) end the transaction by themselves.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@functools.cache
def _insertion(rows: int) -> str:
    return f"INSERT INTO answers ({_COLUMNS}) VALUES " + ", ".join([f"({', '.join('?' * _WIDTH)})"] * rows)


def _insert(connection: Connection, first: int, rows: Sequence[Row]) -> None:
    numbered = chain.from_iterable((first + n, *row) for n, row in enumerate(rows))
    connection.execute(_insertion(len(rows)), tuple(numbered))


def create(place: Path, use: Connect, segment: Segment, header: Header, bound: int) -> OpenSegment:
    """A new segment, readable by its owner only, with its first block reserved; what a failure began is removed.

    It gets its name when its header is durable: a segment that exists has been begun.
    """
    path, unnamed = place / f"{segment}{SUFFIX}", place / f"{segment}.new"
    try:
        # SQLite gives the mode of the database to its log as well.
        os.close(os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(use(str(unnamed))) as connection, _transaction(_synced(connection)):
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


def _synced(connection: Connection) -> Connection:
    # The last two are for macOS, where a plain fsync leaves the bytes in the drive's cache.
    for pragma in ("synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _logging(connection: Connection, place: Path) -> Connection:
    with contextlib.ExitStack() as undo:
        undo.callback(connection.close)
        mode = _synced(connection).execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise AdapterError(
                "journal-write",
                f"The disk of {place} cannot keep a write-ahead log (SQLite chose {mode!r})",
                why="Other processes read while one writes, which SQLite needs shared memory for",
                next="put the journal on a local disk",
            )
        undo.pop_all()
    return connection


def row(answer: Answer) -> Row:
    """The columns of `answer`.

    Raises:
        DataError: `unrecordable-answer`.
    """
    body = bodies.pack(answer)
    return (
        journal.packed(answer.id),
        answer.asked,
        answer.model,
        answer.version,
        answer.epoch,
        answer.role,
        bool(answer.within_tolerance),
        answer.key,
        float(answer.output),
        answer.latency_us,
        answer.via,
        answer.failed,
        body,
    )


class _Format(msgspec.Struct, frozen=True):
    format: int


class ReadSegment:
    """A segment that is being read, while its process may write: every query is a snapshot of its own."""

    def __init__(self, connection: sqlite3.Connection, segment: Segment, said: bytes, rest: Row) -> None:
        written = msgspec.json.decode(said, type=_Format).format
        if written > journal.FORMAT:
            raise StateError(
                "journal-is-newer",
                f"Segment {segment} was written by a later release (format {written}, this one knows {journal.FORMAT})",
                next="read it with that release",
            )
        self.header = msgspec.json.decode(said, type=Header)
        self.segment = segment
        self._bound, self.closed, self._recorded, self._refused = rest
        self._connection = connection
        named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'erased'"
        self._erases = connection.execute(named).fetchone() is not None

    def find(self, prediction: bytes) -> Entry | None:
        """The answer with that id."""
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM answers WHERE id = ?", (prediction,)).fetchone()
        return None if found is None else self._entry(found)

    def read(self, after: int) -> Iterator[Entry]:
        """Answers whose number is greater than `after`."""
        # By pages: one long read would keep the writer from reusing its log.
        page = f"SELECT {_COLUMNS} FROM answers WHERE seq > ? ORDER BY seq LIMIT {_PAGE}"
        while rows := self._connection.execute(page, (after,)).fetchall():
            yield from map(self._entry, rows)
            after = rows[-1][0]

    @property
    def unscrubbed(self) -> bool:
        """Whether answers were deleted here whose bytes may still lie about."""
        return self._erases and bool(self._connection.execute("SELECT 1 FROM erased WHERE NOT scrubbed").fetchone())

    def account(self, end: float) -> Recovery:
        """What became of the numbers handed out; none after `end` is its own."""
        recorded, refused = self._recorded, self._refused
        erased = self._connection.execute(_SPANS.format("erased")).fetchall() if self._erases else []
        missing: tuple[Span, ...] = ()
        if not self.closed:
            answers = self._connection.execute(_SPANS.format("answers")).fetchall() + erased
            turned_away = self._connection.execute("SELECT first, last FROM refused").fetchall()
            recorded, refused = _many(answers), _many(turned_away)
            missing = journal.gaps(self.segment.first, int(min(self._bound, end)), answers + turned_away)
        return Recovery(
            segment=str(self.segment),
            header=self.header,
            closed=bool(self.closed),
            recorded=recorded,
            refused=refused,
            gaps=missing,
            erased=_many(erased),
        )

    def _entry(self, stored: Row) -> Entry:
        seq, id_, asked, model, version, epoch, role, within, key, output, latency, via, failed, body = stored
        kept = bodies.unpack(body)
        return Entry(
            id=str(UUID(bytes=id_)),
            asked=asked,
            model=model,
            version=version,
            epoch=epoch,
            role=role,
            within_tolerance=bool(within),
            key=key,
            inputs=kept.inputs,
            features=kept.features,
            # SQLite has no NaN: it stores NULL.
            output=math.nan if output is None else output,
            latency_us=latency,
            via=via,
            failed=failed,
            outputs=kept.outputs,
            decision=kept.decision,
            app=self.header.app,
            process=self.segment.process,
            segment=str(self.segment),
            seq=seq,
        )


def _many(spans: Sequence[Span]) -> int:
    return sum(last - first + 1 for first, last in spans)


def erase(path: Path, numbers: Sequence[int]) -> None:
    """Delete answers for good from the segment in `path`, while its process may write.

    What is deleted says so in the same transaction, so a crash between the deletion and the scrubbing shows.

    Raises:
        AdapterError: `journal-unreadable`.
        RetryableError: `store-busy`.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)) as connection:
            _synced(connection)
            with _transaction(connection):
                connection.execute(_ERASED)
                rows = [(number,) for number in numbers]
                connection.executemany("INSERT INTO erased (seq) VALUES (?)", rows)
                connection.executemany("DELETE FROM answers WHERE seq = ?", rows)
            scrub.scrub(connection, path.name, _PATIENCE)
            connection.execute("UPDATE erased SET scrubbed = 1")
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error


@contextlib.contextmanager
def reading(path: Path, segment: Segment) -> Iterator[ReadSegment]:
    """The segment in `path`.

    Raises:
        AdapterError: `journal-unreadable`.
        StateError: `journal-is-newer`.
    """
    try:
        # Not `mode=ro`: what a crash left in the log has to be rolled back or forward before it can be read.
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("PRAGMA query_only=ON")
            said, *rest = connection.execute("SELECT said, bound, closed, recorded, refused FROM header").fetchone()
            yield ReadSegment(connection, segment, said, tuple(rest))
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> AdapterError:
    return AdapterError(
        "journal-unreadable",
        f"Segment {path.name} of the journal cannot be read",
        why=str(error),
        next=f"restore it from a backup, or move it away: sqlite3 {path.name} .recover shows what is left",
    )
