"""Outcomes in one SQLite file that several processes write.

A post is one transaction that takes the only writer's place at its beginning, so that what it reads of a target is still true
when it commits, and numbers appear in their order. A commit is on disk when it returns (WAL with `synchronous=FULL`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

from flyball._kernel.clock import from_micros, micros
from flyball._kernel.errors import AdapterError, FlyballError, StateError
from flyball.adapters.embedded import scrub, sqlite_file
from flyball.serve import outcomes
from flyball.serve.outcomes import Counts, New, Posted, Taken

FORMAT: Final = 1
"""The layout of the file; grows with every change to it."""
PATIENCE: Final = 10.0
"""Seconds that a post waits for another process's before it fails."""

_PAGE: Final = 1000
_SCHEMA: Final = (
    """CREATE TABLE outcomes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, received INTEGER NOT NULL, by TEXT NOT NULL, model TEXT NOT NULL,
        prediction TEXT NOT NULL, key TEXT NOT NULL, value REAL, settled INTEGER NOT NULL)""",
    "CREATE INDEX outcomes_of_a_prediction ON outcomes (prediction, seq) WHERE prediction <> ''",
    "CREATE INDEX outcomes_of_a_key ON outcomes (model, key, seq) WHERE prediction = ''",
)
_LAST_OF_PREDICTION: Final = (
    "SELECT value, settled FROM outcomes WHERE prediction <> '' AND prediction = ? ORDER BY seq DESC LIMIT 1"
)
_LAST_OF_KEY: Final = (
    "SELECT value, settled FROM outcomes WHERE prediction = '' AND model = ? AND key = ? ORDER BY seq DESC LIMIT 1"
)
_INSERT: Final = """INSERT INTO outcomes (received, by, model, prediction, key, value, settled)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
# The columns of a group that has max(seq) and no other aggregate like it are those of its last row: a rule of SQLite's.
_COUNTS: Final = """SELECT model, count(*), sum(value IS NULL), sum(n) - count(*) FROM (
    SELECT model, value, count(*) AS n, max(seq) FROM outcomes
    GROUP BY prediction, CASE prediction WHEN '' THEN model END, key) GROUP BY model"""


class SqliteOutcomes:
    """See `serve.outcomes.Outcomes`; safe to use from several threads.

    Args:
        path: created with mode 0600 where missing.
        patience: seconds to wait for another process's post.

    Raises:
        StateError: `store-is-newer`.
        AdapterError: `store-unusable`, `store-damaged`; `store-unsupported` on a disk that keeps no write-ahead log.
        RetryableError: `store-busy`, `disk-full`.
    """

    def __init__(self, path: str | Path, patience: float = PATIENCE) -> None:
        self.path, self._patience, self._lock = Path(path), patience, Lock()
        with self._explained():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                # SQLite gives the mode of the database to its log as well.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._connection = sqlite3.connect(
                self.path, timeout=patience, isolation_level=None, check_same_thread=False
            )
        try:
            with self._explained():
                self._prepare()
        except FlyballError:
            self.close()
            raise

    def post(self, new: Sequence[New]) -> list[Taken]:
        """Store `new`; see `serve.outcomes.Outcomes`."""
        with self._writing() as connection:
            return [_take(connection, each) for each in new]

    def read(self, after: int = 0) -> Iterator[Posted]:
        """What is stored after a number, by pages: one long read would keep writers from reusing the log."""
        while rows := self._page(after):
            for seq, received, by, model, prediction, key, value, settled in rows:
                yield Posted(
                    seq=seq,
                    received=from_micros(received),
                    by=by,
                    model=model,
                    prediction=prediction,
                    key=key,
                    value=value,
                    settled=from_micros(settled),
                )
            after = rows[-1][0]

    def counts(self) -> dict[str, Counts]:
        """What is stored, by model."""
        with self._explained(), self._lock:
            found = self._connection.execute(_COUNTS).fetchall()
        return {model: Counts(targets=n, void=void, corrections=corrections) for model, n, void, corrections in found}

    def erase(self, chosen: Callable[[Posted], bool]) -> int:
        """Delete what `chosen` says; scrubbed also where nothing is left to delete, since a crash may have come between."""
        numbers = [(posted.seq,) for posted in self.read() if chosen(posted)]
        with self._writing() as connection:
            connection.executemany("DELETE FROM outcomes WHERE seq = ?", numbers)
        with self._explained(), self._lock:
            scrub.scrub(self._connection, self.path.name, self._patience)
        return len(numbers)

    def close(self) -> None:
        """Close the connection."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _page(self, after: int) -> list[tuple[int, int, str, str, str, str, float | None, int]]:
        with self._explained(), self._lock:
            return self._connection.execute(
                "SELECT seq, received, by, model, prediction, key, value, settled FROM outcomes"
                f" WHERE seq > ? ORDER BY seq LIMIT {_PAGE}",
                (after,),
            ).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._explained(), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # Some failures (a full disk) end the transaction by themselves.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _prepare(self) -> None:
        mode = self._write_ahead()
        if mode != "wal":
            raise AdapterError(
                "store-unsupported",
                f"The disk of {self.path} cannot keep a write-ahead log (SQLite chose {mode!r})",
                why="Several processes read while one writes, which SQLite needs shared memory for",
                next="put the store on a local disk",
            )
        # The last two are for macOS, where a plain fsync leaves the bytes in the drive's cache.
        for pragma in ("synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON", "trusted_schema=OFF"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        if self._format() == 0:
            with self._writing() as connection:
                if self._format() == 0:  # or another process was first
                    for statement in _SCHEMA:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={FORMAT}")
        if (written := self._format()) > FORMAT:
            raise StateError(
                "store-is-newer",
                f"{self.path} was written by a later release (format {written}, this one knows {FORMAT})",
                next="use that release, or restore the backup that was made before it",
            )

    def _format(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _write_ahead(self) -> str:
        return sqlite_file.write_ahead(self._connection, self._patience)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._named(error) from error

    def _named(self, error: Exception) -> AdapterError:
        passing = sqlite_file.passing(self.path, error)
        if passing is not None:
            return passing
        if sqlite_file.code(error) in (sqlite_file.CORRUPT, sqlite_file.NOTADB):
            return AdapterError(
                "store-damaged",
                f"{self.path} is not a sound database",
                why=str(error),
                next=f"restore it from a backup; `sqlite3 {self.path.name} .recover` shows what is left",
            )
        return AdapterError(
            "store-unusable",
            f"{self.path} cannot be used as a database",
            why=str(error),
            next="check that the path is right, that its directory exists and that you may write there",
        )


def _take(connection: sqlite3.Connection, new: New) -> Taken:
    if new.prediction:
        last = connection.execute(_LAST_OF_PREDICTION, (new.prediction,)).fetchone()
    else:
        last = connection.execute(_LAST_OF_KEY, (new.model, new.key)).fetchone()
    how = outcomes.taken(None if last is None else (last[0], from_micros(last[1])), new)
    if how != "repeated":
        said = (new.by, new.model, new.prediction, new.key, new.value)
        settled = new.settled if new.settled is not None else new.received
        connection.execute(_INSERT, (micros(new.received), *said, micros(settled)))
    return how
