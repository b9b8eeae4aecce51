"""One SQLite file that several processes share: how it gets its write-ahead log, and what failures that pass are called."""

from __future__ import annotations

import sqlite3
from threading import Event
from time import perf_counter
from typing import Any, Final

from flyball._kernel.errors import RetryableError

BUSY, LOCKED, CORRUPT, FULL, NOTADB = 5, 6, 11, 13, 26
"""SQLite's primary result codes: https://www.sqlite.org/rescode.html"""

AGAIN: Final = 0.01
"""Seconds between two tries."""


def code(error: object) -> int:
    """The primary result code of an error; 0 where it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def write_ahead(connection: Any, patience: float) -> str:
    """Switch a file to a write-ahead log, within so many seconds; returns the mode that SQLite chose.

    Raises:
        sqlite3.Error: as the file does.
    """
    # Where several processes open a new file at once, SQLite refuses the switch at once instead of waiting for it.
    end = perf_counter() + patience
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if code(error) != BUSY or perf_counter() > end:
                raise
        Event().wait(AGAIN)


def passing(place: object, error: object) -> RetryableError | None:
    """What passes by itself, or with some room; None where the failure is another."""
    if code(error) in (BUSY, LOCKED):
        return RetryableError(
            "store-busy",
            f"{place} is locked by another process",
            why=str(error),
            next="try again; if it lasts, find the process with `fuser` or `lsof` on that file",
        )
    if code(error) == FULL:
        return RetryableError(
            "disk-full",
            f"There is no room left to write {place}",
            why=str(error),
            next="free space on that disk and try again; nothing was written",
        )
    return None
