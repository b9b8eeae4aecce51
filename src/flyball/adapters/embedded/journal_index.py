"""What the archive knows of its segments: their accounts, which outlive their answers, and how far each one's numbers reach.

    archive.sqlite      beside the segments; holds no answer

Every change of the archive has a number. Its **intent** is written here first, under that number; then the archive commits the
number together with the rows. So an intent counts once the archive has reached its number, and whoever dies between the two
leaves one that counts for nothing, and is overwritten by the next. Accounts are never removed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from flyball._kernel.errors import AdapterError
from flyball.serve.journal import Recovery, Segment

NAME: Final = "archive.sqlite"
_PATIENCE: Final = 10.0
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS segments (
        segment TEXT PRIMARY KEY, number INTEGER NOT NULL, last INTEGER NOT NULL, account BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS dropped (
        number INTEGER NOT NULL, segment TEXT NOT NULL, answers INTEGER NOT NULL, PRIMARY KEY (number, segment)
    ) WITHOUT ROWID;
"""


class Archived(NamedTuple):
    """A segment that lies in the archive; its answers are numbered from its first up to `last`."""

    segment: Segment
    last: int


class Index:
    """The index in one folder; made by the first intent.

    Args:
        place: the folder of the journal.

    Raises:
        AdapterError: `journal-unreadable`, from every method.
    """

    def __init__(self, place: Path) -> None:
        self._path = place / NAME

    def names(self, reached: int) -> set[str]:
        """The segments that the archive holds, when it has reached that number."""
        return {name for (name,) in self._rows("SELECT segment FROM segments WHERE number <= ?", reached)}

    def segments(self, reached: int) -> list[Archived]:
        """Those segments, in order."""
        rows = self._rows("SELECT segment, last FROM segments WHERE number <= ? ORDER BY segment", reached)
        return [Archived(found, last) for name, last in rows if (found := Segment.parse(name)) is not None]

    def accounts(self, reached: int) -> Iterator[Recovery]:
        """Their accounts as they were when they were moved, in order."""
        for (account,) in self._rows("SELECT account FROM segments WHERE number <= ? ORDER BY segment", reached):
            yield msgspec.json.decode(account, type=Recovery)

    def dropped(self, reached: int) -> dict[str, int]:
        """Segment -> how many of its answers were dropped."""
        return dict(self._rows("SELECT segment, sum(answers) FROM dropped WHERE number <= ? GROUP BY segment", reached))

    def intend_move(self, number: int, account: Recovery, last: int) -> None:
        """A segment is about to be moved: it counts once the archive has reached `number`."""
        row = (account.segment, number, last, msgspec.json.encode(account))
        self._intend(number, "INSERT INTO segments VALUES (?, ?, ?, ?)", [row])

    def intend_drop(self, number: int, answers: Mapping[str, int]) -> None:
        """So many answers of these segments are about to be dropped."""
        self._intend(number, "INSERT INTO dropped VALUES (?, ?, ?)", [(number, *each) for each in answers.items()])

    def _intend(self, number: int, sql: str, rows: list[tuple[object, ...]]) -> None:
        try:
            if not self._path.exists():
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            with contextlib.closing(self._connect()) as connection, connection:
                # Delta's commit is synced, and must not outlive what it is explained by.
                connection.execute("PRAGMA synchronous=FULL")
                connection.executescript(_SCHEMA)
                for table in ("segments", "dropped"):
                    connection.execute(f"DELETE FROM {table} WHERE number >= ?", (number,))
                connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _rows(self, sql: str, reached: int) -> list[Any]:
        if not reached:
            return []
        try:
            with contextlib.closing(self._connect()) as connection:
                return connection.execute(sql, (reached,)).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=_PATIENCE)

    def _unreadable(self, error: Exception) -> AdapterError:
        return AdapterError(
            "journal-unreadable",
            f"The index {self._path.name} of the journal's archive cannot be read",
            why=str(error),
            next="restore it from a backup; it holds the accounts of the segments that were archived",
        )
