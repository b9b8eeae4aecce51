"""One segment of the journal, as anybody reads it while its process may write, and as it is erased from.

Three formats are known. Since 3 answers lie in pages (`serve.body`); before, each was a row of its own, with an index of ids.
An erased answer leaves nil in its page, or no row; a table says which numbers were erased, and whether nothing of them is left.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded import journal_segment, scrub
from flyball.adapters.embedded.journal_segment import Missed
from flyball.serve import body as bodies
from flyball.serve import journal
from flyball.serve.journal import Answer, Entry, Header, Recovery, Segment, Span

_ERASED: Final = "CREATE TABLE IF NOT EXISTS erased (seq INTEGER PRIMARY KEY, scrubbed INTEGER NOT NULL DEFAULT 0)"
"""The numbers of the answers that were erased; only a segment that lost some has this table, of whatever format it is."""
_SPANS: Final = """SELECT min(seq), max(seq) FROM (SELECT seq, seq - row_number() OVER (ORDER BY seq) AS island
    FROM {}) GROUP BY island"""
_COLUMNS: Final = (
    "seq, id, asked, model, version, epoch, role, within_tolerance, key, output, latency_us, via, failed, body"
)
_ROWS_AT_ONCE: Final = 1000
_PAGES_AT_ONCE: Final = 16
_PAGED: Final = 3
"""The first format with pages."""
_PATIENCE: Final = 10.0
"""Seconds that an erasure waits for the process that writes a segment, and for those who read it."""


class Noted(NamedTuple):
    """What a process noted beside its segments while their disk was full.

    Attributes:
        through: the numbers up to this one that its last segment does not speak for left unlogged;
        bound: and those up to this one may have been handed out.
    """

    through: int = 0
    bound: int = 0


class _Pages:
    """How answers lie in a segment since format 3: found and read with their numbers. `recorded` are the numbers of all, erased
    ones as well, and `missed` those that the disk did not take.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, prediction: bytes) -> tuple[int, Answer] | None:
        lies = "SELECT first, body FROM pages WHERE least_id <= ? AND greatest_id >= ? ORDER BY least_id DESC"
        written = str(UUID(bytes=prediction))
        for first, body in self._connection.execute(lies, (prediction, prediction)):
            if (found := bodies.find(body, written)) is not None:
                return first + found[0], found[1]
        return None

    def read(self, after: int) -> Iterator[tuple[int, Answer]]:
        # A few at a time: one long read would keep the writer from reusing its log.
        few = f"SELECT first, body FROM pages WHERE first >= ? ORDER BY first LIMIT {_PAGES_AT_ONCE}"
        (begin,) = self._connection.execute("SELECT max(first) FROM pages WHERE first <= ?", (after + 1,)).fetchone()
        begin = begin or 0
        while found := self._connection.execute(few, (begin,)).fetchall():
            for first, body in found:
                for seq, answer in enumerate(bodies.answers(body), first):
                    if answer is not None and seq > after:
                        yield seq, answer
            begin = found[-1][0] + 1

    def recorded(self) -> list[Span]:
        return self._connection.execute("SELECT first, last FROM pages").fetchall()

    def missed(self) -> list[Missed]:
        return [Missed(*row) for row in self._connection.execute("SELECT first, last, left FROM missed")]

    def delete(self, numbers: Sequence[int]) -> None:
        holds = "SELECT max(first) FROM pages WHERE first <= ?"
        located = ((self._connection.execute(holds, (number,)).fetchone()[0], number) for number in sorted(numbers))
        for first, several in groupby(located, lambda each: each[0]):
            (body,) = self._connection.execute("SELECT body FROM pages WHERE first = ?", (first,)).fetchone()
            gone = {number - first for _, number in several}
            kept = bodies.page([bodies.ERASED if n in gone else item for n, item in enumerate(bodies.items(body))])
            left = [answer for answer in bodies.answers(kept) if answer is not None]
            ids = [journal.packed(answer.id) or b"" for answer in left] or [b""]
            asked = [answer.asked for answer in left] or [0]
            self._connection.execute(
                "UPDATE pages SET (least_id, greatest_id, least_asked, greatest_asked, body) = (?, ?, ?, ?, ?)"
                " WHERE first = ?",
                (min(ids), max(ids), min(asked), max(asked), kept, first),
            )


class _Rows:
    """How they lay until format 2, each in a row; asked the same."""

    def __init__(self, connection: sqlite3.Connection, erases: bool) -> None:
        self._connection, self._erases = connection, erases

    def find(self, prediction: bytes) -> tuple[int, Answer] | None:
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM answers WHERE id = ?", (prediction,)).fetchone()
        return None if found is None else self._answer(found)

    def read(self, after: int) -> Iterator[tuple[int, Answer]]:
        few = f"SELECT {_COLUMNS} FROM answers WHERE seq > ? ORDER BY seq LIMIT {_ROWS_AT_ONCE}"
        while rows := self._connection.execute(few, (after,)).fetchall():
            yield from map(self._answer, rows)
            after = rows[-1][0]

    def recorded(self) -> list[Span]:
        tables = ["answers", "erased"] if self._erases else ["answers"]
        return [span for table in tables for span in self._connection.execute(_SPANS.format(table)).fetchall()]

    def missed(self) -> list[Missed]:
        refused = self._connection.execute("SELECT first, last FROM refused").fetchall()
        return [Missed(first, last, False) for first, last in refused]

    def delete(self, numbers: Sequence[int]) -> None:
        self._connection.executemany("DELETE FROM answers WHERE seq = ?", [(number,) for number in numbers])

    @staticmethod
    def _answer(stored: tuple[Any, ...]) -> tuple[int, Answer]:
        seq, id_, asked, model, version, epoch, role, within, key, output, latency, via, failed, body = stored
        kept = bodies.unpack(body)
        return seq, Answer(
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
            output=bodies.number(output),
            latency_us=latency,
            via=via,
            failed=failed,
            outputs=kept.outputs,
            decision=kept.decision,
        )


class _Format(msgspec.Struct, frozen=True):
    format: int


class ReadSegment:
    """A segment that is being read, while its process may write: every query is a snapshot of its own."""

    def __init__(self, connection: sqlite3.Connection, segment: Segment) -> None:
        said, *rest = connection.execute("SELECT said, bound, closed, recorded, refused FROM header").fetchone()
        written = msgspec.json.decode(said, type=_Format).format
        if written > journal.FORMAT:
            raise StateError(
                "journal-is-newer",
                f"Segment {segment} was written by a later release (format {written}, this one knows {journal.FORMAT})",
                next="read it with that release",
            )
        self.header = msgspec.json.decode(said, type=Header)
        self.segment = segment
        self._name = str(segment)
        self._bound, self.closed, self._recorded, self._refused = rest
        self._connection = connection
        named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'erased'"
        self._erases = connection.execute(named).fetchone() is not None
        self._unlogged = 0
        self._layout: _Pages | _Rows = _Rows(connection, self._erases)
        if written >= _PAGED:
            (self._unlogged,) = connection.execute("SELECT unlogged FROM header").fetchone()
            self._layout = _Pages(connection)

    def find(self, prediction: bytes) -> Entry | None:
        """The answer with that id."""
        found = self._layout.find(prediction)
        return None if found is None else bodies.entry(found[1], self.header, self.segment, self._name, found[0])

    def read(self, after: int) -> Iterator[Entry]:
        """Answers whose number is greater than `after`."""
        for seq, answer in self._layout.read(after):
            yield bodies.entry(answer, self.header, self.segment, self._name, seq)

    @property
    def unscrubbed(self) -> bool:
        """Whether answers were deleted here whose bytes may still lie about."""
        return self._erases and bool(self._connection.execute("SELECT 1 FROM erased WHERE NOT scrubbed").fetchone())

    def account(self, end: float, noted: Noted) -> Recovery:
        """What became of the numbers handed out; none after `end` is its own.

        Args:
            noted: what its process left; of its last segment.
        """
        recorded, refused, unlogged = self._recorded, self._refused, self._unlogged
        missing: tuple[Span, ...] = ()
        if not self.closed:
            answers, missed = self._layout.recorded(), self._layout.missed()
            last = max([self.segment.first - 1, *(span[1] for span in (*answers, *missed))])
            if noted.through > last:
                missed.append(Missed(last + 1, noted.through, left=True))
            recorded = sum(after - first + 1 for first, after in answers)
            refused = sum(span.many for span in missed if not span.left)
            unlogged = sum(span.many for span in missed if span.left)
            bound = min(max(self._bound, noted.bound), end)
            spans = [*answers, *((span.first, span.last) for span in missed)]
            missing = journal.gaps(self.segment.first, int(bound), spans)
        return Recovery(
            segment=self._name,
            header=self.header,
            closed=bool(self.closed),
            recorded=recorded,
            refused=refused,
            gaps=missing,
            erased=self._connection.execute("SELECT count(*) FROM erased").fetchone()[0] if self._erases else 0,
            unlogged=unlogged,
        )

    def delete(self, numbers: Sequence[int]) -> None:
        """Take these answers away, in a transaction."""
        self._connection.executemany("INSERT INTO erased (seq) VALUES (?)", [(number,) for number in numbers])
        self._layout.delete(numbers)


def erase(path: Path, segment: Segment, numbers: Sequence[int]) -> None:
    """Delete answers for good from the segment in `path`, while its process may write.

    What is deleted says so in the same transaction, so a crash between the deletion and the scrubbing shows.

    Raises:
        AdapterError: `journal-unreadable`.
        RetryableError: `store-busy`.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_PATIENCE)) as connection:
            journal_segment.synced(connection)
            with journal_segment.transaction(connection):
                connection.execute(_ERASED)
                ReadSegment(connection, segment).delete(numbers)
            scrub.scrub(connection, path.name, _PATIENCE)
            connection.execute("UPDATE erased SET scrubbed = 1")
    except (sqlite3.Error, msgspec.DecodeError) as error:
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
            yield ReadSegment(connection, segment)
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> AdapterError:
    return AdapterError(
        "journal-unreadable",
        f"Segment {path.name} of the journal cannot be read",
        why=str(error),
        next=f"restore it from a backup, or move it away: sqlite3 {path.name} .recover shows what is left",
    )
