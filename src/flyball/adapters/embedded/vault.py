"""The vault in one SQLite file of its own, mode 0600: no value is in it, only keyed hashes and random tokens.

A token is on disk before a row that holds it can be (WAL with `synchronous=FULL`), so none is ever made anew for a value that
stored rows name by another. Nothing is kept in memory: what one process has forgotten, no other goes on using. A file is made
only when the first token is, so a home without tokens has none.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded import scrub, sqlite_file
from flyball.adapters.embedded.database import Connection

FORMAT: Final = 1
"""The layout of the file; grows with every change to it."""
PATIENCE: Final = 10.0
"""Seconds that a write waits for another process's."""
BYTES: Final = 16

_AT_ONCE: Final = 10_000
_SCHEMA: Final = "CREATE TABLE tokens (digest TEXT PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID"
_FIND: Final = "SELECT token FROM tokens WHERE digest = ?"
_FIND_ALL: Final = "SELECT digest, token FROM tokens WHERE digest IN (SELECT value FROM json_each(?))"


class SqliteVault:
    """See `data.seal.Vault`; safe to use from several threads and processes.

    Args:
        path: created with mode 0600 when it is first written.
        patience: seconds to wait for another process's write.

    Raises:
        StateError: `store-is-newer`, from every method.
        AdapterError: `store-unusable`; RetryableError: `store-busy`, `disk-full`.
    """

    def __init__(self, path: str | Path, patience: float = PATIENCE) -> None:
        self.path, self._patience, self._lock = Path(path), patience, Lock()
        self._connection: sqlite3.Connection | None = None

    def tokens(self, digests: Collection[str]) -> Mapping[str, str]:
        """The token of each; those that are missing are made in one transaction."""
        wanted = sorted(set(digests))  # in the order in which the file has them: a page is written once
        if not wanted:
            return {}
        with self._open() as connection:
            found = self._found(connection, wanted)
            missing = [digest for digest in wanted if digest not in found]
            if missing:
                made = [(digest, secrets.token_hex(BYTES)) for digest in missing]
                with _writing(connection):
                    # Another process may have been first: its token is the one.
                    connection.executemany("INSERT OR IGNORE INTO tokens VALUES (?, ?)", made)
                found |= self._found(connection, missing)
            return found

    def find(self, digest: str) -> str | None:
        """Its token, if it has one."""
        if self._is_absent():
            return None
        with self._open() as connection:
            row = connection.execute(_FIND, (digest,)).fetchone()
        return str(row[0]) if row is not None else None

    def forget(self, digests: Collection[str]) -> int:
        """Drop these; scrubbed also where none is left, since a crash may have come between."""
        if self._is_absent():
            return 0
        with self._open() as connection:
            with _writing(connection):
                gone = connection.executemany("DELETE FROM tokens WHERE digest = ?", [(d,) for d in set(digests)])
            scrub.scrub(connection, self.path.name, self._patience)
            return max(gone.rowcount, 0)

    def close(self) -> None:
        """Close the connection."""
        with self._lock, suppress(sqlite3.Error):
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _found(self, connection: sqlite3.Connection, digests: list[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for start in range(0, len(digests), _AT_ONCE):
            some = json.dumps(digests[start : start + _AT_ONCE])
            found |= dict(connection.execute(_FIND_ALL, (some,)))
        return found

    def _is_absent(self) -> bool:
        return self._connection is None and not self.path.exists()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = self._connected()
                yield self._connection
        except (sqlite3.Error, OSError) as error:
            raise _named(self.path, error) from error

    def _connected(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            # SQLite gives the mode of the database to its log as well.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=self._patience, isolation_level=None, check_same_thread=False, factory=Connection
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        sqlite_file.write_ahead(connection, self._patience)
        for pragma in ("synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        with _writing(connection):
            written = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if written == 0:
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version={FORMAT}")
        if written > FORMAT:
            raise StateError(
                "store-is-newer",
                f"{self.path} was written by a later release (format {written}, this one knows {FORMAT})",
                next="use that release, or restore the backup that was made before it",
            )


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures (a full disk) end the transaction by themselves.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _named(path: Path, error: Exception) -> AdapterError:
    passing = sqlite_file.passing(path, error)
    if passing is not None:
        return passing
    return AdapterError(
        "store-unusable",
        f"{path} cannot be used as a vault of tokens",
        why=str(error),
        next="check the path and its permissions; if it is damaged, restore it from a backup: without it, tokens are made anew",
    )
