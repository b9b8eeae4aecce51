"""Databases that a source may ask: where one is, by its name, and a transaction in it that can only read.

A URL comes from the placement or from FLYBALL_DATABASE_<NAME>, and may be said by reference (`env:NAME`, `file:PATH`), so
that a password lies in neither a declaration nor a fact. Errors name the database and the code of the driver's error: its
text may quote a row, or say who asked, and is not passed on (but for a query that is no SQL, whose text is the user's own).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, exc, make_url
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from flyball._kernel.errors import AdapterError, DeclarationError, RetryableError
from flyball.data.source import Source

if TYPE_CHECKING:
    import psycopg

PATIENCE = 10
"""Seconds for a connection, and for a lock of SQLite."""

_SETTINGS = ("TimeZone", "UTC"), ("DateStyle", "ISO"), ("IntervalStyle", "iso_8601"), ("bytea_output", "hex")
_SILENT, _BUSY = ("08", "53", "57"), ("SQLITE_BUSY", "SQLITE_LOCKED", "40001")
"""No connection, no room, an operator's hand; and who else is at it."""

_SAID = 200
"""Characters of what the database says of a wrong query."""


def url(source: Source, database: str, placed: Mapping[str, str]) -> URL:
    """Where a database is.

    Raises:
        AdapterError: `database-unknown`, `database-url`.
    """
    variable = f"FLYBALL_DATABASE_{database.upper().replace('-', '_')}"
    said = _followed(placed.get(database, f"env:{variable}"))
    if not said:
        raise AdapterError(
            "database-unknown",
            f"It is not said where the database {database} is.",
            where=source.place,
            why=f"The placement has no database of that name, and {variable} is not set.",
            next=f"{variable}=postgresql://user:password@host/name, or sqlite:////path/to/it",
        )
    try:
        found = make_url(said)
    except (exc.ArgumentError, ValueError):
        found = None
    kind = found.drivername.partition("+")[0] if found is not None else ""
    if found is None or kind not in ("postgres", "postgresql", "sqlite"):
        raise AdapterError(
            "database-url",
            f"What says where the database {database} is cannot be used.",
            where=source.place,
            why="It is no URL of PostgreSQL or SQLite; it is not shown, since it may hold a password.",
            next="postgresql://user:password@host/name, or sqlite:////path/to/it",
        )
    # A URL of SQLite says a path, and nothing of how it is opened: that is decided here.
    return (
        URL.create("sqlite", database=found.database)
        if kind == "sqlite"
        else found.set(drivername="postgresql+psycopg")
    )


def _followed(said: str) -> str:
    """A URL, or what `env:NAME` and `file:PATH` refer to; "" where there is nothing."""
    kind, _, rest = said.partition(":")
    if kind == "env":
        return os.environ.get(rest, "")
    if kind != "file":
        return said
    try:
        return Path(rest).read_text().strip()
    except OSError:
        return ""


@contextmanager
def asking(source: Source, database: str, placed: Mapping[str, str]) -> Iterator[Connection]:
    """A transaction that can only read; errors of the database become ours.

    Raises:
        DeclarationError: `package-not-installed`.
        AdapterError: as `url`; `query-wrong`, `database-refused`; RetryableError: `database-unreachable`.
    """
    found = url(source, database, placed)
    connecting: dict[str, Any] = (
        {"creator": _sqlite(found)} if found.drivername == "sqlite" else {"connect_args": {"connect_timeout": PATIENCE}}
    )
    try:
        engine = create_engine(found, poolclass=NullPool, hide_parameters=True, **connecting)
    except ModuleNotFoundError:
        raise DeclarationError(
            "package-not-installed",
            "The package psycopg is not installed.",
            where=source.place,
            why=f"The source {source.name} asks PostgreSQL.",
            next="pip install 'flyball[postgres]'",
        ) from None
    try:
        with engine.connect() as connection:
            if found.drivername != "sqlite":
                _prepare(connection)
            yield connection
    except exc.DBAPIError as problem:
        raise _told(source, database, problem) from None
    finally:
        engine.dispose()


def _sqlite(found: URL) -> Callable[[], sqlite3.Connection]:
    """Opened to read: a path that is wrong must not make a database."""
    place = f"file:{quote(found.database or '')}?mode=ro"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(place, uri=True, timeout=PATIENCE, check_same_thread=False)
        # SQLite keeps any bytes as text; one that is no UTF-8 must not keep all other rows from being read.
        connection.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
        return connection

    return connect


def _prepare(connection: Connection) -> None:
    """Make PostgreSQL write every value as text, in one form, whatever is set for this user."""
    from psycopg.types.string import TextLoader

    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    for known in driver.adapters.types:
        driver.adapters.register_loader(known.oid, TextLoader)
        driver.adapters.register_loader(known.array_oid, TextLoader)
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    for name, value in _SETTINGS:
        connection.exec_driver_sql(f"SET LOCAL {name} = '{value}'")


def _told(source: Source, database: str, problem: exc.DBAPIError) -> AdapterError:
    driver = problem.orig
    state = str(getattr(driver, "sqlstate", "") or getattr(driver, "sqlite_errorname", "") or "")
    if state.startswith("42") or state == "SQLITE_ERROR":  # no such table or column, no SQL, no right to read it
        said = str(getattr(getattr(driver, "diag", None), "message_primary", "") or driver)
        return AdapterError(
            "query-wrong",
            f"The database {database} cannot run the query: {said[:_SAID]}",
            where=source.place,
            why=f"It says {state}.",
            next="Mend the query, or let whoever runs it read these tables.",
        )
    if not state or state[:2] in _SILENT or state in _BUSY:
        return RetryableError(
            "database-unreachable",
            f"The database {database} does not answer.",
            where=source.place,
            why=f"No connection, a wrong password, or it broke off ({state or type(driver).__name__}).",
            next="See that it runs and that its URL is right; then run it again.",
        )
    return AdapterError(
        "database-refused",
        f"The database {database} refused: {state or type(driver).__name__}.",
        where=source.place,
        why="Its own text is not shown, since it may quote a row.",
        next="Look the code up in its manual, or run the query there.",
    )
