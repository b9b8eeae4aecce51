"""A disk under the journal that can be full, broken, or hold its writer back: real SQLite connections, limited."""

from __future__ import annotations

import threading
from typing import Any

from flyball.adapters.embedded import journal_segment


class Disk:
    """What it does is what its flags say at each statement.

    Attributes:
        full: it has no page left.
        broken: it takes nothing at all.
        gate: while it is clear, a writer waits.
    """

    def __init__(self) -> None:
        self.full = self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def connect(self, path: str) -> journal_segment.Connection:
        disk, real = self, journal_segment.connect(path)

        class Limited:
            def execute(self, sql: str, parameters: Any = (), /) -> journal_segment.Cursor:
                if sql.startswith(("BEGIN", "INSERT INTO pages")):
                    disk.gate.wait(30)
                real.execute(f"PRAGMA max_page_count = {1 if disk.full else 2**31}").fetchall()
                real.execute(f"PRAGMA query_only = {disk.broken}").fetchall()
                return real.execute(sql, parameters)

            def close(self) -> None:
                real.close()

        return Limited()
