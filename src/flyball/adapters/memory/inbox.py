"""The inbox in memory, for tests and rehearsals."""

from __future__ import annotations

from collections.abc import Collection
from threading import Lock

from flyball._kernel.errors import RetryableError, StateError
from flyball.data.source import File
from flyball.serve.ingest import Body


class MemoryInbox:
    """See `serve.ingest.Inbox`.

    Args:
        most: bytes that may wait for one source.
    """

    def __init__(self, most: int = 1 << 30) -> None:
        self._most, self._lock = most, Lock()
        self._waiting: dict[str, dict[File, bytes]] = {}

    def accept(self, name: str, body: Body) -> bool:
        """Keep a body; see `Inbox`."""
        with self._lock:
            waiting, file = self._waiting.setdefault(name, {}), body.file
            if file in waiting:
                return False
            if any(each.name == file.name for each in waiting):
                raise StateError("idempotency-key-reused", "Another body waits under this Idempotency-Key.")
            if sum(each.size for each in waiting) + file.size > self._most:
                raise RetryableError("inbox-full", f"Too much waits in the inbox of {name}.")
            waiting[file] = body.rows
            return True

    def files(self, name: str) -> tuple[File, ...]:
        """What waits, in order; see `Inbox`."""
        with self._lock:
            return tuple(self._waiting.get(name, ()))

    def read(self, name: str, file: File) -> bytes | None:
        """The rows of one; see `Inbox`."""
        return self._waiting.get(name, {}).get(file)

    def drop(self, name: str, files: Collection[File]) -> None:
        """These are ingested; see `Inbox`."""
        with self._lock:
            for file in files:
                self._waiting.get(name, {}).pop(file, None)
