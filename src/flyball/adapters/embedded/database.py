"""One SQL database: how it is opened, what a transaction in it means, and what its failures are called.

A **write** takes the database's only writer's place at its beginning (SQLite's BEGIN IMMEDIATE), so what is read in it is
still true when it commits; that makes the chain of facts linear and leases exclusive between processes. A **read** is
one snapshot. A commit is on disk when it returns (WAL with `synchronous=FULL`).

SQLite needs shared memory between its processes, so a disk that cannot keep a write-ahead log (most network disks) is
refused when the database is opened, not discovered later.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event, exc

from flyball._kernel.errors import AdapterError, FlyballError
from flyball.adapters.embedded import schema, sqlite_file

PATIENCE: Final = 10.0
"""Seconds that a transaction waits for another process's before it fails."""


class Connection(sqlite3.Connection):
    """Closes with the thread or the store that it belongs to; Python from 3.13 on warns of one that is merely dropped."""

    def __del__(self) -> None:
        with suppress(sqlite3.Error):  # one that was never opened cannot be closed
            self.close()


class Database:
    """A database at the format of this release.

    Args:
        place: the path of a SQLite file, created with mode 0600 where missing, or a SQLAlchemy URL.
        patience: seconds to wait for another process's transaction.

    Raises:
        StateError: `store-is-newer`.
        AdapterError: `store-unusable`; `store-unsupported` on a disk that cannot keep a write-ahead log.
        RetryableError: `store-busy`, `disk-full`.
    """

    def __init__(self, place: str | Path, patience: float = PATIENCE) -> None:
        url = sa.make_url(str(place)) if "://" in str(place) else sa.URL.create("sqlite", database=str(place))
        self.place, self._patience = url.database or "", patience
        sqlite = url.get_backend_name() == "sqlite"
        if sqlite:
            self._create()
        self._engine = sa.create_engine(
            url, connect_args={"timeout": patience, "factory": Connection} if sqlite else {}
        )
        if sqlite:
            event.listen(self._engine, "connect", self._prepare)
            event.listen(self._engine, "begin", _begin)
        self._writing = self._engine.execution_options(flyball_begin="BEGIN IMMEDIATE")
        try:
            self._migrate()
        except FlyballError:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One snapshot."""
        with self._explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that excludes every other writer from its beginning; rolled back when its body raises."""
        with self._explained(), self._writing.begin() as connection:
            yield connection

    def check(self, connection: sa.Connection) -> None:
        """Let SQLite walk its pages, indices and types.

        Raises:
            AdapterError: `store-damaged`.
        """
        if connection.dialect.name != "sqlite":
            return
        found = connection.exec_driver_sql("PRAGMA integrity_check(3)").scalars().all()
        if list(found) != ["ok"]:
            raise self._damaged("; ".join(map(str, found)))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _migrate(self) -> None:
        with self.read() as connection:
            current = schema.revision(connection) == schema.HEAD
        if not current:
            with self.write() as connection:
                schema.upgrade(connection)

    def _create(self) -> None:
        """Create the file readable by its owner only; SQLite gives the mode of the file to its log as well."""
        if self.place in ("", ":memory:"):
            raise AdapterError(
                "store-unsupported",
                "A SQLite database in memory cannot be shared between connections",
                next="give the path of a file, or use the memory adapter",
            )
        path = Path(self.place)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise self._unusable(str(error)) from error

    def _prepare(self, connection: Any, _: object) -> None:
        # The driver would begin transactions by itself, late and deferred; `_begin` does so instead.
        connection.isolation_level = None
        mode = self._write_ahead(connection)
        if mode != "wal":
            raise AdapterError(
                "store-unsupported",
                f"The disk of {self.place} cannot keep a write-ahead log (SQLite chose {mode!r})",
                why="Several processes read while one writes, which SQLite needs shared memory for",
                next="put the store on a local disk",
            )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA trusted_schema=OFF")

    def _write_ahead(self, connection: Any) -> str:
        try:
            return sqlite_file.write_ahead(connection, self._patience)
        except UnicodeDecodeError as error:
            # The first statement reads the schema; the driver cannot say what is wrong with one that is not text.
            raise self._damaged("its schema is not text") from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            raise self._named(error) from error

    def _named(self, error: exc.DBAPIError) -> AdapterError:
        passing = sqlite_file.passing(self.place, error.orig)
        if passing is not None:
            return passing
        if sqlite_file.code(error.orig) in (sqlite_file.CORRUPT, sqlite_file.NOTADB):
            return self._damaged(str(error.orig))
        return self._unusable(str(error.orig))

    def _damaged(self, why: str) -> AdapterError:
        return AdapterError(
            "store-damaged",
            f"{self.place} is not a sound database",
            why=why,
            next="restore the newest backup whose `verify` holds",
        )

    def _unusable(self, why: str) -> AdapterError:
        return AdapterError(
            "store-unusable",
            f"{self.place} cannot be used as a database",
            why=why,
            next="check that the path is right, that its directory exists and that you may write there",
        )


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("flyball_begin", "BEGIN"))
