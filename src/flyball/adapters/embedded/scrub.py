"""Scrubbing: after it, nothing that was deleted from a SQLite database is on the disk any more.

A deletion alone leaves its bytes in free pages, in the slack of others, and in the write-ahead log. VACUUM writes every page
anew, and a checkpoint that truncates moves them into the file and empties the log. Other processes may go on reading and
writing; a writer waits while the pages are written (about a second for 256 MB), and a reader is waited for.
"""

from __future__ import annotations

import sqlite3
from threading import Event
from time import perf_counter

from flyball._kernel.errors import RetryableError


def scrub(connection: sqlite3.Connection, name: str, patience: float) -> None:
    """Write a database anew and empty its log.

    Args:
        connection: in no transaction.
        name: of the file, for the error.
        patience: seconds to wait for readers of an older state.

    Raises:
        RetryableError: `store-busy`, when somebody reads on and on; what is deleted stays deleted, its bytes may not.
    """
    connection.execute("VACUUM")
    end = perf_counter() + patience
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if perf_counter() > end:
            raise RetryableError(
                "store-busy",
                f"{name} is read by another process, so its log cannot be emptied",
                why="What was deleted is gone for every reader, and its bytes may still lie in the log.",
                next="try again; if it lasts, find the process with `fuser` or `lsof` on that file",
            )
        Event().wait(0.01)
