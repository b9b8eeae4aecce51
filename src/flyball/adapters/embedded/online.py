"""Online features in one SQLite file, beside the facts: one process at a time writes, any number read.

Everything in it is derived from tables, and each series' position commits with its content. So a commit need not be on
disk when it returns (`synchronous=NORMAL`): what a power cut takes is applied again. A file of an earlier format is
emptied, and filled anew.

Totals may need 128 bits and SQLite has 64: beyond them an integer is kept as text, in columns without a type.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded import scrub, sqlite_file
from flyball.adapters.embedded.database import Connection
from flyball.learn.features import online
from flyball.learn.features.online import Change, EntityValue, Of, Version

FORMAT: Final = 2
PATIENCE: Final = 10.0
"""Seconds that a write waits for another process's."""

_SCHEMA: Final = (
    "CREATE TABLE series (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, position INTEGER NOT NULL)",
    """CREATE TABLE versions (
        series INTEGER NOT NULL, key BLOB NOT NULL, known INTEGER NOT NULL, batch INTEGER NOT NULL,
        until INTEGER NOT NULL, entity, event INTEGER, settled INTEGER NOT NULL, value, since INTEGER NOT NULL,
        PRIMARY KEY (series, key, known, batch)) WITHOUT ROWID""",
    """CREATE INDEX versions_by_event ON versions (series, entity, event, known, batch, key)
        WHERE event IS NOT NULL""",
    """CREATE TABLE steps (
        series INTEGER NOT NULL, span INTEGER NOT NULL, entity NOT NULL, at INTEGER NOT NULL, n INTEGER NOT NULL,
        total NOT NULL, PRIMARY KEY (series, span, entity, at)) WITHOUT ROWID""",
)
_COLUMNS: Final = "key, known, batch, until, entity, event, settled, value, since"
_CHAIN: Final = f"SELECT {_COLUMNS} FROM versions WHERE series = ? AND key = ? ORDER BY known, batch"
_TOTAL: Final = """SELECT n, total FROM steps WHERE series = ? AND span = ? AND entity = ? AND at < ?
    ORDER BY at DESC LIMIT 1"""
_LATEST: Final = f"""SELECT {_COLUMNS} FROM versions
    WHERE series = ? AND entity = ? AND event < ? AND known < ? AND until >= ? AND key <> ?
    ORDER BY event DESC, known DESC, batch DESC, key DESC LIMIT 1"""
_VALUES: Final = """SELECT value FROM versions
    WHERE series = ? AND entity = ? AND event >= ? AND event < ? AND known < ? AND settled < ? AND until >= ?
    AND key <> ?"""
_CHAINS: Final = f"SELECT {_COLUMNS} FROM versions WHERE series = ? AND key IN ({{}}) ORDER BY key, known, batch"
_TAILS: Final = """WITH wanted (span, entity, since) AS (VALUES {}) SELECT wanted.span, wanted.entity, at, n, total
    FROM wanted CROSS JOIN steps ON series = ?1 AND steps.span = wanted.span AND steps.entity = wanted.entity AND at >= ifnull(
        (SELECT max(at) FROM steps AS s WHERE s.series = ?1 AND s.span = wanted.span AND s.entity = wanted.entity
            AND s.at < wanted.since), wanted.since)"""
_PORTION: Final = 200
"""How many keys, or spans of entities, are asked for at once."""


class SqlOnline:
    """A store of series in a SQLite file, for any number of threads: each has a connection of its own.

    Args:
        place: the path of the file, created with mode 0600 where missing.
        patience: seconds to wait for another process's write.

    Raises:
        StateError: `store-is-newer`.
        AdapterError: `store-unusable`; from every method, where SQLite fails.
        RetryableError: `store-busy`, `disk-full`, from every method.
    """

    def __init__(self, place: str | Path, patience: float = PATIENCE) -> None:
        self._place, self._patience = Path(place), patience
        self._own = threading.local()
        self._opened: list[sqlite3.Connection] = []
        try:
            self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self._place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise _named(self._place, error) from error
        with self._state("BEGIN IMMEDIATE") as state:
            _prepare(state, self._place)

    def position(self, series: str) -> int | None:
        """The last batch that a series holds; None if there is no such series."""
        with self._state() as state:
            found = state.run("SELECT position FROM series WHERE name = ?", (series,)).fetchone()
        return None if found is None else int(found[0])

    def view(self) -> _State:
        """The state as of now: one snapshot for all that is looked up in it."""
        return self._state()

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply all changes in one transaction; see `Online`."""
        with self._state("BEGIN IMMEDIATE") as state:
            _apply(state, changes)

    def keep(self, series: Collection[str]) -> None:
        """Drop every other series; also those that other processes still read."""
        with self._state("BEGIN IMMEDIATE") as state:
            _keep(state, series)

    def refill(self, changes: Sequence[Change]) -> None:
        """Put these in the place of all that their series held, and leave no byte of it; see `Online`."""
        with self._state("BEGIN IMMEDIATE") as state:
            for change in changes:
                found = state.run("SELECT id FROM series WHERE name = ?", (change.series,)).fetchone()
                for table in ("versions", "steps") if found is not None else ():
                    state.run(f"DELETE FROM {table} WHERE series = ?", found)
                _write(state, change)
        self._scrub()

    def withdraw(self, changes: Sequence[Change], keep: Collection[str]) -> None:
        """Apply all changes, drop every series but `keep`, and leave no byte of what is gone; see `Online`."""
        with self._state("BEGIN IMMEDIATE") as state:
            _apply(state, changes)
            _keep(state, keep)
        self._scrub()

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the content of each series that there is; see `Online`."""
        with self._state() as state:
            found = {str(name): 0 for (name,) in state.run("SELECT name FROM series")}
            for table, columns in (("versions", _COLUMNS), ("steps", "span, entity, at, n, total")):
                for name, size in state.run(_sizes(table, columns)):
                    found[name] += int(size)
        return found

    def _scrub(self) -> None:
        connection = _connect(self._place, self._patience)
        with closing(connection):
            try:
                scrub.scrub(connection, self._place.name, self._patience)
            except sqlite3.Error as error:
                raise _named(self._place, error) from error

    def close(self) -> None:
        """Close the connections of all threads."""
        while self._opened:
            self._opened.pop().close()
        self._own = threading.local()

    def _state(self, begin: str = "BEGIN") -> _State:
        state: _State | None = getattr(self._own, "state", None)
        if state is None:
            try:
                connection = _connect(self._place, self._patience)
            except sqlite3.Error as error:
                raise _named(self._place, error) from error
            self._opened.append(connection)
            state = self._own.state = _State(self._place, connection)
        state.begin = begin
        return state


class _State:
    """The transactions of one thread, one after another, as contexts; and what is read in each."""

    def __init__(self, place: Path, connection: sqlite3.Connection) -> None:
        self.begin = "BEGIN"
        self.run, self.many = connection.execute, connection.executemany
        self._place = place
        self._ids: dict[str, int] = {}
        self._changed = -1

    def __enter__(self) -> _State:
        try:
            self.run(self.begin)
            changed = self.run("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise _named(self._place, error) from error
        if changed != self._changed:  # another connection has written: it may have dropped what we know by number
            self._ids.clear()
            self._changed = changed
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is None:
            try:
                self.run("COMMIT")
            except sqlite3.Error as failure:
                error = failure
            else:
                return
        # Some failures (a full disk) end the transaction by themselves; a number that was given in it is void.
        with suppress(sqlite3.Error):
            self.run("ROLLBACK")
        self._ids.clear()
        if isinstance(error, sqlite3.Error):
            raise _named(self._place, error) from error

    def forget(self) -> None:
        """Look the numbers of series up again."""
        self._ids.clear()

    def id(self, series: str) -> int:
        """The number of a series; numbers are never used again."""
        found = self._ids.get(series)
        if found is None:
            row = self.run("SELECT id FROM series WHERE name = ?", (series,)).fetchone()
            if row is None:
                raise online.absent(series)
            found = self._ids[series] = int(row[0])
        return found

    def chain(self, series: str, key: bytes) -> Sequence[Version]:
        """The versions of a key, by (known, batch)."""
        return [_version(row) for row in self.run(_CHAIN, (self.id(series), key))]

    def total(self, series: str, span: int, entity: EntityValue, before: int) -> tuple[int, int]:
        """Count and total of the last step before a moment."""
        found = self.run(_TOTAL, (self.id(series), span, entity, before)).fetchone()
        return (found[0], int(found[1])) if found is not None else (0, 0)

    def chains(self, series: str, keys: Sequence[bytes]) -> dict[bytes, list[Version]]:
        """The versions of many keys; see `View`."""
        id_, found = self.id(series), dict[bytes, list[Version]]()
        for first in range(0, len(keys), _PORTION):
            portion = keys[first : first + _PORTION]
            for row in self.run(_CHAINS.format(", ".join("?" * len(portion))), (id_, *portion)):
                found.setdefault(row[0], []).append(_version(row))
        return found

    def tails(self, series: str, since: Mapping[Of, int]) -> dict[Of, dict[int, tuple[int, int]]]:
        """The last step before a moment and all from then on, of many; see `View`."""
        id_, wanted = self.id(series), [(*of, first) for of, first in since.items()]
        found: dict[Of, dict[int, tuple[int, int]]] = {}
        for first in range(0, len(wanted), _PORTION):
            portion = wanted[first : first + _PORTION]
            rows = ", ".join(f"(?{n}, ?{n + 1}, ?{n + 2})" for n in range(2, 2 + 3 * len(portion), 3))
            for span, entity, at, n, total in self.run(_TAILS.format(rows), (id_, *chain.from_iterable(portion))):
                found.setdefault((span, entity), {})[at] = (n, int(total))
        return found

    def latest(self, series: str, entity: EntityValue, asked: int, below: int, own: bytes) -> Version | None:
        """The version with the greatest rank that is current; see `View`."""
        found = self.run(_LATEST, (self.id(series), entity, below, asked, asked, own)).fetchone()
        return None if found is None else _version(found)

    def values(
        self, series: str, entity: EntityValue, since: int, asked: int, own: bytes
    ) -> Sequence[int | float | bytes | None]:
        """The values of all versions of a span that are current; see `View`."""
        found = self.run(_VALUES, (self.id(series), entity, since, asked, asked, asked, asked, own))
        return [value for (value,) in found]


def _apply(state: _State, changes: Sequence[Change]) -> None:
    """Put changes where they belong, if all were decided upon what is there."""
    for change in changes:
        found = state.run("SELECT position FROM series WHERE name = ?", (change.series,)).fetchone()
        online.expected(change, None if found is None else int(found[0]))
        _write(state, change)


def _keep(state: _State, series: Collection[str]) -> None:
    """Drop every other series."""
    for id_, name in state.run("SELECT id, name FROM series").fetchall():
        if name not in series:
            for statement in ("versions WHERE series", "steps WHERE series", "series WHERE id"):
                state.run(f"DELETE FROM {statement} = ?", (id_,))
    state.forget()


def _write(state: _State, change: Change) -> None:
    """Put the content of a change where it belongs."""
    state.run(
        "INSERT INTO series (name, position) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET position = ?2",
        (change.series, change.position),
    )
    series = state.id(change.series)
    state.many(
        "DELETE FROM versions WHERE series = ? AND key = ? AND known = ? AND batch = ?",
        ((series, *identity) for identity in change.gone),
    )
    state.many(
        "DELETE FROM steps WHERE series = ? AND span = ? AND entity = ? AND at = ?",
        ((series, *identity) for identity in change.spent),
    )
    state.many(
        "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((series, *v[:7], _stored(v.value), v.since) for v in change.versions),
    )
    state.many(
        "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?)",
        ((series, s.span, s.entity, s.at, s.n, _stored(s.total)) for s in change.steps),
    )


def _sizes(table: str, columns: str) -> str:
    """The bytes of each series in a table; a number beyond 64 bits is text there."""
    weights = (
        f"CASE WHEN typeof({c}) IN ('integer', 'real') THEN 8 ELSE ifnull(length(CAST({c} AS BLOB)), 0) END"
        for c in columns.split(", ")
    )
    return f"SELECT s.name, sum({' + '.join(weights)}) FROM {table} t JOIN series s ON s.id = t.series GROUP BY s.id"


def _version(row: tuple[Any, ...]) -> Version:
    return Version._make(row if not isinstance(row[7], str) else (*row[:7], int(row[7]), row[8]))


def _stored(value: int | float | bytes | None) -> int | float | bytes | str | None:
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _connect(place: Path, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        place, timeout=patience, isolation_level=None, check_same_thread=False, factory=Connection
    )
    try:
        sqlite_file.write_ahead(connection, patience)
    except sqlite3.Error:
        connection.close()
        raise
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-65536")
    connection.execute("PRAGMA wal_autocheckpoint=16384")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _prepare(state: _State, place: Path) -> None:
    """Bring a file to this format."""
    found = state.run("PRAGMA user_version").fetchone()[0]
    if found > FORMAT:
        raise StateError(
            "store-is-newer",
            f"{place} was written by a later release (format {found}, this one knows {FORMAT})",
            why="It cannot be read, and would be lost if it were emptied.",
            next="use that release, or move the file away: it is filled anew from the tables",
        )
    if found < FORMAT:
        for table in ("series", "versions", "steps"):
            state.run(f"DROP TABLE IF EXISTS {table}")
        for statement in _SCHEMA:
            state.run(statement)
        state.run(f"PRAGMA user_version = {FORMAT}")


def _named(place: Path, error: sqlite3.Error | OSError) -> AdapterError:
    passing = sqlite_file.passing(place, error)
    if passing is not None:
        return passing
    return AdapterError(
        "store-unusable",
        f"{place} cannot be used as a store of features",
        why=str(error),
        next="check the path and its permissions; a damaged file may be deleted, and is filled anew from the tables",
    )
